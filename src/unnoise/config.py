"""The settings of each command, one frozen dataclass each: a field is a flag, a key in YAML and a Python keyword."""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal

from unnoise.options import MAX_WHOLE, Settings, Spec, option

LENGTHS = ("budget", "images", "epochs")  # the length of a training is one of them
IMAGES_OR_RUN = "run folder, model file, or images: a folder, archive, array file or built-in dataset"
MAX_SEED = MAX_WHOLE
MAX_BATCH = 2**20


@dataclass(frozen=True)
class Sampling:
    """The sampling settings of a model; they are kept in its file."""

    sampler: Spec = "dpmpp_2m_sde"
    steps: int = 40
    spacing: Spec = "log_snr"
    clip: bool = True
    guidance: float = 1.0
    guidance_interval: str = "0-inf"

    def within(self, steps: int) -> "Sampling":
        """Return the same settings with at most this many steps."""
        return replace(self, steps=min(self.steps, steps))


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(Settings):
    """Flags of all commands that draw images; a flag that is left out means the run's own sampling settings."""

    sampler: Spec | None = option(
        None, "sampler, e.g. ddim:eta=0.5 (default: the run's own)", title="sampling settings"
    )
    steps: int | None = option(None, "steps of the sampler (default: the run's own)", least=1)
    spacing: Spec | None = option(None, "noise levels that the steps visit (default: the run's own)")
    clip: bool | None = option(None, "keep the predicted image in [-1, 1] (default: the run's own)")
    guidance: float | None = option(
        None, "how strongly the class is followed; 1 is off (default: the run's own)", least=0
    )
    guidance_interval: str | None = option(
        None, "guide only between these noise-to-signal ratios, LOW-HIGH, e.g. 0.3-5 (default: the run's own)"
    )


@dataclass(frozen=True)
class TrainConfig(Settings):
    """Settings of `unnoise train`."""

    data: Any = option(
        "faces",
        "folder, zip, tar, npy, npz, IDX or parquet file of images, tar shards, an address, or a built-in dataset",
        title="data",
        data=True,
    )
    size: str | None = option(None, "64 or WIDTHxHEIGHT (default: the size of the images up to 64, else 64)")
    channels: int | None = option(None, "1 gray, 2 gray + alpha, 3 RGB, 4 RGBA (default: as in the data)")
    fit: Literal["crop", "pad", "stretch"] = option("crop", "how images of other proportions are fitted to the size")
    limit: int | None = option(None, "use only this many images, the first ones", least=1)
    frames: Literal["first", "all"] = option("first", "frames or pages that are read of a file with several")
    max_pixels: int | None = option(
        None, "largest image that is read, in pixels, for files that you trust (default: 89 million)", least=1
    )
    stream: bool = option(
        False, "read images from the source when they are needed: for data that is too large to be kept decoded"
    )
    held_out: int | None = option(
        None,
        "images that are kept out of the training to measure the loss on; 0 is none "
        "(default: 2 %, at least 64 and at most 2,048 or a tenth)",
        least=0,
    )
    classes: bool = option(False, "learn classes: sub-folders or a label column")
    label_column: str | None = option(
        None, "column, field or array that holds the labels (default: one with a usual name, such as label)"
    )
    label_dropout: float = option(
        0.1, "share of images that are trained without their class, for guidance", least=0, most=1
    )
    flip: bool | None = option(None, "mirror images at random (default: 100 to 1,000 that look alike in a mirror)")
    augment: float | None = option(
        None,
        "probability of each of six transforms of an image, such as mirror, turn and stretch; it falls to 0 in the "
        "training. The network is conditioned on them, and samples are drawn without one; 0 is off",
        least=0,
        most=1,
    )
    budget: str | None = option(None, "wall time of the training, e.g. 90s, 10m, 2h (default: 10m)", title="length")
    images: str | None = option(None, "length in images seen, e.g. 50000 or 2M, instead of a budget")
    epochs: int | None = option(None, "length in passes over the data, instead of a budget", least=1, most=10**9)
    backbone: Spec | None = option(
        None,
        "network, as NAME:OPTION=VALUE,... (default: a U-Net, as wide as the budget can teach)",
        title="model",
    )
    schedule: Spec = option("cosine", "noise schedule")
    target: Spec = option("x0", "what the network predicts")
    init: str | None = option(None, "start from the weights and network of a run, or of a diffusers pipeline folder")
    distill: Spec | None = option(None, "distill the run of --init, e.g. progressive; see unnoise distill")
    objective: Spec = option("perceptual", "training objective", title="training")
    times: Spec = option("uniform", "noise levels that are trained on")
    references: int | None = option(
        None,
        "training images that are compared with a noisy image, for a target with less noise; 0 is off "
        "(default: up to 4,096)",
        least=0,
    )
    optimizer: Spec = option("muon", "optimizer")
    batch: int = option(32, "images in a training step", least=1, most=MAX_BATCH)
    lr: float | None = option(None, "peak learning rate (default: as the optimizer declares)", least=0)
    warmup: int = option(2000, "images over which the learning rate rises", least=0)
    decay: Literal["cosine", "none"] = option("cosine", "decay of the learning rate and of the objective's cap")
    weight_decay: float = option(0.01, "share of the weights that a step takes away, times lr", least=0)
    max_grad_norm: float = option(1.0, "gradients are scaled down to this norm; 0 is off", least=0)
    ema_halflife: float = option(50_000.0, "half-life of the average of the weights, in images; 0 is off", least=0)
    recompute: bool = option(False, "gradient checkpointing: less memory for about a third more time")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "number format of the network; auto is bf16 or fp16 on devices where it is faster"
    )
    seed: int = option(0, "seed of the weights, the order of the images and the noise", least=0, most=MAX_SEED)
    sampler: Spec = option(
        "dpmpp_2m_sde", "sampler of the last grid, and default of `unnoise sample`", title="sampling settings"
    )
    steps: int | None = option(None, "steps of the sampler (default: 40, or as many as the schedule has)", least=1)
    spacing: Spec = option("log_snr", "noise levels that the steps visit")
    clip: bool = option(True, "keep the predicted image in [-1, 1]")
    out: str | None = option(
        None, "run folder: a new one, or the folder of a run to resume (default: runs/NAME-N)", title="run"
    )
    fresh: bool = option(False, "start a new run even if the same command was stopped before; nothing is overwritten")
    allow_copies: bool = option(False, "train on even if drawn images are copies of training images")
    tracker: str | None = option(None, "log to tensorboard, trackio or wandb too, through Accelerate")


