"""Images in: find them, look at them, decode them once, read them back.

Importing this package fills the `dataset` registry.
"""

from unnoise.data.cache import open_data
from unnoise.data.dataset import Dataset
from unnoise.data.sources import hub
from unnoise.data.sources.faces import faces
from unnoise.data.sources.find import Item, Source, find

__all__ = ["Dataset", "Item", "Source", "faces", "find", "hub", "open_data"]
