"""Plan a training: a few steps on this machine tell the pace and the memory, and so how wide the network can be."""

import copy
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Generator, Tensor, nn

from unnoise import distributed, registry
from unnoise.backbones.layers import recompute
from unnoise.checkpoint import build_network, outputs_of
from unnoise.config import TrainConfig
from unnoise.device import (
    forget_peak,
    free_memory,
    out_of_memory,
    peak_memory,
    pick_device,
    recent_peak,
    release_memory,
    synchronize,
)
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import Noised, add_noise
from unnoise.diffusion.stable_target import StableTarget
from unnoise.distillation.teacher import Teacher
from unnoise.errors import InputError
from unnoise.options import Spec
from unnoise.progress import duration
from unnoise.training.augmentation import with_transforms
from unnoise.training.batches import make_times
from unnoise.training.clock import MAX_SECONDS, Clock
from unnoise.training.optimizers import make_optimizer
from unnoise.training.precision import Precision, choose_precision, place_network
from unnoise.training.references import reference_count

FULL_BATCH = 8.0  # seconds for the steps at the full batch; if they take longer, they are estimated from smaller ones
SMALL_BATCH, SMALL_STEP = 16, 2.0  # images and seconds of a smaller step
TICK = 1e-6  # seconds that anything takes at least; the clocks of some systems stand still for longer
OVERHEAD = 0.08  # share of the time that is not a step: previews, measuring, noising
EXTRA_BYTES = 60 * 2**20  # memory that measuring takes beside a step

WIDTHS = (32, 48, 64, 96, 128, 192, 256)  # channels of the U-Nets to choose from
ENOUGH = 1_500  # images for which the smallest is wide enough; the others need them by the cube of their width
LARGE = 48  # pixels along the shorter side from which on a U-Net has four scales
WITHOUT_BUDGET = 64  # width of a training whose length is a number of images, on every machine
ALL = 2**31  # images at a time: the whole batch
Helper: TypeAlias = Callable[[Noised], Noised]  # gives the images of a batch better targets


class TooLargeError(InputError):
    """Report a network that memory does not hold, even for one image at a time."""


class Plan(NamedTuple):
    """Tell what a training will take on this machine."""

    images_per_second: float  # of all processes
    peak_bytes: int  # of one process; 0 if it is not known
    at_once: int = ALL  # images that are taken at a time, if memory is short

    def slower(self, factor: float) -> "Plan":
        """Return the plan at a pace that is this factor lower."""
        return self._replace(images_per_second=self.images_per_second / factor)

    def images(self, clock: Clock) -> float:
        """Return the number of images that will be seen by the end."""
        in_time = (clock.seconds - clock.elapsed) * self.images_per_second if clock.seconds else math.inf
        return min(clock.seen + in_time, clock.images or math.inf)

    def in_words(self, clock: Clock, count: int, now: datetime) -> str:
        """Say how far the training will come, when it will end and what it takes; `count` is the number of images."""
        images = self.images(clock)
        seconds = (images - clock.seen) / self.images_per_second
        done = now + timedelta(seconds=min(seconds, MAX_SECONDS))
        memory = f"; memory up to about {self.peak_bytes / 2**20:,.0f} MB" if self.peak_bytes else ""
        memory += f", {self.at_once} images at a time" if self.at_once < ALL else ""
        return (
            f"about {self.images_per_second:.0f} images/s: {images:,.0f} images, each {images / count:.1f} times, in "
            f"{duration(seconds)}, done at {done:%H:%M}{memory}"
        )


class Planned(NamedTuple):
    """The network and the precision that were chosen, and what they will take."""

    backbone: Spec
    precision: str
    plan: Plan


