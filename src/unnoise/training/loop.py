"""Training, from top to bottom."""

import math
import signal
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
import yaml

from unnoise import registry
from unnoise.checkpoint import WEIGHTS, Card, build, new_folder, replacing, save, save_tensors, vacant
from unnoise.config import Sampling, TrainConfig
from unnoise.data.cache import Dataset, open_data
from unnoise.data.split import split
from unnoise.data.transforms import to_float
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import Noised, Objective
from unnoise.diffusion.times import Times
from unnoise.errors import InputError
from unnoise.training.batches import noised, order, streams
from unnoise.training.device import make_accelerator
from unnoise.training.ema import EMA
from unnoise.training.held_out import SHARE, HeldOut, few
from unnoise.training.init import load_into
from unnoise.training.interrupt import Interrupted, Stop, stop_signals
from unnoise.training.length import Clock
from unnoise.training.log import Log, Progress, duration, peak_memory
from unnoise.training.occasions import Occasions
from unnoise.training.optimizers import as_configured
from unnoise.training.plan import Planned, planned
from unnoise.training.preview import Previews, affordable, sample, saturation, save_grid
from unnoise.training.quality import Quality
from unnoise.training.validate import learned_variance, validate
from unnoise.types import Images

SAVE_EVERY = 600.0  # seconds between checkpoints at most; the first comes with the first preview
BEST = "best.safetensors"  # the weights of the lowest KID
PATIENCE = 100  # steps in a row that may be skipped for a loss or gradient that is not finite


def train(config: TrainConfig) -> Path:
    """Train on `config.data`; returns the run folder."""
    validate(config)
    progress = Progress()
    try:
        return run_all(config, progress)
    finally:
        progress.close()


def run_all(config: TrainConfig, progress: Progress) -> Path:
    """Data, network, folder, loop, files, farewell."""
    if config.out is not None:
        vacant(config.out)
    everything = open_data(
        config.data,
        size=config.size,
        channels=config.channels,
        fit=config.fit,
        limit=config.limit,
        progress=progress.reading,
    )
    dataset, held = split(everything, config.held_out)
    if config.classes and not dataset.classes:
        raise InputError(f"--classes: {config.data} has none; put the images of each class in a sub-folder of its own")
    ready = planned(config, dataset.shape, len(dataset))
    config = replace(config, backbone=ready.backbone)
    torch.manual_seed(config.seed)
    card = card_of(config, dataset, held)
    model = build(card)  # all that can be refused is refused before there is a folder
    kept = load_into(model.backbone, config.init) if config.init else None
    run = Training(config, (dataset, held), (model, card), ready, new_folder(config.out, Path("runs"), dataset.name))
    introduce(run, progress)
    if kept:
        progress.say(f"start     {config.init}: {kept}")
    with stop_signals() as stop:
        loop(run, progress, stop)
        run.clock.stop()
        interrupted = stop.signal
        if interrupted is None:
            for warning in run.measure():
                progress.say(f"warning: {warning}")
            if run.quality.count:
                run.score(progress, stop)
        run.save()
        if interrupted is None:
            final_grid(run, stop)
    progress.close()
    conclude(run, interrupted)
    if interrupted is not None:
        raise Interrupted(interrupted, run.folder)
    return run.folder


