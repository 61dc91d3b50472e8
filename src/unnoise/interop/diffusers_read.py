"""Read a pipeline folder of the diffusers library (UNet2DModel and its scheduler) as the fields of a card and weights.

`diffusers_write` is the other direction.
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unnoise import registry
from unnoise.config import Sampling
from unnoise.errors import InputError, unknown
from unnoise.files import parse_json
from unnoise.interop.diffusers_format import (
    INDEX,
    NETWORK_DEFAULTS,
    NETWORKS,
    OLDER_NAMES,
    ONLY_IN_NETWORK,
    ONLY_IN_SCHEDULER,
    SCHEDULER,
    SCHEDULER_DEFAULTS,
    SCHEDULES,
    SHARDS,
    TARGETS,
    VARIANCES,
    VARIANTS,
    WEIGHTS,
)
from unnoise.options import format_value
from unnoise.run_folder import NETWORK, own_file, own_files
from unnoise.types import MODES

MAX_CLASSES = 2**16


def read_pipeline(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the fields of the card, and the weights by the names of our backbone `unet2d`.

    Raises:
        InputError: the folder is incomplete or damaged, or its network or scheduler has no counterpart in unnoise.
    """
    try:
        return card_and_weights(folder)
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{folder}: its settings are damaged ({error!r:.200})") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder}: {WEIGHTS} is not a complete safetensors file ({error})") from error


def card_and_weights(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the same as `read_pipeline`; errors of damaged files are raised as they come."""
    place = network_folder(folder)
    network = read_settings(folder, f"{place.name}/{NETWORK}")
    above = folder.parent  # of a checkpoint: the pipeline that its training writes
    scheduler = read_settings(folder if own_file(folder, INDEX) else above, SCHEDULER)
    if network.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise InputError(f"{folder}: its network is a {network['_class_name']}; unnoise opens UNet2DModel")
    refuse_others(folder, network, ONLY_IN_NETWORK)
    refuse_others(folder, scheduler, ONLY_IN_SCHEDULER)
    network = NETWORK_DEFAULTS | network
    channels, size = network["in_channels"], network["sample_size"]
    if not 0 <= (classes := network.get("num_class_embeds") or 0) <= MAX_CLASSES:
        raise InputError(f"{folder}: a network has 0 to {MAX_CLASSES} classes, got {classes}")
    height, width = (size, size) if isinstance(size, int) else size
    fields = {
        "backbone": backbone_spec(network),
        "schedule": schedule_spec(scheduler),
        "target": look_up(TARGETS, scheduler.get("prediction_type", "epsilon"), "prediction_type"),
        "shape": (channels, height, width),
        "mode": MODES.get(channels, ""),
        "classes": tuple(map(str, range(classes))),
        "learned_variance": network["out_channels"] == 2 * channels,
        "sampling": sampling_settings(scheduler),
    }
    return fields, read_weights(place)


def is_of_diffusers(file: Path) -> bool:
    """Return True if the file of a run stands for a folder of diffusers, which unnoise reads and never changes."""
    return file.name in (INDEX, NETWORK)


def network_folder(folder: Path) -> Path:
    """Return the folder of the network of a pipeline, or of a checkpoint, whose average is drawn from."""
    names = NETWORKS[-1:] if own_file(folder, INDEX) else NETWORKS
    return folder / next((name for name in names if own_file(folder, name, NETWORK)), NETWORKS[-1])


def refuse_others(folder: Path, settings: dict[str, Any], known: dict[str, Any]) -> None:
    """Raise InputError for a setting that would change the images and that unnoise does not have."""
    for name, value in known.items():
        if (given := settings.get(name, value)) != value:
            raise InputError(f"{folder}: its {name} is {given!r}, and unnoise knows {value!r} alone")


def read_weights(place: Path) -> dict[str, Tensor]:
    """Return the weights of the folder of a network, in float32, by the names of our backbone."""
    weights = {name: tensor for file in weight_files(place) for name, tensor in load_file(file).items()}
    return {f"net.{todays_name(name)}": tensor.float() for name, tensor in weights.items()}


def weight_files(place: Path) -> list[Path]:
    """Return the files with the weights in the folder of a network: one, several parts, or a variant such as fp16."""
    names = shards(place) if own_file(place, SHARDS) else [WEIGHTS]
    found = [file for name in names if (file := own_file(place, name))]
    if not found:
        names = [file.name for file in own_files(place.parent, place.name, VARIANTS)][:1]
        found = [place / name for name in names]
    if not found or len(found) < len(names):
        raise InputError(f"{place} has no {WEIGHTS}; save it with save_pretrained(..., safe_serialization=True)")
    return found


def shards(place: Path) -> list[str]:
    """Return the names of the files that hold the weights together."""
    names = sorted(set(read_settings(place, SHARDS)["weight_map"].values()))
    if any(Path(name).name != name for name in names):
        raise InputError(f"{place / SHARDS} names files outside of its folder")
    return names


def todays_name(name: str) -> str:
    """Return the name of a weight in UNet2DModel of today; attention had other names until diffusers 0.15."""
    parts = name.split(".")
    if "attentions" in parts and parts[-2] in OLDER_NAMES:
        parts[-2] = OLDER_NAMES[parts[-2]]
    return ".".join(parts)


def read_settings(folder: Path, name: str) -> dict[str, Any]:
    """Return the settings in one JSON file of the folder."""
    if (file := own_file(folder, name)) is None:
        raise InputError(f"{folder} is no complete pipeline: it has no {name}, or only a link out of the folder")
    try:
        return parse_json(file.read_text("utf-8"))  # type: ignore[no-any-return]
    except ValueError as error:
        raise InputError(f"{folder / name} is damaged ({error})") from error


def backbone_spec(network: dict[str, Any]) -> str:
    """Write the network's settings as a spec of our backbone `unet2d`; settings that it does not have are left out."""
    defaults = registry.backbone.settings("unet2d")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in network.items()}
    options = [
        f"{name}={format_value(given[name])}" for name in defaults if name in given and given[name] != defaults[name]
    ]
    return ":".join(filter(None, ["unet2d", ",".join(options)]))