class Rehearsal:
    """Time steps of a copy of a network on images of zeros.

    Args:
        network: it stays as it is.
        optimizer: makes the optimizer of the copy.
        loss: the loss of a network for a number of images of zeros.
        autocast: makes the context of the precision.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        loss: Callable[[nn.Module, int], Tensor],
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.network, self.loss, self.autocast = copy.deepcopy(network), loss, autocast
        self.optimizer, self.device = optimizer(self.network), next(network.parameters()).device

    @property
    def state_bytes(self) -> int:
        """Return the bytes of a state: the weights, their average, and what the optimizer remembers."""
        remembered = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [*self.network.parameters(), *self.network.parameters(), *filter(torch.is_tensor, remembered)]
        return sum(tensor.nbytes for tensor in tensors)

    def step(self, size: int) -> tuple[float, float]:
        """Return the seconds of a step of `size` images: of the loss, and of the optimizer."""
        begun = time.monotonic()
        with self.autocast():
            loss = self.loss(self.network, size)
        torch.autograd.backward(loss)
        between = synchronize()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return max(between - begun, TICK), max(synchronize() - between, TICK)

    def settled_step(self, size: int) -> tuple[float, float]:
        """Return the seconds of a second step: the first one of a size is much slower."""
        self.step(size)
        return self.step(size)

    def largest_step(self, size: int) -> tuple[int, float, float]:
        """Return the size that memory is enough for, by halves, and the seconds of its step."""
        try:
            return size, *sorted((self.step(size) for _ in range(4)), key=sum)[1]  # the first one is slow
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not out_of_memory(error):
                raise
        release_memory()
        return self.largest_step(-(-size // 2))


def squares(shape: tuple[int, int, int], network: nn.Module, size: int) -> Tensor:
    """Return the mean square of the outputs of a network, which takes about the time of most objectives."""
    device = next(network.parameters()).device
    output: Tensor = network(torch.zeros(size, *shape, device=device), torch.zeros(size, device=device))
    return output.float().square().mean()


def loss_of_zeros(
    config: TrainConfig, shape: tuple[int, int, int], helper: Helper | None, network: nn.Module, size: int
) -> Tensor:
    """Return a loss that takes the time of a step of the settings: with a helper, and with a pretrained network."""
    schedule, target = registry.schedule.get(config.schedule)(), registry.target.get(config.target)
    levels = make_times(config, schedule).levels(size, Generator().manual_seed(0))
    zeros = torch.zeros(size, *shape, device=next(network.parameters()).device)
    batch = add_noise(zeros, zeros, levels)
    batch = helper(batch) if helper else batch
    if not registry.objective.declared(config.objective).get("pretrained"):
        return squares(shape, network, size)
    losses: Tensor = registry.objective.get(config.objective)(Diffusion(network, schedule, target, shape), batch)
    return losses.mean()


def rehearse(
    network: nn.Module,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    loss: Callable[[nn.Module, int], Tensor],
    batch: int,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Plan:
    """Return the plan of a network by a few steps of a copy; its weights and all random streams stay as they are."""
    device = next(network.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        rehearsal = Rehearsal(network, optimizer, loss, autocast)
        step, peak, known, at_once = measure_steps(rehearsal, batch)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # the copy is no part of the training
    pace = -distributed.all_reduce_max(-batch / step)[0]
    beside = EXTRA_BYTES + (rehearsal.state_bytes if device.type == "cpu" else 0)  # a state is read when it is written
    peak = round(distributed.all_reduce_max(max(peak + beside, peak_memory()) if known else 0)[0])
    at_once = -round(distributed.all_reduce_max(-at_once)[0]) if at_once < batch else ALL
    return Plan((1 - OVERHEAD) * distributed.world_size() * pace, peak, at_once)


def measure_steps(rehearsal: Rehearsal, batch: int, most: int = SMALL_BATCH) -> tuple[float, int, bool, int]:
    """Return the seconds of a step, its peak of memory in bytes, True if that is known, and the images at a time.

    The steps that are taken first have at most `most` images, or half as many where memory is short.
    """
    try:
        return measure_steps_of(rehearsal, batch, most)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if most == 1:
            raise TooLargeError(
                "out of memory even for one image at a time; choose a smaller --size or --backbone"
            ) from error
    rehearsal.optimizer.zero_grad()
    return measure_steps(rehearsal, batch, -(-most // 2))


def measure_steps_of(rehearsal: Rehearsal, batch: int, most: int) -> tuple[float, int, bool, int]:
    """Do what `measure_steps` does, where memory is enough for `most` images."""
    release_memory()  # of networks that were tried before
    forget_peak()  # decoding the data may have taken more than a small step
    earlier = recent_peak()
    small = max(1, min(batch, most, int(SMALL_STEP / rehearsal.settled_step(1)[0])))
    half = -(-small // 2)
    rehearsal.settled_step(half)
    before = recent_peak()
    part, rest = rehearsal.settled_step(small)
    peak = recent_peak()
    an_image = (peak - before) / (small - half) if small > half and before > earlier else 0.0  # bytes
    at_once = images_in_memory(batch, small, an_image, rehearsal.device)
    known = an_image > 0 or (batch == 1 and peak > earlier)
    if 4 * (part * batch / small + rest) > FULL_BATCH:
        return part * batch / small + rest, peak + round(an_image * (at_once - small)), known, at_once
    at_once, part, rest = rehearsal.largest_step(at_once)
    peak = recent_peak()
    return part * batch / at_once + rest, peak, peak > earlier, at_once  # else the process held enough before


def images_in_memory(batch: int, small: int, an_image: float, device: torch.device) -> int:
    """Return the images at a time that a CPU's memory is enough for; a GPU is simply tried, which does no harm."""
    room = 0.9 * free_memory() if device.type == "cpu" else float("inf")
    while batch > small and an_image * (batch - small) > room:
        batch = max(small, -(-batch // 2))
    return batch


def make_plan(config: TrainConfig, shape: tuple[int, int, int], count: int, teacher: Teacher | None = None) -> Planned:
    """Plan the network of the settings, or choose the widest U-Net that sees enough of `count` images in the budget.

    Widths are tried from the smallest on. Without a budget, the width is the same on every machine.
    """
    clock = Clock.from_config(config, count)
    if config.backbone is not None or clock.seconds is None:
        named = unet(WITHOUT_BUDGET, shape) if config.backbone is None else config.backbone
        return plan_backbone(config, named, shape, count, teacher)
    found = plan_backbone(config, unet(WIDTHS[0], shape), shape, count)
    for width, wider in pairwise(WIDTHS):
        dearer = (wider / width) ** 2
        if found.plan.slower(dearer).images(clock) < images_needed(wider):
            break
        if found.plan.at_once < ALL or found.plan.peak_bytes * dearer > available_memory():
            break
        try:
            tried = plan_backbone(config, unet(wider, shape), shape, count)
        except (torch.OutOfMemoryError, TooLargeError):
            break
        if tried.plan.at_once < ALL or tried.plan.images(clock) < images_needed(wider):
            break
        found = tried
    known = found.plan.peak_bytes
    tried_too = distributed.all_reduce_max(max(known, peak_memory()) if known else 0)[0]  # wider ones took memory too
    return found._replace(plan=found.plan._replace(peak_bytes=round(tried_too)))


def plan_backbone(
    config: TrainConfig, backbone: Spec, shape: tuple[int, int, int], count: int, teacher: Teacher | None = None
) -> Planned:
    """Plan the training of one network with `count` images."""
    backbone = with_transforms(backbone) if config.augment else backbone
    network, device = build_network(backbone, shape[0]), pick_device()
    if not isinstance(backbone, str):
        outputs_of(network, shape, 0, registry.backbone.text(backbone))
    if config.recompute:
        recompute(network)
    precision = distributed.from_main(lambda: choose_precision(config.precision, device))
    place_network(network, device, precision)
    batch = -(-min(config.batch, count) // distributed.world_size())
    compared = reference_count(config, shape, count)
    references = StableTarget(torch.ones(compared, *shape, device=device)) if compared else None
    loss = partial(loss_of_zeros, config, shape, teacher.correct if teacher else references)
    plan = rehearse(network, make_optimizer(config), loss, batch, Precision(precision, device).autocast)
    return Planned(backbone, precision, plan)


def available_memory() -> float:
    """Return the bytes of memory that are free for the process that has the least."""
    return -distributed.all_reduce_max(-free_memory())[0]


def images_needed(width: int) -> float:
    """Return the number of images that teach a U-Net of this width."""
    return ENOUGH * (width / WIDTHS[0]) ** 3


def unet(width: int, shape: tuple[int, int, int]) -> str:
    """Return the spec of the default U-Net of a width; for large images it has one more scale, of half the width."""
    larger = f"{width // 2}-" if min(shape[1:]) >= LARGE else ""
    return f"unet:widths={larger}{width}-{width}-{width * 3 // 2},layers=2,patch=2,groups=8,head=32"
