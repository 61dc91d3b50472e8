"""The mode and the size that all images become."""

import numpy as np
import pytest

from image_files import encoded, everything, noise, put
from unnoise.errors import InputError


def test_most_common_mode_wins_and_the_others_are_told(root, load):
    for index in range(2):
        put(root, f"{index}.png", noise(8, 8, 3))
    put(root, "gray.png", np.full((8, 8), 77, np.uint8))
    data = load(root)
    assert data.mode == "RGB"
    assert "converted 1 gray to RGB" in data.notes
    assert (everything(data)[2] == 77).all()


def test_tie_goes_to_more_channels(root, load):
    put(root, "a.png", noise(8, 8))
    put(root, "b.png", noise(8, 8, 3))
    assert load(root).mode == "RGB"


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_channels_override(root, load, channels, mode):
    put(root, "a.png", noise(8, 8, 3))
    data = load(root, channels=channels)
    assert (data.mode, data.shape[0]) == (mode, channels)


@pytest.mark.parametrize("channels", [0, 5])
def test_impossible_channels(root, load, channels):
    put(root, "a.png", noise(8, 8, 3))
    with pytest.raises(InputError, match=f"channels={channels}"):
        load(root, channels=channels)


# Size


def test_default_size(root, load):
    put(root, "a.png", noise(40, 64))
    assert load(root).shape == (1, 40, 64)
    put(root, "b.png", noise(40, 60))
    assert load(root).shape == (1, 64, 64)


def test_the_own_size_is_kept_and_many_sizes_become_the_smallest_square(root, load):
    put(root, "a.png", noise(80, 128))
    assert load(root, size="own").shape == (1, 80, 128)
    put(root, "b.png", noise(100, 90))
    assert load(root, size="own").shape == (1, 80, 80)
    put(root, "c.png", noise(20, 20))
    assert load(root, size="own").shape == (1, 64, 64)


@pytest.mark.parametrize(("side", "own"), [((40, 40), (40, 40)), ((300, 600), (256, 512)), ((256, 256), (256, 256))])
def test_the_own_size_has_a_limit(root, load, side, own):
    put(root, "a.png", noise(*side))
    assert load(root, size="own").shape == (1, *own)


def test_large_images_become_64(root, load):
    put(root, "a.png", noise(65, 65))
    assert load(root).shape == (1, 64, 64)


def test_tiny_images_ask_for_a_size(root, load):
    put(root, "a.png", noise(4, 4))
    with pytest.raises(InputError, match="4x4"):
        load(root)
    assert "enlarged 1 small image" in load(root, size="8").notes


# Nothing to read


def test_all_unreadable(root, load):
    (root / "a.png").write_bytes(b"")
    (root / "b.png").write_text("nope")
    with pytest.raises(
        InputError, match=r"none of the 2 images .*a\.png \(empty file\), b\.png \(text, not an image\)"
    ):
        load(root)


def test_all_truncated(root, load):
    (root / "a.png").write_bytes(encoded(noise(64, 64, 3))[:4000])
    with pytest.raises(InputError, match=r"none of the 1 images .*a\.png \(truncated\)"):
        load(root)


def test_nothing_there(root, load):
    for index in range(3):
        (root / f"{index}.txt").write_text("x")
    (root / "a.mov").write_text("x")
    with pytest.raises(InputError, match=r"no images in 'photos': 0 of 4 files count \(.txt 3, .mov 1\); .*jpg, jpeg"):
        load(root)


def test_limit(root, load):
    (root / "0.png").write_bytes(b"")
    images = [noise(8, 8) for _ in range(4)]
    for index, image in enumerate(images):
        put(root, f"{index + 1}.png", image)
    data = load(root, limit=2)
    np.testing.assert_array_equal(everything(data)[:, 0], images[:2])
    with pytest.raises(InputError, match="limit=0"):
        load(root, limit=0)
