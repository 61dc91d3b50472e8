"""The span of numbers is one for the whole set, read from it, and told; the expected pixels are computed by hand."""

import json
import struct
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image

import unnoise
from image_files import everything, noise, put, write_idx
from tiny import TINY, train_folder
from unnoise.card import describe_run, make_card
from unnoise.config import EvalConfig
from unnoise.data import open_data, target_format
from unnoise.data.audit import audit_data, format_audit
from unnoise.data.numbers import find_span
from unnoise.editing.inputs import open_image
from unnoise.errors import InputError
from unnoise.evaluation.image_sets import run_data
from unnoise.images import save_image
from unnoise.progress import silent

RAMP = np.arange(64).reshape(8, 8) / 63  # 0..1


def scaled(values, low, high, top=65535):
    """Return the pixels that numbers become if low is black and high is white."""
    return np.rint((np.asarray(values, np.float64) - low) / (high - low) * top)


def note_with(data, *words):
    """Return the one note that has all these words."""
    (found,) = [note for note in data.notes if all(word in note for word in words)]
    return found


def write_tiff(path, array, *, photometric=1, order="<", bits=None):
    """Write an uncompressed gray TIFF of any type of numbers; Pillow writes few of them."""
    code, bits = {"u": 1, "i": 2, "f": 3}[array.dtype.kind], bits or 8 * array.itemsize
    data = array.astype(array.dtype.newbyteorder(order)).tobytes()
    height, width = len(array), 8 * len(data) // len(array) // bits
    numbers = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: height,
        279: len(data),
    }
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, number) for tag, number in (numbers | {339: code}).items()]
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(data))
    path.write_bytes(head + data + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4))


# Image files


