"""Feed damaged and hostile input to every reader of files that strangers may have written.

    python tests/fuzz.py [COUNT] [--seed 0] [--only NAME ...]

Whole files of every format are mutated (bits, bytes, numbers, lengths, pieces of other files) and read again. A reader
may accept a file, or refuse it with `InputError`. Any other exception, a long message, a file written outside its
folder, or more than SLOW seconds is a finding, and the bytes are stored in findings/. `test_fuzz.py` runs some inputs.
"""

import argparse
import gzip
import io
import json
import math
import os
import random
import re
import shutil
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image, features
from safetensors.torch import save

from unnoise import checkpoint, registry, run_folder
from unnoise.config import TrainConfig
from unnoise.data import decode, open_data
from unnoise.data.resize import parse_size
from unnoise.data.sources.find import find
from unnoise.data.sources.source import UnreadableImage
from unnoise.errors import InputError
from unnoise.interop.diffusers_format import INDEX, NETWORKS, SCHEDULER, WEIGHTS
from unnoise.recipes import train_config
from unnoise.training import state
from unnoise.training.clock import Clock

SLOW = 20.0
LONG = 2_500  # characters of a message
NUMBERS = [0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
WORDS = [
    b"..",
    b"/",
    b"\x00",
    b"-1",
    b"nan",
    b"inf",
    b"1e999",
    b"{}",
    b"[]",
    b"null",
    b'"',
    b"!!python/object:os.system",
]
WORDS += [b"9" * 30, b"\xff\xfe", b"&a [*a]", b":", b",", b"=", b"-", b"\n", b"\xf0\x9f\x98\x80", b"O", b"|O", b">f8"]


HARM: list[object] = [None, -1, 0, 1e308, 10**18, "", "x", [], {}, [10**9] * 3, True, "unet:widths=99999-99999"]
HARM += ["dit:depth=100000000", "cosine:T=1000000000000", [1, 10**6, 10**6], "../../x", ["a"] * 1000, float("inf")]
BETWEEN = b"\n--- next file ---\n"
PIPELINE = (INDEX, f"{NETWORKS[-1]}/{run_folder.NETWORK}", SCHEDULER, f"{NETWORKS[-1]}/{WEIGHTS}")


class Target(NamedTuple):
    """A reader, and whole files to mutate."""

    seeds: list[bytes]
    read: Callable[[Path], object]
    name: str  # the name of the file that is read


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """Return one of the seeds with one to six changes."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(data) + 1) if rng.random() < 0.5 else rng.randrange(min(len(data), 400) + 1)
        match rng.randrange(8):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.choice(NUMBERS) & 255
            case 2:
                size, order = rng.choice(((2, "H"), (4, "I"), (8, "Q"))), rng.choice("<>")
                data[at : at + size[0]] = struct.pack(order + size[1], rng.choice(NUMBERS) & (2 ** (8 * size[0]) - 1))
            case 3:
                del data[at : at + rng.choice((1, 2, 8, 100, len(data)))]
            case 4:
                data[at:at] = rng.choice(WORDS)
            case 5:
                end = rng.randrange(at, min(len(data), at + 64) + 1)
                data[at:at] = data[at:end] * rng.choice((1, 2, 50))
            case 6:
                other = rng.choice(seeds)
                begin = rng.randrange(len(other) + 1)
                data[at : at + rng.randrange(64)] = other[begin : begin + rng.randrange(256)]
            case _:
                word = rng.choice(WORDS)
                data[at : at + len(word)] = word
    return bytes(data)


# Readers


def read_images(path: Path) -> None:
    """Read images as training does: the header of each, then the pixels, resized to a small size."""
    target = decode.TargetFormat("RGB", (8, 8), "crop")
    for item in islice(find(str(path)).items(), 20):
        try:
            decode.read_header(item.content, (8, 8))
            decode.decode(item.content, target)
        except UnreadableImage:
            continue


def read_one_image(path: Path) -> None:
    target = decode.TargetFormat("RGBA", (8, 8), "pad")
    try:
        decode.read_header(path, (8, 8))
        decode.decode(path, target)
    except UnreadableImage:
        pass


def read_spec(path: Path) -> None:
    """Read a spec as every kind of entry, and use the ones that numbers can break."""
    text, levels = path.read_bytes().decode("utf-8", "replace"), registry.schedule.get("cosine:T=20")()
    for kind in SPEC_KINDS:
        try:
            made = kind.get(text)
            if kind is registry.schedule:
                assert made().alpha.isfinite().all()
            if kind is registry.spacing:
                times = [float(level.time) for level in levels.grid(5, text)]
                assert times == sorted({*times}, reverse=True)
            if kind is registry.backbone:
                with torch.device("meta"):
                    made(3)
        except InputError:
            continue
        numbers = [value for value in made.keywords.values() if isinstance(value, float)]
        assert all(map(math.isfinite, numbers)), text


def read_size(path: Path) -> None:
    width, height = parse_size(path.read_bytes().decode("utf-8", "replace"))
    assert min(width, height) >= 8


def read_length(path: Path) -> None:
    text = path.read_bytes().decode("utf-8", "replace")
    clock = Clock.from_config(TrainConfig(**{"budget" if text[-1:] in "smhd" else "images": text}), 100)
    assert all(math.isfinite(value) for value in vars(clock).values() if isinstance(value, float))


def read_labels(path: Path) -> None:
    """Read a folder of images with this file as its labels; the first line of the bytes is the name of the file."""
    name, _, content = path.read_bytes().partition(b"\n")
    with tempfile.TemporaryDirectory() as folder:
        for image in ("a/1.png", "a/2.png", "b/3.png"):
            (place := Path(folder) / image).parent.mkdir(exist_ok=True)
            place.write_bytes(image_bytes("PNG"))
        named = "".join(re.findall(r"[\w.]", name[:40].decode("ascii", "ignore"))).strip(".")
        (Path(folder) / (named or "x.csv")).write_bytes(content)
        assert sum(1 for _ in find(folder).items()) < 5


def read_stream(path: Path) -> None:
    """Stream a folder of shards or parquet files, a group at a time."""
    dataset = open_data(str(path.parent), size="8", stream=True)
    rows = dataset.chosen(4, 0)
    dataset.read(rows)
    dataset.labels(rows)


def read_pipeline(path: Path) -> None:
    """Read a pipeline folder of diffusers, whose files are the parts of one input."""
    parts = path.read_bytes().split(BETWEEN)
    with tempfile.TemporaryDirectory() as folder:
        for name, part in zip(PIPELINE, [b"{}", *parts], strict=False):
            (place := Path(folder) / name).parent.mkdir(exist_ok=True)
            place.write_bytes(part)
        checkpoint.load(folder, "cpu")


def read_config(path: Path) -> None:
    train_config(str(path), {})


def read_state(path: Path) -> None:
    state.read_state(path.parent)


# Whole files


def image_bytes(kind: str, mode: str = "RGB") -> bytes:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).convert(mode)
    image.save(out := io.BytesIO(), kind)
    return out.getvalue()


def zip_bytes(method: int = zipfile.ZIP_DEFLATED) -> bytes:
    with zipfile.ZipFile(out := io.BytesIO(), "w", method) as archive:
        for name in ("a/1.png", "a/2.jpg", "b/3.png", "b/notes.txt"):
            archive.writestr(name, image_bytes("PNG" if name.endswith("png") else "JPEG"))
    return out.getvalue()


def tar_bytes(mode: str) -> bytes:
    with tarfile.open(fileobj=(out := io.BytesIO()), mode=mode) as archive:  # type: ignore[call-overload]
        for name in ("a/1.png", "b/2.png"):
            info = tarfile.TarInfo(name)
            info.size = len(data := image_bytes("PNG"))
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    np.save(out := io.BytesIO(), array, allow_pickle=False)
    return out.getvalue()


def npz_bytes() -> bytes:
    images = np.zeros((3, 6, 5), np.uint8)
    np.savez_compressed(out := io.BytesIO(), images=images, labels=np.array(["a", "b", "a"]))
    return out.getvalue()


def idx_bytes() -> bytes:
    return b"\0\0\x08\x03" + struct.pack(">III", 3, 6, 5) + bytes(90)


def parquet_bytes() -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"bytes": image_bytes("PNG"), "path": None}] * 3
    parquet.write_table(pa.table({"image": rows, "label": [0, 1, 0]}), out := io.BytesIO())
    return out.getvalue()


def arrow_bytes(writer: str) -> bytes:
    import pyarrow as pa

    table = pa.table({"image": [{"bytes": image_bytes("PNG"), "path": "x"}] * 3, "label": ["a", "b", "a"]})
    with getattr(pa.ipc, writer)(out := io.BytesIO(), table.schema) as file:
        file.write_table(table)
    return out.getvalue()


def label_bytes() -> list[bytes]:
    """Return label files of every kind, each after its name."""
    pairs = [["a/1.png", "x"], ["a/2.png", "y"], ["b/3.png", "x"]]
    rows = [{"file_name": name, "label": label} for name, label in pairs]
    coco = {"images": [{"id": i, "file_name": name} for i, (name, _) in enumerate(pairs)]}
    coco |= {
        "categories": [{"id": 0, "name": "x"}],
        "annotations": [{"image_id": i, "category_id": 0} for i in range(3)],
    }
    tables: dict[str, object] = {"dataset.json": {"labels": pairs}, "coco.json": coco, "rows.json": rows}
    texts = {name: json.dumps(table) for name, table in tables.items()}
    texts["metadata.csv"] = "file_name,label\n" + "\n".join(map(",".join, pairs))
    texts["metadata.jsonl"] = "\n".join(map(json.dumps, rows))
    texts["labels.txt"] = "\n".join(map(" ".join, pairs))
    texts["labels.csv"] = "file,x,y\na/1.png,1,0\na/2.png,0,1\nb/3.png,1,0\n"
    return [f"{name}\n{text}".encode() for name, text in texts.items()]


def several_frames(kind: str, **options: object) -> bytes:
    images = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (12, 10), np.uint8)) for i in range(3)]
    images[0].save(out := io.BytesIO(), kind, save_all=True, append_images=images[1:], **options)
    return out.getvalue()


def file_bytes(write: Callable[[Path], object], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(path := Path(folder) / name)
        return path.read_bytes()


def card() -> checkpoint.Card:
    given = {"images": 10, "config": {"data": "x"}, "loss": [(1, 0.5)]}
    net = "unet:widths=8,layers=1,groups=4,patch=2"
    return checkpoint.Card(net, "cosine", "x0", (1, 8, 8), "L", ("a", "b"), training=given)


@cache
def model_bytes() -> bytes:
    weights = checkpoint.build_model(card()).backbone.state_dict()
    return file_bytes(lambda path: checkpoint.write_model(path, weights, card()), "model.safetensors")


def resigned(rng: random.Random, data: bytes) -> bytes:
    """Return a model file with a changed card and no wrong checksum, as an attacker would write, not a bad disk."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    about = json.loads(header["__metadata__"]["unnoise"])
    place, key = about, rng.choice([*about, *about["sampling"]])
    if key not in about:
        place = about["sampling"]
    place[key] = rng.choice(HARM)
    header["__metadata__"] = {"unnoise": json.dumps(about)}  # without a checksum, as in older files
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def shard_bytes() -> bytes:
    with tarfile.open(fileobj=(out := io.BytesIO()), mode="w:") as archive:
        for name, data in (("1.png", image_bytes("PNG")), ("1.cls", b"3"), ("2.jpg", image_bytes("JPEG"))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def pipeline_bytes(rng: random.Random | None = None) -> bytes:
    """Return the files of a pipeline: whole, or with one setting changed."""
    network = {"_class_name": "UNet2DModel", "sample_size": 8, "in_channels": 1, "out_channels": 1}
    network |= {"layers_per_block": 1, "block_out_channels": [8], "norm_num_groups": 4, "attention_head_dim": 4}
    network |= {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "num_class_embeds": None}
    scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": 100, "beta_schedule": "linear"}
    scheduler |= {"clip_sample": True, "variance_type": "fixed_small", "prediction_type": "epsilon"}
    scheduler |= {"trained_betas": None, "rescale_betas_zero_snr": False, "beta_start": 1e-4, "beta_end": 0.02}
    if rng:
        place = rng.choice((network, scheduler))
        place[rng.choice([*place])] = rng.choice(HARM)
    weights = save({"conv_in.weight": torch.zeros(8, 1, 3, 3)})
    return BETWEEN.join((json.dumps(network).encode(), json.dumps(scheduler).encode(), weights))


def state_bytes() -> bytes:
    saved = {
        "format": state.FORMAT,
        "config": {},
        "parts": {"clock": {"seen": 1, "elapsed": 2.0}, "run": {"caution": 1}},
    }
    return file_bytes(
        lambda path: state.write_state(path.parent, saved | {"network": {"a": torch.ones(3)}}), run_folder.STATE
    )


def targets() -> dict[str, Target]:
    gray, colour = np.zeros((3, 6, 5), np.uint8), np.zeros((3, 6, 5, 3), np.float32)
    specs = [b"ddim:eta=0.5", b"cosine:T=100", b"unet:widths=8-16,layers=1,groups=4", b"v:std=0.1", b"faces:count=5"]
    specs += [b"dit:width=16,depth=1,heads=2,patch=2", b"karras:rho=7", b"linear:T=10", b"lognormal:mean=-1.2,std=1.2"]
    specs += [b"capped_v:gamma=2.5,first=20", b"heun:churn=1", b"adamw:beta1=0.9", b"pigdm:std=1", b"deblur:sigma=2"]
    config = yaml.safe_dump({name: value for name, value in vars(TrainConfig()).items() if value is not None}).encode()
    images = {
        "zip": ([zip_bytes(), zip_bytes(zipfile.ZIP_STORED)], "x.zip"),
        "tar": ([tar_bytes("w:")], "x.tar"),
        "tar.gz": ([tar_bytes("w:gz"), tar_bytes("w:xz"), tar_bytes("w:bz2"), tar_bytes("w:")], "x.tar.gz"),
        "npy": ([npy_bytes(gray), npy_bytes(colour), npy_bytes(gray.astype(">u2"))], "x.npy"),
        "npz": ([npz_bytes()], "x.npz"),
        "idx": ([idx_bytes()], "x-images-idx3-ubyte"),
        "parquet": ([parquet_bytes()], "x.parquet"),
    }
    found = {name: Target(seeds, read_images, file) for name, (seeds, file) in images.items()}
    kinds = [image_bytes(kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")]
    kinds += [image_bytes("PNG", mode) for mode in ("L", "LA", "RGBA", "P", "1", "I;16")]
    found["image"] = Target(kinds, read_one_image, "x.png")
    deep = [image_bytes("TIFF", mode) for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F")]
    deep += [several_frames("TIFF", compression=packed) for packed in ("tiff_lzw", "packbits", "tiff_adobe_deflate")]
    found["tiff"] = Target([*deep, several_frames("GIF")], read_one_image, "x.tif")
    newer = [image_bytes("JPEG2000"), several_frames("WEBP"), image_bytes("JPEG", "CMYK")]
    newer += [image_bytes("AVIF")] if features.check("avif") else []
    found["newer"] = Target(newer, read_one_image, "x.jp2")
    found["arrow"] = Target([arrow_bytes("new_file"), arrow_bytes("new_stream")], read_images, "x.arrow")
    found["labels"] = Target(label_bytes(), read_labels, "labels")
    found["size"] = Target([b"64", b"96x64"], read_size, "size.txt")
    found["length"] = Target([b"90s", b"2h", b"1.5d", b"2M", b"50k"], read_length, "length.txt")
    found["spec"] = Target(specs, read_spec, "spec.txt")
    found["config"] = Target([config, b"data: x\nimages: 5\nlr: 1e-3\n"], read_config, "config.yaml")
    found["model"] = Target([model_bytes()], lambda path: checkpoint.load(path, "cpu"), "model.safetensors")
    found["card"] = Target([model_bytes()], lambda path: checkpoint.load(path, "cpu"), "model.safetensors")
    found["shards"] = Target([shard_bytes()], read_stream, "x.tar")
    found["packed"] = Target([gzip.compress(shard_bytes(), mtime=0)], lambda path: read_images(path.parent), "x.tar.gz")
    found["tables"] = Target([parquet_bytes()], read_stream, "x.parquet")
    found["pipeline"] = Target([pipeline_bytes()], read_pipeline, "pipeline")
    found["settings"] = Target([pipeline_bytes()], read_pipeline, "pipeline")
    found["state"] = Target([state_bytes()], read_state, run_folder.STATE)
    return found


SLOW_TARGETS = ("pipeline", "spec")
SPEC_KINDS = (registry.schedule, registry.spacing, registry.target, registry.sampler, registry.backbone)
SPEC_KINDS += (registry.dataset, registry.objective, registry.optimizer, registry.posterior, registry.edit)
CHANGED: dict[str, Callable[[random.Random], bytes]] = {
    "card": lambda rng: resigned(rng, model_bytes()),
    "settings": pipeline_bytes,
}


def tried(name: str, target: Target, data: bytes, folder: Path) -> str | None:
    """Return what went wrong, None if nothing did."""
    (path := folder / target.name).write_bytes(data)
    begun, before = time.monotonic(), {*folder.parent.iterdir()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(path)
    except InputError as error:
        if len(str(error)) > LONG:
            return f"a message of {len(str(error))} characters"
    except Exception:  # noqa: BLE001  # it is the finding
        return traceback.format_exc()
    if (spent := time.monotonic() - begun) > SLOW:
        return f"it took {spent:.0f} s"
    if {*folder.parent.iterdir()} != before or [*folder.iterdir()] != [path]:
        return "it wrote a file"
    return None


@contextmanager
def cached_in(folder: str) -> Iterator[None]:
    """Let readers use this folder as their cache, and remove it at the end."""
    before = os.environ.get("UNNOISE_CACHE")
    os.environ["UNNOISE_CACHE"] = folder
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.pop("UNNOISE_CACHE")
        if before is not None:
            os.environ["UNNOISE_CACHE"] = before


def fuzz(count: int, seed: int, only: list[str] | None = None) -> Iterator[tuple[str, bytes, str]]:
    """Try `count` inputs, fewer for slow targets; yield (target, bytes, error) of each finding."""
    every = {name: target for name, target in targets().items() if not only or name in only}
    with tempfile.TemporaryDirectory() as place, cached_in(f"{place}-cache"):
        turns = [name for name in every for _ in range(1 if name in SLOW_TARGETS else 5)]
        for i in range(count):
            name = turns[i % len(turns)]
            rng = random.Random(f"{seed} {i}")  # every input can be reproduced
            (folder := Path(place) / name).mkdir(exist_ok=True)
            seeds = every[name].seeds
            data = CHANGED[name](rng) if name in CHANGED else mutated(rng, seeds)
            if wrong := tried(name, every[name], data, folder):
                yield name, data, wrong


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    found, begun = set[str](), time.monotonic()
    keep = Path("findings")
    for name, data, wrong in fuzz(arguments.count, arguments.seed, arguments.only):
        last = wrong.strip().splitlines()[-1]
        where = [line.strip() for line in wrong.splitlines() if "unnoise" in line and "File" in line][-1:]
        if (key := f"{name}: {where} {last[:80]}") not in found:
            found.add(key)
            keep.mkdir(exist_ok=True)
            (keep / f"{name}-{len(found)}").write_bytes(data)
            print(f"{key}\n{wrong}", flush=True)
    spent = time.monotonic() - begun
    print(f"{arguments.count:,} inputs in {spent:.0f} s, {len(found)} findings")
    sys.exit(bool(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", nargs="?", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+")
    main(parser.parse_args())
