"""What a training run is made of: one step, and what is measured, drawn and kept beside it."""

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml

from unnoise import distributed, registry
from unnoise.card import Card
from unnoise.checkpoint import write_model
from unnoise.config import TrainConfig
from unnoise.data.dataset import Dataset
from unnoise.device import out_of_memory, release_memory
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import Noised, Objective
from unnoise.diffusion.times import Times
from unnoise.errors import InputError
from unnoise.files import replacing
from unnoise.images import to_float
from unnoise.options import plain
from unnoise.progress import Progress
from unnoise.run_folder import BEST, CONFIG, LOSS, METRICS, MODEL, SAMPLES, STATE
from unnoise.training.batches import ALL
from unnoise.training.clock import Clock
from unnoise.training.ema import EMA
from unnoise.training.log import Log
from unnoise.training.monitors.kid import KidMonitor
from unnoise.training.monitors.monitor import TimeBudget
from unnoise.training.monitors.previews import PreviewMonitor, sample, saturation
from unnoise.training.monitors.validation import SHARE, ValidationMonitor, fixed_subset
from unnoise.training.nonfinite import diagnosis, finite
from unnoise.training.optimizers import as_configured, with_state
from unnoise.training.plan import Planned
from unnoise.training.precision import make_accelerator, place
from unnoise.training.signals import Stop
from unnoise.training.state import FORMAT, Part, State, read, recall, remember, write
from unnoise.types import Images, PerImage


