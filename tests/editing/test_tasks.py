"""Each edit keeps the part of the image that it does not change."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import unnoise
from editing_helpers import SCHEDULE, Echo, pixels, tensor_of
from unnoise import registry
from unnoise.config import Sampling
from unnoise.diffusion.model import Diffusion
from unnoise.editing.inputs import Edit, EditInputs
from unnoise.editing.measurements import Blurred, Gray, Shrunk
from unnoise.errors import InputError
from unnoise.samplers.base import Step


@pytest.mark.parametrize("task", ["colorize", "enlarge:factor=2", "deblur:sigma=1"])
def test_measured_parts_stay(run, image_path, task):
    """The measurement of the result is the one given, as exactly as floats allow for values in range."""
    measure = {"colorize": Gray(), "enlarge:factor=2": Shrunk(2), "deblur:sigma=1": Blurred(1)}[task]
    made = unnoise.edit(run, image_path, task=task, n=2, by="replace")
    image = Image.fromarray(pixels(image_path))
    if task.startswith("colorize"):
        image = image.convert("L")
    elif task.startswith("enlarge"):
        image = image.resize((8, 8), Image.Resampling.BILINEAR)
    y = tensor_of(image)[None]
    assert_close(measure(made), measure(measure.inverse(y)).expand(2, -1, -1, -1), atol=1e-4, rtol=0)


def test_a_little_noise_leaves_the_image_and_all_of_it_makes_a_new_one(image_path):
    model = Diffusion(Echo(), SCHEDULE, registry.target.get("x0"), (3, 16, 16))
    work, given = EditInputs(model, Sampling(), "RGB", range(4), images=(image_path,)), tensor_of(pixels(image_path))
    with torch.no_grad():
        near, far = (
            ([*registry.edit.get(f"vary:strength={strength}")(work).steps][-1].x - given).abs().mean()
            for strength in (0.01, 1.0)
        )
    assert near < 0.1
    assert far > 0.3


def test_transparent_pixels_are_filled_in(run, image_path, tmp_path):
    image = Image.fromarray(pixels(image_path)).convert("RGBA")
    image.putalpha(Image.fromarray(np.where(np.arange(16) < 8, 255, 0).astype(np.uint8)[None].repeat(16, 0)))
    image.save(tmp_path / "half.png")
    made = unnoise.edit(run, tmp_path / "half.png", task="inpaint", n=1)
    original = tensor_of(pixels(image_path))
    assert_close(made[0, ..., :8], original[..., :8], atol=1e-5, rtol=0)
    assert (made[0, ..., 8:] - original[..., 8:]).abs().mean() > 0.05


def test_a_mask_may_hide_pixels_by_its_opacity(run, image_path, tmp_path):
    mask = np.zeros((16, 16, 4), np.uint8)
    mask[4:9, 6:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    made = unnoise.edit(run, image_path, mask=tmp_path / "mask.png", task="inpaint", n=1)
    changed = (made[0] - tensor_of(pixels(image_path))).abs().amax(dim=0) > 1e-4
    assert 25 <= changed.sum() <= 30
    assert not changed[:4].any()


def test_a_morph_takes_no_sampler(run, image_path):
    for settings in ({"sampler": "heun"}, {"clip": True}, {"seed": 3}):
        with pytest.raises(InputError, match="inverts and samples by ddim"):
            unnoise.edit(run, image_path, image_path, task="morph", **settings)


def test_an_edit_that_declares_nothing_is_accepted(run, image_path):
    def as_it_is(work):
        return Edit(work.image(), iter([Step(work.image(), work.image(), work.levels[-1])]))

    registry.edit.names()
    registry.edit(as_it_is)
    try:
        assert_close(unnoise.edit(run, image_path, task="as_it_is", n=1)[0], tensor_of(pixels(image_path)))
    finally:
        del registry.edit.entries["as_it_is"]
