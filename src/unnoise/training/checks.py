"""Refuse settings that cannot work, before anything is read or written."""

import copy
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Generator, Tensor, nn

from unnoise import registry
from unnoise.config import Sampling, TrainConfig
from unnoise.diffusion import target
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import add_noise
from unnoise.diffusion.schedule import Schedule
from unnoise.errors import InputError
from unnoise.evaluation.judges import DURING_TRAINING
from unnoise.options import Spec, name_of_today
from unnoise.samplers.draw import check_settings
from unnoise.training.augmentation import NUMBERS
from unnoise.training.clock import Clock
from unnoise.training.optimizers import make_optimizer
from unnoise.training.tracker import check_tracker
from unnoise.types import RGBA, Images, Labels, Output, PerImage

Condition: TypeAlias = tuple[Tensor | None, ...]
WITHOUT_FEATURES = "capped_v:gamma=2.5,first=20,white=0.15"  # the default objective without its perceptual term


def check_config(config: TrainConfig) -> None:
    """Raise InputError for settings that are unknown or cannot work together; their values were checked before."""
    Clock.from_config(config, count=1)
    for kind in (registry.target, registry.objective, registry.sampler, registry.spacing):
        kind.get(getattr(config, kind.kind))
    if config.backbone is not None:
        registry.backbone.get(config.backbone)
    make_optimizer(config)(nn.Linear(1, 1))
    schedule = registry.schedule.get(config.schedule)()
    registry.times.get(config.times)(schedule)
    if config.distill is not None:
        check_distillation(config)
    target.check_target(registry.target.get(config.target), schedule)
    check_settings(sampling_settings(config), schedule, learned_variance(config.objective))
    if config.tracker is not None:
        check_tracker(config.tracker)
    check_objective(config, schedule)


def check_distillation(config: TrainConfig) -> None:
    """Raise InputError if a student cannot be trained with settings that have --distill."""
    registry.distillation.get(config.distill or "")
    if not config.init:
        raise InputError("--distill learns from a run: name it by --init RUN, or use unnoise distill RUN")
    if config.steps is None or registry.sampler.text(config.sampler) != "ddim":
        raise InputError("--distill teaches steps of ddim: give --sampler ddim and their number, such as --steps 4")


def sampling_settings(config: TrainConfig) -> Sampling:
    """Return how the run will be sampled; the default number of steps is at most the levels of the schedule."""
    settings = Sampling(config.sampler, spacing=config.spacing, clip=config.clip)
    if config.steps is None:
        return settings.within(registry.schedule.get(config.schedule)().T)
    return replace(settings, steps=config.steps)


def check_objective(config: TrainConfig, schedule: Schedule) -> None:
    """Raise InputError if an objective is infinite at some level, or if one level would crowd out all others."""
    name = registry.objective.text(config.objective)
    if registry.objective.get(config.objective).func not in registry.objective.entries.values():
        return  # the user's own objective may ask more of a network than Zero can answer
    aim, t = registry.target.get(config.target), torch.arange(schedule.T)
    model = Diffusion(Zero(outputs=1 + learned_variance(config.objective)), schedule, aim, (1, 1, 1))
    image, levels = torch.full((schedule.T, 1, 1, 1), 0.5), (schedule.level(t), schedule.level(t - 1))
    losses = registry.objective.get(config.objective)(model, add_noise(image, torch.ones_like(image), levels))
    if not losses.isfinite().all():
        raise InputError(
            f"--objective {name} is infinite at level {int(losses.isfinite().logical_not().nonzero()[-1])} "
            f"of --schedule {registry.schedule.text(config.schedule)}, which leaves nothing of the image; choose "
            f"another of the two"
        )
    if registry.target.text(config.target) == "eps" and name_of_today(name).startswith(("capped_v", "perceptual")):
        raise InputError(
            f"--target eps with --objective {name}: measured on eps its weight grows without bound at the noisiest "
            "levels; use --objective simple, or min_snr_gamma, which is the weight of Hang et al. 2023"
        )


@torch.no_grad()
def ignores(network: nn.Module, shape: tuple[int, int, int], one: Condition, other: Condition) -> bool:
    """Return True if a network of any weights gives the same for two conditions, which follow (x, time) in its call.

    So does a U-Net whose norms have one channel in each group: they remove all that the embedding adds.
    """
    probe, random = copy.deepcopy(network).float().cpu().eval(), Generator().manual_seed(0)
    for p in probe.parameters():
        p.normal_(std=0.1, generator=random)
    x, time = torch.randn(1, *shape, generator=random), torch.full((1,), 100.0)
    first, second = (probe(x, time, *condition) for condition in (one, other))
    return bool((first - second).abs().max() <= 1e-5 * first.abs().max())


def check_conditions(model: Diffusion, name: str, *, transformed: bool) -> list[str]:
    """Return a warning if the network ignores its classes; raise InputError if it ignores transforms."""
    shape, hint = model.shape, "; a unet with one channel in each group does so: choose fewer groups, such as groups=4"
    if transformed:
        one, other = torch.zeros(1, NUMBERS), torch.ones(1, NUMBERS)
        if ignores(model.backbone, shape, (None, one), (None, other)):
            raise InputError(f"--augment: {name} ignores transforms{hint}")
    if model.classes and ignores(model.backbone, shape, (torch.tensor([0]),), (torch.tensor([-1]),)):
        return [f"warning: {name} ignores the classes{hint}"]
    return []


def suited_to(channels: int, config: TrainConfig) -> TrainConfig:
    """Return the settings with an objective for these channels: the default compares images of up to 4."""
    if channels <= RGBA or registry.objective.text(config.objective) != TrainConfig.objective:
        return config
    return replace(config, objective=WITHOUT_FEATURES)


def describe_objective(config: TrainConfig, channels: int) -> list[str]:
    """Return a line if the images, or the network of --init, asked for another objective than the default one."""
    objective = registry.objective.text(config.objective)
    if DURING_TRAINING in pretrained_networks(config.objective):
        return [f"KID       is not measured during this training: the objective uses its judge, {DURING_TRAINING}"]
    if config.init and registry.target.text(config.target) == "eps":
        return [f"objective {objective}, since the network predicts eps"]
    if channels > RGBA and objective == WITHOUT_FEATURES:
        return [f"objective {objective}, since the default is for images of up to {RGBA} channels"]
    return []


class Zero(nn.Module):
    """A network that returns zeros."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Images, time: PerImage, label: Labels | None = None) -> Output:  # noqa: ARG002
        return x.new_zeros(len(x), self.outputs, *x.shape[2:])


def learned_variance(objective: Spec) -> bool:
    """Return True if an objective declares that it teaches the network a variance too."""
    return bool(registry.objective.declared(objective).get("learned_variance"))


def pretrained_networks(objective: Spec) -> list[str]:
    """Return the pretrained networks that an objective uses: they cannot judge the images."""
    if not registry.objective.declared(objective).get("pretrained"):
        return []
    network = registry.objective.settings(objective).get("network")
    return [f"efficientnet-{network}" if network else registry.objective.text(objective)]
