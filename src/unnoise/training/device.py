"""The accelerator, and the precision that pays on it."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from unnoise.config import TrainConfig


def make_accelerator(config: TrainConfig) -> Accelerator:
    precision = choose(config.precision)
    AcceleratorState._reset_state()  # else a second run in the same process could not choose another precision
    return Accelerator(mixed_precision="no" if precision == "fp32" else precision)


def choose(wanted: str) -> str:
    """bf16 where the device computes in it, fp16 on the other tensor-core cards, fp32 elsewhere; fp16 is for CUDA."""
    if wanted == "fp16" and not torch.cuda.is_available():
        return "fp32"
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        slow = "GTX 16" in torch.cuda.get_device_name()  # no tensor cores, and known for NaN in fp16
        return "fp32" if slow or torch.cuda.get_device_capability() < (7, 0) else "fp16"
    if torch.backends.mps.is_available():
        return "fp32"
    return "bf16" if computes_bf16() else "fp32"


def computes_bf16() -> bool:
    """Whether this processor has bf16 arithmetic; without it bf16 is emulated and slower than fp32."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16"))
