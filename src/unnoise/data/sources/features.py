"""The names of classes that Hugging Face datasets declare, in the metadata of a file or in a JSON file next to it."""

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from unnoise.data.sources.remote import Place
from unnoise.files import parse_json

INFO_FILES = ("dataset_info.json", "dataset_infos.json")  # of save_to_disk and the cache; of older repositories
MAX_INFO_BYTES = 2**24
METADATA = b"huggingface"


def features_of(schema: Any) -> dict[str, dict[str, Any]]:
    """Return the `features` of the metadata, nothing if they are missing or have another shape."""
    try:
        return plain_features(parse_json((schema.metadata or {})[METADATA])["info"])
    except (KeyError, TypeError, ValueError):
        return {}


def declared_features(schema: Any, path: Place) -> dict[str, dict[str, Any]]:
    """Return the features in the metadata of a file, or else those in the JSON file next to it or one folder above."""
    if own := features_of(schema):
        return own
    for place in info_files(path):
        with suppress(OSError, ValueError, TypeError, KeyError):
            info = parse_file(place, place.stat().st_mtime_ns)
            every = [info] if "features" in info else [*dict(info).values()]
            found = [features for one in every if (features := plain_features(one)).keys() & {*schema.names}]
            if found and all(features == found[0] for features in found):
                return found[0]
    return {}


@lru_cache(maxsize=4)
def parse_file(path: Path, _time: int) -> Any:
    """Return the value of a JSON file; it is read once for all files next to it."""
    return parse_json(path.read_bytes())


def info_files(path: Place) -> Iterator[Path]:
    """Yield the files that may declare the features of a table."""
    if isinstance(path, Path):
        for place in (folder / name for folder in path.absolute().parents[:2] for name in INFO_FILES):
            if place.is_file() and place.stat().st_size <= MAX_INFO_BYTES:
                yield place


def plain_features(info: Any) -> dict[str, dict[str, Any]]:
    """Return the features of one dataset; raise KeyError or TypeError if there are none. Odd ones are left out."""
    features = info["features"]
    if not isinstance(features, dict):
        return {}
    plain = {key: value for key, value in features.items() if isinstance(value, dict)}
    return {key: value for key, value in plain.items() if isinstance(value.get("names") or [], list)}
