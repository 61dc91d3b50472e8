"""Pipeline folders of the diffusers library (UNet2DModel and its scheduler), read as a model card and weights."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unnoise import registry
from unnoise.config import Sampling
from unnoise.errors import InputError, unknown
from unnoise.options import format_value
from unnoise.types import MODES

INDEX = "model_index.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}  # theirs: ours
TARGETS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "learned_range": "learned"}
MOST_CLASSES = 2**16
USUAL: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
}


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The fields of the card, and the weights by the names of our backbone `unet2d`."""
    try:
        return card_and_weights(folder)
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{folder}: its settings are damaged ({error!r:.200})") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / WEIGHTS} is not a whole safetensors file ({error})") from error


def card_and_weights(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    network, scheduler = (settings(folder / part) for part in ("unet/config.json", "scheduler/scheduler_config.json"))
    if network.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise InputError(f"{folder}: its network is a {network['_class_name']}; unnoise opens UNet2DModel")
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder} has no {WEIGHTS}; save it with save_pretrained(..., safe_serialization=True)")
    channels, size = network["in_channels"], network["sample_size"]
    if not 0 <= (classes := network.get("num_class_embeds") or 0) <= MOST_CLASSES:
        raise InputError(f"{folder}: {classes} classes are more than {MOST_CLASSES}")
    height, width = (size, size) if isinstance(size, int) else size
    about = {
        "backbone": spec_of(network),
        "schedule": schedule_of(scheduler),
        "target": one_of(TARGETS, scheduler.get("prediction_type", "epsilon"), "prediction_type"),
        "shape": (channels, height, width),
        "mode": MODES.get(channels, ""),
        "classes": tuple(map(str, range(classes))),
        "learned_variance": network["out_channels"] == 2 * channels,
        "sampling": sampling_of(scheduler),
    }
    return about, {f"net.{name}": tensor for name, tensor in load_file(folder / WEIGHTS).items()}


def settings(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))  # type: ignore[no-any-return]
    except OSError as error:
        raise InputError(
            f"{path.parent.parent} is no whole pipeline: it has no {path.parent.name}/{path.name}"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error})") from error


def spec_of(network: dict[str, Any]) -> str:
    """The network's settings as a spec of our backbone `unet2d`; those that mean nothing there are left out."""
    usual = registry.backbone.settings("unet2d")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in network.items()}
    told = [f"{name}={format_value(given[name])}" for name in usual if name in given and given[name] != usual[name]]
    return ":".join(filter(None, ["unet2d", ",".join(told)]))


def schedule_of(scheduler: dict[str, Any]) -> str:
    """The scheduler's variances as a spec of ours."""
    given = USUAL | scheduler
    if scheduler.get("trained_betas") is not None:
        return f"betas:values={format_value(tuple(scheduler['trained_betas']))}"
    name = one_of(SCHEDULES, given["beta_schedule"], "beta_schedule")
    ends = {} if name == "cosine" else {"start": given["beta_start"], "end": given["beta_end"]}
    if scheduler.get("rescale_betas_zero_snr"):
        if ends not in ({}, {"start": 1e-4, "end": 0.02}):
            raise InputError("unnoise rescales only schedules of the usual variances to zero SNR")
        return f"zero_snr:of={name},T={given['num_train_timesteps']}"
    options = {"T": given["num_train_timesteps"], **ends}
    usual = registry.schedule.settings(name)
    told = ",".join(f"{key}={value!r}" for key, value in options.items() if value != usual[key])
    return f"{name}:{told}" if told else name


def sampling_of(scheduler: dict[str, Any]) -> Sampling:
    """A pipeline of the ancestral sampler keeps it, with all its steps; others get ours."""
    clip, levels = bool(scheduler.get("clip_sample", True)), (USUAL | scheduler)["num_train_timesteps"]
    if scheduler.get("_class_name") != "DDPMScheduler":
        return Sampling(clip=clip).within(levels)
    variance = one_of(VARIANCES, scheduler.get("variance_type", "fixed_small"), "variance_type")
    return Sampling(f"ddpm:variance={variance}", levels, "trailing", clip)


def one_of(known: dict[str, str], name: str, what: str) -> str:
    if name not in known:
        raise unknown(f"{what} of the pipeline's scheduler", str(name), known)
    return known[name]
