"""Train the contenders of quality_per_minute.py, each in the form that its authors recommend, and draw with them."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.lib.contender import (
    Pixels,
    T,
    Trained,
    clock,
    count_parameters,
    shuffled,
    to_float,
    to_uint8,
    unet2d,
    until,
)
from benchmarks.lib.machine import device

# (a), (b): the notebook


def train_notebook(
    images: Pixels,
    minutes: list[float],
    seed: int,
    _: Path,
    *,
    widths: tuple[int, ...] = (64, 128, 256),
    layers: int = 2,
) -> Iterator[Trained]:
    """Train by the notebook's network, batch, AdamW, linear schedule and loss, in fp32; draw over all levels."""
    torch.manual_seed(seed)
    x, seen = to_float(images).to(device()), 0
    network = unet2d(x.shape[1], x.shape[2], widths, layers).to(device())
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-4)
    betas = torch.linspace(1e-4, 0.02, T, device=device())
    kept, batches = (1 - betas).cumprod(0), shuffled(x, 256)

    def step() -> None:
        nonlocal seen
        x0 = next(batches)
        t, eps = torch.randint(0, T, (len(x0),), device=device()), torch.randn_like(x0)
        a = kept[t].view(-1, 1, 1, 1)
        loss = F.mse_loss(network(a.sqrt() * x0 + (1 - a).sqrt() * eps, t).sample, eps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += len(x0)

    def draw(n: int, seed: int) -> Pixels:
        return ancestral(lambda x_t, t: network(x_t, t).sample, betas, (n, *x.shape[1:]), seed)

    for mark in until(minutes, step):
        yield Trained(mark, seen, count_parameters(network), {"DDPM, 1000 steps": draw})


@torch.no_grad()
def ancestral(
    eps: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], betas: torch.Tensor, shape: tuple[int, ...], seed: int
) -> Pixels:
    """Draw as the notebook does: every level in turn, nothing clipped."""
    torch.manual_seed(seed)
    kept, x_t = (1 - betas).cumprod(0), torch.randn(shape, device=betas.device)
    for t in range(T - 1, -1, -1):
        before = kept[t - 1] if t else torch.ones_like(kept[0])
        noise = eps(x_t, torch.full(shape[:1], t, device=betas.device))
        x_t = (x_t - betas[t] / (1 - kept[t]).sqrt() * noise) / (1 - betas[t]).sqrt()
        if t:
            x_t = x_t + (betas[t] * (1 - before) / (1 - kept[t])).sqrt() * torch.randn_like(x_t)
    return to_uint8(x_t)


# (c): the recipe of diffusers' unconditional script


def train_diffusers(images: Pixels, minutes: list[float], seed: int, _: Path) -> Iterator[Trained]:
    """Train by the defaults of diffusers' train_unconditional.py, with its average of weights, on the slim network."""
    for mark in minutes:
        yield run_diffusers_script(to_float(images).to(device()), mark, seed)


