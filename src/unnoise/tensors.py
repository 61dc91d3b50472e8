"""Checked safetensors files: tensors, one JSON text and a checksum of both."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unnoise.errors import InputError
from unnoise.files import replacing
from unnoise.run_folder import MODEL


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Any, before: Path | None = None) -> None:
    """Write tensors with one JSON text of metadata and a checksum of everything, and read the file again.

    A file that is at `path` is replaced, or kept as `before`.
    """
    check_name(path)
    flat, text = unshared(tensors), json.dumps(about)
    with replacing(path, before) as temporary:
        try:
            save_file(flat, temporary, {"unnoise": text, "sha256": checksum(text, flat)})
        except SafetensorError as error:
            raise InputError(
                f"cannot write {path} ({error}); is the disk full? What was saved before is whole"
            ) from error
        read_tensors(temporary)


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU, copied if two share memory, as tied weights do: safetensors refuses those."""
    flat, seen = dict[str, Tensor](), set[int]()
    for name, tensor in tensors.items():
        flat[name] = tensor.detach().cpu().contiguous()
        place = flat[name].untyped_storage().data_ptr()
        if place in seen:
            flat[name] = flat[name].clone()
        seen.add(place)
    return flat


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the metadata, and of the name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the metadata and the tensors of a file that `save_tensors` wrote.

    Raises:
        InputError: The file is damaged, or was not written by `save_tensors`.
    """
    check_name(path)
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if "unnoise" not in about:
                raise InputError(
                    f"{path} holds weights but not what network they belong to; unnoise opens its own {MODEL}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError) as error:  # RuntimeError: the file cannot be opened
        if isinstance(error, SafetensorError) and is_pickle(path):
            raise InputError(
                f"{path} is a Python pickle (a .pt or .ckpt file), which can run code when opened; unnoise reads only "
                f"safetensors: give a run folder or its {MODEL}"
            ) from error
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); give a run folder or its {MODEL}"
        ) from error
    if about.get("sha256", wanted := checksum(about["unnoise"], tensors)) != wanted:
        raise InputError(f"{path} is damaged: its checksum has changed since it was written")
    return about["unnoise"], tensors


def check_name(path: Path) -> None:
    """Raise InputError for a name that safetensors cannot open: its bytes are no text in UTF-8."""
    try:
        os.fsencode(path).decode("utf-8")
    except ValueError as error:
        raise InputError(f"{path}: the name is not in UTF-8, as model files need; give another one") from error


def is_pickle(path: Path) -> bool:
    """Return True if a file begins as Python pickles do."""
    with path.open("rb") as file:
        start = file.read(9)
    safetensors = start[8:] == b"{"  # after a length of eight bytes, which may begin as a pickle does
    return not safetensors and (start[:2] == b"PK" or start[:1] == b"\x80")
