"""The ideal denoiser of a set of images is its closed form."""

from process_helpers import close, images, schedule
from unnoise.diffusion.ideal import ideal
from unnoise.diffusion.process import q_sample
from worlds import Points


def test_the_ideal_guess_is_the_mean_of_what_explains_the_image():
    points = images(12, 3, 4, 4)
    for time in (5, 300, 999):
        level = schedule("cosine").level(time)
        x_t = q_sample(points[:5], images(5, 3, 4, 4), level)
        found, true = ideal(points)(x_t, level), Points(points)(x_t, level)
        close(found.x0, true.x0, 1e-9)
        close(found.eps, true.eps, 1e-7)
