"""Two small runs, an image, and every measurement."""

import numpy as np
import pytest
from PIL import Image

from editing_helpers import MEASUREMENTS
from tiny import train_folder


@pytest.fixture(params=MEASUREMENTS)
def measure(request):
    return MEASUREMENTS[request.param]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_folder(
        "faces:count=64",
        size="16",
        images="64",
        batch=8,
        steps=4,
        backbone="unet:widths=8,layers=1,groups=4,head=8",
        precision="fp32",
        out=str(tmp_path_factory.mktemp("edit") / "run"),
    )


@pytest.fixture
def image_path(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(path := tmp_path / "image.png")
    return path


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory):
    return train_folder("faces:count=64", size="16", images="64", batch=8, steps=4, classes=True, precision="fp32",
                         backbone="unet:widths=8,layers=1,groups=4,head=8",
                         out=str(tmp_path_factory.mktemp("edit") / "classes"))  # fmt: skip
