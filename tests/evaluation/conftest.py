"""A trained run and sets of images around it, and feature extractors with random weights."""

import sys
from importlib.util import find_spec
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image

from tiny import TINY, smooth, train_folder
from unnoise import registry


@pytest.fixture(scope="session")
def world_folder(tmp_path_factory):
    """Write a run, and images: the training images, similar ones, other sizes and channels, few, and all the same."""
    folder = tmp_path_factory.mktemp("evaluation")
    image_sets = {
        "train": smooth(80, 16, 0),
        "like": smooth(200, 16, 1),
        "large": smooth(60, 24, 2),
        "gray": smooth(60, 16, 3, 1),
        "few": smooth(10, 16, 4),
        "constant": np.full((60, 16, 16, 3), 90, np.uint8),
    }
    for name, images in image_sets.items():
        (folder / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image.squeeze()).save(folder / name / f"{i:03d}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(folder / "cache"))
        train_folder(folder / "train", images="800", out=str(folder / "run"), **TINY)
    return folder


@pytest.fixture
def world(world_folder, monkeypatch):
    """Return the folder of the run and the images; its cache is in use."""
    monkeypatch.setenv("UNNOISE_CACHE", str(world_folder / "cache"))
    return world_folder


@pytest.fixture(scope="session")
def extractor():
    """Return EfficientNet as it is used by default."""
    return registry.features.get("efficientnet")()


@pytest.fixture
def fidelity(monkeypatch):
    """The metrics of torch-fidelity; they need no torchvision, which it imports anyway."""
    if find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed; scripts/gate installs it")
    for name in ("", ".datasets", ".transforms", ".transforms.functional"):
        monkeypatch.setitem(sys.modules, f"torchvision{name}", MagicMock())
    from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

    return {"fid": metric_fid, "kid": metric_kid, "prc": metric_prc, "isc": metric_isc}


@pytest.fixture
def dino(tmp_path):
    """A small DINOv2 with random weights, as transformers writes it."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28)
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "dino")
    return tmp_path / "dino"
