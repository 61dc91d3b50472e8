"""Data in two parts, to train on and held out, with labels: Fashion-MNIST from its IDX files, or the built-in faces.

    python benchmarks/split.py FASHION-MNIST-FOLDER OUT
    python benchmarks/split.py faces OUT

writes OUT/train.npz and OUT/held-out.npz: 55,000 and 5,000 pictures of Fashion-MNIST (Xiao et al. 2017,
arXiv:1708.07747), or 20,000 and 5,000 faces of 32 px, labelled by their hair.
"""

import gzip
import sys
from pathlib import Path

import numpy as np

from unnoise.data.faces import face

NAMES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
HELD_OUT = 5_000


def fashion(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    images = np.frombuffer(gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return images.reshape(-1, 28, 28), np.array(NAMES)[labels]


def faces(count: int = 25_000, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    images, shown = zip(*(face(i, (size, size)) for i in range(count)), strict=True)
    return np.stack([np.asarray(image) for image in images]), np.array([kind["hair"] for kind in shown])


def main(source: str, out: Path) -> None:
    images, labels = faces() if source == "faces" else fashion(Path(source))
    out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", slice(-HELD_OUT)), ("held-out", slice(-HELD_OUT, None))):
        np.savez(out / f"{name}.npz", images=images[part], labels=labels[part])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
