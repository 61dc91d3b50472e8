"""The best guess there is, where the data is known whole: no network does better, and one that did would only copy."""

import torch

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser, Prediction, with_x0
from unnoise.types import Images


def ideal(images: Images) -> Denoiser:
    """Karras et al. 2022 (arXiv:2206.00364), eq. 57: E[x0 | x_t] of a finite set, each image as likely.

    The mean of all, weighted by how well each explains x_t. Levels are for a whole batch.
    """

    def guess(x_t: Images, level: Level) -> Prediction:
        apart = torch.cdist(x_t.flatten(1), level.alpha.to(x_t) * images.flatten(1)).square()
        weight = torch.softmax(-apart / (2 * level.sigma.to(x_t).square()), dim=1)
        x0 = (weight @ images.flatten(1)).view_as(x_t)
        return with_x0(Prediction(x0, x_t), x0, x_t, level)

    return guess
