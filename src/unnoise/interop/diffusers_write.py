"""A run as a pipeline folder of the diffusers library. `pipeline.py` is the way back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from unnoise import registry
from unnoise.backbones.layers import Attention, Up
from unnoise.backbones.unet import UNet
from unnoise.backbones.unet2d import UNet2D
from unnoise.card import Card, Run
from unnoise.diffusion.schedule import Schedule
from unnoise.errors import InputError
from unnoise.files import new_folder
from unnoise.interop.diffusers_read import SCHEDULES, TARGETS

try:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
except ImportError:
    raise InputError("export to diffusers needs it: pip install 'unnoise[diffusers]'") from None

Pair: TypeAlias = tuple[nn.Module, nn.Module]  # ours, theirs
PARTS = {"norm1": "norm1", "conv1": "conv1", "time": "time_emb_proj", "norm2": "norm2", "conv2": "conv2"}


def to_diffusers(run: Run, out: str | None = None) -> Path:
    """Write a `DDPMPipeline` (UNet2DModel, DDPMScheduler) that draws the same pictures from the same noise.

    Networks that UNet2DModel can't be (patch above 1, transposed convolutions, other backbones), targets and schedules
    it has no name for are refused.
    """
    scheduler = DDPMScheduler(**scheduler_settings(run.card, run.model.schedule))
    network = network_of(run)
    folder = new_folder(out, run.path.parent, "diffusers")
    DDPMPipeline(network, scheduler).save_pretrained(folder)
    return folder


def scheduler_settings(card: Card, schedule: Schedule) -> dict[str, Any]:
    theirs = {ours: name for name, ours in TARGETS.items()}
    if card.target not in theirs:
        raise InputError(f"diffusers' DDPMScheduler has no target {card.target}; it knows {', '.join(theirs)}")
    if not torch.allclose(schedule.alpha.square() + schedule.sigma.square(), torch.ones(1, dtype=torch.float64)):
        raise InputError(f"diffusers' DDPMScheduler keeps the variance at 1, which schedule {card.schedule} does not")
    made, options = registry.schedule.get(card.schedule), registry.schedule.settings(card.schedule)
    name = {ours: name for name, ours in SCHEDULES.items()}.get(made.func.__name__)
    named = name is not None and set(made.keywords) <= {"T", "start", "end"}
    ends = {f"beta_{end}": options[end] for end in ("start", "end") if end in options}
    spacing = card.sampling.spacing
    return {
        "num_train_timesteps": schedule.T,
        "prediction_type": theirs[card.target],
        "variance_type": "learned_range" if card.learned_variance else "fixed_small",
        "clip_sample": card.sampling.clip,
        "timestep_spacing": spacing if spacing in ("leading", "linspace", "trailing") else "trailing",
        **({"beta_schedule": name, **ends} if named else {"trained_betas": schedule.betas.tolist()}),
    }


def network_of(run: Run) -> Any:
    """UNet2DModel with the weights of the run, on the CPU."""
    network = run.model.backbone
    if isinstance(network, UNet2D):
        return network.net
    options = registry.backbone.settings(run.card.backbone)
    if not isinstance(network, UNet) or options["patch"] != 1 or options["up"] != "nearest":
        raise InputError(f"UNet2DModel of diffusers can't be {run.card.backbone}; train unet with patch=1, up=nearest")
    if any(width % options[name] for width in options["widths"] for name in ("groups", "head")):
        raise InputError(f"UNet2DModel of diffusers wants widths that groups and head divide, not {run.card.backbone}")
    return converted(network, options, run.card)


def converted(network: UNet, options: dict[str, Any], card: Card) -> Any:
    widths = options["widths"]
    attends = [2**i in options["attention"] for i in range(len(widths))]
    c, h, w = card.shape
    theirs = UNet2DModel(
        sample_size=h if h == w else (h, w),
        in_channels=c,
        out_channels=2 * c if card.learned_variance else c,
        layers_per_block=options["layers"],
        block_out_channels=widths,
        down_block_types=["AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends],
        up_block_types=["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)],
        norm_num_groups=options["groups"],
        attention_head_dim=options["head"],
        dropout=options["dropout"],
        num_class_embeds=len(card.classes) or None,
    )
    with torch.no_grad():
        for mine, yours in pairs(network, theirs):
            yours.load_state_dict(mine.state_dict())
    return theirs.eval()


def pairs(ours: Any, theirs: Any) -> Iterator[Pair]:
    """Each layer of ours and the one of theirs that takes its weights."""
    yield ours.conv_in, theirs.conv_in
    yield ours.time.mlp[0], theirs.time_embedding.linear_1
    yield ours.time.mlp[2], theirs.time_embedding.linear_2
    if ours.label is not None:
        yield ours.label, theirs.class_embedding
    yield from along(iter(ours.down), theirs.down_blocks, "downsamplers")
    for mine, resnet, attention in zip(
        ours.middle, theirs.mid_block.resnets, [*theirs.mid_block.attentions, None], strict=True
    ):
        yield from block(mine, resnet, attention)
    yield from along(iter(ours.up), theirs.up_blocks, "upsamplers")
    yield ours.norm_out, theirs.conv_norm_out
    yield ours.conv_out, theirs.conv_out


def along(ours: Iterator[Any], theirs: Any, resample: str) -> Iterator[Pair]:
    """The way down or up: ours is one flat list."""
    for stage in theirs:
        for resnet, attention in zip(
            stage.resnets, getattr(stage, "attentions", [None] * len(stage.resnets)), strict=True
        ):
            yield from block(next(ours), resnet, attention)
        for layer in getattr(stage, resample) or ():
            mine = next(ours)
            yield (mine.conv if isinstance(mine, Up) else mine), layer.conv


def block(ours: Any, resnet: Any, attention: Any) -> Iterator[Pair]:
    for mine, yours in PARTS.items():
        yield getattr(ours.res, mine), getattr(resnet, yours)
    if resnet.conv_shortcut is not None:
        yield ours.res.skip, resnet.conv_shortcut
    if ours.attention is not None:
        yield ours.attention.norm, attention.group_norm
        yield ours.attention.out, attention.to_out[0]
        yield from zip(split(ours.attention), (attention.to_q, attention.to_k, attention.to_v), strict=True)


def split(attention: Attention) -> Iterator[nn.Linear]:
    """Queries, keys and values, which are one layer of ours."""
    whole = attention.qkv
    for weight, bias in zip(whole.weight.chunk(3), whole.bias.chunk(3), strict=True):
        part = nn.Linear(whole.in_features, len(bias))
        part.weight.copy_(weight)
        part.bias.copy_(bias)
        yield part
