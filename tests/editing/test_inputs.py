"""The inputs of an edit from Python: models, arrays, PIL images and callables mean the same as paths and specs."""

import functools

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import unnoise
from tiny import TINY, train_folder
from unnoise.editing.inputs import open_image
from unnoise.editing.posterior import pigdm, repaint
from unnoise.editing.tasks import enlarge
from unnoise.errors import InputError
from unnoise.samplers import ddim

SHAPE = (3, 16, 16)


@pytest.fixture
def pixels(image_path):
    """The image as [h, w, c] of uint8."""
    with Image.open(image_path) as image:
        return np.asarray(image)


def as_floats(pixels):
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 127.5 - 1


def test_a_model_in_memory_is_edited_with_as_its_run_is(run, image_path):
    opened = unnoise.load(run)
    draw = functools.partial(unnoise.edit, n=2, steps=4, sampler="ddim")
    for other in (opened, opened.model, run / "model.safetensors"):
        assert torch.equal(draw(run, image_path), draw(other, image_path))


def test_an_image_is_a_path_a_pil_image_an_array_or_a_tensor(run, image_path, pixels):
    expected = unnoise.edit(run, image_path, n=1)
    with Image.open(image_path) as image:
        assert torch.equal(unnoise.edit(run, image, n=1), expected)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    for image in (str(image_path), pixels, planes, torch.from_numpy(planes), torch.tensor(pixels)):
        assert torch.equal(unnoise.edit(run, image, n=1), expected)
    for image in (as_floats(pixels), as_floats(pixels).double(), as_floats(pixels).numpy()):
        assert_close(unnoise.edit(run, image, n=1), expected, rtol=0, atol=1e-5)


def test_arrays_of_pixels_are_fitted_as_files_are(tmp_path):
    wide = np.random.default_rng(1).integers(0, 256, (20, 40), np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    for fit in ("crop", "pad", "stretch"):
        assert torch.equal(open_image(wide, SHAPE, "RGB", fit), open_image(tmp_path / "wide.png", SHAPE, "RGB", fit))
    deep = wide.astype(np.uint16) * 257
    assert_close(open_image(deep, (1, 16, 16), "I;16"), open_image(wide, (1, 16, 16), "L"), rtol=0, atol=0.01)


@pytest.mark.parametrize("kind", ["bool", "uint8", "float"])
def test_a_mask_may_be_an_array(run, image_path, pixels, kind):
    mask = np.zeros((16, 16), bool)
    mask[4:9, 6:12] = True
    given = {"bool": mask, "uint8": 255 * mask.astype(np.uint8), "float": torch.from_numpy(2.0 * mask - 1)[None]}[kind]
    made = unnoise.edit(run, image_path, mask=given, task="inpaint", n=1, steps=4)
    changed = (made[0] - as_floats(pixels)).abs().amax(dim=0) > 1e-4
    assert not changed[~torch.from_numpy(mask)].any()
    assert changed[torch.from_numpy(mask)].float().mean() > 0.8


def test_task_sampler_and_method_may_be_callables(run, image_path):
    def own(denoise, x, levels, *, randn_like):
        yield from ddim(denoise, x, levels, randn_like=randn_like)

    draw = functools.partial(unnoise.edit, run, image_path, n=1, steps=4)
    spec = draw(task="enlarge:factor=2", sampler="ddim", by="repaint:resamplings=2")
    task, by = functools.partial(enlarge, factor=2), functools.partial(repaint, resamplings=2)
    assert torch.equal(draw(task=task, sampler=ddim, by=by), spec)
    assert torch.equal(draw(task=task, sampler=own, by=by), spec)
    assert torch.equal(draw(task="deblur", sampler=own, by=pigdm), draw(task="deblur", sampler="ddim", by="pigdm"))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (torch.zeros(3, 8, 8), r"\[c, h, w\] of \(3, 16, 16\), got \(3, 8, 8\)"),
        (np.zeros((16, 16, 3)), r"got \(16, 16, 3\)"),
        (255 * torch.ones(SHAPE), r"must lie in \[-1, 1\], got values up to 255"),
        (torch.full(SHAPE, torch.nan), "got values up to nan"),
        (np.zeros((2, 16, 16, 3), np.uint8), r"an image array is \[h, w\]"),
        (np.zeros((16, 0), np.uint8), r"an image array is \[h, w\]"),
        (np.zeros(SHAPE, np.complex64), "holds complex64"),
        (7, "an image is a path, a PIL image, an array or a tensor, got int"),
        (None, "got NoneType"),
        ("missing.png", "cannot be read"),
    ],
)
def test_an_image_that_cannot_be_used_gets_one_line(run, image, said):
    with pytest.raises(InputError, match=said) as raised:
        unnoise.edit(run, image, n=1)
    assert "\n" not in str(raised.value)


def test_a_deep_image_is_read_by_the_span_of_the_run(tmp_path):
    """A run that was trained on 12 bits in 16 edits images of 12 bits, however bright one of them is."""
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16) * 16
    (tmp_path / "images").mkdir()
    for i in range(8):
        Image.fromarray(np.roll(ramp, i, 0)).save(tmp_path / f"images/{i}.png")
    run = train_folder(str(tmp_path / "images"), images="8", out=str(tmp_path / "run"), **TINY)
    Image.fromarray(ramp // 4).save(tmp_path / "dark.png")
    spans = unnoise.load(run).card.spans
    assert spans == {"uint16": (0, 4095)}
    for image in (tmp_path / "dark.png", ramp // 4, Image.fromarray(ramp // 4)):
        given = open_image(image, (1, 16, 16), "I;16", spans=spans)[0, 0]
        assert_close(given, torch.from_numpy(ramp // 4 / 4095 * 2 - 1).float(), atol=1e-4, rtol=0)
