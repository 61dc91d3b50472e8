"""Take one training step: loss, gradient, optimizer, average."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from unnoise import distributed, registry
from unnoise.config import TrainConfig
from unnoise.device import out_of_memory, release_memory
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import Noised, Objective
from unnoise.errors import InputError
from unnoise.training.batches import ALL, make_times
from unnoise.training.clock import Clock
from unnoise.training.ema import EMA
from unnoise.training.optimizers import make_optimizer, peak_lr, set_state
from unnoise.training.precision import Precision, plain_network, wrap_network
from unnoise.types import PerImage


class StepResult(NamedTuple):
    """The loss of a step that was taken, and the norm of its gradient before it was clipped."""

    loss: float
    grad_norm: float


class Trainer:
    """Everything that a training step changes.

    Args:
        config: settings; the backbone is chosen already.
        model: the model to train; its network lies on its device, in its memory layout.
        precision: fp32, bf16 or fp16.
        clock: counts images and seconds.
        at_once: images that fit into memory at a time; a batch with more is taken in parts.
    """

    remembered = ("caution", "at_once", "skipped")

    def __init__(self, config: TrainConfig, model: Diffusion, precision: str, clock: Clock, at_once: int) -> None:
        self.config, self.model, self.clock = config, model, clock
        self.ema = EMA(model.backbone, config.ema_halflife)
        self.optimizer = make_optimizer(config)(model.backbone)
        self.optimizer.shared = True  # type: ignore[attr-defined]  # Muon divides its work over the processes
        model.backbone = wrap_network(model.backbone, precision, model.device)
        self.objective: Objective = registry.objective.get(config.objective)
        self.times = make_times(config, model.schedule)
        self.precision = Precision(precision, model.device)
        self.at_once = at_once
        self.caution = 1.0  # factor of the learning rate; it is halved each time numbers are not finite
        self.skipped = 0  # steps whose loss or gradient was not finite
        self.notes = list[str]()  # warnings that wait to be printed

    def step(self, batch: Noised, n: int = 0, rows: slice = ALL) -> StepResult | None:
        """Take one step of the optimizer; return None if loss or gradient is not finite, and change nothing then.

        Args:
            batch: the `rows` of a batch of `n` images that this process learns from.
            n: images in the whole batch; 0 means that `batch` is the whole.
            rows: the place of `batch` in the whole batch.
        """
        n, progress = n or len(batch.x0), self.clock.progress if self.config.decay == "cosine" else 0.5
        lr = self.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        time_and_loss = torch.zeros(2, n, dtype=torch.float64)
        if len(range(n)[rows]):
            losses = self.backward(batch._replace(progress=progress), 1 / n)
            time_and_loss[:, rows] = torch.stack([batch.t.time, losses.double().cpu()])
        else:
            self.backward(batch._replace(progress=progress), 0.0)  # more processes than images: only keep step
        time, losses = distributed.all_reduce_sum(time_and_loss).cpu()
        loss = float((self.times.weight(time) * losses).mean())
        self.times.update(time, losses)
        norm = self.precision.clip_grad_norm(self.optimizer, self.model, self.config.max_grad_norm or math.inf)
        finite = math.isfinite(loss) and math.isfinite(norm)
        self.precision.step(self.optimizer, finite=finite)
        self.optimizer.zero_grad()
        if not finite:
            self.skipped += 1
            return None
        self.ema.update(n, self.clock.seen)
        return StepResult(loss, norm)

    @property
    def learning_rate(self) -> float:
        """Return the learning rate now: it rises over the warm-up and falls as a cosine, if that is asked for."""
        return self.caution * learning_rate(self.config, self.clock.seen, self.clock.progress)

    def backward(self, batch: Noised, scale: float) -> PerImage:
        """Return the losses [b], and add the gradient of their sum times `scale`; take parts if memory is short."""
        while True:
            try:
                return self.backward_in_parts(batch, scale)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if self.at_once == 1:
                    raise InputError(
                        "out of memory even for one image at a time; choose a smaller --size or --backbone"
                    ) from error
                if distributed.world_size() > 1:  # the others wait for the gradients of this step
                    raise InputError(
                        f"out of memory; several processes take all images of a step at a time: choose a --batch below "
                        f"{self.config.batch}, or a smaller --size or --backbone"
                    ) from error
            self.optimizer.zero_grad()
            self.at_once = -(-min(self.at_once, len(batch.x0)) // 2)
            release_memory()
            self.notes.append(f"out of memory; {self.at_once} images at a time from now on, the batch size stays")

    def backward_in_parts(self, batch: Noised, scale: float) -> PerImage:
        """Take at most `at_once` images at a time; processes share their gradients in the last part."""
        found, n = list[PerImage](), len(batch.x0)
        for begin in range(0, n, self.at_once):
            part = batch.part(slice(begin, begin + self.at_once)) if n > self.at_once else batch
            last = begin + self.at_once >= n
            with nullcontext() if last else without_sharing(self.model.backbone):
                losses = self.objective(self.model.transformed(part.transform), part)
                weight = self.times.weight(part.t.time).to(losses)
                # processes take the mean of their gradients, and `scale` is for the sum
                self.precision.backward((weight * losses).sum() * (scale * distributed.world_size()))
            found.append(losses.detach())
        return torch.cat(found)

    @contextmanager
    def averaged(self) -> Iterator[Diffusion]:
        """Lend the model with the averaged weights, in the precision of the training."""
        model, network = self.model, self.ema.network
        with self.precision.autocast():
            yield Diffusion(network, model.schedule, model.target, model.shape, model.classes)

    @property
    def state(self) -> dict[str, Any]:
        """Return the tensors and counts that the next step depends on, beside the clock and the times."""
        return {
            "network": plain_network(self.model).state_dict(),
            "average": self.ema.network.state_dict() if self.config.ema_halflife else {},
            "optimizer": self.optimizer.state_dict()["state"],
            "scaler": self.precision.state,
        }

    def load_state(self, saved: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        plain_network(self.model).load_state_dict(saved["network"])
        if self.config.ema_halflife:
            self.ema.network.load_state_dict(saved["average"])
        set_state(self.optimizer, saved["optimizer"])
        self.precision.load_state(saved["scaler"])


def learning_rate(config: TrainConfig, seen: int, progress: float) -> float:
    """Return the learning rate of the step after which `seen` images are seen, at this progress of the training."""
    rise = min(1.0, seen / max(1, config.warmup))
    fall = 0.5 * (1 + math.cos(math.pi * progress)) if config.decay == "cosine" else 1.0
    return peak_lr(config) * rise * fall


def without_sharing(network: nn.Module) -> AbstractContextManager[Any]:
    """Return a context in which several processes do not share their gradients."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()
