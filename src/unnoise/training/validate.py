"""Refuse what cannot work before anything is read or written."""

from dataclasses import fields
from typing import Literal, get_args, get_origin, get_type_hints

from unnoise import registry
from unnoise.config import TrainConfig
from unnoise.errors import InputError, unknown
from unnoise.training.length import check

AT_LEAST = {
    "batch": 1,
    "lr": 0,
    "warmup": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
    "ema_halflife": 0,
    "steps": 1,
    "seed": 0,
}


def validate(config: TrainConfig) -> None:
    hints = get_type_hints(TrainConfig)
    for name in (f.name for f in fields(config)):
        value = getattr(config, name)
        if get_origin(hints[name]) is Literal and value not in get_args(hints[name]):
            raise unknown(f"value for {name}", str(value), get_args(hints[name]))
    for name, least in AT_LEAST.items():
        if not getattr(config, name) >= least:
            raise InputError(f"--{name.replace('_', '-')} takes {least} or more, got {getattr(config, name)}")
    check(config)
    for kind in (registry.backbone, registry.target, registry.objective, registry.sampler, registry.spacing):
        kind.get(getattr(config, kind.kind))
    registry.schedule.get(config.schedule)().grid(config.steps, config.spacing)
