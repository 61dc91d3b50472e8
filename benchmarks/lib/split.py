"""Split data into images to train on and held-out images, with labels, for the other scripts.

    python -m benchmarks.lib.split FASHION-MNIST-FOLDER OUT
    python -m benchmarks.lib.split faces OUT
    python -m benchmarks.lib.split cifar10.parquet OUT
    python -m benchmarks.lib.split celeba.zip OUT --size 32 --held-out 2000

The script writes OUT/train.npz and OUT/held-out.npz. The last 5,000 images are held out; with --held-out N, those that
`unnoise train --held-out N` holds out. The data is a folder with the IDX files of Fashion-MNIST (60,000 images; Xiao et
al. 2017, arXiv:1708.07747), "faces" (25,000 faces of 32 px, labelled by their hair), or anything that `unnoise train`
reads; the options are for the last one alone.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np

from unnoise.data.cache import open_data
from unnoise.data.dataset import Dataset, split_held_out
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


def read_other(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the images [n, h, w, c] of any data, and the names of their classes [n], all "" if it has none."""
    every = np.arange(len(dataset))
    numbers = dataset.labels(every)  # -1: no label
    labels = np.full(len(dataset), "") if numbers is None else np.array([*dataset.classes, ""])[numbers]
    return dataset.read(every).transpose(0, 2, 3, 1), labels


def read(source: str, size: str | None, held_out: int | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images and labels to train on, and held-out ones."""
    if source == "faces":
        images, labels = draw_faces()
    elif (Path(source) / IDX).exists():
        images, labels = read_fashion_mnist(Path(source))
    else:
        dataset = open_data(source, size=size)
        if held_out is not None:
            return [read_other(part) for part in split_held_out(dataset, held_out)]
        images, labels = read_other(dataset)
    if len(images) <= HELD_OUT:
        raise SystemExit(f"{source} has {len(images):,} images, and {HELD_OUT:,} are held out: give --held-out N")
    return [(images[:-HELD_OUT], labels[:-HELD_OUT]), (images[-HELD_OUT:], labels[-HELD_OUT:])]


def main(source: str, out: Path, size: str | None, held_out: int | None) -> None:
    """Write both files."""
    out.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in zip(("train", "held-out"), read(source, size, held_out), strict=True):
        np.savez(out / f"{name}.npz", images=images, labels=labels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder of Fashion-MNIST, faces, or any data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", help="size of any data, as `unnoise train` takes it")
    parser.add_argument("--held-out", type=int)
    given = parser.parse_args()
    if (given.size or given.held_out is not None) and (given.source == "faces" or (Path(given.source) / IDX).exists()):
        parser.error("--size and --held-out are not for faces and the folder of Fashion-MNIST")
    main(given.source, given.out, given.size, given.held_out)
