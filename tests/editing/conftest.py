"""Two small runs, an image, and every measurement."""

import numpy as np
import pytest
from PIL import Image

from editing_helpers import MEASUREMENTS
from tiny import TINY, train_folder

SHORT = {**TINY, "steps": 4}  # of sampling


@pytest.fixture(params=MEASUREMENTS)
def measure(request):
    return MEASUREMENTS[request.param]


@pytest.fixture(scope="package")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("edit") / "run"
    return train_folder("faces:count=64", size="16", images="64", out=str(out), **SHORT)


@pytest.fixture(scope="package")
def of_classes(tmp_path_factory):
    out = tmp_path_factory.mktemp("edit") / "classes"
    return train_folder("faces:count=64", size="16", images="64", classes=True, out=str(out), **SHORT)


@pytest.fixture
def image_path(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(path := tmp_path / "image.png")
    return path
