"""Data in memory: arrays, tensors, lists of images or paths, and datasets of torch, Hugging Face and unnoise itself."""

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from inspect import isfunction
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from unnoise.data.dataset import Dataset, own_split
from unnoise.data.sources.arrays import Table, table_source
from unnoise.data.sources.sequence import IN_MEMORY, as_array, first_few, sequence_source
from unnoise.data.sources.source import Array, Item, Source
from unnoise.errors import InputError

READ_AT_ONCE = 256  # images of an opened dataset that are read at a time


def is_in_memory(data: Any) -> bool:
    """Return whether `data` is an object that holds images, and not a path or the name of a built-in dataset."""
    return not isinstance(data, str | os.PathLike)


def memory_source(data: Any, column: str | None = None) -> Source:
    """Turn images in memory into a source; its key is a hash of the content, which takes a pass over it.

    Args:
        data: An array or tensor [n,h,w], [n,h,w,c] or [n,c,h,w] of whole numbers, floats or bool (one span for all
            images); a torch or Hugging Face dataset with a length; an unnoise `Dataset`,
            `Source`, or function that returns one; a list of paths of image files, of PIL images or of arrays, or of
            (image, label) pairs.
        column: The column of the labels, if the items of a dataset are dicts.

    Raises:
        InputError: If `data` is none of these, is empty, or mixes kinds.
    """
    if isinstance(data, Source):
        return data
    if isfunction(data) or isinstance(data, partial):  # a registered function, such as unnoise.data.faces
        return memory_source(data(), column)
    if isinstance(data, Dataset):
        return reopened_source(data)
    if isinstance(data, Image.Image):
        raise InputError("data is one PIL image; give a list of images: [image, ...]")
    if isinstance(data, Tensor) or hasattr(data, "__array__"):
        return array_source(as_array(data))
    if isinstance(data, DataLoader):
        raise InputError("data is a DataLoader; give its dataset: loader.dataset")
    if isinstance(data, dict):
        raise InputError(f"data is a dict of {first_few(data)}; give one of its values, such as data['train']")
    if isinstance(data, IterableDataset) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        kind = type(data).__name__
        raise InputError(f"data of type {kind} has no length and no data[i] to return to; give a path, or {IN_MEMORY}")
    if len(data) == 0:
        raise InputError(f"data is an empty {type(data).__name__}; give a path, or {IN_MEMORY}")
    return sequence_source(data, "images" if isinstance(data, list | tuple) else "dataset", column)


# Arrays


def array_source(array: Array) -> Source:
    if array.dtype.kind not in "bfiu":
        kinds = {"O": "Python objects", "U": "text", "S": "bytes"}
        raise InputError(f"the array holds {kinds.get(array.dtype.kind, array.dtype)}; give pixels, or a list of paths")
    if array.ndim in (3, 4) and len(array) == 0:
        raise InputError(f"the array has shape {array.shape}: it holds no images")
    table = Table("the array", array.dtype, array.shape, lambda: iter(array))
    source = table_source(table, None, "array", "")  # checks shape and type before the pass over the content
    digest = hashlib.sha256(ascii(("array", array.dtype.str, array.shape)).encode())
    for row in array:
        digest.update(np.ascontiguousarray(row).tobytes())
    return Source(source.name, digest.hexdigest(), source.items, source.count, uniform=True)


# Datasets that unnoise has opened


def reopened_source(data: Dataset) -> Source:
    """Turn an opened dataset, or a part of a dataset, back into a source."""
    rows = None if data.rows is None else data.rows.tolist()
    key = hashlib.sha256(ascii(("dataset", data.fingerprint, rows)).encode()).hexdigest()
    items = partial(read_dataset_items, data)
    spans = {"uint16": (0.0, 65535.0)}  # the whole range, also for a part of the dataset
    return Source(data.name, key, items, len(data), classes=data.classes or None, uniform=True, spans=spans)


def read_dataset_items(data: Dataset) -> Iterator[Item]:
    own = own_split(data)
    for start in range(0, len(data), READ_AT_ONCE):
        indices = np.arange(start, min(start + READ_AT_ONCE, len(data)))
        pixels, labels = data.read(indices), data.labels(indices)
        numbers = [-1] * len(indices) if labels is None else labels.tolist()
        for index, image, label in zip(indices, pixels, numbers, strict=True):
            held_out = own is not None and bool(own[index])
            name = data.classes[label] if label >= 0 else None
            yield Item(f"image {index}", image.transpose(1, 2, 0), name, held_out)
