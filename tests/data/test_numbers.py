"""Number ranges: all deep images of a set share one span, which is read from the set and told."""

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.data.cache import open_data
from unnoise.data.numbers import real_span, whole_span
from unnoise.errors import InputError

RAMP = np.arange(64, dtype=np.int64).reshape(8, 8)  # 0..63; the second image is its mirror
IMAGES = np.stack([RAMP, RAMP[::-1]])


def ramp(black, white, dtype):
    """Return two images [2, 8, 8] that go from black to white."""
    return (black + IMAGES / 63 * (white - black)).astype(dtype)


def expected(values, black, white, top):
    return np.rint((values.astype(np.float64) - black) / (white - black) * top).astype(int)


def save_tiff(path, values, photometric=1, sample_format=None):
    """Write numbers as an uncompressed TIFF by hand: Pillow writes few of the kinds that exist."""
    kinds = {"u": 1, "i": 2, "f": 3}
    data, bits = values.tobytes(), values.itemsize * 8
    tags = [(256, 4, values.shape[1]), (257, 4, values.shape[0]), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, values.shape[0]), (279, 4, len(data))]
    tags += [(339, 3, sample_format or kinds[values.dtype.kind])]
    order = ">" if values.dtype.byteorder == ">" else "<"
    entries = b"".join(
        np.array([tag, kind], f"{order}u2").tobytes()
        + np.array([1], f"{order}u4").tobytes()
        + (np.array([value], f"{order}u4") if kind == 4 else np.array([value, 0], f"{order}u2")).tobytes()
        for tag, kind, value in tags
    )
    head = (b"MM" if order == ">" else b"II") + np.array([42], f"{order}u2").tobytes()
    head += np.array([8 + len(data)], f"{order}u4").tobytes()
    path.write_bytes(head + data + np.array([len(tags)], f"{order}u2").tobytes() + entries + bytes(4))


def folder_of(tmp_path, images, **tiff):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, values in enumerate(images):
        save_tiff(folder / f"{i:04}.tif", values, **tiff)
    return folder


def pixels(data):
    return data.read(np.arange(len(data)))[:, 0].astype(int)


FILES = {
    "12 bits in 16": (ramp(0, 4095, "u2"), 0, 4095),
    "10 bits in 16": (ramp(0, 1000, "u2"), 0, 1023),
    "14 bits in 16": (ramp(0, 16383, "u2"), 0, 16383),
    "16 bits": (ramp(0, 60000, "u2"), 0, 65535),
    "16 bits, big-endian": (ramp(0, 60000, ">u2"), 0, 65535),
    "16 bits with a sign": (ramp(-1024, 3071, "i2"), -1024, 3071),
    "32 bits": (ramp(0, 2**31, "u4"), 0, 2**31),
    "32 bits to the top": (ramp(0, 2**32 - 1, "u4"), 0, 2**32 - 1),
    "32 bits of 16": (ramp(0, 65535, "u4"), 0, 65535),
    "32 bits with a sign": (ramp(-(2**20), 2**20, "i4"), -(2**20), 2**20),
    "floats in 0..1": (ramp(0, 1, "f4"), 0, 1),
    "floats in -1..1": (ramp(-1, 1, "f4"), -1, 1),
    "floats in 0..255": (ramp(0, 250, "f4"), 0, 255),
    "floats in 0..255, big-endian": (ramp(0, 250, ">f4"), 0, 255),
    "floats in 0..65535": (ramp(0, 65000, "f4"), 0, 65535),
    "floats of another span": (ramp(-3, 12, "f4"), -3, 12),
}


@pytest.mark.parametrize(("values", "black", "white"), FILES.values(), ids=FILES)
def test_files_of_deep_numbers_have_the_right_values(tmp_path, values, black, white):
    data = open_data(folder_of(tmp_path, values), cache=tmp_path / "cache")
    assert data.mode == "I;16"
    assert abs(pixels(data) - expected(values, black, white, 65535)).max() <= 1
    assert any(f"{black:g} is black, {white:g} is white" in note for note in data.notes)


def test_the_span_belongs_to_the_set_and_not_to_a_file(tmp_path):
    """A file whose floats happen to lie in 0..1 is nearly black among files of 0..255."""
    bright, dark = ramp(0, 255, "f4")[0], ramp(0, 1, "f4")[0]
    data = open_data(folder_of(tmp_path, [bright, dark]), cache=tmp_path / "cache")
    assert pixels(data)[0].max() == 65535
    assert pixels(data)[1].max() == 257


def test_white_may_be_zero(tmp_path):
    values = ramp(0, 4095, "u2")
    data = open_data(folder_of(tmp_path, values, photometric=0), cache=tmp_path / "cache")
    assert abs(pixels(data) - (65535 - expected(values, 0, 4095, 65535))).max() <= 1


def test_whole_numbers_and_floats_in_one_set_have_spans_of_their_own(tmp_path):
    images = [ramp(0, 4095, "u2")[0], ramp(0, 1, "f4")[0]]
    data = open_data(folder_of(tmp_path, images), cache=tmp_path / "cache")
    assert abs(pixels(data)[0] - pixels(data)[1]).max() <= 16  # 1/4096 of the range: the first has 12 bits
    assert data.spans == ((0, 4095), (0, 1))


def test_eight_bit_images_among_deep_ones_keep_their_range(tmp_path):
    folder = folder_of(tmp_path, ramp(0, 4095, "u2"))
    Image.fromarray(ramp(0, 255, "u1")[0]).save(folder / "8.png")
    data = open_data(folder, cache=tmp_path / "cache")
    assert abs(pixels(data)[2] - pixels(data)[0]).max() <= 257


