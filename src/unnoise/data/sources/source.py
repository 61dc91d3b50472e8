"""The `Source` of images, named items streamed in a fixed order, and the rules that all readers share."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray
from PIL import Image

from unnoise import terminal
from unnoise.data.sources.classes import is_whole, why_no_class
from unnoise.data.sources.container import container_kind
from unnoise.data.sources.remote import Place, Remote
from unnoise.errors import InputError, shorten
from unnoise.progress import Report

Array: TypeAlias = NDArray[Any]
READS = ("jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "avif", "bmp", "gif", "tif", "tiff", "jp2", "j2k")
READ_BY_PLUGINS = ("heic", "heif", "jxl")  # of Pillow; without them each file says which one to install
MAX_PIXELS = 89_478_485  # of an image; a larger one is an accident or an attack, unless the user trusts it
ITEM_BYTES = 500  # memory that an image takes in addition to its encoded bytes
MAX_BYTES = 512 * 2**20  # of one file in an archive, or one row of an array; more is an accident or an attack


class UnreadableImage(Exception):  # noqa: N818 - it is a verdict on one file, not a failure of the program
    """Raised if one file cannot be used; the message is a few words for the user."""


class Broken(bytes):
    """A stand-in for bytes that cannot be read; its own text is the reason."""


class Item(NamedTuple):
    """One image before decoding."""

    name: str  # how the user knows it: relative path, archive member, row number
    # Arrays are [h, w, c], of any numbers; a callable draws itself at (width, height).
    content: Path | bytes | Array | Image.Image | Callable[[tuple[int, int]], Image.Image]
    label: str | None = None
    held_out: bool = False  # it belongs to a split that is not trained on, such as test/ or val/


@dataclass(frozen=True)
class Group:
    """Images that lie together and are read one after another."""

    count: int
    items: Callable[[], Iterator[Item]]
    mark: str  # changes when the images do, but not when they are moved as a whole
    size: int  # approximate bytes in memory once the group is read
    held_out: bool = False  # all its images are


class Groups(NamedTuple):
    """All groups of a source, and the classes of its labels."""

    each: Sequence[Group]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A set of images that can be streamed any number of times."""

    name: str  # short name for run folders
    key: str  # changes whenever the content may have changed
    items: Callable[[], Iterator[Item]]  # a fresh pass each call
    count: int | None = None  # if known
    ignored: Mapping[str, int] = field(default_factory=dict)  # files that are not images, by suffix
    classes: tuple[str, ...] | None = None  # in the format's own order; None: the sorted labels
    groups: Callable[[Report], Groups] | None = None  # if images can be read a group at a time
    uniform: bool = False  # all images have the kind and the size of the first one
    max_pixels: int = MAX_PIXELS  # of the largest image that is read
    # (black, white) of the types of numbers whose span is known
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    origin: str = ""  # path of the files, for people
    notes: Sequence[str] = ()  # lines for the user about how the data was read; complete after a pass over the items

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", terminal.printable(storable(self.name)))  # it names a folder


def is_image(name: str) -> bool:
    return suffix_of(name)[1:] in READS + READ_BY_PLUGINS


def suffix_of(name: str) -> str:
    return PurePosixPath(name).suffix.lower() or "no suffix"


def storable(name: str) -> str:
    """Return the name of a file as text that can be stored; bytes that are no text are escaped, so names stay apart."""
    halves = any("\ud800" <= character <= "\udbff" for character in name)  # of surrogate pairs, as Windows allows
    return name.encode("utf-8", "surrogatepass" if halves else "surrogateescape").decode("utf-8", "backslashreplace")


def normal_label(label: str | None) -> str | None:
    """Return a label in Unicode form NFC, so that one name in two forms is one class."""
    return None if label is None else to_nfc(label)


def to_nfc(text: str) -> str:
    """Return a text in Unicode form NFC: one form for what looks the same."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def class_names(counts: Mapping[str | None, int], *, declared: bool = False) -> tuple[str, ...]:
    """Return the classes sorted, numbers by their value, from the number of images of each label.

    There are no classes if all labels are the same, if too many images have none, or if the labels are ids or texts,
    unless the data declares them as classes.
    """
    merged = Counter[str | None]()
    for label, n in counts.items():
        merged[normal_label(label)] += n
    unlabelled = merged.pop(None, 0)
    names = [name for name in merged if name is not None]
    if len(names) < 2 or not are_few(unlabelled, merged.values()):
        return ()
    if not declared and why_no_class(names, merged.total()):
        return ()
    whole = all(map(is_whole, names))
    return tuple(sorted(names, key=lambda name: (int(name), name) if whole else (0, name)))


def are_few(unlabelled: int, others: Collection[int]) -> bool:
    """Return whether images without a label are strays, which leave the classes as they are.

    They are strays if they are at most a tenth of all images, or fewer than the images of the smallest class.
    """
    return unlabelled * 10 <= unlabelled + sum(others) or unlabelled < min(others)


def column_key(key: str, column: str | None) -> str:
    """Return the key of a source whose label column the user has named."""
    return key if column is None else f"{key} {column}"


def file_key(*paths: Place) -> str:
    """Return a hash that changes when one of the files is replaced, edited or moved."""
    return hashlib.sha256(ascii([*map(file_stamp, paths)]).encode()).hexdigest()


def file_stamp(path: Place) -> tuple[Any, ...]:
    """Return path, size and time of a file."""
    if isinstance(path, Remote):
        with explain_damage(path, ()):
            return path.stamp
    return str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns


@contextmanager
def explain_damage(path: Place, damage: tuple[type[Exception], ...], what: str = "file") -> Iterator[None]:
    """Turn damage to a file as a whole into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not (isinstance(error, damage) or isinstance(path, Remote)):  # clients of storage raise anything
            raise
        refuse_other_kind(path)
        first = shorten((str(error).splitlines() or ["damaged"])[0].rstrip("."))
        raise InputError(f"cannot read {str(path)!r}: {first}; is the {what} complete?") from None


def refuse_other_kind(path: Place) -> None:
    """Raise InputError if a file that cannot be read is of another kind than its name says."""
    if not (isinstance(path, Path) and path.is_file()):
        return
    kind, suffix = container_kind(path), suffix_of(path.name)[1:]
    named = {"tgz": "tar", "gz": "tar", "bz2": "tar", "xz": "tar", "pq": "parquet"}.get(suffix, suffix)
    if kind and named in ("zip", "tar", "npy", "npz", "parquet", "arrow") and named not in kind:
        raise InputError(f"cannot read {str(path)!r}: by its first bytes it is {kind}; give it alone, or name it so")