class Trainer:
    """What a run is made of."""

    remembered = ("caution", "at_once", "finished", "skipped")

    def __init__(
        self,
        asked: TrainConfig,
        data: tuple[Dataset, Dataset],
        new: tuple[Diffusion, Card],
        ready: Planned,
        folder: Path,
    ) -> None:
        self.asked, self.config = asked, (config := replace(asked, backbone=ready.backbone))
        self.folder, (self.dataset, held) = folder, data
        self.model, self.card = new
        self.precision, self.plan, self.accelerator = ready.precision, ready.plan, make_accelerator(ready.precision)
        network = self.model.backbone
        place(network, self.accelerator.device, ready.precision)
        self.ema = EMA(network, config.ema_halflife)
        self.averaged = Diffusion(
            self.ema.network, self.model.schedule, self.model.target, self.card.shape, self.card.classes
        )
        optimizer = as_configured(config)(network)
        optimizer.shared = True  # type: ignore[attr-defined]  # over processes, where it can be
        self.model.backbone, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.objective: Objective = registry.objective.get(config.objective)
        self.times: Times = registry.times.get(config.times)(self.model.schedule)
        self.log = Log(folder / METRICS if distributed.is_main() else None)
        self.held_out, self.measuring = (
            ValidationMonitor(config, self.objective, fixed_subset(self.dataset), fixed_subset(held)),
            TimeBudget(SHARE),
        )
        self.quality = KidMonitor(self.dataset, self.card.sampling)
        some = torch.from_numpy(self.dataset.read(self.dataset.chosen(64, 0)))
        self.previews = PreviewMonitor(folder / SAMPLES, self.dataset.mode, saturation(to_float(some)))
        self.clock = Clock.of(config, len(self.dataset))
        self.at_once = ready.plan.at_once  # images in memory
        self.notes = list[str]()  # to be told
        self.finished = False  # to the end of its length, and measured
        self.failing = 0  # steps in a row, the last ones, that were skipped
        self.skipped = 0  # steps whose loss or gradient was not finite
        self.caution = 1.0  # factor of the learning rate, which falls where training went wrong

    def step(self, batch: Noised, n: int = 0, rows: slice = ALL) -> tuple[float, float] | None:
        """One step of the optimizer, (loss, gradient norm); None where one is not finite and nothing changed.

        `batch` are the `rows` of a batch of `n` images that are this process's to learn from.
        """
        progress = self.clock.progress if self.config.decay == "cosine" else 0.5  # without decay, no length matters
        n, batch = n or len(batch.x0), batch._replace(progress=progress)
        rise = min(1.0, self.clock.seen / max(1, self.config.warmup))
        fall = 0.5 * (1 + math.cos(math.pi * progress)) if self.config.decay == "cosine" else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * self.caution * rise * fall
        found = torch.zeros(2, n, dtype=torch.float64)
        if len(range(n)[rows]):
            found[:, rows] = torch.stack([batch.t.time, self.taught(batch, 1 / n).double().cpu()])
        else:
            self.taught(batch, 0.0)  # fewer images than processes: it only keeps step
        time, losses = distributed.all_reduce_sum(found).cpu()
        loss = float((self.times.weight(time) * losses).mean())
        self.times.update(time, losses)
        norm = float(self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm or math.inf))
        good = math.isfinite(loss) and math.isfinite(norm)
        if good or self.accelerator.scaler is not None:  # fp16's loss scaler skips by itself, and must be told
            self.optimizer.step()
        self.optimizer.zero_grad()
        if not good:
            self.skipped += 1
            return None
        self.ema.update(self.clock.seen, n)
        return loss, norm

    def taught(self, batch: Noised, each: float) -> PerImage:
        """The losses, and the gradient of their sum times `each`; of fewer images at a time where memory is short."""
        while True:
            try:
                return self.in_parts(batch, each)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                if self.at_once == 1:
                    raise InputError(
                        "out of memory even for one image at a time; choose a smaller --size or --backbone"
                    ) from error
            self.optimizer.zero_grad()
            self.at_once = -(-min(self.at_once, len(batch.x0)) // 2)
            release_memory()
            self.notes.append(f"out of memory; {self.at_once} images at a time from now on, the batch stays")

    def in_parts(self, batch: Noised, each: float) -> PerImage:
        """At most `at_once` images at a time; processes share their gradients at the last ones."""
        found, n = list[PerImage](), len(batch.x0)
        for begin in range(0, n, self.at_once):
            part = batch.part(slice(begin, begin + self.at_once)) if n > self.at_once else batch
            last = begin + self.at_once >= n
            with nullcontext() if last else self.accelerator.no_sync(self.model.backbone):
                losses = self.objective(self.model, part)
                weight = self.times.weight(part.t.time).to(losses)
                self.accelerator.backward(
                    (weight * losses).sum() * (each * distributed.world_size())
                )  # which take the mean
            found.append(losses.detach())
        return torch.cat(found)

    @property
    def parts(self) -> dict[str, Part]:
        """What changes beside the weights, by the name it is saved under."""
        return {
            "run": self,
            "clock": self.clock,
            "times": self.times,
            "log": self.log,
            "held_out": self.held_out,
            "measuring": self.measuring,
            "quality": self.quality,
            "previews": self.previews,
            "previewing": self.previews.occasions,
        }

    @property
    def state(self) -> State:
        """All that a run needs to go on as if it had never stopped."""
        scaler = self.accelerator.scaler
        return {
            "format": FORMAT,
            "config": plain(self.asked),
            "fingerprint": self.card.data["fingerprint"],
            "backbone": self.card.backbone,
            "precision": self.precision,
            "network": self.accelerator.unwrap_model(self.model.backbone).state_dict(),
            "average": self.ema.network.state_dict() if self.config.ema_halflife else {},
            "optimizer": self.optimizer.state_dict()["state"],
            "scaler": scaler.state_dict() if scaler else {},
            "parts": {name: remember(part) for name, part in self.parts.items()},
        }

    def unsound(self) -> str | None:
        """What is not finite of weights, averages and the optimizer, in words."""
        named = dict(self.accelerator.unwrap_model(self.model.backbone).named_parameters())
        for name, p in named.items():
            if not finite(p):
                return f"the weights {name} are no longer finite"
        if not all(map(finite, self.ema.network.parameters())):
            return "the average of the weights is no longer finite"
        for p, slots in self.optimizer.state.items():
            if not all(map(finite, slots.values())):
                name = next((name for name, mine in named.items() if mine is p), "")
                return f"what the optimizer keeps of {name} is no longer finite"
        return None

    def roll_back(self) -> None:
        """To the last state that was saved, at half the learning rate; the time is spent all the same."""
        caution, elapsed, skipped = self.caution / 2, self.clock.elapsed, self.skipped
        saved, _ = read(self.folder)
        self.restore(saved)
        self.caution, self.clock.elapsed, self.skipped = caution, elapsed, skipped
        distributed.barrier()  # until all have read it

    def restore(self, saved: State) -> None:
        """Refuses what is of another kind."""
        try:
            self.recall(saved)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"the state in {self.folder} does not fit this run ({error!r:.200}); --fresh starts over"
            ) from error

    def recall(self, saved: State) -> None:
        self.accelerator.unwrap_model(self.model.backbone).load_state_dict(saved["network"])
        if self.config.ema_halflife:
            self.ema.network.load_state_dict(saved["average"])
        with_state(self.optimizer, saved["optimizer"])
        if self.accelerator.scaler and saved["scaler"]:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        for name, part in self.parts.items():
            recall(part, saved["parts"][name])

    def save_model(self, path: Path) -> None:
        """Write the model file, which tells everything."""
        training = {**self.clock.position, "config": plain(self.config), "loss": self.log.curve()}
        write_model(path, self.ema.network.state_dict(), replace(self.card, training=training))

    def save(self) -> None:
        """Write the last row of the log, the settings, the model, and then the state, which says that all is there.

        The first state comes first: from then on the folder is that of a run to go on with, whatever happens.
        """
        if not (self.folder / STATE).exists():
            write(self.folder, self.state)
        self.log.write(self.clock)
        with replacing(self.folder / CONFIG) as temporary:
            temporary.write_text(yaml.safe_dump(plain(self.config), sort_keys=False), encoding="utf-8")
        self.save_model(self.folder / MODEL)
        write(self.folder, self.state)

    def diagnosis(self, batch: Noised, indices: np.ndarray) -> str:
        """Of a batch whose losses or gradients are not finite; images are numbered as in the data."""
        network = self.accelerator.unwrap_model(self.model.backbone)
        model = Diffusion(network, self.model.schedule, self.model.target, self.card.shape, self.card.classes)
        with self.accelerator.autocast():
            found = distributed.all_gather(diagnosis(model, self.objective, batch, self.dataset.numbers(indices)))
        return next((text for text in found if "not" in text), found[0])

    def preview(self, stop: Stop) -> list[str]:
        with self.accelerator.autocast():
            warnings = self.previews.draw(self.averaged, self.clock, self.log.rate, stop)
        self.log.plot(self.folder / LOSS)
        return warnings

    def score(self, progress: Progress, stop: Stop) -> None:
        """KID at the marks of the way; the best weights lie beside the last ones."""
        if not self.quality.count:
            progress.say(self.quality.plan(self.clock, self.clock.seen / max(self.clock.elapsed, 1e-9)))
        if not self.quality.due(self.clock):
            return
        before = len(self.quality.rows)

        def draw(count: int, seconds: float) -> Images | None:
            with self.accelerator.autocast():
                return sample(self.averaged, count, self.quality.how, stop, seconds)

        note = self.quality.measure(draw, self.clock)
        if len(self.quality.rows) > before:
            self.log.add(self.quality.rows[-1])
            progress.say(f"KID       {self.quality}")
        if self.quality.best:
            self.save_model(self.folder / BEST)
            self.save()  # which knows of it
        if note:
            progress.say(note)

    def measure(self) -> list[str]:
        """The loss on held-out images, logged; returns warnings. Nothing where there are too few to say anything."""
        if self.held_out.most < 2:
            return []
        self.held_out.plan(self.clock)
        with self.measuring.taken(self.clock), self.accelerator.autocast():
            warning = self.held_out.measure(self.averaged)
        self.log.add({"images": self.clock.seen, "seconds": round(self.clock.elapsed, 2), **self.held_out.rows[-1]})
        return [warning] if warning else []
