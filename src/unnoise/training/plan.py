"""What the machine can do in the time: a few steps on a copy of the network tell the pace and the memory."""

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import torch
from torch import nn

from unnoise.training.device import affordable
from unnoise.training.length import Clock
from unnoise.training.log import duration, peak_memory

SECONDS = 4.0  # for the steps at the full batch; where they take longer, they are told from the small ones
OVERHEAD = 0.08  # share of the time that is no step: previews, measuring, noising
ROOM = 60 * 2**20  # bytes that measuring takes beside a step


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

        def seconds(size: int) -> float:
            x, t = torch.zeros(size, *shape, device=device), torch.zeros(size, device=device)
            begun = time.monotonic()
            with autocast():
                loss = trial(x, t).float().square().mean()
            loss.backward()
            steps.step()
            steps.zero_grad()
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            return time.monotonic() - begun

        earlier = peak_memory()
        seconds(1)  # the first is slower
        small = min(batch, affordable(seconds(1)))
        half = -(-small // 2)
        seconds(half)
        before = peak_memory()
        step, peak = seconds(small) * batch / small, peak_memory()
        if 3 * step <= SECONDS:
            step, peak = min(seconds(batch) for _ in range(3)), peak_memory()
        elif small > half:
            peak += round((peak - before) / (small - half) * (batch - small))
        known = peak > earlier and (batch == 1 or small > half)  # else an earlier training took more, or no slope is
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # the copy is no part of the training
    return Plan((1 - OVERHEAD) * batch / step, peak + ROOM if known else 0)