def test_one_file_with_nan_is_skipped_by_name(tmp_path):
    images = [*ramp(0, 1, "f4"), np.full((8, 8), np.nan, "f4"), np.full((8, 8), np.inf, "f4")]
    data = open_data(folder_of(tmp_path, images), cache=tmp_path / "cache")
    assert len(data) == 2
    assert any("0002.tif (holds numbers that are not finite), 0003.tif" in note for note in data.notes)


def test_png_of_12_bits(tmp_path):
    (tmp_path / "images").mkdir()
    for i, values in enumerate(ramp(0, 4095, "u2")):
        Image.fromarray(values).save(tmp_path / f"images/{i}.png")
    data = open_data(tmp_path / "images", cache=tmp_path / "cache", channels=3)
    assert data.shape == (3, 8, 8)
    assert abs(pixels(data) - expected(ramp(0, 4095, "u2"), 0, 4095, 255)).max() <= 1


ARRAYS = {
    "int8": (ramp(-128, 127, "i1"), -128, 127, 65535),
    "int16": (ramp(-1000, 3000, "i2"), -1000, 3000, 65535),
    "int64 of 8 bits": (ramp(0, 255, "i8"), 0, 255, 255),
    "uint16 of 8 bits": (ramp(0, 255, "u2"), 0, 255, 255),
    "uint16 of 12 bits": (ramp(0, 4095, "u2"), 0, 4095, 65535),
    "uint16": (ramp(0, 65535, "u2"), 0, 65535, 65535),
    "uint16, big-endian": (ramp(0, 65535, ">u2"), 0, 65535, 65535),
    "uint32": (ramp(0, 2**32 - 1, "u4"), 0, 2**32 - 1, 65535),
    "uint64": (ramp(0, 2**40, "u8"), 0, 2**40, 65535),
    "float16": (ramp(0, 1, "f2"), 0, 1, 255),
    "float32 of 0..255": (ramp(0, 255, "f4"), 0, 255, 255),
    "float64, big-endian": (ramp(-1, 1, ">f8"), -1, 1, 255),
    "float64 beyond float32": (ramp(0, 1e300, "f8"), 0, 1e300, 255),
    "floats of another span": (ramp(5, 12, "f4"), 5, 12, 255),
}


@pytest.mark.parametrize("form", ["npy", "npz", "array", "list", "tensor"])
@pytest.mark.parametrize(("values", "black", "white", "top"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_have_the_right_values(tmp_path, form, values, black, white, top):
    if form == "npy":
        np.save(data := tmp_path / "x.npy", values)
    elif form == "npz":
        np.savez(data := tmp_path / "x.npz", values)
    elif form == "tensor":
        if values.dtype in (np.uint64, np.uint32) or values.dtype.byteorder == ">":
            pytest.skip("PyTorch has no such tensors")
        data = torch.from_numpy(values)
    else:
        data = [*values] if form == "list" else values
    opened = open_data(data, cache=tmp_path / "cache")
    assert opened.mode == ("L" if top == 255 else "I;16")
    assert abs(pixels(opened) - expected(values, black, white, top)).max() <= 1
    assert any(f"{black:g} is black, {white:g} is white" in note for note in opened.notes)


def test_arrays_of_16_bit_colours_have_one_span(tmp_path):
    values = np.stack([ramp(0, 4095, "u2")] * 3, axis=1)
    data = open_data(values, cache=tmp_path / "cache")
    assert data.shape == (3, 8, 8)
    assert abs(pixels(data) - expected(values[:, 0], 0, 4095, 65535)).max() <= 1


@pytest.mark.parametrize("values", [(IMAGES > 31).astype(np.uint8), np.full((2, 8, 8), 7, np.uint8)], ids=["mask", "7"])
def test_values_that_cover_little_of_the_range_get_a_warning(tmp_path, values):
    data = open_data(values, cache=tmp_path / "cache")
    low, high = values.min(), values.max()
    assert any(note.startswith(f"the pixels lie in {low}..{high} of 0..255, less than") for note in data.notes)


def test_usual_images_get_no_note(tmp_path):
    assert open_data(ramp(0, 255, "u1"), cache=tmp_path / "cache").notes == ()


def test_a_stream_says_what_lies_beyond_the_span_of_its_sample(tmp_path):
    images = [*ramp(0, 4095, "u2")] * 600
    images[500] = ramp(0, 60000, "u2")[0]
    data = open_data(folder_of(tmp_path, images), stream=True)
    assert any("0 is black, 4095 is white" in note for note in data.notes)
    assert data.read(np.array([500])).max() == 65535
    (warning,) = data.store.news()
    assert warning.startswith("cut off numbers beyond 0..4095 in 1 image")
    assert data.spans == ((0, 4095), (0, 1))


@pytest.mark.parametrize(
    ("low", "high", "span"),
    [(0, 255, (0, 255)), (0, 256, (0, 1023)), (5, 4096, (0, 16383)), (0, 65536, (0, 65536)), (-1, 5, (-1, 5))],
)
def test_the_span_of_whole_numbers(low, high, span):
    assert whole_span(low, high) == span


@pytest.mark.parametrize(
    ("low", "high", "span"),
    [(0, 0.1, (0, 1)), (0.0, 1.0005, (0, 1)), (-0.5, 0.2, (-1, 1)), (0, 255.1, (0, 255)), (0, 2.5, (0, 2.5))],
)
def test_the_span_of_floats(low, high, span):
    assert real_span(low, high) == span


@pytest.mark.parametrize(("low", "high"), [(5.0, 5.0), (0.0, np.inf), (np.nan, 1.0)])
def test_no_span(low, high):
    with pytest.raises(InputError, match="pixel"):
        real_span(low, high)
