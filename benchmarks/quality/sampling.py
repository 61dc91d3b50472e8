"""One trained network, and the samplers that unnoise and its peers recommend: how good in how much time?

    python benchmarks/sampling.py RUN HELD-OUT.npz OUT [--steps 10 15 20 40 50 250]

RUN was trained with the schedule cosine, on pictures that quality_per_minute.py pads to the same size. The network is
RUN's own in all of them, in fp32, and predicts the clean picture; what differs is the sampler. Where `unnoise sample`
would take bf16, its default is drawn so, too. KID against the held-out pictures; pictures are drawn 64 at a time, fewer
of the slow samplers. Writes OUT/sampling.json, .md and grids; what is there is not drawn again. Needs what
quality_per_minute.py needs.
"""

import unnoise  # isort: skip  # before torch, as there

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import smalldiffusion as small
import torch
from accelerate import Accelerator
from denoising_diffusion_pytorch import GaussianDiffusion
from machine import machine
from peers import Draw, Pictures, T, ancestral, to_float, to_pictures
from quality_per_minute import PACKAGES, drawn, pictures, to_pixels, told
from torch import nn

from unnoise import registry
from unnoise.config import Sampling
from unnoise.evaluation import metrics
from unnoise.evaluation.measure import measure_pixels
from unnoise.files import write_json
from unnoise.images import grid
from unnoise.samplers.precision import Precision, choose_precision

BATCH, SECONDS = 64, 600.0  # pictures drawn at a time, and for all of a sampler


