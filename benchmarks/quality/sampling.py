"""How good are the samplers that unnoise and its peers recommend, and in how much time? One network for all.

    python -m benchmarks.quality.sampling RUN HELD-OUT.npz OUT [--steps 10 15 20 40 50 250]

RUN was trained with the schedule cosine and without classes, on images that quality_per_minute.py pads to the same
size. All samplers use the network of RUN, in fp32, by its prediction of the clean image. If `unnoise sample` takes bf16
on this machine, its default is drawn in bf16 too. KID is against the held-out images. Images are drawn 64 at a time,
fewer by slow samplers. The script writes OUT/sampling.json, .md and grids; what is there is not drawn again. It needs
the packages that quality_per_minute.py needs.
"""

import unnoise.cli  # isort: skip  # before torch, as in quality_per_minute.py

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.lib.contender import Draw, Pixels, T, to_float, to_uint8
from benchmarks.lib.machine import machine
from benchmarks.lib.peers import ancestral
from benchmarks.quality.quality_per_minute import PACKAGES, channels_first, draw_for, format_kid, read_padded
from unnoise import registry
from unnoise.config import Sampling
from unnoise.evaluation import metrics
from unnoise.evaluation.measure import measure_pixels
from unnoise.files import write_json
from unnoise.images import grid
from unnoise.samplers.precision import Precision, choose_precision

BATCH, SECONDS = 64, 600.0  # images drawn at a time; time for all images of a sampler


