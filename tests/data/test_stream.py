"""Streaming: images are read from their files when they are needed."""

import io
import tarfile
import time
from collections import OrderedDict
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

import unnoise
from tiny import train_folder
from unnoise.config import EvalConfig
from unnoise.data import open_data
from unnoise.data.dataset import Dataset, split_held_out
from unnoise.data.sources.splits import split_files
from unnoise.errors import InputError
from unnoise.evaluation.evaluate import run_evaluation
from unnoise.training.batches import Batch, nearby, order, read_ahead, read_batch

COUNT = 60
TINY = {"backbone": "unet:widths=8,layers=1,groups=4,patch=2", "batch": 8, "steps": 2, "precision": "fp32"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def png(i: int) -> bytes:
    """Return an image of one colour, which is its number."""
    Image.new("RGB", (8, 8), (i, 2 * i, 100)).save(out := io.BytesIO(), "PNG")
    return out.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def as_shards(folder: Path, each: int = 20) -> Path:
    folder.mkdir()
    for shard in range(COUNT // each):
        with tarfile.open(folder / f"part-{shard}.tar", "w") as archive:
            for i in range(shard * each, (shard + 1) * each):
                add(archive, f"{i:04d}.png", png(i))
                add(archive, f"{i:04d}.cls", str(i % 12).encode())
                add(archive, f"{i:04d}.json", b"{}")
    return folder


def as_parquet(folder: Path) -> Path:
    folder.mkdir()
    for part in range(2):
        rows = [{"bytes": png(i), "path": None} for i in range(part * 30, part * 30 + 30)]
        labels = [i % 12 for i in range(part * 30, part * 30 + 30)]
        parquet.write_table(pa.table({"image": rows, "label": labels}), folder / f"{part}.parquet", row_group_size=7)
    return folder


def as_folder(folder: Path) -> Path:
    for i in range(COUNT):
        (folder / str(i % 12)).mkdir(parents=True, exist_ok=True)
        (folder / str(i % 12) / f"{i:04d}.png").write_bytes(png(i))
    return folder


KINDS = {"shards": as_shards, "parquet": as_parquet, "folder": as_folder}


@pytest.fixture(params=KINDS)
def streamed(request, tmp_path, monkeypatch) -> Dataset:
    monkeypatch.setattr("unnoise.data.sources.webdataset.GROUP_IMAGES", 6)
    monkeypatch.setattr("unnoise.data.sources.folder.GROUP_IMAGES", 6)
    return open_data(str(KINDS[request.param](tmp_path / "data")), stream=True)


def numbers(dataset: Dataset, indices: np.ndarray) -> list[int]:
    return dataset.read(indices)[:, 0, 0, 0].tolist()


def test_images_and_labels_are_those_of_the_decoded_data(streamed, tmp_path):
    decoded = open_data(str(tmp_path / "data"))
    assert (streamed.mode, streamed.shape, len(streamed)) == (decoded.mode, decoded.shape, len(decoded))
    assert streamed.classes == decoded.classes == tuple(map(str, range(12)))
    rows = np.random.default_rng(0).permutation(COUNT)
    np.testing.assert_array_equal(streamed.read(rows), decoded.read(rows))
    np.testing.assert_array_equal(streamed.labels(rows), decoded.labels(rows))
    assert sorted(numbers(streamed, rows)) == list(range(COUNT))


def test_an_epoch_is_a_permutation_that_opens_each_group_once(streamed, monkeypatch):
    opened = []
    monkeypatch.setattr("unnoise.data.stream.MAX_OPEN_BYTES", 20_000)  # about 33 images
    monkeypatch.setattr("unnoise.training.batches.WINDOW", 12)
    for i, group in enumerate(streamed.store.each):
        given = group.items
        streamed.store.each[i] = replace(group, items=lambda given=given, i=i: opened.append(i) or given())
    batches = order(streamed, 8, seed=0)
    seen = [numbers(streamed, next(batches)) for _ in range(8)]
    assert sorted(chain(*seen)) == list(range(COUNT)) != list(chain(*seen))
    assert len(opened) == len(set(opened)) >= len(streamed.store.each) - 1  # the first group was opened before
    again = order(streamed, 8, seed=0, seen=24)
    assert numbers(streamed, next(again)) == seen[3]  # any position can be returned to
    assert numbers(streamed, next(order(streamed, 8, seed=1))) != seen[0]


def test_lanes_share_no_groups():
    """Check that two processes, each with half of every batch, read different parts of the data."""
    groups = np.repeat(np.arange(400), 10)
    places = nearby(groups, 64, np.random.default_rng(0), 10**9)
    assert sorted(places) == list(range(4_000))
    whole = groups[places[: 4_000 // 64 * 64]].reshape(-1, 64)
    first, second = set(whole[:, :32].flat), set(whole[:, 32:].flat)
    assert len(first & second) <= 1  # the group in which one lane ends and the next begins
    spread = np.mean([len(set(batch)) for batch in whole])
    assert spread > 40  # a batch mixes many groups
    steps = whole[:16, :8]
    assert len(set(steps.flat)) < 60  # each lane reads few groups at a time


def test_shards_at_an_address_are_read_as_files_are(tmp_path):
    for kind in ("shards", "parquet"):
        here = KINDS[kind](tmp_path / kind)
        system = fsspec.filesystem("memory")
        for path in here.iterdir():
            system.pipe(f"/{kind}/{path.name}", path.read_bytes())
        remote, local = (open_data(place, stream=True) for place in (f"memory://{kind}", str(here)))
        assert remote.fingerprint == local.fingerprint
        np.testing.assert_array_equal(remote.read(np.arange(COUNT)), local.read(np.arange(COUNT)))
        np.testing.assert_array_equal(open_data(f"memory://{kind}").read(np.arange(9)), local.read(np.arange(9)))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://nothing", "there are no files at memory://nothing"),
        ("ftp://x/y", "unknown storage 'ftp'"),
        ("memory://text", "there are no .parquet and no .tar files"),
        ("s3://bucket/x", "s3fs"),
    ],
)
def test_addresses_that_hold_no_data(url, words):
    fsspec.filesystem("memory").pipe("/text/a.txt", b"x")
    with pytest.raises(InputError, match=words):
        open_data(url, stream=True)


def test_what_cannot_be_streamed_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(InputError, match="--stream takes a folder of images, tar shards or parquet"):
        open_data("x.npy", stream=True)


def test_a_neighbour_stands_in_for_an_image_that_cannot_be_read(tmp_path):
    data = as_folder(tmp_path / "data")
    (data / "3" / "0003.png").write_bytes(b"no image")
    (data / "3" / "0015.png").write_bytes(png(15)[:40])
    dataset = open_data("data", stream=True)
    row = next(i for i, path in enumerate(sorted(data.rglob("*.png"))) if path.name == "0003.png")
    rows = np.array([row, row + 1])
    assert numbers(dataset, rows) == [27, 27]
    assert dataset.labels(rows).tolist() == [3, 3]
    said = dataset.store.news()
    assert len(said) == 2
    assert "3/0003.png cannot be read (text, not an image); 3/0027.png replaces it" in said
    assert dataset.store.news() == []
    part = dataset.part(np.array([row, row + 3]))  # 0027.png is held out, for example
    assert numbers(part, np.array([0])) == [39]
    (data / "3" / "0003.png").write_bytes(png(3))
    assert numbers(dataset, rows) == [3, 27]


def test_a_part_of_the_data_without_a_readable_image_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("unnoise.data.sources.folder.GROUP_IMAGES", 5)
    data = as_folder(tmp_path / "data")
    (data / "7" / "0031.png").write_bytes(b"no image")
    for path in (data / "0").iterdir():
        path.write_bytes(b"no image")
    dataset = open_data("data", stream=True)
    assert numbers(dataset, np.arange(5)) == [1] * 5
    assert dataset.labels(np.arange(5)).tolist() == [1] * 5
    order = [*dataset.read(np.arange(COUNT))[:, 0, 0, 0]]
    last = 5 * 9 + 2  # 0031.png, after 0 1 10 11 2 3 4 5 6
    assert order[last] == 43
    few = dataset.part(np.array([last, 20, 40]))  # the next readable image of this part is far away
    assert numbers(few, np.array([0])) == [order[20]]


def test_data_that_changes_meanwhile_is_told(tmp_path):
    dataset = open_data(str(as_shards(tmp_path / "data")), stream=True)
    (tmp_path / "data" / "part-1.tar").unlink()
    with pytest.raises(InputError, match=r"part-1\.tar.*No such file"):
        dataset.read(np.arange(COUNT))


def test_held_out_images_are_never_trained_on(streamed):
    trained, held = split_held_out(streamed, 12)
    assert len(held) == 12
    assert sorted(numbers(trained, np.arange(48)) + numbers(held, np.arange(12))) == list(range(COUNT))
    assert numbers(split_held_out(streamed, 12)[1], np.arange(12)) == numbers(held, np.arange(12))


def test_a_fingerprint_knows_the_data_and_not_its_place(tmp_path):
    first = open_data(str(as_shards(tmp_path / "one")), stream=True).fingerprint
    (tmp_path / "one").rename(tmp_path / "two")
    assert open_data("two", stream=True).fingerprint == first
    assert open_data("two", stream=True, limit=30).fingerprint != first
    shard = tmp_path / "two" / "part-0.tar"
    shard.write_bytes(shard.read_bytes().replace(png(3), png(4)))  # the same length as before
    assert open_data("two", stream=True).fingerprint != first
    with tarfile.open(tmp_path / "two" / "part-2.tar", "a") as archive:
        add(archive, "more.png", png(60))
    assert open_data("two", stream=True).fingerprint != first


def test_a_damaged_index_is_made_again(tmp_path):
    data = str(as_shards(tmp_path / "data"))
    first = open_data(data, stream=True).read(np.arange(9))
    (kept,) = (tmp_path / "cache" / "shards").glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    np.testing.assert_array_equal(open_data(data, stream=True).read(np.arange(9)), first)


def test_batches_are_read_ahead(tmp_path):
    dataset = open_data(str(as_folder(tmp_path / "data")), stream=True)
    asked = []

    def reading(indices):
        asked.append(indices)
        return read_batch(dataset, indices)

    found = read_ahead(order(dataset, 8, seed=0), reading)
    batch = next(found)()
    np.testing.assert_array_equal(batch.pixels, dataset.read(batch.indices))
    while len(asked) < 2:  # without being called for
        time.sleep(0.01)
    found.close()


def test_a_batch_that_is_read_ahead_and_not_wanted_stops_nothing():
    """The last batch of a training is followed by one that may be unreadable."""

    def reading(indices):
        if indices[0] == 1:
            raise InputError("gone")
        return Batch(1, slice(None), indices, np.zeros((1, 1, 8, 8), np.uint8), None)

    found = read_ahead((np.array([i]) for i in range(9)), reading)
    assert next(found)().indices == [0]
    with pytest.raises(InputError, match="gone"):
        next(found)()


@pytest.mark.parametrize(("each", "room"), [(256, 5_000), (1_000, 4_000), (64, 3_000), (10_000, 40_000), (10_000, 9)])
def test_no_more_is_open_at_a_time_than_there_is_room_for(each, room):
    """Check that groups are read once if there is room for `room` images in memory."""
    groups = np.repeat(np.arange(100_000 // each), each)
    open_, opened = OrderedDict(), 0
    for i in groups[nearby(groups, 64, np.random.default_rng(0), room)].tolist():
        if i not in open_:
            opened += 1
            open_[i] = None
            if len(open_) * each > max(room, each):
                open_.popitem(last=False)
        open_.move_to_end(i)
    assert opened < 1.3 * (100_000 // each) + 32


def test_training_on_a_stream_goes_on_at_the_right_image(tmp_path):
    as_shards(tmp_path / "data")
    assert len(png(3)) == len(png(4))
    given = {"data": "data", "stream": True, "held_out": 4, "decay": "none", "classes": True, **TINY}
    whole = train_folder(**given, images="160", out="whole")
    train_folder(**given, images="72", out="parts")  # in the second epoch
    parts = train_folder(**given, images="160", out="parts")
    one, two = (unnoise.load(run).model.backbone.state_dict() for run in (whole, parts))
    assert all((one[name] == two[name]).all() for name in one)
    assert unnoise.load(parts).card.training["config"]["stream"] is True
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    asked = EvalConfig("parts", data="elsewhere", n=50, metrics="kid,bpd", levels=2, ode=False, reference=50)
    found = run_evaluation(asked, say=lambda _: None)
    assert found["bpd"]["trained_on_it"] is False  # the held-out images are the same in both runs
    assert found["scores"]["against"]["of"] == 60


def test_splits_of_a_folder_are_not_mixed(tmp_path):
    for name in ("train", "test"):
        (tmp_path / "data").mkdir(exist_ok=True)
        as_shards(tmp_path / "data" / name)
    (tmp_path / "other").mkdir()
    as_shards(tmp_path / "other" / "strains")
    for stream in (False, True):
        assert [len(part) for part in split_held_out(open_data("data", stream=stream))] == [COUNT, COUNT]
    assert len(open_data("other", stream=True)) == COUNT
    system = fsspec.filesystem("memory")
    for path in (tmp_path / "data").rglob("*.tar"):
        system.pipe(f"/train-sets/a/{path.relative_to(tmp_path / 'data')}", path.read_bytes())
    remote = open_data("memory://train-sets/a", stream=True)
    assert [len(part) for part in split_held_out(remote)] == [COUNT, COUNT]
    named = [("training-0.tar", 1), ("validation-0.tar", 2), ("strain/0.tar", 3)]
    assert split_files(named) == ([1], [2], ["strain/0.tar"])


def test_a_tar_of_folders_has_the_same_classes_either_way(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for i in range(8):
            add(archive, f"{'cat' if i % 2 else 'dog'}/{i}.png", png(i))
    with tarfile.open(tmp_path / "y.tar.gz", "w:gz") as archive:
        for i in range(8):
            add(archive, f"{i}.png", png(i))
            add(archive, f"{i}.cls", b"cat" if i % 2 else b"dog")
    with tarfile.open(tmp_path / "z.tar", "w") as archive:
        for i in range(8):
            add(archive, f"{i}.seg.png", png(i))
            add(archive, f"{i}.cls", b"cat" if i % 2 else b"dog")
    with tarfile.open(tmp_path / "p.tar", "w") as archive:  # the folder was packed whole
        for i in range(8):
            add(archive, f"pets/{'cat' if i % 2 else 'dog'}/{i}.png", png(i))
    found = [open_data("p.tar"), open_data("p.tar", stream=True)]
    found += [open_data("x.tar"), open_data("x.tar", stream=True), open_data("y.tar.gz")]
    found += [open_data("z.tar"), open_data("z.tar", stream=True)]
    for dataset in found:
        assert dataset.classes == ("cat", "dog")
        pairs = zip(numbers(dataset, np.arange(8)), dataset.labels(np.arange(8)).tolist(), strict=True)
        assert sorted(pairs) == [(i, 1 - i % 2) for i in range(8)]


def test_data_that_no_disk_holds_decoded_is_told_of_streams(tmp_path, monkeypatch):
    as_folder(tmp_path / "data")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=60 * 8 * 8 * 3 - 1))
    with pytest.raises(InputError, match=r"60 decoded images take 0\.0 GB.*--stream"):
        open_data("data")
    assert len(open_data("data", stream=True)) == 60
