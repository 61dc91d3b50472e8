"""Built-in datasets that are downloaded."""

import sys

import pytest

from image_files import noise, write_parquet
from unnoise.errors import InputError


@pytest.mark.parametrize("name", ["celeba", "cifar10", "fashion_mnist"])
def test_downloaded_sets(tmp_path, load, monkeypatch, name):
    write_parquet(tmp_path / "snapshot" / "data" / "train-0.parquet", [noise(8, 8)])
    asked = {}

    def snapshot(repo, **options):
        asked.update(options, repo=repo)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert (load(name).name, asked["repo_type"]) == (name, "dataset")
    assert name.split("_")[0] in asked["repo"].lower()


def test_downloads_need_a_connection(load, monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(InputError, match=r"connection .*no route.* by hand .*uoft-cs/cifar10.*'faces'"):
        load("cifar10")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'unnoise\[hub\]'"):
        load("cifar10")
