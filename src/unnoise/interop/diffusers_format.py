"""The format of a pipeline folder of the diffusers library: its files, and the names that stand for ours.

Each table is written once. `diffusers_read` looks names up in it, `diffusers_write` looks them up in reverse.
"""

from typing import Any

INDEX = "model_index.json"
NETWORK = "unet/config.json"
SCHEDULER = "scheduler/scheduler_config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"

# diffusers' name: our name. If several of their names mean one of ours, the first one is written.
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
TARGETS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "learned_range": "learned"}

SPACINGS = ("leading", "linspace", "trailing")  # the same in both libraries
SCHEDULER_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
}


def names_in_diffusers(table: dict[str, str]) -> dict[str, str]:
    """Return a table in reverse: our name to diffusers' name."""
    return {ours: theirs for theirs, ours in reversed(table.items())}
