"""Sizes as users write them, and the three ways to fit an image into a size."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from image_files import everything, noise, put
from unnoise.data.resize import check_fit, parse_size
from unnoise.errors import InputError


def test_size_is_width_by_height(root, load):
    put(root, "a.png", noise(100, 100))
    assert load(root, size="96x64").shape == (1, 64, 96)


@pytest.mark.parametrize("size", ["7", "64x4", "big", "0", "-8", "64x"])
def test_bad_size(root, load, size):
    put(root, "a.png", noise(16, 16))
    with pytest.raises(InputError, match="size"):
        load(root, size=size)


def test_unknown_fit(root, load):
    with pytest.raises(InputError, match="did you mean 'crop'"):
        load(root, fit="crp")


def circle(width, height):
    image = Image.new("L", (width, height), 128)
    ImageDraw.Draw(image).ellipse((width / 2 - 40, height / 2 - 40, width / 2 + 40, height / 2 + 40), fill=255)
    return np.asarray(image)


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("shape", [(200, 100), (100, 200)])
def test_circle_stays_round(root, load, fit, shape):
    put(root, "a.png", circle(*shape))
    data = load(root, fit=fit)
    disc = everything(data)[0, 0] > 192
    assert abs(int(disc.any(0).sum()) - int(disc.any(1).sum())) <= 1
    assert disc.any(0).sum() > 20
    note = "center-cropped 1 image" if fit == "crop" else "padded 1 image"
    assert note in data.notes


def test_stretch_squashes_and_says_so(root, load):
    put(root, "a.png", circle(200, 100))
    data = load(root, fit="stretch")
    disc = everything(data)[0, 0] > 192
    assert disc.any(1).sum() > 1.8 * disc.any(0).sum()
    assert "stretched 1 image" in data.notes


def test_pad_is_black_outside(root, load):
    put(root, "a.png", np.full((50, 100), 255, np.uint8))
    pixels = everything(load(root, size="64", fit="pad"))[0, 0]
    assert (pixels[:16] == 0).all()
    assert (pixels[16:48] == 255).all()
    assert (pixels[48:] == 0).all()


def test_crop_takes_the_centre(root, load):
    wide = np.zeros((64, 192), np.uint8)
    wide[:, 64:128] = noise(64, 64)
    put(root, "a.png", wide)
    np.testing.assert_array_equal(everything(load(root, size="64"))[0, 0], wide[:, 64:128])


def test_resize_averages_when_it_shrinks(root, load):
    checker = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    put(root, "a.png", checker)
    assert np.ptp(everything(load(root, size="16"))[0, 0, 2:-2, 2:-2].astype(int)) < 10


# From Python


@pytest.mark.parametrize(
    ("size", "shape"), [(16, (16, 16)), ("16", (16, 16)), ((24, 16), (16, 24)), ("24x16", (16, 24))]
)
def test_size_from_python(load, size, shape):
    assert load(noise(6, 12, 10, 3), size=size).shape == (3, *shape)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 7}, "size 7 is too small"),
        ({"size": 0}, "size 0 is too small"),
        ({"size": -16}, "size -16: write"),
        ({"size": (8, 4)}, r"size \(8, 4\) is too small"),
        ({"channels": 5}, "channels=5"),
        ({"channels": -1}, "channels=-1: give a whole number"),
        ({"limit": 0}, "limit=0: give a whole number"),
        ({"fit": "fill"}, "did you mean 'stretch'"),
        ({"fit": "cropp"}, "did you mean 'crop'"),
    ],
)
def test_wrong_options_give_one_line(load, options, words):
    with pytest.raises(InputError, match=words):
        load(noise(6, 12, 10, 3), **options)


@pytest.mark.parametrize("size", [16.5, True, None, (16, 16, 3), (), [8.0, 8.0], b"16", ("16", "16")])
def test_sizes_of_a_wrong_type(size):
    with pytest.raises(InputError, match=r"size .*: write 64"):
        parse_size(size)


@pytest.mark.parametrize("fit", [None, 5, ["crop"]])
def test_fits_of_a_wrong_type(fit):
    with pytest.raises(InputError, match="unknown fit"):
        check_fit(fit)
