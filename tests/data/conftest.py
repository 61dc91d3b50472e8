"""A folder for images, and a cache that no other test fills."""

import pytest

from unnoise.data import open_data


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def load(tmp_path):
    def open_at(data, **options):
        return open_data(data, cache=tmp_path / "cache", **options)

    return open_at
