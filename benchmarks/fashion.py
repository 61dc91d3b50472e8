"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747) from its IDX files, in two parts: to train on, and held out.

    python benchmarks/fashion.py FOLDER OUT

writes OUT/train.npz (the first 55,000 pictures) and OUT/held-out.npz (the last 5,000), with their labels.
"""

import gzip
import sys
from pathlib import Path

import numpy as np

NAMES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
TRAIN = 55_000


def main(folder: Path, out: Path) -> None:
    images = np.frombuffer(gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    images, names = images.reshape(-1, 28, 28), np.array(NAMES)[labels]
    out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", slice(TRAIN)), ("held-out", slice(TRAIN, None))):
        np.savez(out / f"{name}.npz", images=images[part], labels=names[part])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
