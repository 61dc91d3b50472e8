"""Write a run as a pipeline folder of the diffusers library. `diffusers_read` is the other direction."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
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
from unnoise.files import new_folder, replacing
from unnoise.interop.diffusers_format import SCHEDULES, SPACINGS, TARGETS, VARIANCES, names_in_diffusers

try:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
except ImportError:
    raise InputError("the export to diffusers needs the library: pip install 'unnoise[diffusers]'") from None

Pair: TypeAlias = tuple[nn.Module, nn.Module]  # a layer of ours, the layer of diffusers that takes its weights
EXAMPLE = "draw.py"
RESIDUAL_LAYERS = {"norm1": "norm1", "conv1": "conv1", "time": "time_emb_proj", "norm2": "norm2", "conv2": "conv2"}


def to_diffusers(run: Run, out: str | None = None) -> Path:
    """Write a `DDPMPipeline` (UNet2DModel, DDPMScheduler) that draws the same images from the same noise.

    A `DDPMPipeline` takes no class. So the folder of a run with classes has a script, draw.py, that draws them.

    Args:
        run: the trained model.
        out: the folder to write; by default a new folder beside the model file.

    Returns:
        The folder.

    Raises:
        InputError: UNet2DModel cannot be this network (patch above 1, transposed convolutions, a direct map, another
            backbone), or DDPMScheduler has no such target or schedule.
    """
    scheduler = DDPMScheduler(**scheduler_settings(run.card, run.model.schedule))
    network = to_unet2d(run)
    folder = new_folder(out, run.folder, "diffusers")
    DDPMPipeline(network, scheduler).save_pretrained(folder)
    if run.card.classes:  # the pipeline takes no class
        with replacing(folder / EXAMPLE) as temporary:
            temporary.write_bytes((files("unnoise.interop") / "diffusers_example.py").read_bytes())
    return folder


def scheduler_settings(card: Card, schedule: Schedule) -> dict[str, Any]:
    """Return the settings of a DDPMScheduler with the schedule, target and variance of the card."""
    targets, variances = names_in_diffusers(TARGETS), names_in_diffusers(VARIANCES)
    if card.target not in targets:
        raise InputError(f"diffusers' DDPMScheduler has no target {card.target}; it knows {', '.join(targets)}")
    if not torch.allclose(schedule.alpha.square() + schedule.sigma.square(), torch.ones(1, dtype=torch.float64)):
        raise InputError(f"diffusers' DDPMScheduler keeps the variance at 1; schedule {card.schedule} does not")
    spacing = card.sampling.spacing
    return {
        "num_train_timesteps": schedule.T,
        "prediction_type": targets[card.target],
        "variance_type": variances["learned" if card.learned_variance else "small"],
        "clip_sample": card.sampling.clip,
        "timestep_spacing": spacing if spacing in SPACINGS else "trailing",
        **beta_settings(card, schedule),
    }


def beta_settings(card: Card, schedule: Schedule) -> dict[str, Any]:
    """Return the variances by the name that diffusers has for them, else as a list of values."""
    made, options = registry.schedule.get(card.schedule), registry.schedule.settings(card.schedule)
    name = names_in_diffusers(SCHEDULES).get(made.func.__name__)
    if name is None or not set(made.keywords) <= {"T", "start", "end"}:
        return {"trained_betas": schedule.betas.tolist()}
    return {"beta_schedule": name, **{f"beta_{end}": options[end] for end in ("start", "end") if end in options}}


def to_unet2d(run: Run) -> Any:
    """Return a UNet2DModel on the CPU with the weights of the run."""
    network = run.model.backbone
    if isinstance(network, UNet2D):
        return network.net
    options = registry.backbone.settings(run.card.backbone)
    if not isinstance(network, UNet) or options["patch"] != 1 or options["up"] != "nearest" or options["direct"]:
        raise InputError(
            f"diffusers' UNet2DModel cannot be {run.card.backbone}; train a unet with patch=1, up=nearest, direct=false"
        )
    if any(width % options[name] for width in options["widths"] for name in ("groups", "head")):
        raise InputError(f"diffusers' UNet2DModel needs widths that groups and head divide, got {run.card.backbone}")
    return convert_unet(network, options, run.card)


def convert_unet(network: UNet, options: Mapping[str, Any], card: Card) -> Any:
    """Return a UNet2DModel with the same weights; `options` are the options of our U-Net."""
    widths = options["widths"]
    attends = [2**i in options["attention"] for i in range(len(widths))]
    c, h, w = card.shape
    converted = UNet2DModel(
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
        for ours, theirs in layer_pairs(network, converted):
            theirs.load_state_dict(ours.state_dict())
    return converted.eval()


def layer_pairs(ours: Any, theirs: Any) -> Iterator[Pair]:
    """Yield each layer of our U-Net and the layer of UNet2DModel that takes its weights."""
    yield ours.conv_in, theirs.conv_in
    yield ours.time.mlp[0], theirs.time_embedding.linear_1
    yield ours.time.mlp[2], theirs.time_embedding.linear_2
    if ours.label is not None:
        yield ours.label, theirs.class_embedding
    yield from stage_pairs(iter(ours.down), theirs.down_blocks, "downsamplers")
    attentions = [*theirs.mid_block.attentions, None]
    for block, resnet, attention in zip(ours.middle, theirs.mid_block.resnets, attentions, strict=True):
        yield from block_pairs(block, resnet, attention)
    yield from stage_pairs(iter(ours.up), theirs.up_blocks, "upsamplers")
    yield ours.norm_out, theirs.conv_norm_out
    yield ours.conv_out, theirs.conv_out


def stage_pairs(ours: Iterator[Any], theirs: Any, resample: str) -> Iterator[Pair]:
    """Yield the pairs of the way down or up; our layers are one flat list, in diffusers they are nested by stage."""
    for stage in theirs:
        attentions = getattr(stage, "attentions", [None] * len(stage.resnets))
        for resnet, attention in zip(stage.resnets, attentions, strict=True):
            yield from block_pairs(next(ours), resnet, attention)
        for layer in getattr(stage, resample) or ():
            resampler = next(ours)
            yield (resampler.conv if isinstance(resampler, Up) else resampler), layer.conv


def block_pairs(ours: Any, resnet: Any, attention: Any) -> Iterator[Pair]:
    """Yield the pairs of one residual block and its attention."""
    for name, theirs in RESIDUAL_LAYERS.items():
        yield getattr(ours.res, name), getattr(resnet, theirs)
    if resnet.conv_shortcut is not None:
        yield ours.res.skip, resnet.conv_shortcut
    if ours.attention is not None:
        yield ours.attention.norm, attention.group_norm
        yield ours.attention.out, attention.to_out[0]
        yield from zip(split_qkv(ours.attention), (attention.to_q, attention.to_k, attention.to_v), strict=True)


def split_qkv(attention: Attention) -> Iterator[nn.Linear]:
    """Yield the queries, keys and values as three layers; they are one layer of ours."""
    fused = attention.qkv
    for weight, bias in zip(fused.weight.chunk(3), fused.bias.chunk(3), strict=True):
        part = nn.Linear(fused.in_features, len(bias))
        part.weight.copy_(weight)
        part.bias.copy_(bias)
        yield part
