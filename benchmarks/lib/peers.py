"""Contenders: each trains on pictures for so many minutes, in its own recommended form, and then draws.

A contender is a generator: given uint8 pictures [n, h, w, c], the minutes to stop at and a seed, it trains and yields
a `Trained` at each of them. Where the course of the learning rate depends on the length, each length is a run of its
own. What is done with what it yields does not count as training.
"""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from machine import device
from torch import nn
from torch.nn import functional as F

Pictures = np.ndarray  # uint8 [n, h, w, c]
Draw = Callable[[int, int], Pictures]  # number, seed -> pictures
T = 1000


class Trained(NamedTuple):
    minutes: float
    images: int  # seen
    parameters: int
    draws: dict[str, Draw]  # by the sampler, in words
    summary: dict[str, float] | None = None  # of a training in a process of its own: what that says at its end


def until(minutes: list[float], step: Callable[[], object]) -> Iterator[float]:
    """Call `step` until each of these minutes has passed; the caller's own time does not count."""
    spent = 0.0
    for mark in minutes:
        while spent < 60 * mark:
            begun = time.monotonic()
            step()
            spent += time.monotonic() - begun
        yield mark


def shuffled(images: torch.Tensor, batch: int) -> Iterator[torch.Tensor]:
    """Batches of float pictures in [-1, 1], epoch after epoch."""
    while True:
        for rows in torch.randperm(len(images)).split(batch):
            yield images[rows]


def to_float(images: Pictures) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1


