"""Data in two parts, to train on and held out, with labels: Fashion-MNIST from its IDX files, faces, or any data.

    python benchmarks/split.py FASHION-MNIST-FOLDER OUT
    python benchmarks/split.py faces OUT
    python benchmarks/split.py cifar10.parquet OUT

writes OUT/train.npz and OUT/held-out.npz. The last 5,000 are held out: of 60,000 pictures of Fashion-MNIST (Xiao et al.
2017, arXiv:1708.07747), of 25,000 faces of 32 px, labelled by their hair, or of what `unnoise train` would read.
"""

import gzip
import sys
from pathlib import Path

import numpy as np

from unnoise.data.cache import open_data
from unnoise.data.sources.faces.faces import face

IDX = "train-images-idx3-ubyte.gz"
NAMES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
HELD_OUT = 5_000


def fashion(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    images = np.frombuffer(gzip.decompress((folder / IDX).read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return images.reshape(-1, 28, 28), np.array(NAMES)[labels]


def faces(count: int = 25_000, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    images, shown = zip(*(face(i, (size, size)) for i in range(count)), strict=True)
    return np.stack([np.asarray(image) for image in images]), np.array([kind["hair"] for kind in shown])


def others(source: str) -> tuple[np.ndarray, np.ndarray]:
    dataset = open_data(source)
    every = np.arange(len(dataset))
    return dataset.read(every).transpose(0, 2, 3, 1), np.array(dataset.classes)[dataset.labels(every)]


def main(source: str, out: Path) -> None:
    if source == "faces":
        images, labels = faces()
    else:
        images, labels = fashion(Path(source)) if (Path(source) / IDX).exists() else others(source)
    out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", slice(-HELD_OUT)), ("held-out", slice(-HELD_OUT, None))):
        np.savez(out / f"{name}.npz", images=images[part], labels=labels[part])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
