"""Lists and datasets in memory: their items are images or (image, label) pairs, reached by data[i].

Lists hold paths, PIL images or arrays; a dataset is a map-style torch dataset or a Hugging Face `datasets.Dataset`.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor, bfloat16

from unnoise.data.colour import COLOUR_KEYS
from unnoise.data.decode import array_mode, exif_orientation
from unnoise.data.numbers import type_of_array
from unnoise.data.open_image import describe_error
from unnoise.data.sources.arrays import channels_last, check_pixels
from unnoise.data.sources.classes import (
    LABEL_NAMES,
    SHOWN,
    NoClassError,
    check_no_column,
    is_whole,
    join_first,
    label_columns,
    label_text,
    named_column,
)
from unnoise.data.sources.parquet import IMAGE_NAMES, first_fitting
from unnoise.data.sources.source import Array, Broken, Item, Source, file_key, storable
from unnoise.errors import InputError
from unnoise.files import user_path

IN_MEMORY = (
    "an array or tensor [n,h,w], [n,h,w,c] or [n,c,h,w], a torch or Hugging Face dataset, "
    "or a list of paths, PIL images or arrays, each perhaps as (image, label)"
)
Value: TypeAlias = Path | bytes | Array | Image.Image  # one image of a list or dataset, before floats are scaled
Keys: TypeAlias = tuple[Any, Any]  # under which an item holds its image and its label


class Record(NamedTuple):
    """One item of a list or dataset, checked."""

    name: str
    value: Value
    label: str | None


def first_few(values: Any) -> str:
    """Return the first few values as text."""
    return join_first([repr(value) for value in islice(values, SHOWN + 1)])


def as_array(data: Any) -> Array:
    """Return a tensor, or any object with `__array__`, as a NumPy array."""
    if isinstance(data, Tensor):
        data = data.detach().cpu()
        data = data.float() if data.dtype == bfloat16 else data  # NumPy has no bfloat16
        return np.asarray(data.resolve_conj().numpy())
    return np.asarray(data)


@dataclass
class ContentScan:
    """Facts from the first pass over a list or dataset; they stay small however many images there are."""

    kind: str = ""
    dtype: np.dtype[Any] | None = None
    shape: tuple[int, ...] = ()  # of the first array, [h, w, c]
    uniform: bool = True  # all arrays have this shape
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, record: Record) -> None:
        """Check that an item is of the kind of the items before it, and add it to the digest."""
        value, kind = record.value, kind_of_value(record.value)
        if isinstance(value, Broken):
            self.digest.update(value)
            return
        if kind != (self.kind or kind):
            raise InputError(f"{record.name} is {kind}, and those before it are {self.kind}; give all of one kind")
        self.kind = kind
        self.digest.update(ascii((kind, record.label)).encode())
        if isinstance(value, np.ndarray):
            self.add_array(record.name, value)
        elif isinstance(value, Path):
            self.digest.update(file_key(value).encode())
        elif isinstance(value, Image.Image):
            palette = value.getpalette() if value.mode == "P" else None
            about = (value.mode, value.size, palette, value.info.get("transparency"), exif_orientation(value))
            about += tuple((key, value.info[key]) for key in sorted(COLOUR_KEYS & value.info.keys()))
            self.digest.update(ascii(about).encode() + value.tobytes())
        else:
            self.digest.update(value)

    def add_array(self, name: str, array: Array) -> None:
        if array.ndim not in (2, 3) or 0 in array.shape:
            raise InputError(f"{name} has shape {array.shape}; one image is [h,w], [h,w,c] or [c,h,w]")
        check_pixels(name, array.dtype, array.shape)
        if array.dtype != (self.dtype or array.dtype):
            raise InputError(f"{name} holds {array.dtype}, and those before it hold {self.dtype}; give all of one type")
        image, self.dtype = channels_last(array), array.dtype
        self.shape = self.shape or image.shape
        self.uniform = self.uniform and image.shape == self.shape
        channels, kind = {image.shape[2], self.shape[2]}, type_of_array(array.dtype)
        if len(channels) > 1 and not all(array_mode(c, kind, {}) for c in channels):
            raise InputError(f"{name} has {image.shape[2]} channels, and the first image has {self.shape[2]}")
        self.digest.update(ascii((array.dtype.str, image.shape)).encode() + np.ascontiguousarray(image).tobytes())


def sequence_source(data: Any, name: str, column: str | None = None) -> Source:
    """Turn a list or a dataset with length and data[i] into a source."""
    keys = keys_of(data, column)
    classes = classes_of(data, keys)
    records = partial(read_records, data, keys, classes)
    scan = ContentScan()
    for record in records():
        scan.add(record)
    scan.digest.update(ascii((name, classes)).encode())
    items, uniform = partial(items_of, records), scan.dtype is not None and scan.uniform
    return Source(name, scan.digest.hexdigest(), items, len(data), classes=classes, uniform=uniform)


def items_of(records: Callable[[], Iterator[Record]]) -> Iterator[Item]:
    """Yield the items; arrays become [h, w, c]."""
    for name, value, label in records():
        yield Item(name, channels_last(value) if isinstance(value, np.ndarray) else value, label)


def read_records(data: Any, keys: Keys | None, classes: Sequence[str] | None) -> Iterator[Record]:
    """Yield the items of a list or dataset in order, each checked."""
    for i in range(len(data)):
        image, label = split_item(data[i], keys, i)
        value = value_of(image, i)
        name = storable(str(value)) if isinstance(value, Path) else f"image {i}"
        yield Record(name, value, label_name(label, classes, i))


def split_item(item: Any, keys: Keys | None, i: int) -> tuple[Any, Any]:
    """Return the image and the label (None if there is none) of one item."""
    if isinstance(item, dict):
        image, label = keys or (None, None)
        if image is None or image not in item:
            raise InputError(f"item {i} has the keys {first_few(item)}; the image is expected under {IMAGE_NAMES[0]!r}")
        return item[image], item.get(label)
    if isinstance(item, tuple | list):
        if not 1 <= len(item) <= 2:
            raise InputError(f"item {i} is a {type(item).__name__} of {len(item)}; items are images or (image, label)")
        return item[0], item[1] if len(item) == 2 else None
    return item, None


def value_of(image: Any, i: int) -> Value:
    """Return one image as a path, encoded bytes, an array or a loaded PIL image."""
    if isinstance(image, dict) and {"bytes", "path"} & image.keys():  # Hugging Face's Image(decode=False)
        image = image.get("bytes") or image.get("path")
    if image is None:
        return Broken(b"no image in this item")
    if isinstance(image, Image.Image):
        return loaded(image)
    if isinstance(image, Tensor) or hasattr(image, "__array__"):
        return as_array(image)
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str | os.PathLike):
        raise InputError(f"item {i} is of type {type(image).__name__}; give {IN_MEMORY}")
    path = user_path(os.fsdecode(image))
    if not path.is_file():
        what = "a folder; give the folder alone, not in a list" if path.is_dir() else "not there"
        raise InputError(f"item {i} is the path {str(path)!r}, which is {what}")
    return path


def loaded(image: Image.Image) -> Value:
    """Decode a PIL image that was opened but not read; one that is damaged is skipped later, with the reason."""
    try:
        image.load()
    except Exception as error:  # noqa: BLE001 - a damaged file can raise anything inside a decoder
        return Broken(describe_error(error).encode())
    return image


def label_name(label: Any, classes: Sequence[str] | None, i: int) -> str | None:
    """Return the class of a label: text as it is, a whole number by its name if classes have names; -1 is none."""
    if label is None or isinstance(label, str):
        return label
    if isinstance(label, Tensor | np.ndarray) and math.prod(label.shape) == 1:
        label = label.item()
    label = whole_label(label)
    if not isinstance(label, Integral | np.bool_):
        what = f"shape {tuple(label.shape)}" if hasattr(label, "shape") else f"type {type(label).__name__}"
        raise InputError(f"item {i} has a label of {what}; labels are whole numbers (-1 for none), text or None")
    number = int(label)
    if number < 0:
        return None
    if classes is None:
        return str(number)
    if number >= len(classes):
        raise InputError(f"item {i} has label {number}, and there are {len(classes)} classes: {first_few(classes)}")
    return classes[number]


def whole_label(label: Any) -> Any:
    """Return the number of a label that is a whole float or a one-hot vector; other labels as they are."""
    if isinstance(label, float | np.floating | list | tuple | Tensor | np.ndarray):
        values = label.tolist() if isinstance(label, Tensor | np.ndarray) else label
        try:
            text = label_text(values)
        except NoClassError:
            return label
        return int(text) if text is not None and is_whole(text) else label
    return label


def kind_of_value(value: Value) -> str:
    if isinstance(value, Path):
        return "a path"
    if isinstance(value, np.ndarray):
        return "an array"
    return "a PIL image" if isinstance(value, Image.Image) else "encoded bytes"


def keys_of(data: Any, column: str | None = None) -> Keys | None:
    """Return the keys of image and label of items that are dicts; Hugging Face datasets declare them."""
    features = getattr(data, "features", None)
    if isinstance(features, dict):
        typed = {name: type(feature).__name__ for name, feature in features.items()}
        image = first_fitting(list(typed), IMAGE_NAMES, lambda name: typed[name] == "Image")
        image = image or next((name for name in IMAGE_NAMES if name in typed), None)
        if image is None:
            raise InputError(f"no column of images in the dataset; its columns are {', '.join(typed)}")
        named = [name for name, kind in typed.items() if kind == "ClassLabel"]
        if column is not None:
            return image, named_column([name for name in typed if name != image], column, "the dataset")
        return image, first_fitting(named, LABEL_NAMES, lambda _: True) or next(iter(label_columns(typed)), None)
    item = data[0]
    if not isinstance(item, dict):
        check_no_column(column, "the items are no dicts")
        return None
    image = usual_name(IMAGE_NAMES, item)
    if column is not None:
        return image, named_column([name for name in map(str, item) if name != image], column, "the items")
    return image, next(iter(label_columns(filter_texts(item))), None)


def filter_texts(keys: Any) -> list[str]:
    return [key for key in keys if isinstance(key, str)]


def usual_name(names: Sequence[str], among: Any) -> str | None:
    return next((name for name in names if name in among), None)


def classes_of(data: Any, keys: Keys | None) -> tuple[str, ...] | None:
    """Return the names of the classes that a dataset declares: ClassLabel of Hugging Face, `classes` of torchvision."""
    features, names = getattr(data, "features", None), getattr(data, "classes", None)
    if isinstance(features, dict):
        names = getattr(features.get(keys[1] if keys else None), "names", None)
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if len({*names}) == len(names) else None
