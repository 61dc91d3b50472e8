"""Tensors to pictures and back."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image

import unnoise
from unnoise.errors import InputError
from unnoise.images import flip, grid, save_gif, save_image, tile, to_float, to_pil

mpl.use("agg")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_pixels_survive_the_way_through_the_model_and_the_png(tmp_path, mode, channels):
    pixels = torch.randint(0, 256, (1, channels, 16, 9), dtype=torch.uint8)
    path = save_image(to_float(pixels)[0], tmp_path / "x", mode)
    image = Image.open(path)
    assert (image.mode, image.size) == (mode, (9, 16))
    np.testing.assert_array_equal(np.asarray(image).reshape(16, 9, channels), pixels[0].permute(1, 2, 0).numpy())


def test_sixteen_bits_survive(tmp_path):
    pixels = torch.arange(65536).reshape(1, 1, 256, 256).to(torch.uint16)
    image = Image.open(save_image(to_float(pixels)[0], tmp_path / "x", "I;16"))
    assert image.mode == "I;16"
    np.testing.assert_array_equal(np.asarray(image), pixels[0, 0].numpy())


def test_other_channel_counts_become_npy(tmp_path):
    x = torch.randn(5, 8, 8)
    path = save_image(x, tmp_path / "x", "")
    assert path.suffix == ".npy"
    np.testing.assert_array_equal(np.load(path), x.numpy())
    assert grid(x[None]).mode == "RGB"


def test_values_out_of_range_are_clamped_not_wrapped():
    assert np.asarray(to_pil(torch.full((1, 2, 2), 1.5))).tolist() == [[255, 255]] * 2
    assert np.asarray(to_pil(torch.full((1, 2, 2), -1.5))).tolist() == [[0, 0]] * 2


def test_grid_is_laid_out_row_by_row():
    sheet = tile(torch.stack([torch.full((1, 8, 8), value) for value in (-1.0, -0.5, 0.0, 0.5)]), columns=2, gap=0)
    assert sheet[0, ::8, ::8].tolist() == [[-1.0, -0.5], [0.0, 0.5]]


def test_show_takes_what_the_notebooks_show_takes(tmp_path):
    for images in (torch.rand(3, 3, 8, 8), [torch.rand(1, 8, 8)] * 3, torch.rand(3, 8, 8)):
        unnoise.show(images)
    unnoise.show(torch.rand(2, 3, 8, 8), ["$x_0$", "$x_1$"], to=tmp_path / "two.png")
    with Image.open(tmp_path / "two.png") as two:
        assert two.width > two.height
    assert not mpl.pyplot.get_fignums()
    with pytest.raises(InputError, match="3 titles for 2 images"):
        unnoise.show(torch.rand(2, 3, 8, 8), ["a", "b", "c"])


def test_to_float():
    eight = to_float(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1))
    sixteen = to_float(torch.tensor([0, 65535], dtype=torch.uint16).reshape(2, 1, 1, 1))
    expected = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(eight, expected, rtol=0, atol=0)
    torch.testing.assert_close(sixteen, expected, rtol=0, atol=0)


def test_flip_mirrors_these_images_and_no_others():
    x, mirrored = torch.arange(4 * 6, dtype=torch.float32).reshape(4, 1, 2, 3), torch.tensor([True, False, False, True])
    y = flip(x, mirrored)
    assert torch.equal(y[mirrored], x[mirrored].flip(-1))
    assert torch.equal(y[~mirrored], x[~mirrored])


def test_an_animation_plays_forth_and_back(tmp_path):
    save_gif([*torch.linspace(-1, 1, 5).view(5, 1, 1, 1, 1).expand(5, 1, 3, 8, 8)], tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as made:
        shades = [made.seek(i) or made.convert("L").getpixel((40, 40)) for i in range(made.n_frames)]
    assert len(shades) == 8
    assert shades[:5] == sorted(shades[:5])
    assert shades[5:] == shades[3:0:-1]
