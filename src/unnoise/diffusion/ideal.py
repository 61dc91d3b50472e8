"""The ideal denoiser of a finite set of images: no network predicts better, and it can only copy the images."""

import torch

from unnoise.diffusion.level import Level
from unnoise.diffusion.model import Denoiser, Prediction, with_x0
from unnoise.types import Images


def ideal(images: Images) -> Denoiser:
    """Return the denoiser E[x0 | x_t] of a finite set, Karras et al. 2022 (arXiv:2206.00364), eq. 57.

    Each of the images [n, c, h, w] is equally likely. E[x0 | x_t] is their mean, weighted by how well each of them
    explains x_t. A level is the same for a whole batch.
    """

    def guess(x_t: Images, level: Level) -> Prediction:
        apart = torch.cdist(x_t.flatten(1), level.alpha.to(x_t) * images.flatten(1)).square()
        weight = torch.softmax(-apart / (2 * level.sigma.to(x_t).square()), dim=1)
        x0 = (weight @ images.flatten(1)).view_as(x_t)
        return with_x0(Prediction(x0, x_t), x0, x_t, level)

    return guess