class Training:
    """What a run is made of."""

    def __init__(
        self,
        config: TrainConfig,
        data: tuple[Dataset, Dataset],
        new: tuple[Diffusion, Card],
        ready: Planned,
        folder: Path,
    ) -> None:
        self.config, self.folder, (self.dataset, held) = config, folder, data
        self.model, self.card = new
        (folder / "samples").mkdir()
        with replacing(folder / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(asdict(config), sort_keys=False), encoding="utf-8")
        network = self.model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.accelerator, self.plan = make_accelerator(ready.precision), ready.plan
        network.to(self.accelerator.device)
        self.ema = EMA(network, config.ema_halflife)
        self.averaged = Diffusion(
            self.ema.network, self.model.schedule, self.model.target, self.card.shape, self.card.classes
        )
        self.model.backbone, self.optimizer = self.accelerator.prepare(network, as_configured(config)(network))
        self.objective: Objective = registry.objective.get(config.objective)
        self.times: Times = registry.times.get(config.times)(self.model.schedule)
        self.log = Log(folder / "metrics.jsonl")
        self.held_out, self.measuring = HeldOut(config, self.objective, few(self.dataset), few(held)), Occasions(SHARE)
        self.quality = Quality(self.dataset, self.card.sampling)
        some = torch.from_numpy(self.dataset.read(np.arange(min(64, len(self.dataset)))))
        self.previews = Previews(folder / "samples", self.dataset.mode, saturation(to_float(some)))
        self.clock = Clock.of(config, len(self.dataset))

    def step(self, batch: Noised) -> tuple[float, float] | None:
        """One step of the optimizer, (loss, gradient norm); None where one is not finite and nothing changed."""
        rise = min(1.0, self.clock.seen / max(1, self.config.warmup))
        fall = 0.5 * (1 + math.cos(math.pi * self.clock.progress)) if self.config.decay == "cosine" else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * rise * fall
        time, losses = batch.t.time, self.objective(self.model, batch)
        loss = (self.times.weight(time).to(losses) * losses).mean()
        self.times.update(time, losses)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm or math.inf)
        finite = math.isfinite(loss.item()) and math.isfinite(float(norm))
        if finite or self.accelerator.scaler is not None:  # fp16's loss scaler skips by itself, and must be told
            self.optimizer.step()
        self.optimizer.zero_grad()
        if not finite:
            return None
        self.ema.update(self.clock.seen, len(batch.x0))
        return loss.item(), float(norm)

    def save_model(self, path: Path) -> None:
        """Write the model file, which tells everything."""
        training = {**self.clock.position, "config": asdict(self.config), "loss": self.log.curve()}
        save(path, self.ema.network.state_dict(), replace(self.card, training=training))

    def save(self) -> None:
        """Write the model, what a resumed run will need, the last row of the log and the loss plot."""
        self.log.write(self.clock)
        self.save_model(self.folder / WEIGHTS)
        network = self.accelerator.unwrap_model(self.model.backbone).state_dict()
        state = {f"network.{name}": tensor for name, tensor in network.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in slots.items()}
        save_tensors(self.folder / "state.safetensors", state, self.clock.position)
        self.log.plot(self.folder / "loss.png")

    def preview(self, stop: Stop) -> list[str]:
        with self.accelerator.autocast():
            return self.previews.draw(self.averaged, self.clock, self.log.rate, stop)

    def score(self, progress: Progress, stop: Stop) -> None:
        """KID at the marks of the way; the best weights lie beside the last ones."""
        if not self.quality.count:
            progress.say(self.quality.plan(self.clock, self.clock.seen / max(self.clock.elapsed, 1e-9)))
        if not self.quality.due(self.clock):
            return
        before = len(self.quality.rows)

        def draw(count: int, seconds: float) -> Images | None:
            with self.accelerator.autocast():
                return sample(self.averaged, count, self.card.sampling, stop, seconds)

        note = self.quality.measure(draw, self.clock)
        if len(self.quality.rows) > before:
            self.log.add(self.quality.rows[-1])
            progress.say(f"KID       {self.quality}")
        if self.quality.best:
            self.save_model(self.folder / BEST)
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


