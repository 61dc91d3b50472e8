"""Split data into images to train on and held-out images, with labels, for the other scripts.

    python -m benchmarks.lib.split FASHION-MNIST-FOLDER OUT
    python -m benchmarks.lib.split faces OUT
    python -m benchmarks.lib.split cifar10.parquet OUT

The script writes OUT/train.npz and OUT/held-out.npz. The last 5,000 images are held out. The data is a folder with the
IDX files of Fashion-MNIST (60,000 images; Xiao et al. 2017, arXiv:1708.07747), "faces" (25,000 faces of 32 px, labelled
by their hair), or anything with classes that `unnoise train` reads.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np

from unnoise.data.cache import open_data
from unnoise.data.sources.faces.faces import face

IDX = "train-images-idx3-ubyte.gz"
NAMES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
HELD_OUT = 5_000


def read_fashion_mnist(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images [n, 28, 28] and the names of their classes [n]."""
    images = np.frombuffer(gzip.decompress((folder / IDX).read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return images.reshape(-1, 28, 28), np.array(NAMES)[labels]


def draw_faces(count: int = 25_000, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Return faces [n, h, w, 3] and the names of their hair [n]."""
    images, shown = zip(*(face(i, (size, size)) for i in range(count)), strict=True)
    return np.stack([np.asarray(image) for image in images]), np.array([kind["hair"] for kind in shown])


def read_other(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images [n, h, w, c] and the names of their classes [n] of any data."""
    dataset = open_data(source)
    every = np.arange(len(dataset))
    return dataset.read(every).transpose(0, 2, 3, 1), np.array(dataset.classes)[dataset.labels(every)]


def main(source: str, out: Path) -> None:
    """Write both files."""
    if source == "faces":
        images, labels = draw_faces()
    else:
        images, labels = read_fashion_mnist(Path(source)) if (Path(source) / IDX).exists() else read_other(source)
    out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", slice(-HELD_OUT)), ("held-out", slice(-HELD_OUT, None))):
        np.savez(out / f"{name}.npz", images=images[part], labels=labels[part])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder of Fashion-MNIST, faces, or any data with classes")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    main(given.source, given.out)
