"""Small inputs that fuzzing found: each ended in a traceback, never ended, or was silently read as something else."""

import gzip
import io
import os
import struct
import tarfile
import warnings
import zlib
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from image_files import encoded, noise, write_tar
from unnoise import registry
from unnoise.data import open_data
from unnoise.data.decode import TargetFormat, decode, read_header
from unnoise.data.sources.find import find
from unnoise.data.sources.source import UnreadableImage
from unnoise.errors import InputError
from unnoise.recipes import train_config

SCHEDULE = registry.schedule.get("cosine:T=50")()


def small_images(count=3):
    return {f"{i}.png": encoded(noise(8, 8, 3)) for i in range(count)}


def one_line(error):
    text = str(error.value)
    assert len(text) < 1000
    assert "\n" not in text
    return text


# Images


def read(content):
    header = read_header(content, (8, 8))
    return decode(content, TargetFormat(header.mode, header.size, "crop"))


def png(width, height, depth, kind, pixels, *, interlaced=False, extra=()):
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(body)) + name + body + crc(name + body) for name, body in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def crc(content):
    return struct.pack(">I", zlib.crc32(content))


@pytest.mark.parametrize(
    ("depth", "kind"), [(1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 3), (8, 4), (16, 4), (8, 6), (16, 6)]
)
@pytest.mark.parametrize("level", [0, 173])
@pytest.mark.parametrize("missing", [1, 20])  # rows
def test_a_png_whose_pixels_end_early_is_truncated(depth, kind, level, missing):
    extra = [(b"PLTE", bytes(768))] if kind == 3 else []
    row = -(-12 * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind] // 8)
    pixels = (b"\0" + bytes([level]) * row) * 30
    assert read(png(12, 30, depth, kind, pixels, extra=extra)).pixels.shape[1:] == (30, 12)
    with pytest.raises(UnreadableImage, match="truncated"):
        read(png(12, 30, depth, kind, pixels[: -missing * (row + 1)], extra=extra))


@pytest.mark.parametrize("height", [7, 8])
@pytest.mark.parametrize("level", [0, 173])
def test_an_interlaced_png_whose_pixels_end_early_is_truncated(height, level):
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = [len(range(x, 7, dx)) for x, y, dx, dy in passes for _ in range(y, height, dy)]
    pixels = b"".join(b"\0" + bytes([level]) * n for n in rows)
    assert (read(png(7, height, 8, 0, pixels, interlaced=True)).pixels == level).all()
    with pytest.raises(UnreadableImage, match="truncated"):
        read(png(7, height, 8, 0, pixels[:-8], interlaced=True))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File Read")
@pytest.mark.parametrize("kind", [("TIFF", "raw"), ("TIFF", "tiff_lzw"), ("TIFF", "tiff_adobe_deflate"), ("GIF", None)])
def test_the_first_of_several_frames_is_right_wherever_the_file_is_cut(kind):
    frames = [Image.fromarray(noise(24, 20, 3)).convert("P" if kind[0] == "GIF" else "RGB") for _ in range(4)]
    options = {"compression": kind[1]} if kind[1] else {}
    frames[0].save(out := io.BytesIO(), kind[0], save_all=True, append_images=frames[1:], **options)
    whole, found = out.getvalue(), set()
    expected = read(whole).pixels
    for length in range(100, len(whole), len(whole) // 40):
        try:
            image = read(whole[:length])
        except UnreadableImage:
            continue
        np.testing.assert_array_equal(image.pixels, expected)
        found |= set(image.done)
    assert any("the first frame" in note for note in found)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File Read")
@pytest.mark.parametrize("order", "<>")
def test_a_tiff_whose_tags_are_cut_off_is_truncated(order):
    values = np.arange(480, dtype=f"{order}f4").tobytes()
    tags = [(256, 4, 20), (257, 4, 24), (258, 3, 32), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 24)]
    tags += [(279, 4, len(values)), (339, 3, 3)]
    entries = b"".join(struct.pack(f"{order}HHI", tag, kind, 1) + number(order, kind, n) for tag, kind, n in tags)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}I", 8 + len(values))
    content = head + values + struct.pack(f"{order}H", len(tags)) + entries
    assert read(content + bytes(4)).pixels.dtype == np.uint16
    for lost in range(1, len(entries) + 2, 5):
        with pytest.raises(UnreadableImage, match=r"truncated|damaged TIFF"):
            read(content[:-lost])


def number(order, kind, n):
    return struct.pack(f"{order}I", n) if kind == 4 else struct.pack(f"{order}HH", n, 0)


def test_few_bytes_that_claim_many_pixels_are_no_image():
    content = encoded(np.zeros((16, 16), np.uint8), "JPEG2000", no_jp2=True)
    at = content.index(b"\xff\x51") + 6  # the sizes of the image, and then the place of its first tile
    large = content[:at] + struct.pack(">II", 9000, 9000) + content[at + 8 :]
    with pytest.raises(UnreadableImage, match="9000x9000 pixels in a few bytes"):
        read_header(large, (8, 8))


# Archives and tables


