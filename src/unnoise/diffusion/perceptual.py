"""The perceptual distance of images: how far apart early features of a pretrained network are."""

import copy
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from unnoise.device import without_autocast
from unnoise.errors import InputError
from unnoise.pretrained.efficientnet import EfficientNetLite, load_efficientnet, weights_file
from unnoise.types import RGB, RGBA, Images, PerImage

STAGES = (1, 2, 3)  # whose maps are compared, beside the stem: maps of 1/2, 1/4, 1/8 and 1/16 of the image

CHECKERS = 200.0  # the weight of checkerboards of single pixels, so that they count about as much as other patterns


@cache
def open_network(model: str, device: torch.device) -> EfficientNetLite:
    """Return a network of its own on a device; its weights never change."""
    path = weights_file(model, "objective perceptual")
    return copy.deepcopy(load_efficientnet(str(path), model)).to(device)


def perceptual_distance(x: Images, y: Images, model: str, stages: tuple[int, ...] = STAGES) -> PerImage:
    """Return the distance of each image x to its image y, after Zhang et al. 2018 (arXiv:1801.03924), eq. 1.

    The features at each place have length 1. Their squared differences are averaged over the places, and added over the
    maps. All weights of the maps are 1. The networks hardly see a checkerboard of single pixels: in lite1 it counts a
    tenth of other fine patterns of the same power, or less. So the squared difference of the checkerboards is added.
    The gradient flows to x alone. The features are in fp32, also where the caller computes in less.

    Args:
        x, y: Images [b, c, h, w] in [-1, 1]: gray or RGB, with alpha or without, which is not compared.
        model: A name in `pretrained.efficientnet.SCALES`.
        stages: The stages from 0 to 6 whose first maps are compared, beside the map of the stem.

    Raises:
        InputError: The images have more than 4 channels, or the weights are not installed.
    """
    network, x, y = open_network(model, x.device), colours(x), colours(y)
    with without_autocast():
        with torch.no_grad():
            wanted = network.early(y, stages)
        parts = [
            (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(dim=1).mean(dim=(1, 2))
            for a, b in zip(network.early(x, stages), wanted, strict=True)
        ]
    return torch.stack(parts).sum(dim=0) + CHECKERS * checkers(x - y).square().mean(dim=(1, 2, 3))


def checkers(x: Images) -> Images:
    """Return the checkerboard of single pixels around each place, for each channel."""
    down = x - x.roll(1, -2)
    return (down - down.roll(1, -1)) / 4


def colours(x: Images) -> Float[Tensor, "b 3 h w"]:
    """Return gray or RGB images as RGB images in float32, without alpha."""
    if x.shape[1] > RGBA:
        raise InputError(f"objective perceptual is for gray or RGB images, and these have {x.shape[1]} channels")
    x = x.float()
    return x[:, :RGB] if x.shape[1] >= RGB else x[:, :1].expand(-1, RGB, -1, -1)
