"""Refuse what cannot work before anything is read or written."""

from dataclasses import replace

import torch
from torch import nn

from unnoise import registry
from unnoise.config import Sampling, TrainConfig
from unnoise.diffusion import target
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import add_noise
from unnoise.diffusion.schedule import Schedule
from unnoise.errors import InputError
from unnoise.options import Spec
from unnoise.samplers.draw import check_settings
from unnoise.training import tracker as follower
from unnoise.training.clock import Clock
from unnoise.training.optimizers import as_configured
from unnoise.types import Images, Labels, Output, PerImage


def validate(config: TrainConfig) -> None:
    Clock.of(config, count=1)
    for kind in (registry.target, registry.objective, registry.sampler, registry.spacing):
        kind.get(getattr(config, kind.kind))
    if config.backbone is not None:
        registry.backbone.get(config.backbone)
    as_configured(config)(nn.Linear(1, 1))
    schedule = registry.schedule.get(config.schedule)()
    registry.times.get(config.times)(schedule)
    target.check(registry.target.get(config.target), schedule)
    check_settings(way_of(config), schedule, learned_variance(config.objective))
    if not 0 <= config.label_dropout <= 1:
        raise InputError(f"--label-dropout is a share, 0 to 1, got {config.label_dropout:g}")
    if config.tracker is not None:
        follower.check_tracker(config.tracker)
    check_objective(config, schedule)


def way_of(config: TrainConfig) -> Sampling:
    """How the run will be sampled: in the default's steps, or in all levels of the schedule, where none are named."""
    how = Sampling(config.sampler, spacing=config.spacing, clip=config.clip)
    if config.steps is None:
        return how.within(registry.schedule.get(config.schedule)().T)
    return replace(how, steps=config.steps)


def check_objective(config: TrainConfig, schedule: Schedule) -> None:
    """Refuse an objective that has no finite value at some level, or that crowds out all others."""
    aim, t = registry.target.get(config.target), torch.arange(schedule.T)
    model = Diffusion(Silent(outputs=1 + learned_variance(config.objective)), schedule, aim, (1, 1, 1))
    image, levels = torch.full((schedule.T, 1, 1, 1), 0.5), (schedule.level(t), schedule.level(t - 1))
    name, target_name = registry.objective.text(config.objective), registry.target.text(config.target)
    losses = registry.objective.get(config.objective)(model, add_noise(image, torch.ones_like(image), levels))
    if not losses.isfinite().all():
        raise InputError(
            f"--objective {name} is infinite at level {int(losses.isfinite().logical_not().nonzero()[-1])} of "
            f"--schedule {registry.schedule.text(config.schedule)}, which leaves nothing of the image; "
            f"choose another of the two"
        )
    if target_name == "eps" and name.startswith("min_snr"):
        raise InputError(
            "--target eps with --objective min_snr: measured on eps its weight grows without bound at the noisiest "
            "levels; use --objective simple"
        )


class Silent(nn.Module):
    """A network that says nothing."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Images, time: PerImage, label: Labels | None = None) -> Output:  # noqa: ARG002
        return x.new_zeros(len(x), self.outputs, *x.shape[2:])


def learned_variance(objective: Spec) -> bool:
    """Whether the objective teaches the network a variance too, as it declares."""
    return bool(registry.objective.declared(objective).get("learned_variance"))
