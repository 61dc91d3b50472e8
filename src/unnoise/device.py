"""The device: pick one, wait for it, tell what is fast on it and when its memory is short, measure the peak."""

import contextlib
import ctypes
import gc
import os
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

CGROUP = Path("/sys/fs/cgroup")  # of Linux: what a container may take

earlier_peaks = list[int]()  # bytes; one for each call of `forget_peak`


def pick_device() -> torch.device:
    """Return the GPU of this process if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def fast_bf16(device: torch.device) -> bool:
    """Return True if bf16 is clearly faster than fp32 on a device: by its instructions alone, never by a stopwatch.

    A CPU needs AMX or AVX512-BF16; all others emulate bf16. CUDA needs bf16 in hardware. MPS was not measured: False.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(bf16_instructions())


def bf16_instructions() -> str:
    """Return the name of the fastest instructions for bf16 that this CPU has, or "" if it has none."""
    # bf16 is this many times as fast as fp32, on one core of an AMD EPYC with AVX512-BF16, for the default U-Nets of
    # 32, 48 and 64 channels at 32x32: sampling 16 images 1.54, 1.50, 1.56; sampling 64 images 1.70, 1.75, 1.66;
    # training on 64 images 1.71, 1.73, 1.76. On an Intel Xeon with AMX, sampling 16 images 1.7, and 64 images 2.2.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    names = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}
    return next((name for key, name in names.items() if capabilities.get(key)), "")


def describe_device(device: torch.device) -> str:
    """Return a device in words, such as "cpu with AMX" or "cuda:0"."""
    with_what = bf16_instructions() if device.type == "cpu" else ""
    return f"{device} with {with_what}" if with_what else str(device)


def made_with(device: torch.device) -> dict[str, str | int]:
    """Return what decides how numbers are rounded: with the same facts, a CPU computes the same numbers again."""
    return {
        "unnoise": version("unnoise"),
        "torch": str(torch.__version__),
        "device": describe_device(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """Compute in the precision of the tensors, not of the caller."""
    with torch.autocast("cpu", enabled=False), torch.autocast(pick_device().type, enabled=False):
        yield


def synchronize() -> float:
    """Wait until the device has done all its work, and return the time in seconds (time.monotonic)."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.monotonic()


def out_of_memory(error: Exception) -> bool:
    """Return True if an error says that the memory of a GPU, or of a CPU, is not enough."""
    says_so = "can't allocate memory" in str(error) or "out of memory" in str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or says_so


def release_memory() -> None:
    """Give free memory back to the system; glibc keeps it otherwise, and hides the next peak."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other C libraries
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def free_memory() -> int:
    """Return the bytes of memory that are free: of the GPU if there is one, else of the machine or its container."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError, KeyError):  # "max" is no limit; other systems have no such files
        limit, used = (int((CGROUP / name).read_text("utf-8")) for name in ("memory.max", "memory.current"))
        told = dict(line.split() for line in (CGROUP / "memory.stat").read_text("utf-8").splitlines())
        free = min(free, limit - used + int(told["inactive_file"]))  # what is cached of files can be given back
    return free


def peak_memory() -> int:
    """Return the peak memory of this process in bytes: resident on a CPU, allocated on CUDA; 0 if it is not known."""
    return max([*earlier_peaks, recent_peak()])


def forget_peak() -> None:
    """Start `recent_peak` anew, if Linux allows it."""
    earlier_peaks.append(recent_peak())
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def recent_peak() -> int:
    """Return the peak memory in bytes since the last `forget_peak`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError, StopIteration):  # Linux; its getrusage may tell the peak of the parent process
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
