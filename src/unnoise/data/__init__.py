"""Images in: find them, look at them, decode them once, read them back.

Importing this package fills the `dataset` registry.
"""

from unnoise.data import faces, hub
from unnoise.data.cache import open_data
from unnoise.data.dataset import Dataset
from unnoise.data.sources import Item, Source, find

__all__ = ["Dataset", "Item", "Source", "faces", "find", "hub", "open_data"]