def to_pictures(x: torch.Tensor) -> Pictures:
    return ((x.cpu() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def unet2d(channels: int, size: int, widths: tuple[int, ...], layers: int) -> nn.Module:
    """The notebook's network, of diffusers."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=layers,
        block_out_channels=widths,
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
    )


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# (a), (b): the notebook


def notebook(
    images: Pictures,
    minutes: list[float],
    seed: int,
    _: Path,
    *,
    widths: tuple[int, ...] = (64, 128, 256),
    layers: int = 2,
) -> Iterator[Trained]:
    """Its network, batch, AdamW, linear schedule and loss; ancestral sampling over all levels; fp32 as on any CPU."""
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

    def draw(n: int, seed: int) -> Pictures:
        return ancestral(lambda x_t, t: network(x_t, t).sample, betas, (n, *x.shape[1:]), seed)

    for mark in until(minutes, step):
        yield Trained(mark, seen, count(network), {"DDPM, 1000 steps": draw})


@torch.no_grad()
def ancestral(
    eps: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], betas: torch.Tensor, shape: tuple[int, ...], seed: int
) -> Pictures:
    """The notebook's sampling: every level in turn, nothing clipped."""
    torch.manual_seed(seed)
    kept, x_t = (1 - betas).cumprod(0), torch.randn(shape, device=betas.device)
    for t in range(T - 1, -1, -1):
        before = kept[t - 1] if t else torch.ones_like(kept[0])
        noise = eps(x_t, torch.full(shape[:1], t, device=betas.device))
        x_t = (x_t - betas[t] / (1 - kept[t]).sqrt() * noise) / (1 - betas[t]).sqrt()
        if t:
            x_t = x_t + (betas[t] * (1 - before) / (1 - kept[t])).sqrt() * torch.randn_like(x_t)
    return to_pictures(x_t)


# (c): the recipe of diffusers' unconditional script


def diffusers(images: Pictures, minutes: list[float], seed: int, _: Path) -> Iterator[Trained]:
    """train_unconditional.py's defaults with its average (0.9999, warmed up) on the slim network; cosine decay."""
    for mark in minutes:
        yield script_of_diffusers(to_float(images).to(device()), mark, seed)


def script_of_diffusers(x: torch.Tensor, minutes: float, seed: int) -> Trained:
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, SchedulerMixin
    from diffusers.optimization import get_cosine_schedule_with_warmup
    from diffusers.training_utils import EMAModel

    torch.manual_seed(seed)
    network, batches = unet2d(x.shape[1], x.shape[2], (32, 64, 128), 1).to(device()), shuffled(x, 16)
    seen, taken, steps = 0, 0, 0
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
        if schedule and taken < steps:  # after which it would rise again
            taken += 1
            schedule.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        seen += len(x0)

    some, begun = 50, time.monotonic()
    for i in range(some + 10):
        if i == 10:  # the first are slower
            warm = time.monotonic()
        step()
    spent, each = time.monotonic() - begun, (time.monotonic() - warm) / some
    steps = round((60 * minutes - spent) / each)  # its script takes a number of steps: as many as there is time for
    schedule = get_cosine_schedule_with_warmup(optimizer, min(500, steps // 4), steps)
    next(until([minutes - spent / 60], partial(step, schedule)))

    @torch.no_grad()
    def draw(scheduler: SchedulerMixin, steps: int, n: int, seed: int) -> Pictures:
        torch.manual_seed(seed)
        scheduler.set_timesteps(steps)
        average.store(network.parameters())
        average.copy_to(network.parameters())
        x_t = torch.randn(n, *x.shape[1:], device=device())
        for t in scheduler.timesteps:
            x_t = scheduler.step(network(x_t, t).sample, t, x_t).prev_sample
        average.restore(network.parameters())
        return to_pictures(x_t)

    draws = {"DDPM, 1000 steps": partial(draw, levels, T), "DPM-Solver++, 20 steps": partial(draw, fast, 20)}
    return Trained(minutes, seen, count(network), draws)


# (d): denoising-diffusion-pytorch


def lucidrains(images: Pictures, minutes: list[float], seed: int, folder: Path) -> Iterator[Trained]:
    """The README's network, diffusion and Trainer on a folder of PNG; nothing drawn or scored on the way.

    Its mixed precision is fp16, which is for GPUs: on a CPU it is fp32.
    """
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet
    from PIL import Image

    torch.manual_seed(seed)
    (place := folder / "png").mkdir(exist_ok=True)
    for i, image in enumerate(images):
        if not (path := place / f"{i:05d}.png").exists():
            Image.fromarray(image.squeeze()).save(part := path.with_suffix(".part"), format="PNG")
            part.rename(path)
    size, channels = images.shape[1], images.shape[3]
    network = Unet(dim=64, dim_mults=(1, 2, 4, 8), channels=channels, flash_attn=True)
    diffusion = GaussianDiffusion(network, image_size=size, timesteps=T, sampling_timesteps=250)
    trainer = Trainer(
        diffusion,
        str(place),
        train_batch_size=32,
        train_lr=8e-5,
        gradient_accumulate_every=2,
        ema_decay=0.995,
        amp=torch.cuda.is_available(),
        calculate_fid=False,
        save_and_sample_every=10**9,
        results_folder=str(folder / "results"),
    )

    def step() -> None:
        trainer.train_num_steps = trainer.step + 1
        trainer.train()

    def draw(n: int, seed: int) -> Pictures:
        torch.manual_seed(seed)
        trainer.ema.ema_model.eval()
        with torch.inference_mode():
            return to_pictures(2 * trainer.ema.ema_model.sample(batch_size=n) - 1)

    for mark in until(minutes, step):
        yield Trained(mark, 64 * trainer.step, count(network), {"DDIM, 250 steps": draw})


# (e): smalldiffusion


def smalldiffusion(images: Pictures, minutes: list[float], seed: int, _: Path) -> Iterator[Trained]:
    """The settings of its U-Net examples: that of Fashion-MNIST for gray pictures, that of CIFAR-10 for others."""
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
        seen += len(next(loop).x0)  # it takes the step when it is asked for the next one
        average.update()

    def draw(n: int, seed: int) -> Pictures:
        torch.manual_seed(seed)
        with average.average_parameters():
            *_, x0 = small.samples(network, drawing.sample_sigmas(steps), gam=momentum, batchsize=n)
        return to_pictures(x0)

    for mark in until(minutes, step):
        yield Trained(mark, seen, count(network), {f"its own, {steps} steps": draw})


# (f): unnoise


def unnoise(
    images: Pictures, minutes: list[float], seed: int, folder: Path, *, options: tuple[str, ...] = ()
) -> Iterator[Trained]:
    """`unnoise train DATA --budget N`, and its pictures as `unnoise sample` draws them."""
    import unnoise as package

    data = folder / "pictures.npy"
    np.save(data, images)
    for mark in minutes:
        run = next(path for i in itertools.count() if not (path := folder / f"run-{mark:g}m-{seed}-{i}").exists())
        line = ["train", str(data), "--budget", f"{mark}m", "--seed", str(seed), "--out", str(run), *options]
        subprocess.run([sys.executable, "-m", "unnoise", *line], check=True)
        trained = package.load(run)
        how = trained.card.sampling

        def draw(n: int, seed: int, trained: package.Run = trained) -> Pictures:
            return to_pictures(package.sample(trained, n, seed=1000 * seed, batch=n).cpu())

        seen, size = trained.card.training["images"], count(trained.model)
        summary = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        yield Trained(mark, seen, size, {f"{how.sampler}, {how.steps} steps": draw}, summary)


CONTENDERS = {
    "notebook": notebook,
    "notebook-slim": partial(notebook, widths=(32, 64, 128), layers=1),
    "diffusers-script": diffusers,
    "denoising-diffusion-pytorch": lucidrains,
    "smalldiffusion": smalldiffusion,
    "unnoise": unnoise,
}
