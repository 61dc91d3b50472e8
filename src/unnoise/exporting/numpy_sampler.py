"""Draw images by the model.onnx in the folder of this script. It needs numpy and onnxruntime alone.

    python sample.py -n 16 --seed 0 --out images

`unnoise sample --precision fp32` draws the same images. Image i has the seed + i.
"""

import argparse
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

KINDS = {"L": (0, 8), "I;16": (0, 16), "RGB": (2, 8), "LA": (4, 8), "RGBA": (6, 8)}  # PNG's kind of colour, and bits


class Noise:
    """Draw the normal numbers that PyTorch draws on a CPU: Mersenne Twister, then Box-Muller in blocks of 16."""

    def __init__(self, seed: int) -> None:
        self.bits = np.random.RandomState(seed % 2**32)

    def normal(self, count: int) -> np.ndarray:
        """Return normal numbers, 16 or more; if they are no whole blocks, the last 16 are drawn again."""
        drawn = self.uniform(count)
        drawn[: count - count % 16] = box_muller(drawn[: count - count % 16])
        if count % 16:
            drawn[-16:] = box_muller(self.uniform(16))
        return drawn

    def uniform(self, count: int) -> np.ndarray:
        """Return numbers in [0, 1) of 24 bits."""
        return (self.bits.randint(0, 2**32, count, np.uint32) & 0xFFFFFF).astype(np.float32) * np.float32(2**-24)


def box_muller(uniform: np.ndarray) -> np.ndarray:
    """Return as many normal numbers: the halves of a block are a radius and an angle."""
    first, second = uniform.reshape(-1, 2, 8).transpose(1, 0, 2)
    radius, angle = np.sqrt(-2 * np.log(1 - first)), np.float32(2 * np.pi) * second
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


class Model:
    """Hold an exported network, and how images are drawn by it."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.about: dict[str, Any] = json.loads(self.session.get_modelmeta().custom_metadata_map["unnoise"])

    def output(self, x: np.ndarray, step: dict[str, Any], label: np.ndarray) -> np.ndarray:
        """Return the output of the network, led away from its output without a class if there is guidance."""
        feed = {"x": x, "time": np.full(len(x), step["time"], np.float32)}
        feed |= {"label": label} if self.about["classes"] else {}
        output: np.ndarray = self.session.run(None, feed)[0]
        if step["guided"] and self.about["guidance"] != 1:
            poor = self.session.run(None, feed | {"label": np.full_like(label, -1)})[0]
            output = poor + np.float32(self.about["guidance"]) * (output - poor)
        return output

    def draw(self, seeds: Sequence[int], label: np.ndarray) -> np.ndarray:
        """Return images [n, c, h, w] in [-1, 1], one for each seed and label."""
        shape = self.about["shape"]
        sources, before = [Noise(seed) for seed in seeds], list[np.ndarray]()
        remembered = max(len(step["x0"]) for step in self.about["steps"])

        def noise() -> np.ndarray:
            return np.stack([source.normal(int(np.prod(shape))).reshape(shape) for source in sources])

        x = noise()
        for step in self.about["steps"]:
            of_x, of_output = np.array(step["image"], np.float32)
            x0 = of_x * x + of_output * self.output(x, step, label)
            before = [np.clip(x0, -1, 1) if self.about["clip"] else x0, *before][:remembered]
            x = np.float32(step["x"]) * x
            for weight, image in zip(np.array(step["x0"], np.float32), before, strict=False):
                x += weight * image
            if step["noise"] is not None:
                x += np.float32(step["noise"]) * noise()
        return x


def png(image: np.ndarray, mode: str) -> bytes:
    """Return an image [c, h, w] in [-1, 1] as a PNG file."""
    kind, bits = KINDS[mode]
    half = 2 ** (bits - 1) - 0.5
    pixels = np.clip(np.round((image.transpose(1, 2, 0) + 1) * half), 0, 2 * half).astype(f">u{bits // 8}")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", image.shape[2], image.shape[1], bits, kind, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def main() -> None:
    """Draw images into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=16, help="number of images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first image")
    parser.add_argument("--label", help="name of the class (default: every class in turn)")
    parser.add_argument("--out", type=Path, default=Path("images"), help="folder for the images")
    parser.add_argument("--batch", type=int, default=16, help="images that are computed at a time")
    given = parser.parse_args()
    model = Model(Path(__file__).with_name("model.onnx"))
    classes, mode = model.about["classes"], model.about["mode"]
    if given.label is not None and given.label not in classes:
        parser.error(f"unknown label {given.label!r}; known: {', '.join(classes) or 'none, the model has no classes'}")
    given.out.mkdir(parents=True, exist_ok=True)
    for first in range(given.seed, given.seed + given.n, given.batch):
        seeds = range(first, min(first + given.batch, given.seed + given.n))
        which = [seed % max(1, len(classes)) if given.label is None else classes.index(given.label) for seed in seeds]
        for seed, image in zip(seeds, model.draw(seeds, np.array(which, np.int64)), strict=True):
            if mode:
                (given.out / f"{seed:06d}.png").write_bytes(png(image, mode))
            else:
                np.save(given.out / f"{seed:06d}.npy", image)
    print(f"{given.n} images in {given.out}")


if __name__ == "__main__":
    main()
