"""The inverse of a measurement is that of Moore and Penrose."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.testing import assert_close

from unnoise.editing.measurements import Blurred


def test_inverses_are_those_of_moore_and_penrose(measure, float64):
    """The four conditions hold: A A+ A = A, A+ A A+ = A+, and A A+ and A+ A are symmetric."""
    x, z = torch.randn(2, 1, 3, 8, 8)
    y, y2 = measure(x), torch.randn_like(measure(x))
    assert_close(measure(measure.inverse(y)), y)
    assert_close(measure.inverse(measure(measure.inverse(y2))), measure.inverse(y2))
    assert_close((z * measure.inverse(measure(x))).sum(), (x * measure.inverse(measure(z))).sum())
    assert_close((y2 * measure(measure.inverse(y))).sum(), (y * measure(measure.inverse(y2))).sum())


def test_blur_is_that_of_scipy(float64):
    """Edges are mirrored; the image has nothing in the frequencies that count as not measured."""
    smooth = gaussian_filter(np.random.default_rng(0).normal(size=(48, 64)), 3, mode="reflect")
    for sigma in (1.0, 2.0):
        expected = gaussian_filter(smooth, sigma, mode="reflect", truncate=8)
        blurred = Blurred(sigma)(torch.from_numpy(smooth)[None, None])[0, 0].numpy()
        assert np.abs(blurred - expected).max() < 1e-3 * np.abs(smooth).max()