def notebook_samplers(run: unnoise.Run) -> dict[str, Draw]:
    """Return the notebook's sampler."""
    levels = run.model.schedule

    @torch.no_grad()
    def eps(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return run.model(x_t, levels.level(t)).eps

    betas = levels.betas.float()
    return {"notebook: DDPM, 1000 steps": lambda n, seed: ancestral(eps, betas, (n, *run.model.shape), seed)}


def diffusers_samplers(run: unnoise.Run) -> dict[str, Draw]:
    """Return the samplers that diffusers recommends."""
    import diffusers

    @torch.no_grad()
    def draw(scheduler: Any, steps: int, n: int, seed: int) -> Pixels:
        generator = torch.Generator().manual_seed(seed)
        scheduler.set_timesteps(steps)
        x_t = torch.randn(n, *run.model.shape, generator=generator) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x0 = run.model(x_t, run.model.schedule.level(t)).x0
            extra = {} if isinstance(scheduler, diffusers.DDIMScheduler) else {"generator": generator}
            x_t = scheduler.step(x0, t, x_t, **extra).prev_sample
        return to_uint8(x_t)

    given = {"num_train_timesteps": T, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}
    ways = {"DDPM": (diffusers.DDPMScheduler, 1000), "DDIM": (diffusers.DDIMScheduler, 50)}
    draws = {f"diffusers: {key}, {n} steps": partial(draw, made(**given), n) for key, (made, n) in ways.items()}
    # as its documentation recommends for images, no guidance and this schedule
    given |= {"solver_order": 3, "thresholding": True, "lambda_min_clipped": -5.1}
    solver = diffusers.DPMSolverMultistepScheduler(**given)
    return draws | {"diffusers: DPM-Solver++, 20 steps": partial(draw, solver, 20)}


def lucidrains_samplers(run: unnoise.Run) -> dict[str, Draw]:
    """Return the sampler of denoising-diffusion-pytorch."""
    from denoising_diffusion_pytorch import GaussianDiffusion

    class Network(nn.Module):
        channels = out_dim = run.model.shape[0]
        self_condition = False

        def forward(self, x_t: torch.Tensor, t: torch.Tensor, _: None = None) -> torch.Tensor:
            return run.model(x_t, run.model.schedule.level(t)).x0

    given = {"objective": "pred_x0", "beta_schedule": "cosine", "timesteps": T, "sampling_timesteps": 250}
    diffusion = GaussianDiffusion(Network(), image_size=run.model.shape[1], **given)

    def draw(n: int, seed: int) -> Pixels:
        torch.manual_seed(seed)
        return to_uint8(2 * diffusion.sample(batch_size=n) - 1)

    return {"denoising-diffusion-pytorch: DDIM, 250 steps": draw}


def smalldiffusion_samplers(run: unnoise.Run) -> dict[str, Draw]:
    """Return the samplers of the examples of smalldiffusion."""
    import smalldiffusion as small
    from accelerate import Accelerator

    class Network(nn.Module, small.ModelMixin):
        """Predict the noise of images x0 + sigma * eps."""

        input_dims = run.model.shape

        def predict_eps_cfg(self, x: torch.Tensor, sigma: torch.Tensor, *_: object) -> torch.Tensor:
            level = run.model.schedule.at(-sigma.double().log())
            return run.model(x * level.alpha.to(x), level).eps

    ways = {"its Fashion-MNIST": (20, 20, 1.6), "its CIFAR-10": (35, 10, 2.1)}  # sigma_max, steps, momentum

    def draw(largest: float, steps: int, momentum: float, n: int, seed: int) -> Pixels:
        torch.manual_seed(seed)
        sigmas = small.ScheduleLogLinear(sigma_min=0.01, sigma_max=largest, N=1000).sample_sigmas(steps)
        *_, x0 = small.samples(Network(), sigmas, gam=momentum, batchsize=n, accelerator=Accelerator(cpu=True))
        return to_uint8(x0)

    return {f"smalldiffusion: {key}, {way[1]} steps": partial(draw, *way) for key, way in ways.items()}


def unnoise_samplers(run: unnoise.Run, steps: list[int]) -> dict[str, Draw]:
    """Return the run's own sampler, with each number of steps."""

    def draw(steps: int, precision: Precision, n: int, seed: int) -> Pixels:
        return to_uint8(unnoise.sample(run, n, steps=steps, seed=1000 * seed, precision=precision, batch=n))

    how, own = run.card.sampling, choose_precision("auto", run.model.device)
    ways = {f"{count} steps": (count, "fp32") for count in steps}
    if own != "fp32":
        ways[f"{Sampling().steps} steps, {own}"] = (Sampling().steps, own)
    return {f"unnoise: {how.sampler}, {how.spacing}, {key}": partial(draw, *way) for key, way in ways.items()}


def main(arguments: argparse.Namespace) -> None:
    """Draw and score by each sampler that has no result yet."""
    run, folder = unnoise.load(arguments.run, "cpu"), Path(arguments.out)
    if run.card.schedule != "cosine" or run.card.classes:
        raise SystemExit("give a run with the schedule cosine and without classes")
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "sampling.json"
    how = dict(run.card.training["config"])
    how |= {name: Path(how[name]).name for name in ("data", "out")}  # without the folders of this machine
    about = {"trained": how | {"images": run.card.training["images"]}}
    before = json.loads(place.read_text()) if place.exists() else {"rows": []} | about
    if before["trained"] != about["trained"]:
        raise SystemExit(f"{folder} is of another run; name another OUT")
    rows = before["rows"]
    extractor = registry.features.get("efficientnet")()
    real = measure_pixels(channels_first(read_padded(arguments.held_out)), extractor)
    draws = unnoise_samplers(run, arguments.steps) | smalldiffusion_samplers(run)
    draws |= diffusers_samplers(run) | lucidrains_samplers(run) | notebook_samplers(run)
    for name, draw in draws.items():
        if any(row["sampler"] == name for row in rows):
            continue
        draw(1, 0)  # the first is slower
        made, each = draw_for(draw, SECONDS, BATCH)
        found = measure_pixels(channels_first(made), extractor)
        scores = {"kid": metrics.kid(found.kept, real.kept)._asdict(), "fid": metrics.fid(found, real)._asdict()}
        rows.append({"sampler": name, "drawn": len(made), "seconds_per_picture": each} | scores)
        write_json(place, about | {"machine": machine(*PACKAGES), "rows": rows})
        grid(to_float(made[:64])).save(folder / f"{name.replace(': ', '-').replace(', ', '-').replace(' ', '-')}.png")
        print(f"{name}: KID x 1000 {format_kid(rows[-1])} of {len(made)}, {BATCH * each:.2f} s for {BATCH}", flush=True)
    (folder / "sampling.md").write_text(text := format_table(rows))
    print(text)


def format_table(rows: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table, the fast samplers first."""
    slowest = next(row["seconds_per_picture"] for row in rows if row["sampler"].startswith("notebook"))
    lines = [
        "| sampler | KID x 1000 | images scored | s for 64 | times faster than the notebook |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda row: row["seconds_per_picture"]):
        each = row["seconds_per_picture"]
        cells = (row["sampler"], format_kid(row), f"{row['drawn']:,}", f"{64 * each:.2f}", f"{slowest / each:.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "held_out", "out"):
        parser.add_argument(name)
    parser.add_argument(
        "--steps",
        nargs="+",
        type=int,
        default=[10, 15, 20, 40, 50, 250],
        help="numbers of steps of unnoise's own sampler",
    )
    main(parser.parse_args())
