"""What the machine can do in the time: a few steps tell the pace and the memory, and so which network to train."""

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

import psutil
import torch
from torch import nn

from unnoise import registry
from unnoise.config import TrainConfig
from unnoise.evaluate.sets import finished
from unnoise.training.device import affordable, make_accelerator, precision_for
from unnoise.training.length import Clock
from unnoise.training.log import duration, peak_memory
from unnoise.training.optimizers import as_configured

SECONDS = 4.0  # for the steps at the full batch; where they take longer, they are told from the small ones
OVERHEAD = 0.08  # share of the time that is no step: previews, measuring, noising
ROOM = 60 * 2**20  # bytes that measuring takes beside a step

WIDTHS = (32, 48, 64, 96, 128, 192, 256)  # channels of the U-Nets there are to choose from
ENOUGH = 45_000  # images that teach the smallest; the others need them by the square of their width, as weights grow


class Plan(NamedTuple):
    images_per_second: float
    peak_bytes: int  # 0 where it cannot be told

    def told(self, clock: Clock, count: int, now: datetime) -> str:
        """In words: how far it will come, when it will be done, and what it takes."""
        seconds = clock.seconds or (clock.images or 0) / self.images_per_second
        images = clock.images or clock.seconds * self.images_per_second  # type: ignore[operator]
        done = now + timedelta(seconds=seconds)
        memory = f"; memory up to about {self.peak_bytes / 2**20:,.0f} MB" if self.peak_bytes else ""
        return (
            f"about {self.images_per_second:.0f} images/s: {images:,.0f} images, each {images / count:.1f} times, in "
            f"{duration(seconds)}, done at {done:%H:%M}{memory}"
        )


def rehearse(
    network: nn.Module,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    shape: tuple[int, int, int],
    batch: int,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Plan:
    """Time steps of a copy of the network; its weights, and all random streams, stay as they are."""
    device = next(network.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        trial = copy.deepcopy(network)
        steps = optimizer(trial)

        def seconds(size: int) -> tuple[float, float]:
            """Of the network and of the optimizer, which takes the same at every size."""
            x, t = torch.zeros(size, *shape, device=device), torch.zeros(size, device=device)
            begun = time.monotonic()
            with autocast():
                loss = trial(x, t).float().square().mean()
            loss.backward()
            between = finished()
            steps.step()
            steps.zero_grad()
            return between - begun, finished() - between

        def settled(size: int) -> tuple[float, float]:
            seconds(size)  # the first of a size is much slower: kernels are made for it
            return seconds(size)

        earlier = peak_memory()
        small = min(batch, affordable(settled(1)[0]))
        half = -(-small // 2)
        settled(half)
        before = peak_memory()
        part, rest = settled(small)
        step, peak = part * batch / small + rest, peak_memory()
        if 3 * step <= SECONDS:
            step, peak = min(sum(seconds(batch)) for _ in range(3)), peak_memory()
            known = peak > earlier  # else an earlier training took more
        elif small > half:
            peak += round((peak - before) / (small - half) * (batch - small))
            known = before > earlier
        else:
            known = batch == 1 and peak > earlier  # of one size no slope is
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # the copy is no part of the training
    return Plan((1 - OVERHEAD) * batch / step, peak + ROOM if known else 0)


class Planned(NamedTuple):
    backbone: str
    precision: str
    plan: Plan


def planned(config: TrainConfig, shape: tuple[int, int, int], count: int) -> Planned:
    """With the network of `config`, or the widest U-Net that sees enough of `count` pictures in the budget.

    From the smallest on; without a budget it is the smallest, on every machine.
    """
    seconds = Clock.of(config, count).seconds
    found = rehearsed(config, config.backbone or unet(WIDTHS[0]), shape)
    if config.backbone or seconds is None:
        return found
    for width, wider in pairwise(WIDTHS):
        dearer = (wider / width) ** 2
        if seconds * found.plan.images_per_second / dearer < need(wider):
            break
        if found.plan.peak_bytes * dearer > psutil.virtual_memory().available:
            break
        try:
            tried = rehearsed(config, unet(wider), shape)
        except torch.OutOfMemoryError:
            break
        if seconds * tried.plan.images_per_second < need(wider):
            break
        found = tried
    return found


def rehearsed(config: TrainConfig, backbone: str, shape: tuple[int, int, int]) -> Planned:
    network = registry.backbone.get(backbone)(shape[0])
    accelerator = make_accelerator(precision := precision_for(network, config, shape))
    network.to(accelerator.device, memory_format=torch.channels_last)
    plan = rehearse(network, as_configured(config), shape, config.batch, accelerator.autocast)
    return Planned(backbone, precision, plan)


def need(width: int) -> float:
    return ENOUGH * (width / WIDTHS[0]) ** 2


def unet(width: int) -> str:
    return f"unet:widths={width}-{2 * width}-{4 * width},layers=1,patch=2,groups=8,head=32"