@dataclass(frozen=True)
class DataConfig(Settings):
    """Settings of `unnoise data`."""

    data: Any = option(
        "", "folder, archive, array or parquet file of images, or the name of a built-in dataset", data=True
    )
    frames: Literal["first", "all"] = option("first", "frames or pages that are read of a file with several")
    max_pixels: int | None = option(
        None, "largest image that is read, in pixels, for files that you trust (default: 89 million)", least=1
    )
    label_column: str | None = option(
        None, "column, field or array that holds the labels (default: one with a usual name, such as label)"
    )
    json: str | None = option(None, "file to write all facts to")


@dataclass(frozen=True)
class JudgingOptions(SamplingOptions):
    """Flags of the commands that judge a run, or images, by real images."""

    set: Any = option("", IMAGES_OR_RUN, title="evaluation", data=True)
    _: KW_ONLY
    size: str | None = option(None, "WIDTHxHEIGHT of both sets of images (default: their own size, up to 256)")
    features: Spec = option("efficientnet", "feature extractor, as NAME:OPTION=VALUE")
    labels: Literal["data", "even"] = option("data", "classes of drawn images: as in the training data, or in turn")
    seed: int = option(0, "seed of the first image, of the choice of images and of the noise", least=0, most=MAX_SEED)
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "number format of the network")
    batch: int = option(64, "images that are computed at a time; it does not change the numbers", least=1)
    json: str | None = option(None, "file to write all numbers to")


@dataclass(frozen=True)
class EvalConfig(JudgingOptions):
    """Settings of `unnoise eval`."""

    against: Any = option(None, "images to compare with (default: held-out images of the run)", data=True)
    metrics: str | None = option(
        None,
        "what to measure, separated by commas (default: kid,fid,precision_recall,density_coverage,colour, and "
        "memorization for a run of fewer than 1,000 training images)",
    )
    data: Any = option(None, "the same as AGAINST; for bpd the images whose bits are measured", data=True)
    n: int | None = option(None, "images of SET (default: 2000 of a run, all of a folder; 256 for bpd)", least=1)
    reference: int = option(10_000, "images to compare with, at most; they are drawn by the seed", least=50)
    second: Spec = option(
        "efficientnet:model=lite2", "another one, for a second opinion on every score; none switches it off"
    )
    check: bool = option(False, "simulate how often the intervals hold the truth, for this data and n: 1 to 2 min")
    levels: int = option(100, "bpd: noise levels of --spacing (log_snr): the bound is of their sampler", least=1)
    variance: Literal["small", "large", "learned"] | None = option(
        None, "bpd: reverse variance of the bound (default: the one with the lowest bound)"
    )
    ode: bool = option(True, "bpd: measure by the probability-flow ODE too, which takes five times as long")