SETS = {  # numbers of two images, and the span of both
    "12 bits in 16": (np.uint16, RAMP * 4095, RAMP * 700, (0, 4095)),
    "10 bits in 16": (np.uint16, RAMP * 1000, RAMP * 300, (0, 1023)),
    "14 bits in 16": (np.uint16, RAMP * 16383, RAMP * 700, (0, 16383)),
    "16 bits": (np.uint16, RAMP * 17000, RAMP * 700, (0, 65535)),
    "8 bits in 16": (np.uint16, RAMP * 200, RAMP * 7, (0, 255)),
    "uint32": (np.uint32, RAMP * 4e9, RAMP * 7, (0, 2**32 - 1)),
    "uint32 of 20 bits": (np.uint32, RAMP * 1e6, RAMP * 7, (0, 1e6)),
    "uint32 of 12 bits": (np.uint32, RAMP * 4000, RAMP * 7, (0, 4095)),
    "int32": (np.int32, RAMP * 65535, RAMP * 7, (0, 65535)),
    "int32 with a sign": (np.int32, RAMP * 3e6 - 1e6, RAMP * 7, (-1e6, 2e6)),
    "int16 with a sign": (np.int16, RAMP * 4095 - 1024, RAMP * 7, (-1024, 3071)),
    "int16 of 12 bits": (np.int16, RAMP * 4000, RAMP * 7, (0, 4095)),
    "int16 of 15 bits": (np.int16, RAMP * 32000, RAMP * 7, (0, 32767)),
    "floats 0..1": (np.float32, RAMP, RAMP / 90, (0, 1)),
    "floats -1..1": (np.float32, RAMP * 2 - 1, RAMP / 90, (-1, 1)),
    "floats 0..255": (np.float32, RAMP * 230, RAMP * 0.95, (0, 255)),
    "floats 0..65535": (np.float32, RAMP * 65535, RAMP * 0.95, (0, 65535)),
    "floats 0..3": (np.float32, RAMP * 3, RAMP * 0.95, (0, np.float32(3))),
    "floats of kelvin": (np.float32, RAMP * 60 + 250, RAMP + 260, (250, 310)),
    "floats 1e-9": (np.float32, RAMP * 1e-9, RAMP * 1e-10, (0, 1)),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", SETS)
def test_one_span_for_all_files(root, load, name, order):
    dtype, first, second, span = SETS[name]
    if dtype == np.uint32 and order == ">":
        pytest.skip("Pillow does not read them")
    first, second = first.astype(dtype), second.astype(dtype)
    write_tiff(root / "a.tif", second, order=order)  # the dark one comes first
    write_tiff(root / "b.tif", first, order=order)
    data = load(root)
    assert data.mode == "I;16"
    np.testing.assert_allclose(everything(data)[:, 0], [scaled(second, *span), scaled(first, *span)], rtol=0, atol=1)
    note_with(data, f"{span[0]:.10g} is black and {span[1]:.10g} is white", "in 2 images")
    assert bool([note for note in data.notes if "less than a quarter" in note]) == (name == "floats 1e-9")


def test_16_bit_png_of_12_bits(root, load):
    values = (RAMP * 4095).astype(np.uint16)
    put(root, "a.png", values)
    data = load(root)
    np.testing.assert_array_equal(everything(data)[0, 0], scaled(values, 0, 4095))
    assert note_with(data, "black") == "uint16 values: 0 is black and 4095 is white in 1 image"
    np.testing.assert_array_equal(everything(load(root, channels=3))[0, 1], np.rint(scaled(values, 0, 4095) / 257))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_white_is_zero(root, load, dtype):
    values = (RAMP * (4095 if dtype == np.uint16 else 1)).astype(dtype)
    write_tiff(root / "a.tif", values, photometric=0)
    np.testing.assert_allclose(everything(load(root))[0, 0], 65535 - scaled(values, 0, values.max()), rtol=0, atol=1)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("photometric", [0, 1])
def test_few_bits_span_8_bits(root, load, bits, photometric):
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) % 2**bits
    packed = sum(values[:, i :: 8 // bits] << (8 - bits - i * bits) for i in range(8 // bits)).astype(np.uint8)
    write_tiff(root / "a.tif", packed, bits=bits, photometric=photometric)
    expected = scaled(values, 0, 2**bits - 1, 255)
    np.testing.assert_array_equal(everything(load(root))[0, 0], expected if photometric else 255 - expected)


@pytest.mark.parametrize(("dtype", "order"), [(np.uint32, ">"), (np.int8, "<"), (np.float64, "<"), (np.uint64, "<")])
def test_files_that_pillow_does_not_read_are_refused_by_name(root, load, dtype, order):
    write_tiff(root / "a.tif", (RAMP * 100).astype(dtype), order=order)
    with pytest.raises(InputError, match=rf"a\.tif \(TIFF of 1 x {8 * np.dtype(dtype).itemsize}-bit"):
        load(root)


def test_kinds_of_storage_have_spans_of_their_own(root, load):
    deep, real, plain = (RAMP * 4095).astype(np.uint16), (RAMP * 255).astype(np.float32), noise(8, 8)
    write_tiff(root / "a.tif", deep)
    write_tiff(root / "b.tif", real)
    write_tiff(root / "c.tif", (RAMP * 4e9).astype(np.uint32))
    put(root, "d.png", plain)
    data = load(root)
    expected = [scaled(deep, 0, 4095), scaled(real, 0, 255), scaled((RAMP * 4e9).astype(np.uint32), 0, 2**32 - 1)]
    np.testing.assert_allclose(everything(data)[:, 0], [*expected, plain.astype(int) * 257], rtol=0, atol=1)
    assert data.spans == {"uint16": (0, 4095), "float32": (0, 255), "uint32": (0, 2**32 - 1)}
    assert len([note for note in data.notes if "is black" in note]) == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_image_with_numbers_that_are_not_finite_is_refused_alone(root, load, bad):
    broken = RAMP.astype(np.float32)
    broken[3, 4] = bad
    write_tiff(root / "a.tif", broken)
    write_tiff(root / "b.tif", (RAMP * 255).astype(np.float32))
    data = load(root)
    assert len(data) == 1
    assert "skipped 1 of 2 files: a.tif (holds numbers that are not finite" in note_with(data, "skipped")
    np.testing.assert_allclose(everything(data)[0, 0], scaled(RAMP, 0, 1), rtol=0, atol=1)


def test_a_quarter_of_the_span(root, load):
    put(root, "a.png", (RAMP > 0.5).astype(np.uint8))  # a mask of 0 and 1
    data = load(root)
    assert note_with(data, "quarter").startswith("warning: 99 % of all pixels lie in 0..1 of 0..255, less")
    put(root, "b.png", (RAMP * 70).astype(np.uint8))
    assert not [note for note in load(root).notes if "quarter" in note]


def test_a_broken_pixel_does_not_hide_that_all_others_are_dark(root, load):
    """The camera has 12 bits in 16, and one of its pixels is always white: the span is that of 16 bits."""
    image = np.linspace(0, 4095, 1024).reshape(32, 32).astype(np.uint16)
    put(root, "a.png", image)
    assert not [note for note in load(root).notes if "quarter" in note]
    image[5, 7] = 65535
    put(root, "a.png", image)
    data = load(root)
    assert data.spans == {"uint16": (0, 65535)}
    assert note_with(data, "quarter").startswith("warning: 99 % of all pixels lie in")


def test_the_audit_tells_the_span(root, load):
    put(root, "a.png", (RAMP * 4095).astype(np.uint16))
    lines = format_audit(audit_data(root, silent))
    assert [line for line in lines if "uint16 values: 0 is black and 4095 is white in 1 image" in line]


def test_full_range_is_not_decoded_twice(root, load, monkeypatch):
    for i in range(4):
        put(root, f"{i}.png", noise(8, 8, dtype=np.uint16))
    seen = []
    real = target_format.read_numbers
    monkeypatch.setattr(target_format, "read_numbers", lambda *given: seen.append(given) or real(*given))
    load(root)
    assert len(seen) == 1
    for i in range(4):
        put(root, f"{i}.png", noise(8, 8, 3))
    load(root)
    assert len(seen) == 1


# Arrays


ARRAYS = {  # numbers, their span, and the type of the pixels
    "uint16 of 12 bits": ((RAMP * 4095).astype(np.uint16), (0, 4095), np.uint16),
    "big-endian": ((RAMP * 4095).astype(">u2"), (0, 4095), np.uint16),
    "big-endian floats": (RAMP.astype(">f4"), (0, 1), np.uint8),
    "int64 of 8 bits": ((RAMP * 255).astype(np.int64), (0, 255), np.uint8),
    "int64": ((RAMP * 1e12).astype(np.int64), (0, 1e12), np.uint16),
    "uint64": ((RAMP * 1.8e19).astype(np.uint64), (0, 1.8e19), np.uint16),
    "uint32": ((RAMP * 4e9).astype(np.uint32), (0, 2**32 - 1), np.uint16),
    "int32 with a sign": ((RAMP * 3000 - 1000).astype(np.int32), (-1000, 2000), np.uint16),
    "int16": ((RAMP * 32767).astype(np.int16), (0, 32767), np.uint16),
    "int8": ((RAMP * 127).astype(np.int8), (0, 127), np.uint8),
    "int8 with a sign": ((RAMP * 255 - 128).astype(np.int8), (-128, 127), np.uint8),
    "float16": (RAMP.astype(np.float16), (0, 1), np.uint8),
    "float16 of large numbers": ((RAMP * 65504).astype(np.float16), (0, 65535), np.uint8),
    "float64 beyond float32": (RAMP * 1e300, (0, 1e300), np.uint8),
    "floats 0..255": (RAMP * 255, (0, 255), np.uint8),
    "floats 0..7": (RAMP * 7, (0, 7), np.uint8),
    "floats -1000..3000": (RAMP * 4000 - 1000, (-1000, 3000), np.uint8),
    "bool": (RAMP > 0.5, (0, 1), np.uint8),
}


@pytest.mark.parametrize("form", ["npy", "npz", "array", "list", "pairs"])
@pytest.mark.parametrize("name", ARRAYS)
def test_one_span_for_all_arrays(tmp_path, load, name, form):
    array, span, dtype = ARRAYS[name]
    both = np.stack([np.full_like(array, array.flat[-1] // 50 if array.dtype.kind in "iu" else array.flat[-1]), array])
    np.save(tmp_path / "x.npy", both)
    np.savez(tmp_path / "x.npz", both)
    forms = {"array": both, "list": [*both], "pairs": [(both[0], 3), (both[1], 5)]}
    data = load(forms.get(form, tmp_path / f"x.{form}"))
    pixels = everything(data)[:, 0]
    assert pixels.dtype == dtype
    np.testing.assert_allclose(pixels, scaled(both, *span, np.iinfo(dtype).max), rtol=0, atol=1)
    assert name == "bool" or "in 2 images" in note_with(data, "is black")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("dtype", "top", "mode"), [(np.int64, 255, True), (np.uint16, 4095, False)])
def test_channels_of_whole_numbers(load, channels, first, dtype, top, mode):
    image = np.stack([(RAMP * top / (c + 1)).astype(dtype) for c in range(channels)])
    data = load((image if first else image.transpose(1, 2, 0))[None])
    modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"} if mode else {1: "I;16"}
    assert (data.mode, data.shape) == (modes.get(channels, ""), (channels, 8, 8))
    np.testing.assert_array_equal(everything(data)[0], scaled(image, 0, top, np.iinfo(everything(data).dtype).max))


def test_idx_of_other_numbers(root, load):
    values = (np.stack([RAMP, RAMP / 9]) * 4095).astype(">i2")
    write_idx(root / "train-images-idx3-ubyte", values)
    path = root / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:2] + b"\x0b" + path.read_bytes()[3:])
    np.testing.assert_array_equal(everything(load(root))[:, 0], scaled(values, 0, 4095))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("form", ["file", "array", "list", "dataset"])
def test_an_array_with_numbers_that_are_not_finite_is_skipped(tmp_path, load, bad, form):
    images = np.stack([RAMP, RAMP, RAMP]).astype(np.float32)
    images[1, 2, 3] = bad
    np.save(tmp_path / "x.npy", images)
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(images))
    data = load({"file": tmp_path / "x.npy", "array": images, "list": [*images], "dataset": dataset}[form])
    assert len(data) == 2
    assert "1 (holds numbers that are not finite" in note_with(data, "skipped 1 of 3")


def test_a_part_of_an_opened_dataset_keeps_its_range(load):
    images = np.stack([(RAMP * 65535), (RAMP * 900)]).astype(np.uint16)
    part = load(images)[1:]
    np.testing.assert_array_equal(everything(load(part, size="8"))[0, 0], images[1])


def test_constant_images(load):
    assert (everything(load(np.full((2, 8, 8), 7.0))) == 255).all()
    data = load(np.full((2, 8, 8), -5))
    assert (everything(data) == 0).all()
    assert note_with(data, "less than a quarter")


# Streams


def test_a_stream_says_that_a_sample_decided_and_counts_what_lies_beyond(root):
    for i in range(40):
        put(root, f"{i:02}.png", (RAMP * (4095 if i < 38 else 60000)).astype(np.uint16))
    data = open_data(root, stream=True)
    assert data.spans == {"uint16": (0, 4095)}
    said = "in a sample of 16 images: uint16 values: 0 is black and 4095 is white in 16 images"
    assert note_with(data, "is black") == said
    np.testing.assert_array_equal(everything(data)[0, 0], scaled((RAMP * 4095).astype(np.uint16), 0, 4095))
    first, second = data.store.news()
    assert first.startswith("cut off uint16 values beyond 0..4095 in 1 image")
    assert second.startswith("cut off uint16 values beyond 0..4095 in 2 images")


def test_spans_are_stored_beside_the_pixels(root, load):
    put(root, "a.png", (RAMP * 4095).astype(np.uint16))
    data = load(root)
    stored = json.loads((data.store.folder / "meta.json").read_text())
    assert stored["spans"] == {"uint16": [0, 4095]}
    assert load(root).spans == {"uint16": (0, 4095)}


@pytest.mark.parametrize(
    ("kind", "low", "high", "span"),
    [
        ("uint16", 0, 255, (0, 255)),
        ("uint16", 0, 256, (0, 1023)),
        ("uint16", 5, 65535, (0, 65535)),
        ("uint32", 0, 65536, (0, 65536)),
        ("uint32", 0, 2**30, (0, 2**32 - 1)),
        ("float32", -0.0005, 1.0005, (0, 1)),
        ("float32", -0.002, 1, (-1, 1)),
        ("float32", 0, 1.5, (0, 1.5)),
        ("float32", 0, 63, (0, 63)),
        ("float32", 0, 64, (0, 255)),
        ("float32", 3, 3, (0, 3)),
        ("int16", -3, -3, (-3, 0)),
    ],
)
def test_usual_spans(kind, low, high, span):
    assert find_span(kind, low, high) == span


# Runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run that was trained on 12 bits in 16."""
    place = tmp_path_factory.mktemp("run")
    for i in range(8):
        put(place, f"photos/{i}.png", (np.roll(RAMP, i, 0) * 4095).astype(np.uint16))
    return train_folder(str(place / "photos"), images="8", out=str(place / "run"), held_out=0, **TINY)


def test_a_run_keeps_and_names_its_spans(run):
    opened = unnoise.load(run)
    assert opened.card.spans == {"uint16": (0, 4095)}
    assert "numbers   uint16 0..4095" in describe_run(opened)


def test_other_data_is_read_by_the_spans_of_the_run(run, root):
    values = (RAMP * 700).astype(np.uint16)  # alone, they would span 0..1023
    put(root, "a.png", values)
    data = run_data(EvalConfig(str(run), data=str(root)), unnoise.load(run))
    np.testing.assert_array_equal(everything(data)[0, 0], scaled(values, 0, 4095))
    np.save(root / "x.npy", values[None])
    data = run_data(EvalConfig(str(run), data=str(root / "x.npy")), unnoise.load(run))
    np.testing.assert_array_equal(everything(data)[0, 0], scaled(values, 0, 4095))


def test_training_data_is_decoded_once_for_its_run(run, monkeypatch):
    opened = unnoise.load(run)
    data = run_data(EvalConfig(str(run)), opened)
    assert data.fingerprint == opened.card.data["fingerprint"]
    assert data.spans == opened.card.spans


def test_a_run_of_version_0_1_0_keeps_its_rule(run, root):
    opened = unnoise.load(run)
    about = {name: value for name, value in opened.card.data.items() if name != "spans"}
    old = replace(opened, card=replace(opened.card, data=about))
    values = (RAMP * 4095).astype(np.uint16)
    put(root, "a.png", values)
    write_tiff(root / "b.tif", RAMP.astype(np.float32))
    write_tiff(root / "c.tif", (RAMP * 255).astype(np.float32))
    data = run_data(EvalConfig(str(run), data=str(root)), old)
    expected = [values, scaled(RAMP, 0, 1), np.rint(RAMP * 255)]
    np.testing.assert_allclose(everything(data)[:, 0], expected, rtol=0, atol=1)
    assert "numbers" not in " ".join(describe_run(old))
    np.save(root / "x.npy", np.stack([RAMP * 2 - 1, RAMP]))
    data = run_data(EvalConfig(str(run), data=str(root / "x.npy")), old)
    np.testing.assert_array_equal(everything(data)[1, 0], scaled(RAMP, -1, 1, 255))


def test_images_that_a_run_wrote_span_the_whole_range(run, root, load):
    x = torch.from_numpy(RAMP[None] * 2 - 1).float()
    path = save_image(x, root / "a", "I;16")
    expected = scaled(RAMP, 0, 1)
    for image in (path, Image.open(path)):
        given = open_image(image, (1, 8, 8), "I;16", spans=unnoise.load(run).card.spans)
        np.testing.assert_allclose(given[0, 0], RAMP * 2 - 1, rtol=0, atol=1e-4)
    data = run_data(EvalConfig(str(run), data=str(root)), unnoise.load(run))
    np.testing.assert_allclose(everything(data)[0, 0], expected, rtol=0, atol=1)
    dark = save_image(x / 100 - 0.99, root / "a", "I;16")
    np.testing.assert_allclose(everything(load(dark.parent))[0, 0], expected / 100, rtol=0, atol=1)


@pytest.mark.parametrize("spans", [{"uint16": [5, 5]}, {"uint16": [0]}, {"uint16": ["a", 2]}, [[0, 1]], 7])
def test_damaged_spans_in_a_card(run, spans):
    card = unnoise.load(run).card
    values = {f.name: getattr(card, f.name) for f in fields(card)} | {"data": {**card.data, "spans": spans}}
    with pytest.raises(InputError, match="description is damaged"):
        make_card(values, run)
