"""What the app computes, without its page."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import unnoise
from unnoise.app import actions
from unnoise.checkpoint import load
from unnoise.errors import InputError


def test_the_last_frame_has_the_images_of_unnoise_sample(run):
    opened = load(run)
    *_, last = actions.sample_frames(opened, {"n": 3, "seed": 5, "steps": 4})
    assert (last.done, last.steps) == (4, 4)
    assert_close(last.x, unnoise.sample(run, 3, seed=5, steps=4))


def test_a_blend_begins_at_the_images_of_the_seeds(student):
    opened, settings = load(student), {"n": 3, "seed": 5}
    *_, last = actions.edit_frames(opened, {**settings, "task": "blend:share=0"})[1]
    assert_close(last.x, unnoise.sample(student, 3, seed=5, precision="fp32"), atol=1e-4, rtol=0)


def test_all_samplers_start_from_the_same_noise(run):
    frames = actions.compare_samplers(load(run), ["ddim", "dpmpp_1s"], {"n": 2, "seed": 0, "steps": 4})
    rows = [frame for frame in frames if frame.done]
    assert [row.sampler for row in rows] == ["ddim", "dpmpp_1s"]
    assert_close(rows[0].images, rows[1].images, atol=1e-4, rtol=0)  # the same method, written in two ways


def test_noise_is_added_by_the_forward_process(run):
    opened, x0 = load(run), torch.linspace(-1, 1, 768).view(3, 16, 16)
    images, times = actions.add_noise(opened, x0, 5)
    assert times == sorted(times)
    assert times[-1] == opened.model.schedule.T - 1
    noisiest = opened.model.schedule.level(times[-1])
    eps = (images[-1:] - noisiest.alpha.float() * x0) / noisiest.sigma.float()
    for image, time in zip(images, times, strict=True):
        level = opened.model.schedule.level(time)
        assert_close(image, (level.alpha.float() * x0 + level.sigma.float() * eps[0]), atol=1e-4, rtol=0)


def test_the_nearest_training_image_of_a_training_image_is_itself(run):
    dataset = actions.training_images(load(run))
    some = torch.from_numpy(dataset.read(np.array([3, 7]))) / 127.5 - 1
    assert_close(actions.nearest_training_images(load(run), some + 0.01), some)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"n": 65}, "1 to 64 images"), ({"n": 64, "steps": 900}, "20,000 at most"), ({"n": 0}, "1 or more")],
)
def test_a_request_that_is_too_large_is_refused(run, settings, message):
    with pytest.raises(InputError, match=message):
        next(actions.sample_frames(load(run), settings))


def test_the_cost_of_an_edit_includes_its_resampling(run):
    settings = {"n": 16, "task": "deblur", "steps": 500}
    actions.edit_frames(load(run), {**settings, "by": "replace"}, (torch.zeros(3, 16, 16),))
    with pytest.raises(InputError, match="16 images of 2500 network calls"):
        actions.edit_frames(load(run), {**settings, "by": "repaint"}, (torch.zeros(3, 16, 16),))


def test_no_sampler_is_refused(run):
    with pytest.raises(InputError, match="at least one sampler"):
        next(actions.compare_samplers(load(run), [], {"n": 1, "seed": 0}))


def test_other_data_is_never_called_training_data(run):
    opened = load(run)
    opened.card.data["fingerprint"] = "another"
    with pytest.raises(InputError, match="no longer what this run was trained on"):
        actions.training_images(opened)
