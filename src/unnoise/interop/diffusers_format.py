"""The format of a pipeline folder of the diffusers library: its files, and the names that stand for ours.

Each table is written once. `diffusers_read` looks names up in it, `diffusers_write` looks them up in reverse.
"""

from typing import Any

INDEX = "model_index.json"
NETWORKS = ("unet_ema", "unet")  # folders of the network; a checkpoint of a training has both, and no index
SCHEDULER = "scheduler/scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SHARDS = f"{WEIGHTS}.index.json"  # says which file has which weights, if there are several
VARIANTS = "diffusion_pytorch_model.*.safetensors"  # such as fp16

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


# What UNet2DModel and the schedulers take if a file does not say it; other values than these are not known to unnoise.
NETWORK_DEFAULTS: dict[str, Any] = {
    "block_out_channels": (224, 448, 672, 896),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
ONLY_IN_NETWORK: dict[str, Any] = {
    "class_embed_type": None,
    "time_embedding_dim": None,
    "mid_block_type": "UNetMidBlock2D",
    "attn_norm_num_groups": None,
    "num_train_timesteps": None,
}
ONLY_IN_SCHEDULER: dict[str, Any] = {"thresholding": False, "clip_sample_range": 1.0}
OLDER_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # layers of an attention


def names_in_diffusers(table: dict[str, str]) -> dict[str, str]:
    """Return a table in reverse: our name to diffusers' name."""
    return {ours: theirs for theirs, ours in reversed(table.items())}
