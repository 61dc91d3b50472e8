"""Arrays of images in NumPy and IDX files, read row by row: an array never has to fit in memory."""

import gzip
import math
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from tokenize import TokenError  # how NumPy says that a header is torn
from typing import IO, Any, TypeAlias

import numpy as np

from unnoise.data.sources.classes import NoClassError, check_no_column, column_labels
from unnoise.data.sources.source import MAX_BYTES, Array, Item, Source, explain_damage, file_key
from unnoise.errors import InputError
from unnoise.options import short_repr

Open: TypeAlias = Callable[[], AbstractContextManager[IO[bytes]]]
MAX_CHANNELS = 4  # of a usual image
MAX_HEADER = 2**16  # bytes
CHUNK_BYTES = 4 * 2**20  # bytes read at a time
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
IDX_IMAGES = r"(?=.*(idx[34]|images)).*[-.](ubyte|idx)(\.gz)?$"
ARRAY_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    zlib.error,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,  # how zipfile says that a password is missing
    SyntaxError,
    TokenError,
)


@dataclass(frozen=True)
class Table:
    """Rows of numbers, in a file or in memory."""

    text: str  # how errors name the table
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    rows: Callable[[], Iterator[Array]]  # a fresh pass over the rows each call


def file_rows(path: Path, opener: Open, start: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Iterator[Array]:
    """Yield the rows of a file, a few megabytes at a time; the first row begins at byte `start`."""
    size = math.prod(shape[1:]) * dtype.itemsize
    chunk = max(1, CHUNK_BYTES // max(size, 1))
    with explain_damage(path, ARRAY_DAMAGE), opener() as file:
        file.read(start)
        for first in range(0, shape[0], chunk):
            count = min(chunk, shape[0] - first)
            data = file.read(count * size)
            if len(data) < count * size:
                raise InputError(f"{str(path)!r} is cut short: {shape[0]} rows promised")
            yield from np.frombuffer(data, dtype).reshape(count, *shape[1:])


def file_table(path: Path, opener: Open, start: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Table:
    return Table(repr(str(path)), dtype, shape, partial(file_rows, path, opener, start, dtype, shape))


def read_npy(path: Path, column: str | None = None) -> Source:
    """Read one array of images."""
    check_no_column(column, "one array has no columns")
    return table_source(numpy_table(path, lambda: path.open("rb")), None, path.stem, file_key(path))


def numpy_table(path: Path, opener: Open) -> Table:
    """Read the header of the NumPy format; objects, which would need unpickling, are refused."""
    with explain_damage(path, ARRAY_DAMAGE):
        with opener() as file:
            head = BytesIO(file.read(MAX_HEADER))  # a header that claims to be longer is cut, and refused
        version = np.lib.format.read_magic(head)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():  # NumPy tells of headers that Python 2 wrote, which are as good as others
            warnings.simplefilter("ignore")
            shape, fortran, dtype = read(head)
        if any(type(side) is not int or side < 0 for side in shape):
            raise ValueError(f"its shape is {short_repr(shape)}")
        start = head.tell()
    if dtype.hasobject:
        raise InputError(f"{str(path)!r} holds Python objects; save a plain array of numbers")
    if fortran and len(shape) > 1:
        raise InputError(f"{str(path)!r} is in Fortran order; save numpy.ascontiguousarray(x)")
    return file_table(path, opener, start, dtype, shape)


def idx_images(paths: Iterable[Path]) -> list[Path]:
    """Return the files of IDX images among these, sorted; a file that lies there packed and unpacked counts once."""
    found = {
        path.with_suffix("") if path.suffix.lower() == ".gz" else path: path for path in sorted(paths, reverse=True)
    }
    return sorted(path for path in found.values() if is_idx_images(path.name.lower()))


def is_idx_images(name: str) -> bool:
    """Return whether a file of this name holds IDX images and no labels."""
    return bool(re.search(IDX_IMAGES, name)) and "labels" not in name and not name.startswith(".")


def read_idx(path: Path, column: str | None = None) -> Source:
    """Read IDX (LeCun 1998, http://yann.lecun.com/exdb/mnist): images, and the file of labels next to them."""
    check_no_column(column, "IDX files have no columns")
    images = idx_table(path)
    plain = re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE)
    other = re.sub(r"idx[34]", "idx1", plain.replace("images", "labels"))
    beside = [path.with_name(name) for name in (other, f"{other}.gz") if other != plain]
    labels = next((near for near in beside if near.exists()), None)
    name = re.sub(r"([-.](idx\d|ubyte|idx|images))+$", "", plain) or plain
    key = file_key(path, labels) if labels else file_key(path)
    try:
        names = label_names(idx_table(labels), images.shape[0]) if labels else None
    except NoClassError as reason:
        raise InputError(f"{str(labels)!r} holds {reason}") from None
    return table_source(images, names, name, key)


def idx_table(path: Path) -> Table:
    """Read the header: two zeros, a type code, the number of axes, their sizes."""
    opener: Any = partial(gzip.open if path.suffix.lower() == ".gz" else open, path, "rb")
    with explain_damage(path, ARRAY_DAMAGE), opener() as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in IDX_TYPES or magic[3] > 4:
            raise InputError(f"{str(path)!r} is not an IDX file: it starts with {magic.hex() or 'nothing'}")
        sizes = file.read(4 * magic[3])
        shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    return file_table(path, opener, 4 + len(sizes), np.dtype(IDX_TYPES[magic[2]]), shape)


def table_source(table: Table, names: Sequence[str | None] | None, name: str, key: str) -> Source:
    """Check shape and type of a table of images, and put channels last."""
    if len(table.shape) not in (3, 4) or 0 in table.shape[1:]:
        raise InputError(
            f"{table.text} has shape {short_repr(table.shape)}; images are [n,h,w], [n,h,w,c] or [n,c,h,w]"
        )
    if len(table.shape) == 3 and table.shape[2] <= MAX_CHANNELS < table.shape[1]:
        raise InputError(f"{table.text} is one image of shape {short_repr(table.shape)}; stack all images: [n,h,w,c]")
    check_pixels(table.text, table.dtype, table.shape[1:])

    def items() -> Iterator[Item]:
        for index, row in enumerate(table.rows()):
            yield Item(f"row {index}", channels_last(row), names[index] if names else None)

    return Source(name, key, items, table.shape[0], uniform=True)


def check_pixels(text: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Raise InputError if one image of this type and shape cannot be used."""
    if math.prod(shape) * dtype.itemsize > MAX_BYTES:
        raise InputError(f"one image of {text} has shape {short_repr(shape)}, too large to be one")
    if dtype.kind not in "bfiu":
        raise InputError(f"{text} holds {dtype}; pixels are whole numbers, floats or bool")


def channels_last(image: Array) -> Array:
    """Return an image [h, w], [h, w, c] or [c, h, w] as [h, w, c]; channels are the shorter of first and last axis."""
    if image.ndim == 2:
        return image[:, :, None]
    return image.transpose(1, 2, 0) if image.shape[0] < image.shape[-1] else image


def label_names(table: Table, count: int) -> list[str | None]:
    """Return the labels of `count` images as text; raise NoClassError if the numbers are no classes."""
    if table.shape[:1] != (count,) or len(table.shape) > 2:
        raise InputError(
            f"{table.text}: {count} images but labels of shape {short_repr(table.shape)}; give one for each"
        )
    return column_labels((label.tolist() for label in table.rows()), "the array of labels")
