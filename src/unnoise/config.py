"""One frozen dataclass per command, of plain values. Each field is a flag of the command line and a key in YAML."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from unnoise.options import Spec

LENGTHS = ("budget", "images", "epochs")  # of a training: one of them


def option(default: Any, text: str) -> Any:
    """A field with the help text of its flag."""
    return field(default=default, metadata={"help": text})


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
    """What is not as it was, in words, but for what is free to change."""
    return [
        f"{name} was {before.get(name)!r}, now {value!r}"
        for name, value in now.items()
        if name not in free and before.get(name) != value
    ]


@dataclass(frozen=True)
class Sampling:
    """How images are drawn from a model; kept in the checkpoint."""

    sampler: Spec = "dpmpp_2m_sde"
    steps: int = 40
    spacing: Spec = "log_snr"
    clip: bool = True
    guidance: float = 1.0
    guidance_interval: str = "0-inf"

    def within(self, steps: int) -> "Sampling":
        """The same in so many steps at most."""
        return replace(self, steps=min(self.steps, steps))


@dataclass(frozen=True)
class TrainConfig:
    """`unnoise train`."""

    data: str = option(
        "faces", "folder, zip, tar, npy, npz, IDX or parquet of images, tar shards, an address, or a built-in set"
    )
    out: str | None = option(None, "run folder: a new one, or one to go on with (default: runs/NAME-N)")
    init: str | None = option(None, "start from the weights (and network) of a run, or of a diffusers pipeline folder")
    budget: str | None = option(None, "wall time of the training, e.g. 90s, 10m, 2h (default 10m)")
    images: str | None = option(None, "length in images seen, e.g. 50000 or 2M, instead of a budget")
    epochs: int | None = option(None, "length in passes over the data, instead of a budget")
    size: str | None = option(None, "64 or WIDTHxHEIGHT (default: the data's own up to 64, else 64)")
    channels: int | None = option(None, "1 gray, 2 gray + alpha, 3 RGB, 4 RGBA (default: the data's own)")
    fit: Literal["crop", "pad", "stretch"] = option("crop", "how other proportions are fitted to the size")
    limit: int | None = option(None, "use the first so many images")
    stream: bool = option(False, "read images where they lie, as they are needed: for data too large to keep decoded")
    held_out: int | None = option(
        None, "images kept out of the training to measure on (default: 2 %, 64 to 2,048, at most a tenth); 0 is none"
    )
    classes: bool = option(False, "sub-folders or a label column become classes")
    label_dropout: float = option(0.1, "share of the images that are shown without their class, for guidance")
    flip: bool = option(False, "mirror images at random")
    backbone: Spec | None = option(
        None, "network, as NAME:OPTION=VALUE,... (default: a U-Net, as wide as the budget can teach)"
    )
    schedule: Spec = option("cosine", "noise schedule")
    target: Spec = option("x0", "what the network outputs")
    objective: Spec = option("min_snr:gamma=2.5,first=20", "training objective")
    times: Spec = option("uniform", "which noise levels are trained on")
    optimizer: Spec = option("muon", "how the weights follow the gradient")
    batch: int = option(64, "images in a training step")
    lr: float = option(1e-3, "peak learning rate")
    warmup: int = option(2000, "images over which the learning rate rises")
    decay: Literal["cosine", "none"] = option("cosine", "course of learning rate and objective over the training")
    weight_decay: float = option(0.01, "share of the weights that is lost in a step, times lr")
    max_grad_norm: float = option(1.0, "gradients are scaled down to this norm; 0 is off")
    ema_halflife: float = option(50_000.0, "half-life of the weight average in images; 0 is off")
    tracker: str | None = option(None, "also log to tensorboard, trackio or wandb, by Accelerate")
    recompute: bool = option(False, "for networks too large for the memory: less of it, for about a third more time")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("auto", "auto: bf16 or fp16 where the device gains")
    sampler: Spec = option("dpmpp_2m_sde", "sampler of the last grid, and default of `unnoise sample`")
    steps: int | None = option(None, "its steps (default: 40, or all levels of a schedule that has fewer)")
    spacing: Spec = option("log_snr", "which noise levels it visits")
    clip: bool = option(True, "keep predicted images in range while sampling")
    seed: int = option(0, "seed of weights, order and noise")
    fresh: bool = option(False, "start over, also where the same command was stopped before; nothing is overwritten")


@dataclass(frozen=True)
class DataConfig:
    """`unnoise data`."""

    data: str = option("", "folder, archive, array or parquet of images, or the name of a built-in set")
    json: str | None = option(None, "file to write everything to")


@dataclass(frozen=True)
class EvalConfig:
    """`unnoise eval`."""

    set: str = option("", "run folder, its model.safetensors, or pictures: a folder, archive, array or data set")
    against: str | None = option(None, "pictures to compare with (default: the run's data)")
    metrics: str = option("kid,fid,precision_recall,density_coverage,colour", "what to measure, separated by commas")
    data: str | None = option(None, "the same as AGAINST; for bpd the pictures whose bits are measured")
    n: int | None = option(None, "pictures of SET (default: 2000 drawn from a run, all of a folder; 256 for bpd)")
    reference: int = option(10_000, "at most so many pictures of the data to compare with, drawn by the seed")
    features: Spec = option("efficientnet", "network that looks at the pictures, as NAME:OPTION=VALUE")
    sampler: Spec | None = option(None, "e.g. ddim:eta=0.5 (default: the run's own)")
    steps: int | None = option(None, "steps of the sampler (default: the run's own)")
    spacing: Spec | None = option(None, "which noise levels are visited (default: the run's own)")
    clip: bool | None = option(None, "keep predicted images in range (default: the run's own)")
    guidance: float | None = option(None, "how strongly the class is followed (default: the run's own)")
    guidance_interval: str | None = option(None, "guide only at these noise-to-signal ratios, LOW-HIGH")
    levels: int = option(100, "bpd: noise levels visited; the bound is that of a sampler with so many steps")
    variance: Literal["small", "large", "learned"] | None = option(
        None, "bpd: of the bound (default: learned, or small)"
    )
    ode: bool = option(True, "bpd: also by the probability-flow ODE, which takes five times as long")
    seed: int = option(0, "seed of the first picture drawn, of the choice of pictures, and of the noise")
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "auto: bf16 where the device draws much faster by it")
    batch: int = option(64, "pictures computed at a time; does not change the numbers")
    json: str | None = option(None, "file to write all numbers to")


@dataclass(frozen=True)
class TuneConfig:
    """`unnoise tune`."""

    run: str = option("", "run folder or its model.safetensors")
    time: str | None = option(None, "what a picture may take, e.g. 50ms or 2s (default: what it takes now)")
    n: int = option(1000, "pictures of each way that reaches the last round")
    data: str | None = option(None, "pictures to compare with (default: the run's data)")
    reference: int = option(10_000, "at most so many of them")
    features: Spec = option("efficientnet", "network that looks at the pictures, as NAME:OPTION=VALUE")
    batch: int = option(64, "pictures computed at a time; does not change the numbers")
    json: str | None = option(None, "file to write all numbers to")


@dataclass(frozen=True)
class ReportConfig:
    """`unnoise report`."""

    run: str = option("", "run folder")
    out: str | None = option(None, "the page to write (default: report.html in the run)")


@dataclass(frozen=True)
class ExportConfig:
    """`unnoise export`."""

    run: str = option("", "run folder or its model.safetensors")
    out: str | None = option(None, "new folder (default: a new one in the run)")
    to: Literal["diffusers"] = option("diffusers", "format: a DDPMPipeline folder of diffusers")


@dataclass(frozen=True)
class SampleConfig:
    """`unnoise sample`."""

    run: str = option("", "run folder or its model.safetensors")
    n: int = option(16, "number of images")
    out: str | None = option(None, "new folder for the images (default: a new one in the run)")
    sampler: Spec | None = option(None, "e.g. ddim:eta=0.5 (default: the run's own)")
    steps: int | None = option(None, "steps of the sampler (default: the run's own)")
    spacing: Spec | None = option(None, "which noise levels are visited (default: the run's own)")
    clip: bool | None = option(None, "keep predicted images in range (default: the run's own)")
    seed: int = option(0, "seed of the first image; image i has seed + i")
    label: str | None = option(None, "class by name (default: every class in turn)")
    guidance: float | None = option(None, "how strongly the class is followed: 1 is off (default: the run's own)")
    guidance_interval: str | None = option(None, "guide only at these noise-to-signal ratios, LOW-HIGH, e.g. 0.3-5")
    guide_with: str | None = option(None, "a weaker run to be guided away from, instead of the run without its class")
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "auto: bf16 where the device draws much faster by it")
    batch: int = option(64, "images computed at a time; does not change them")


@dataclass(frozen=True)
class EditConfig:
    """`unnoise edit`."""

    run: str = option("", "run folder or its model.safetensors")
    picture: str | None = option(None, "the picture that is edited")
    other: str | None = option(None, "the one it becomes, for morph")
    task: Spec = option("vary", "vary, inpaint, colorize, enlarge, deblur, interpolate or morph, as NAME:OPTION=VALUE")
    by: Spec | None = option(
        None, "how what is known is kept: replace, repaint or pigdm (default: repaint for inpaint, replace for others)"
    )
    mask: str | None = option(None, "picture that is white where inpaint fills in (default: where it is transparent)")
    n: int = option(8, "number of pictures: of variants, or on the way from one to the other")
    out: str | None = option(None, "new folder for the pictures (default: a new one in the run)")
    fit: Literal["crop", "pad", "stretch"] = option("crop", "how other proportions are fitted to those of the run")
    sampler: Spec | None = option(None, "e.g. ddim:eta=0.5 (default: the run's own)")
    steps: int | None = option(None, "steps of the sampler (default: the run's own)")
    spacing: Spec | None = option(None, "which noise levels are visited (default: the run's own)")
    clip: bool | None = option(None, "keep predicted images in range (default: the run's own)")
    seed: int = option(0, "seed of the first variant; variant i has seed + i")
    label: str | None = option(None, "class by name (default: none)")
    guidance: float | None = option(None, "how strongly the class is followed: 1 is off (default: the run's own)")
    guidance_interval: str | None = option(None, "guide only at these noise-to-signal ratios, LOW-HIGH, e.g. 0.3-5")


@dataclass(frozen=True)
class AppConfig:
    """`unnoise app`."""

    run: str = option("", "run folder or its model.safetensors")
    port: int | None = option(None, "of this machine (default: the first free one from 7860 on)")
    browser: bool = option(True, "open it in the browser")
