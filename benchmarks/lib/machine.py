"""Describe the machine that figures were measured on."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def machine(*packages: str) -> dict[str, Any]:
    """Return processor, threads, GPU, and the versions of PyTorch and of these packages."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        found = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = found[0] if found else model
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    versions = {name: installed_version(name) for name in ("torch", *packages)}
    return {"processor": model, "threads": torch.get_num_threads(), "gpu": gpu, "versions": versions}


def device() -> str:
    """Return "cuda" if there is a GPU, otherwise "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def installed_version(package: str) -> str | None:
    """Return the version of a package, or None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
