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

from unnoise import distributed, registry
from unnoise.backbones.layers import recompute
from unnoise.checkpoint import build_network, outputs_of
from unnoise.config import TrainConfig
from unnoise.device import forget_peak, out_of_memory, peak_memory, recent_peak, release_memory, synchronize
from unnoise.options import Spec
from unnoise.progress import duration
from unnoise.training.clock import Clock
from unnoise.training.optimizers import as_configured
from unnoise.training.precision import make_accelerator, place, precision_for

SECONDS = 8.0  # for the steps at the full batch; where they take longer, they are told from smaller ones
TRIED, PART = 16, 2.0  # images of these, and seconds for one: the memory of few hides behind the optimizer's
OVERHEAD = 0.08  # share of the time that is no step: previews, measuring, noising
ROOM = 60 * 2**20  # bytes that measuring takes beside a step

WIDTHS = (32, 48, 64, 96, 128, 192, 256)  # channels of the U-Nets there are to choose from
ENOUGH = 45_000  # images that teach the smallest; the others need them by the square of their width, as weights grow
ALL = 2**31  # images at a time: all of a batch


class Plan(NamedTuple):
    images_per_second: float  # of all processes
    peak_bytes: int  # of one process; 0 where it cannot be told
    at_once: int = ALL  # images that are taken at a time, where memory is short

    def told(self, clock: Clock, count: int, now: datetime) -> str:
        """In words: how far it will come, when it will be done, and what it takes."""
        if clock.seconds:
            seconds = clock.seconds - clock.elapsed
            images = clock.seen + seconds * self.images_per_second
        else:
            images = clock.images or 0
            seconds = (images - clock.seen) / self.images_per_second
        done = now + timedelta(seconds=seconds)
        memory = f"; memory up to about {self.peak_bytes / 2**20:,.0f} MB" if self.peak_bytes else ""
        memory += f", {self.at_once} images at a time" if self.at_once < ALL else ""
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
            between = synchronize()
            steps.step()
            steps.zero_grad()
            return between - begun, synchronize() - between

        def settled(size: int) -> tuple[float, float]:
            seconds(size)  # the first of a size is much slower: kernels are made for it
            return seconds(size)

        def most(size: int) -> tuple[int, float, float]:
            """The size that memory is enough for, by halves, and what it takes."""
            try:
                return size, *sorted((seconds(size) for _ in range(4)), key=sum)[1]  # the middle, for the first is slow
            except (MemoryError, RuntimeError) as error:
                if size == 1 or not out_of_memory(error):
                    raise
            release_memory()
            return most(-(-size // 2))

        release_memory()  # of networks that were tried before
        forget_peak()  # decoding the data may have taken more than a small step
        earlier = recent_peak()
        small = max(1, min(batch, TRIED, int(PART / settled(1)[0])))
        half = -(-small // 2)
        settled(half)
        before = recent_peak()
        part, rest = settled(small)
        peak = recent_peak()
        slope = (peak - before) / (small - half) if small > half and before > earlier else 0.0  # bytes of an image
        at_once, known = room_for(batch, small, slope, device), slope > 0 or (batch == 1 and peak > earlier)
        if 4 * (part * batch / small + rest) <= SECONDS:
            at_once, part, rest = most(at_once)
            step, peak = part * batch / at_once + rest, recent_peak()
            known = peak > earlier  # else what the process holds from before was enough
        else:
            step = part * batch / small + rest
            peak += round(slope * (at_once - small))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # the copy is no part of the training
    pace = -distributed.all_reduce_max(-batch / step)[0]
    peak = round(distributed.all_reduce_max(max(peak + ROOM, peak_memory()) if known else 0)[0])
    at_once = -round(distributed.all_reduce_max(-at_once)[0]) if at_once < batch else ALL
    return Plan((1 - OVERHEAD) * distributed.world_size() * pace, peak, at_once)


def room_for(batch: int, small: int, slope: float, device: torch.device) -> int:
    """Images at a time for which a CPU's memory is enough; of a GPU it is tried, and no harm done."""
    room = 0.9 * psutil.virtual_memory().available if device.type == "cpu" else float("inf")
    while batch > small and slope * (batch - small) > room:
        batch = max(small, -(-batch // 2))
    return batch


class Planned(NamedTuple):
    backbone: Spec
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
        if found.plan.at_once < ALL or found.plan.peak_bytes * dearer > available():
            break
        try:
            tried = rehearsed(config, unet(wider), shape)
        except torch.OutOfMemoryError:
            break
        if tried.plan.at_once < ALL or seconds * tried.plan.images_per_second < need(wider):
            break
        found = tried
    return found


def available() -> float:
    """Bytes of memory, of the process that has the least."""
    return -distributed.all_reduce_max(-psutil.virtual_memory().available)[0]


def rehearsed(config: TrainConfig, backbone: Spec, shape: tuple[int, int, int]) -> Planned:
    network = build_network(backbone, shape[0])
    if not isinstance(backbone, str):
        outputs_of(network, shape, 0, registry.backbone.text(backbone))
    if config.recompute:
        recompute(network)
    precision = distributed.from_main(lambda: precision_for(network, config, shape))
    accelerator = make_accelerator(precision)
    place(network, accelerator.device, precision)
    batch = -(-config.batch // distributed.world_size())
    plan = rehearse(network, as_configured(config), shape, batch, accelerator.autocast)
    return Planned(backbone, precision, plan)


def need(width: int) -> float:
    return ENOUGH * (width / WIDTHS[0]) ** 2


def unet(width: int) -> str:
    return f"unet:widths={width}-{2 * width}-{4 * width},layers=1,patch=2,groups=8,head=32"