def of_notebook(run: unnoise.Run) -> dict[str, Draw]:
    levels = run.model.schedule

    @torch.no_grad()
    def eps(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return run.model(x_t, levels.level(t)).eps

    betas = levels.betas.float()
    return {"notebook: DDPM, 1000 steps": lambda n, seed: ancestral(eps, betas, (n, *run.model.shape), seed)}


def of_diffusers(run: unnoise.Run) -> dict[str, Draw]:
    @torch.no_grad()
    def draw(scheduler: Any, steps: int, n: int, seed: int) -> Pictures:
        generator = torch.Generator().manual_seed(seed)
        scheduler.set_timesteps(steps)
        x_t = torch.randn(n, *run.model.shape, generator=generator) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x0 = run.model(x_t, run.model.schedule.level(t)).x0
            extra = {} if isinstance(scheduler, diffusers.DDIMScheduler) else {"generator": generator}
            x_t = scheduler.step(x0, t, x_t, **extra).prev_sample
        return to_pictures(x_t)

    given = {"num_train_timesteps": T, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}
    ways = {"DDPM": (diffusers.DDPMScheduler, 1000), "DDIM": (diffusers.DDIMScheduler, 50)}
    draws = {f"diffusers: {key}, {n} steps": partial(draw, made(**given), n) for key, (made, n) in ways.items()}
    # as its documentation wants it for pictures, no guidance and this schedule
    given |= {"solver_order": 3, "thresholding": True, "lambda_min_clipped": -5.1}
    solver = diffusers.DPMSolverMultistepScheduler(**given)
    return draws | {"diffusers: DPM-Solver++, 20 steps": partial(draw, solver, 20)}


def of_lucidrains(run: unnoise.Run) -> dict[str, Draw]:
    class Network(nn.Module):
        channels = out_dim = run.model.shape[0]
        self_condition = False

        def forward(self, x_t: torch.Tensor, t: torch.Tensor, _: None = None) -> torch.Tensor:
            return run.model(x_t, run.model.schedule.level(t)).x0

    given = {"objective": "pred_x0", "beta_schedule": "cosine", "timesteps": T, "sampling_timesteps": 250}
    diffusion = GaussianDiffusion(Network(), image_size=run.model.shape[1], **given)

    def draw(n: int, seed: int) -> Pictures:
        torch.manual_seed(seed)
        return to_pictures(2 * diffusion.sample(batch_size=n) - 1)

    return {"denoising-diffusion-pytorch: DDIM, 250 steps": draw}


def of_smalldiffusion(run: unnoise.Run) -> dict[str, Draw]:
    class Network(nn.Module, small.ModelMixin):
        """Its pictures are x0 + sigma * eps."""

        input_dims = run.model.shape

        def predict_eps_cfg(self, x: torch.Tensor, sigma: torch.Tensor, *_: object) -> torch.Tensor:
            level = run.model.schedule.at(-sigma.double().log())
            return run.model(x * level.alpha.to(x), level).eps

    ways = {"its Fashion-MNIST": (20, 20, 1.6), "its CIFAR-10": (35, 10, 2.1)}  # sigma_max, steps, momentum

    def draw(largest: float, steps: int, momentum: float, n: int, seed: int) -> Pictures:
        torch.manual_seed(seed)
        sigmas = small.ScheduleLogLinear(sigma_min=0.01, sigma_max=largest, N=1000).sample_sigmas(steps)
        *_, x0 = small.samples(Network(), sigmas, gam=momentum, batchsize=n, accelerator=Accelerator(cpu=True))
        return to_pictures(x0)

    return {f"smalldiffusion: {key}, {way[1]} steps": partial(draw, *way) for key, way in ways.items()}


def of_unnoise(run: unnoise.Run, steps: list[int]) -> dict[str, Draw]:
    def draw(steps: int, precision: Precision, n: int, seed: int) -> Pictures:
        return to_pictures(unnoise.sample(run, n, steps=steps, seed=1000 * seed, precision=precision, batch=n))

    how, own = run.card.sampling, choose_precision("auto", run.model.device)
    ways = {f"{count} steps": (count, "fp32") for count in steps}
    if own != "fp32":
        ways[f"{Sampling().steps} steps, {own}"] = (Sampling().steps, own)
    return {f"unnoise: {how.sampler}, {how.spacing}, {key}": partial(draw, *way) for key, way in ways.items()}


def main(arguments: argparse.Namespace) -> None:
    run, folder = unnoise.load(arguments.run, "cpu"), Path(arguments.out)
    if run.card.schedule != "cosine" or run.card.classes:
        raise SystemExit("a run with the schedule cosine and without classes is wanted")
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "sampling.json"
    how = dict(run.card.training["config"])
    how |= {name: Path(how[name]).name for name in ("data", "out")}  # where they lie is nobody's business
    about = {"trained": how | {"images": run.card.training["images"]}}
    before = json.loads(place.read_text()) if place.exists() else {"rows": []} | about
    if before["trained"] != about["trained"]:
        raise SystemExit(f"{folder} is of another run; name another OUT")
    rows = before["rows"]
    extractor = registry.features.get("efficientnet")()
    real = measure_pixels(to_pixels(pictures(arguments.held_out)), extractor)
    draws = of_unnoise(run, arguments.steps) | of_smalldiffusion(run) | of_diffusers(run) | of_lucidrains(run)
    for name, draw in (draws | of_notebook(run)).items():
        if any(row["sampler"] == name for row in rows):
            continue
        draw(1, 0)  # the first is slower
        made, each = drawn(draw, SECONDS, BATCH)
        found = measure_pixels(to_pixels(made), extractor)
        scores = {"kid": metrics.kid(found.kept, real.kept)._asdict(), "fid": metrics.fid(found, real)._asdict()}
        rows.append({"sampler": name, "drawn": len(made), "seconds_per_picture": each} | scores)
        write_json(place, about | {"machine": machine(*PACKAGES), "rows": rows})
        grid(to_float(made[:64])).save(folder / f"{name.replace(': ', '-').replace(', ', '-').replace(' ', '-')}.png")
        print(f"{name}: KID x 1000 {told(rows[-1])} of {len(made)}, {BATCH * each:.2f} s for {BATCH}", flush=True)
    (folder / "sampling.md").write_text(text := table(rows))
    print(text)


def table(rows: list[dict[str, Any]]) -> str:
    slowest = next(row["seconds_per_picture"] for row in rows if row["sampler"].startswith("notebook"))
    lines = [
        "| sampler | KID x 1000 | of | s for 64 | the notebook's is so many times slower |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda row: row["seconds_per_picture"]):
        each = row["seconds_per_picture"]
        cells = (row["sampler"], told(row), f"{row['drawn']:,}", f"{64 * each:.2f}", f"{slowest / each:.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "held_out", "out"):
        parser.add_argument(name)
    parser.add_argument(
        "--steps", nargs="+", type=int, default=[10, 15, 20, 40, 50, 250], help="of unnoise's own sampler"
    )
    main(parser.parse_args())