@pytest.mark.parametrize("size", [2**40, 2**70])
def test_a_compressed_tar_that_claims_a_huge_member_ends_at_once(tmp_path, size):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.GNU_FORMAT) as archive:
        for name, content in small_images().items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    head = tarfile.TarInfo("huge.bin")
    head.size = size
    members = out.getvalue()[: out.tell() // 512 * 512].rstrip(b"\0")
    members += bytes(-len(members) % 512)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(members + head.tobuf(tarfile.GNU_FORMAT)))
    with pytest.raises(InputError, match="is the archive complete") as raised:
        open_data(str(tmp_path / "x.tar.gz"), size=8)
    one_line(raised)


def test_a_gzip_header_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "x.tar.gz"
    write_tar(path, small_images())
    content = path.read_bytes()
    for length in range(2, 12):
        path.write_bytes(content[:length])
        with pytest.raises(InputError):
            open_data(str(path), size=8)


@pytest.mark.parametrize("column", ["image", "label"])
@pytest.mark.parametrize("offset", [2**31 - 1, -5])
def test_an_arrow_file_with_wrong_offsets_does_not_read_other_memory(tmp_path, column, offset):
    values = {"image": pa.array([*small_images().values()], pa.binary()), "label": pa.array(["a", "b", "a"])}
    whole = values[column]
    offsets = np.frombuffer(whole.buffers()[1], np.int32)[:4].copy()
    offsets[2] = offset
    values[column] = pa.Array.from_buffers(whole.type, 3, [None, pa.py_buffer(offsets), whole.buffers()[2]])
    table = pa.table(values)
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match="cannot read") as raised:
        open_data(str(tmp_path / "x.arrow"), size=8)
    one_line(raised)


def test_a_numpy_header_of_python_2_needs_no_words(tmp_path):
    array = noise(3, 8, 8)
    np.save(tmp_path / "x.npy", array)
    content = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(content.replace(b"(3, 8, 8), }  ", b"(3L, 8L, 8), }"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = open_data(str(tmp_path / "x.npy"))
    np.testing.assert_array_equal(data.read(np.arange(3))[:, 0], array)


@pytest.mark.parametrize("head", ["9" * 5000, "{'descr': '|u1', 'fortran_order': False, 'shape': (4,) * 9}"])
def test_errors_repeat_only_a_part_of_a_long_header(tmp_path, head):
    text = head.encode() + b"\n"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text)
    with pytest.raises(InputError) as raised:
        open_data(str(tmp_path / "x.npy"))
    one_line(raised)


@pytest.mark.parametrize("shape", ["(4, True, 9)", "(4, -1, 9)", "(-4, 8, 9)"])
def test_the_shape_of_an_array_is_made_of_whole_numbers(tmp_path, shape):
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text + bytes(288))
    with pytest.raises(InputError, match="its shape is"):
        open_data(str(tmp_path / "x.npy"))


def test_an_idx_file_with_many_axes_is_refused_in_one_line(tmp_path):
    (tmp_path / "x-images-idx3-ubyte").write_bytes(b"\0\0\x08\xff" + os.urandom(2000))
    with pytest.raises(InputError, match="not an IDX file") as raised:
        find(str(tmp_path / "x-images-idx3-ubyte"))
    one_line(raised)


# Addresses


@pytest.mark.parametrize("address", ["file://images", "file://./images", "file://", "file://[", "file://[1]/a"])
def test_a_file_address_that_names_no_file_is_not_the_current_folder(tmp_path, monkeypatch, address):
    (tmp_path / "1.png").write_bytes(encoded(noise(8, 8, 3)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="write file:///FOLDER") as raised:
        find(address)
    one_line(raised)


def test_a_null_character_in_a_name_is_no_data():
    with pytest.raises(InputError, match="no data"):
        find("~\0")


# Specs and recipes


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("objective", "min_snr:gamma=nan"),
        ("objective", "hybrid:bound=inf"),
        ("sampler", "heun:churn=inf"),
        ("edit", "deblur:sigma=-inf"),
        ("optimizer", "adamw:beta1=1e320"),
        ("posterior", "pigdm:std=nan"),
        ("spacing", "karras:highest=inf"),
    ],
)
def test_options_are_finite_numbers(kind, spec):
    with pytest.raises(InputError, match="is a finite number"):
        getattr(registry, kind).get(spec)


def test_options_of_callables_are_finite_numbers_too():
    heun = registry.sampler.get("heun").func
    with pytest.raises(InputError, match="churn is a finite number, got inf"):
        registry.sampler.get(partial(heun, churn=float("inf")))


@pytest.mark.parametrize("rho", ["1e-3", "1e300"])
def test_a_spacing_whose_levels_are_not_apart_is_refused(rho):
    with pytest.raises(InputError, match="not finite, or equal"):
        SCHEDULE.grid(10, f"karras:rho={rho}")


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("sampler", f"euler:churn={'9' * 5000}x"),
        ("backbone", f"unet:widths={'9' * 5000}"),
        ("schedule", f"cosine:T=8,T={'9' * 5000}"),
        ("schedule", f"cosine:{'9' * 5000}=5"),
        ("dataset", f"faces:label={'9' * 5000}"),
    ],
)
def test_errors_repeat_only_a_part_of_a_long_spec(kind, spec):
    with pytest.raises(InputError) as raised:
        getattr(registry, kind).get(spec)
    one_line(raised)


@pytest.mark.parametrize("text", ["seed: !!int ''", "batch: !!float ''"])
def test_a_number_of_no_digits_is_not_yaml(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=r"x\.yaml"):
        train_config(str(tmp_path / "x.yaml"), {})
