"""TODO."""

import contextlib
import ctypes
import gc
import sys
import time
from pathlib import Path

import torch


def out_of_memory(error: Exception) -> bool:
    """On a GPU, or where a CPU's allocator is refused what it asks for."""
    told = "can't allocate memory" in str(error) or "out of memory" in str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or told


def release_memory() -> None:
    """What is free goes back to the system; glibc keeps it otherwise, and a peak after it could not be told."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other C libraries
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def synchronize() -> float:
    """The time when the device has done all that it was asked for."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.monotonic()


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has bf16 arithmetic; without it bf16 is emulated and slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16"))


forgotten = list[int]()  # peaks before `forget_peak`


def peak_memory() -> int:
    """Peak memory of this process in bytes: resident on the CPU, allocated on CUDA; 0 where it cannot be told."""
    return max([*forgotten, recent_peak()])


def forget_peak() -> None:
    """Let `recent_peak` begin anew, where Linux lets it."""
    forgotten.append(recent_peak())
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def recent_peak() -> int:
    """The same since `forget_peak`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError, StopIteration):  # Linux; what getrusage says there may be its parent's peak
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