@dataclass(frozen=True)
class DoctorConfig(JudgingOptions):
    """Settings of `unnoise doctor`."""

    data: Any = option(None, "real images to compare with (default: held-out images of the run)", data=True)
    n: int | None = option(None, "images of SET (default: 1000 of a run, all of a folder)", least=1)
    reference: int = option(2_000, "real images to compare with, at most; they are drawn by the seed", least=100)


@dataclass(frozen=True)
class TuneConfig(Settings):
    """Settings of `unnoise tune`."""

    run: str = option("", "run folder or model file")
    time: str | None = option(None, "time budget of one image, e.g. 50ms or 2s (default: the time it takes now)")
    n: int = option(1000, "images of each of the settings that reach the last round", least=200)
    data: Any = option(None, "images to compare with (default: held-out images of the run)", data=True)
    reference: int = option(10_000, "images to compare with, at most", least=20)
    features: Spec = option("efficientnet", "feature extractor, as NAME:OPTION=VALUE")
    batch: int = option(64, "images that are computed at a time; it does not change the numbers", least=1)
    json: str | None = option(None, "file to write all numbers to")


@dataclass(frozen=True)
class ReportConfig(Settings):
    """Settings of `unnoise report`."""

    run: str = option("", "run folder")
    out: str | None = option(None, "page to write (default: report.html in the run folder)")


@dataclass(frozen=True)
class VerifyConfig(Settings):
    """Settings of `unnoise verify`."""

    run: str = option("", "run folder")
    quick: bool = option(False, "only compare files with each other: open no data and draw no images")
    json: str | None = option(None, "file to write all checks to")


@dataclass(frozen=True)
class SampleConfig(SamplingOptions):
    """Settings of `unnoise sample`."""

    run: str = option("", "run folder or model file", title="images")
    n: int = option(16, "number of images", least=1)
    out: str | None = option(None, "new folder for the images (default: a new one in the run folder)")
    seed: int = option(0, "seed of the first image; image i has the seed + i", least=0, most=MAX_SEED)
    label: str | None = option(None, "name of the class (default: every class in turn)")
    guide_with: str | None = option(None, "guide away from this weaker run, instead of the run without its class")
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "number format of the network")
    batch: int = option(64, "images that are computed at a time; it does not change them", least=1)


@dataclass(frozen=True)
class EditConfig(SamplingOptions):
    """Settings of `unnoise edit`."""

    run: str = option("", "run folder or model file", title="edit")
    picture: str | None = option(None, "image to edit")
    other: str | None = option(None, "second image, for morph")
    task: Spec = option("vary", "the edit, see `unnoise list edits`, as NAME:OPTION=VALUE")
    by: Spec | None = option(
        None,
        "method that keeps the known part: replace, repaint or pigdm (default: repaint for inpaint, else replace)",
    )
    mask: str | None = option(
        None, "image that is white where inpaint fills in (default: where the image is transparent)"
    )
    n: int = option(8, "number of images: variants, or frames from one image to another", least=1, most=64)
    out: str | None = option(None, "new folder for the images (default: a new one in the run folder)")
    fit: Literal["crop", "pad", "stretch"] = option("crop", "how images of other proportions are fitted to the run's")
    seed: int = option(0, "seed of the first variant; variant i has the seed + i", least=0, most=MAX_SEED)
    label: str | None = option(None, "name of the class (default: none)")


@dataclass(frozen=True)
class CompareConfig(Settings):
    """Settings of `unnoise compare`."""

    runs: tuple[str, ...] = option((), "run folders")


@dataclass(frozen=True)
class InfoConfig(Settings):
    """Settings of `unnoise info`."""

    run: str = option("", "run folder or model file")


@dataclass(frozen=True)
class CacheConfig(Settings):
    """Settings of `unnoise cache`."""

    clean: bool = option(False, "remove what is stale: damaged, of an earlier version, or left by a killed process")
    older_than: float | None = option(None, "with --clean, also what was not used for this many days", least=0)
    all: bool = option(False, "with --clean, everything")


@dataclass(frozen=True)
class ListConfig(Settings):
    """Settings of `unnoise list`."""

    kind: Literal[
        "samplers",
        "edits",
        "posteriors",
        "schedules",
        "spacings",
        "targets",
        "objectives",
        "times",
        "distillations",
        "optimizers",
        "backbones",
        "features",
        "data",
        "recipes",
    ] = option("samplers", "kind of entries")


@dataclass(frozen=True)
class AppConfig(Settings):
    """Settings of `unnoise app`."""

    run: str = option("", "run folder or model file")
    port: int | None = option(None, "port (default: the first free one from 7860 on)", least=1, most=2**16 - 1)
    browser: bool = option(True, "open the page in the browser")