def loop(run: Training, progress: Progress, stop: Stop) -> None:
    """Until the clock says so: noise a batch, take a step, log, preview, save."""
    config, clock, epoch = run.config, run.clock, len(run.dataset)
    skipped, saved = 0, 0.0
    clock.start()
    for indices in order(len(run.dataset), config.batch, config.seed):
        if clock.progress >= 1 or stop.signal is not None:
            return
        rngs = streams(config.seed, 0, clock.seen, run.accelerator.device)
        batch = noised(run.dataset, indices, run.times, rngs, config)
        clock.seen += len(indices)
        result = run.step(batch)
        skipped = 0 if result else skipped + 1
        if skipped >= PATIENCE:
            run.save()
            raise InputError(
                f"training stopped: {skipped} steps in a row had a loss or gradient that is not finite; the last good "
                f"weights are in {run.folder}. Try a lower --lr (now {config.lr:g}) or --precision fp32"
            )
        if result and run.log.step(clock, *result, lr=run.optimizer.param_groups[0]["lr"]):
            progress.update(clock, run.log)
        if clock.seen % epoch == 0:
            mean = run.log.epoch(clock.seen // epoch, clock.seen)
            if config.epochs and mean is not None:
                progress.say(f"epoch={clock.seen // epoch} avg_loss={mean:.6f}")
        previewed = run.previews.due(clock, run.log.rate)
        warnings = run.preview(stop) if previewed else []
        warnings += run.measure() if run.measuring.due(clock) else []
        for warning in warnings:
            progress.say(f"warning: {warning}")
        if run.quality.due(clock) and clock.progress < 1:
            run.score(progress, stop)
        if clock.elapsed - saved > SAVE_EVERY or (previewed and not saved):
            run.save()
            saved = clock.elapsed


def card_of(config: TrainConfig, dataset: Dataset, held: Dataset) -> Card:
    """What the model file will say of itself."""
    assert config.backbone  # planned
    return Card(
        backbone=config.backbone,
        schedule=config.schedule,
        target=config.target,
        shape=dataset.shape,
        mode=dataset.mode,
        classes=dataset.classes if config.classes else (),
        learned_variance=learned_variance(config.objective),
        sampling=Sampling(config.sampler, config.steps, config.spacing, config.clip),
        data={
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,  # of all, those held out too
            "count": len(dataset),
            "held_out": len(held),
        },
    )


def introduce(run: Training, progress: Progress) -> None:
    """Say what will be done with what, before it is done."""
    config, (c, h, w) = run.config, run.dataset.shape
    for note in run.dataset.notes:
        progress.say(f"  {note}")
    size = sum(p.numel() for p in run.ema.network.parameters()) / 1e6
    precision = run.accelerator.mixed_precision.replace("no", "fp32")
    length = duration(run.clock.seconds) if run.clock.seconds else f"{run.clock.images:,.0f} images"
    progress.say(
        f"data      {run.dataset.name}: {len(run.dataset):,} images, {w}x{h}, {run.dataset.mode or f'{c} channels'}"
        + (f", {len(run.card.classes)} classes" if run.card.classes else "")
        + (f"; {held:,} more are held out to measure on" if (held := run.card.data["held_out"]) else "")
    )
    progress.say(f"network   {run.card.backbone}, {size:.1f} M parameters, {precision} on {run.accelerator.device}")
    if config.precision == "fp16" and precision == "fp32":
        progress.say("          fp16 needs CUDA; training in fp32")
    progress.say(f"plan      {run.plan.told(run.clock, len(run.dataset), datetime.now())}")  # noqa: DTZ005  # theirs
    progress.say(f"training  {length}, into {run.folder}")


def final_grid(run: Training, stop: Stop) -> None:
    """The last picture: up to 64 images as `unnoise sample` draws them, as many as take about a minute."""
    how = run.card.sampling
    images = sample(run.averaged, affordable(60, run.clock.seen / run.clock.elapsed, how.steps), how, stop)
    if images is not None:
        save_grid(images, run.folder / "samples" / "final.png", run.card.mode)


def conclude(run: Training, interrupted: int | None) -> None:
    clock, memory = run.clock, peak_memory()
    why = f"stopped by {signal.Signals(interrupted).name} after" if interrupted else "trained"
    rate = clock.seen / max(clock.elapsed, 1e-9)
    summary = {
        "images": clock.seen,
        "training_seconds": clock.elapsed,
        "mean_images_per_second": rate,
        "preview_seconds": run.previews.occasions.spent,
        "measuring_seconds": run.measuring.spent + run.quality.spent,
        "peak_bytes": memory,
    }
    run.log.add(summary)
    pace = f"{duration(clock.elapsed)} ({rate:.0f} images/s)"
    print(f"{why} {clock.seen:,} images in {pace}, peak memory {memory / 2**20:,.0f} MB")
    if run.held_out.rows:
        print(f"loss      {run.held_out}")
    if (run.folder / "samples" / "final.png").exists():
        print(f"grid      {run.folder / 'samples' / 'final.png'}")
    print(f"run       {run.folder}    more pictures: unnoise sample {run.folder} -n 64")
