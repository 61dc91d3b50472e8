"""Write a sampler as a table of numbers, so that it can be run where there is no PyTorch.

A sampler that calls the network once a step is linear in what it knows: x_s = a x_t + b_0 x0_0 + b_1 x0_1 + ... + c z,
where x0_0 is the newest predicted image, x0_1 the one before, and z is noise. The table has a, b and c of each step.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Prediction
from unnoise.diffusion.process import noise_of
from unnoise.diffusion.schedule import Levels
from unnoise.errors import InputError
from unnoise.options import Spec
from unnoise.registry import sampler
from unnoise.samplers.base import Sampler
from unnoise.types import Images

PRECISE = 1e-9  # largest difference between a table and its sampler, where images are about 1


class Row(NamedTuple):
    """Hold one step: the level that it begins at, and the coefficients of what it adds up."""

    level: Level
    of_x: float
    of_x0: tuple[float, ...]  # of the predicted images, the newest first
    of_noise: float | None  # None if the step draws no noise


def as_table(spec: Spec, levels: Levels) -> list[Row]:
    """Return the steps of a sampler over these levels as numbers.

    Raises:
        InputError: The sampler is not linear, or calls the network another number of times than once a step.
    """
    made: Sampler = sampler.get(spec)
    try:
        rows = read_rows(made, levels)
        precise = largest_difference(made, rows, levels) < PRECISE
    except (IndexError, RuntimeError):
        precise = False
    if not precise:
        linear = [name for name in sampler.names() if sampler.declared(name).get("evaluations") == 1]
        raise InputError(
            f"sampler {sampler.text(spec)} cannot be written as a table: it must call the network once a step, and add "
            f"up images with fixed weights; choose one such as {', '.join(linear)}"
        )
    return rows


def read_rows(made: Sampler, levels: Levels) -> list[Row]:
    """Return the coefficients: images are vectors of them, and after each step x is a unit vector again."""
    steps = len(levels) - 1
    unit = torch.eye(1 + 2 * steps, dtype=torch.float64)[:, None, :, None, None]  # x, then predicted images, then noise
    rows, calls, draws = list[Row](), 0, 0

    def predict(x_t: Images, level: Level) -> Prediction:
        nonlocal calls
        x0 = unit[1 + calls]
        calls += 1
        return Prediction(x0, noise_of(x_t, x0, level))

    def randn_like(_: Tensor) -> Tensor:
        nonlocal draws
        draws += 1
        return unit[steps + draws]

    for i, step in enumerate(made(predict, unit[0].clone(), levels, randn_like=randn_like)):
        weights, noisy = step.x.flatten(), draws > sum(row.of_noise is not None for row in rows)
        of_x0 = weights[1 : calls + 1].flip(0).tolist()
        while len(of_x0) > 1 and of_x0[-1] == 0:
            of_x0.pop()
        rows.append(Row(levels[i], float(weights[0]), tuple(of_x0), float(weights[steps + draws]) if noisy else None))
        step.x.copy_(unit[0])
    return rows


def largest_difference(made: Sampler, rows: Sequence[Row], levels: Levels) -> float:
    """Return the largest difference between images by the table and by the sampler itself, for a curved denoiser."""
    generator = torch.Generator().manual_seed(0)
    noises: Float64[Tensor, "k b c h w"] = torch.randn(len(levels) + 1, 4, 1, 2, 2, generator=generator).double()

    def predict(x_t: Images, level: Level) -> Prediction:
        x0 = torch.tanh(x_t * (1 + level.alpha)) - 0.3 * x_t.roll(1, -1)
        return Prediction(x0, noise_of(x_t, x0, level))

    queue = iter(noises[1:])
    by_sampler = [step.x.clone() for step in made(predict, noises[0].clone(), levels, randn_like=lambda _: next(queue))]
    queue = iter(noises[1:])
    by_table = [*run_table(rows, lambda x_t, level: predict(x_t, level).x0, noises[0], queue)]
    return float((torch.stack(by_sampler) - torch.stack(by_table)).abs().max())


def run_table(
    rows: Sequence[Row], predict_x0: Callable[[Images, Level], Images], x: Images, noises: Iterator[Tensor]
) -> Iterator[Images]:
    """Yield the images after each step of a table."""
    before = list[Images]()
    for row in rows:
        before.insert(0, predict_x0(x, row.level))
        x = row.of_x * x
        for weight, x0 in zip(row.of_x0, before, strict=False):
            x = x + weight * x0
        if row.of_noise is not None:
            x = x + row.of_noise * next(noises)
        yield x
