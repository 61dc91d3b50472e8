"""Judge images by a small classifier that knows nothing of diffusion: its accuracy, and its features for KID."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.nn import functional as F

BATCH, EPOCHS, WIDTH = 128, 4, 64


def read_images(path: Path, names: list[str]) -> tuple[Tensor, Tensor]:
    """Return the images of an npz file in [-1, 1], [n, c, h, w], and the indices [n] of their labels in `names`."""
    with np.load(path) as file:
        images, labels = torch.from_numpy(file["images"]), file["labels"]
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images / 127.5 - 1, torch.tensor([names.index(name) for name in labels])


class Judge(nn.Module):
    """Classify images by three convolutions, `WIDTH` features and one linear layer."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        widths = [channels, 32, 64, WIDTH]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths[1:])
        self.head = nn.Linear(WIDTH, classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the features [b, WIDTH] of images [b, c, h, w]."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.max_pool2d(F.relu(norm(conv(x))), 2)
        return x.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [b, classes] of images [b, c, h, w]."""
        return self.head(self.features(x))


def train_judge(images: Tensor, labels: Tensor, device: str, seed: int = 0) -> Judge:
    """Return a judge that was trained on these images and labels."""
    torch.manual_seed(seed)
    judge = Judge(images.shape[1], int(labels.max()) + 1).to(device)
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(judge.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH)[: len(images) // BATCH]:
            loss = F.cross_entropy(judge(images[chosen].to(device)), labels[chosen].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return judge.eval().requires_grad_(requires_grad=False)


def open_judge(path: Path, images: Tensor, labels: Tensor, device: str) -> Judge:
    """Return the judge in a file; train it and write the file if there is none yet, so that it stays the same."""
    if not path.exists():
        save_model(train_judge(images, labels, device), path)
    judge = Judge(images.shape[1], int(labels.max()) + 1)
    load_model(judge, path)
    return judge.to(device).eval().requires_grad_(requires_grad=False)


def judge_features(judge: Judge, images: Tensor) -> Tensor:
    """Return the features [n, WIDTH] of all images in float64, on the CPU."""
    device = next(judge.parameters()).device
    return torch.cat([judge.features(part.to(device)).double().cpu() for part in images.split(500)])


def accuracy(judge: Judge, images: Tensor, labels: Tensor) -> float:
    """Return the share of images whose label the judge predicts."""
    device = next(judge.parameters()).device
    predicted = torch.cat([judge(part.to(device)).argmax(dim=1).cpu() for part in images.split(500)])
    return (predicted == labels.cpu()).double().mean().item()