def schedule_spec(scheduler: dict[str, Any]) -> str:
    """Write the scheduler's variances as the spec of one of our schedules."""
    given = SCHEDULER_DEFAULTS | scheduler
    if scheduler.get("trained_betas") is not None:
        return f"betas:values={format_value(tuple(scheduler['trained_betas']))}"
    name = look_up(SCHEDULES, given["beta_schedule"], "beta_schedule")
    ends = {} if name == "cosine" else {"start": given["beta_start"], "end": given["beta_end"]}
    if scheduler.get("rescale_betas_zero_snr"):
        default_ends = {end: SCHEDULER_DEFAULTS[f"beta_{end}"] for end in ("start", "end")}
        if ends not in ({}, default_ends):
            raise InputError("unnoise rescales a schedule to zero SNR only if it has the default beta_start, beta_end")
        return f"zero_snr:of={name},T={given['num_train_timesteps']}"
    values = {"T": given["num_train_timesteps"], **ends}
    defaults = registry.schedule.settings(name)
    options = ",".join(f"{key}={value!r}" for key, value in values.items() if value != defaults[key])
    return f"{name}:{options}" if options else name


def sampling_settings(scheduler: dict[str, Any]) -> Sampling:
    """Return the sampling settings: a DDPM pipeline keeps its sampler and all its steps, others get our default."""
    clip, levels = bool(scheduler.get("clip_sample", True)), (SCHEDULER_DEFAULTS | scheduler)["num_train_timesteps"]
    if scheduler.get("_class_name") != "DDPMScheduler":
        return Sampling(clip=clip).within(levels)
    variance = look_up(VARIANCES, scheduler.get("variance_type", "fixed_small"), "variance_type")
    return Sampling(f"ddpm:variance={variance}", levels, "trailing", clip)


def look_up(table: dict[str, str], name: str, setting: str) -> str:
    """Return our name for diffusers' name; raise InputError if the table does not have it."""
    if name not in table:
        raise unknown(f"{setting} of the pipeline's scheduler", str(name), table)
    return table[name]
