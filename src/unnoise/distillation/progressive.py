"""Progressive distillation: a step of the student goes as far as several steps of the teacher."""

from collections.abc import Sequence

import torch

from unnoise.diffusion.level import Level
from unnoise.diffusion.objective import Noised
from unnoise.diffusion.process import noise_of
from unnoise.diffusion.schedule import Schedule
from unnoise.distillation.teacher import Teacher
from unnoise.errors import InputError
from unnoise.registry import distillation
from unnoise.samplers.dpm_solver import dpmpp_1s, dpmpp_2m
from unnoise.types import Images

NOISIEST = 80.0  # noise-to-signal ratio; above it nothing can be seen, and no step of the teacher is spent there


@distillation
def progressive(teacher: Teacher, batch: Noised, *, substeps: int = 4) -> Noised:
    """Learn a step from several of the teacher's, Salimans & Ho 2022 (arXiv:2202.00512), algorithm 2.

    The paper halves the number of steps again and again, so that each step learns from two. Here a step learns from
    more steps at once, by DPM-Solver++ 2M. A teacher that is a student itself makes its own steps, as in the paper.

    Args:
        substeps: The steps of the teacher for each step of the student; a teacher that is a student has its own.

    Raises:
        InputError: There is no step.
    """
    if substeps < 1:
        raise InputError(f"distillation progressive: substeps is 1 or more, got {substeps}")
    if teacher.visited is None:
        solver, levels = dpmpp_2m, levels_between(batch.t, batch.s, substeps, teacher.schedule)
    else:
        solver, levels = dpmpp_1s, visited_between(batch.t, batch.s, teacher.visited, teacher.schedule)
    with torch.no_grad():
        *_, last = solver(teacher.denoiser(batch.label), batch.x_t, levels)
    x0 = image_of_step(batch.x_t, last.x, batch.t, batch.s)
    return batch._replace(x0=x0, eps=noise_of(batch.x_t, x0, batch.t), mean=None)


def image_of_step(x_t: Images, x_s: Images, t: Level, s: Level) -> Images:
    """Return the image x0 with which a step of DDIM leads from x_t to x_s; algorithm 2 of the paper."""
    keep = s.sigma / t.sigma
    return (x_s - keep.to(x_t) * x_t) / (s.alpha - keep * t.alpha).to(x_t)


def levels_between(t: Level, s: Level, steps: int, schedule: Schedule) -> list[Level]:
    """Return the levels of `steps` steps from t to s, evenly spaced in half_log_snr, for each image of a batch."""
    clean, cleanest = s.time < 0, schedule.half_log_snr[0]
    begin = t.half_log_snr.flatten().clamp(min=-torch.tensor(NOISIEST).log())
    end = torch.where(clean, cleanest, s.half_log_snr.flatten().clamp(max=cleanest))
    inner = (schedule.time(torch.lerp(begin, end, i / steps)) for i in range(1, steps))
    return [t, *(schedule.level(torch.minimum(torch.maximum(time, s.time), t.time)) for time in inner), s]


def visited_between(t: Level, s: Level, visited: Sequence[Level], schedule: Schedule) -> list[Level]:
    """Return the levels that a sampler visits from t to s, for each image of a batch: as many for all images."""
    times = torch.stack([level.time for level in visited])
    inside = (times[:, None] <= t.time) & (times[:, None] >= s.time)  # [visited, b]
    each = times[:, None].expand_as(inside).T[inside.T].reshape(len(t.time), -1)
    return [schedule.level(time) for time in each.unbind(1)]
