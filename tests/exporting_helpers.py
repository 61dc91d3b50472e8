"""A run with random weights, and its images as files."""

import numpy as np
import torch
from PIL import Image

from unnoise.card import Card, Run
from unnoise.checkpoint import build_model, write_model
from unnoise.config import SampleConfig, Sampling
from unnoise.run_folder import MODEL
from unnoise.sampling import sample_to_folder

UNET = "unet:widths=8-16,layers=1,groups=4,head=4,attention=2"


def untrained_run(folder, backbone=UNET, target="v", shape=(3, 8, 16), mode="RGB", sampling=None, **more):
    """Write a run with random weights and return it."""
    card = Card(backbone, "cosine:T=50", target, shape, mode, sampling=sampling or Sampling("ddim", 5), **more)
    model = build_model(card).eval()
    torch.manual_seed(0)
    for p in model.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    folder.mkdir()
    write_model(folder / MODEL, model.backbone.state_dict(), card)
    return Run(model.requires_grad_(False), card, folder / MODEL)


def drawn_by_unnoise(run, out, n, **settings):
    """Return the pixels of the files of `unnoise sample`."""
    sample_to_folder(SampleConfig(str(run.folder), n=n, out=str(out), precision="fp32", **settings))
    return [np.asarray(Image.open(path)).astype(int) for path in sorted(out.glob("*.png"))]
