"""Images in: find them, read their headers, decode them once, read them back.

Importing this package fills the `dataset` registry, which `unnoise.registry.dataset` looks up by name.
"""

from unnoise.data.cache import open_data
from unnoise.data.dataset import Dataset
from unnoise.data.sources import hub
from unnoise.data.sources.faces.faces import faces
from unnoise.data.sources.find import find
from unnoise.data.sources.source import Item, Source

__all__ = ["Dataset", "Item", "Source", "faces", "find", "hub", "open_data"]