def run_diffusers_script(x: torch.Tensor, minutes: float, seed: int) -> Trained:
    """Train for one length, and draw by two samplers."""
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
    from diffusers.optimization import get_cosine_schedule_with_warmup
    from diffusers.training_utils import EMAModel

    torch.manual_seed(seed)
    network, batches = unet2d(x.shape[1], x.shape[2], (32, 64, 128), 1).to(device()), shuffled(x, 16)
    seen = taken = steps = 0
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    average = EMAModel(network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    levels = DDPMScheduler(num_train_timesteps=T, beta_schedule="linear")
    fast = DPMSolverMultistepScheduler(num_train_timesteps=T, beta_schedule="linear")

    def step(schedule: torch.optim.lr_scheduler.LRScheduler | None = None) -> None:
        nonlocal seen, taken
        x0 = next(batches)
        eps, t = torch.randn_like(x0), torch.randint(0, T, (len(x0),), device=device())
        loss = F.mse_loss(network(levels.add_noise(x0, eps, t), t).sample, eps)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if schedule and taken < steps:  # later it would rise again
            taken += 1
            schedule.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        seen += len(x0)

    timed_steps, begun = 50, clock()
    for i in range(timed_steps + 10):
        if i == 10:  # the first are slower
            warm = clock()
        step()
    spent, each = clock() - begun, (clock() - warm) / timed_steps
    steps = round((60 * minutes - spent) / each)  # the script takes a number of steps: the most that the time allows
    schedule = get_cosine_schedule_with_warmup(optimizer, min(500, steps // 4), steps)
    next(until([minutes - spent / 60], partial(step, schedule)))
    draw = partial(draw_with_scheduler, network, average, tuple(x.shape[1:]))
    draws = {"DDPM, 1000 steps": partial(draw, levels, T), "DPM-Solver++, 20 steps": partial(draw, fast, 20)}
    return Trained(minutes, seen, count_parameters(network), draws)


@torch.no_grad()
def draw_with_scheduler(
    network: nn.Module, average: Any, shape: tuple[int, ...], scheduler: Any, steps: int, n: int, seed: int
) -> Pixels:
    """Draw n images by a scheduler of diffusers, with the averaged weights."""
    torch.manual_seed(seed)
    scheduler.set_timesteps(steps)
    average.store(network.parameters())
    average.copy_to(network.parameters())
    x_t = torch.randn(n, *shape, device=device())
    for t in scheduler.timesteps:
        x_t = scheduler.step(network(x_t, t).sample, t, x_t).prev_sample
    average.restore(network.parameters())
    return to_uint8(x_t)


# (d): denoising-diffusion-pytorch


def train_lucidrains(images: Pixels, minutes: list[float], seed: int, folder: Path) -> Iterator[Trained]:
    """Train by the network, diffusion and Trainer of the package's README, on a folder of PNG files.

    Nothing is drawn or scored during the training. The mixed precision is fp16, which is for GPUs; on a CPU it is fp32.
    """
    from denoising_diffusion_pytorch import Unet

    torch.manual_seed(seed)
    write_png_files(images, place := folder / "png")
    network = Unet(dim=64, dim_mults=(1, 2, 4, 8), channels=images.shape[3], flash_attn=True)
    trainer = lucidrains_trainer(network, images.shape[1], place, folder / "results")

    def step() -> None:
        trainer.train_num_steps = trainer.step + 1
        trainer.train()

    def draw(n: int, seed: int) -> Pixels:
        torch.manual_seed(seed)
        trainer.ema.ema_model.eval()
        with torch.inference_mode():
            return to_uint8(2 * trainer.ema.ema_model.sample(batch_size=n) - 1)

    for mark in until(minutes, step):
        yield Trained(mark, 64 * trainer.step, count_parameters(network), {"DDIM, 250 steps": draw})


def write_png_files(images: Pixels, place: Path) -> None:
    """Write images into a folder, unless they are there."""
    from PIL import Image

    place.mkdir(exist_ok=True)
    for i, image in enumerate(images):
        if not (path := place / f"{i:05d}.png").exists():
            Image.fromarray(image.squeeze()).save(part := path.with_suffix(".part"), format="PNG")
            part.rename(path)


def lucidrains_trainer(network: nn.Module, size: int, place: Path, results: Path) -> Any:
    """Return the Trainer with the settings of the README."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer

    return Trainer(
        GaussianDiffusion(network, image_size=size, timesteps=T, sampling_timesteps=250),
        str(place),
        train_batch_size=32,
        train_lr=8e-5,
        gradient_accumulate_every=2,
        ema_decay=0.995,
        amp=torch.cuda.is_available(),
        calculate_fid=False,
        save_and_sample_every=10**9,
        results_folder=str(results),
    )


# (e): smalldiffusion


def train_smalldiffusion(images: Pixels, minutes: list[float], seed: int, _: Path) -> Iterator[Trained]:
    """Train by the settings of its U-Net examples: Fashion-MNIST for gray images, CIFAR-10 for others."""
    import smalldiffusion as small
    from PIL import Image
    from torch.utils.data import DataLoader
    from torch_ema import ExponentialMovingAverage

    torch.manual_seed(seed)
    size, channels = images.shape[1], images.shape[3]
    data = small.MappedDataset([Image.fromarray(image.squeeze()) for image in images], small.img_train_transform)
    if channels == 1:
        network = small.Scaled(small.Unet)(size, 1, 1, ch=64, ch_mult=(1, 1, 2), attn_resolutions=(size // 2,))
        schedule = drawing = small.ScheduleLogLinear(sigma_min=0.01, sigma_max=20, N=800)
        batch, lr, decay, steps, momentum = 1024, 7e-4, 0.999, 20, 1.6
    else:
        network = small.Scaled(small.Unet)(size, channels, channels, ch=128, ch_mult=(1, 2, 2, 2))
        schedule = small.ScheduleSigmoid(N=1000)
        drawing = small.ScheduleLogLinear(sigma_min=0.01, sigma_max=35, N=1000)
        batch, lr, decay, steps, momentum = 256, 2e-4, 0.9999, 10, 2.1
    loader = DataLoader(data, batch_size=batch, shuffle=True)
    average, seen = ExponentialMovingAverage(network.parameters(), decay=decay), 0
    loop = small.training_loop(loader, network, schedule, epochs=10**6, lr=lr)

    def step() -> None:
        nonlocal seen
        seen += len(next(loop).x0)  # the step is taken when the next one is asked for
        average.update()

    def draw(n: int, seed: int) -> Pixels:
        torch.manual_seed(seed)
        with average.average_parameters():
            *_, x0 = small.samples(network, drawing.sample_sigmas(steps), gam=momentum, batchsize=n)
        return to_uint8(x0)

    for mark in until(minutes, step):
        yield Trained(mark, seen, count_parameters(network), {f"its own, {steps} steps": draw})


# (f): unnoise


def train_unnoise(
    images: Pixels, minutes: list[float], seed: int, folder: Path, *, options: tuple[str, ...] = ()
) -> Iterator[Trained]:
    """Train by `unnoise train DATA --budget N`, and draw as `unnoise sample` does."""
    import unnoise

    data = folder / "images.npy"
    np.save(data, images)
    for mark in minutes:
        run = next(path for i in itertools.count() if not (path := folder / f"run-{mark:g}m-{seed}-{i}").exists())
        line = ["train", str(data), "--budget", f"{mark}m", "--seed", str(seed), "--out", str(run), *options]
        subprocess.run([sys.executable, "-m", "unnoise", *line], check=True)
        trained = unnoise.load(run)
        how = trained.card.sampling

        def draw(n: int, seed: int, trained: unnoise.Run = trained) -> Pixels:
            return to_uint8(unnoise.sample(trained, n, seed=1000 * seed, batch=n).cpu())

        seen, size = trained.card.training["images"], count_parameters(trained.model)
        summary = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        yield Trained(mark, seen, size, {f"{how.sampler}, {how.steps} steps": draw}, summary)


CONTENDERS = {
    "notebook": train_notebook,
    "notebook-slim": partial(train_notebook, widths=(32, 64, 128), layers=1),
    "diffusers-script": train_diffusers,
    "denoising-diffusion-pytorch": train_lucidrains,
    "smalldiffusion": train_smalldiffusion,
    "unnoise": train_unnoise,
}
