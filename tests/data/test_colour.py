"""Colours become sRGB, and a file that holds sRGB keeps every bit."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from image_files import everything, noise
from unnoise.data.colour import BY_GAMMA, BY_PROFILE, NOT_APPLIED, to_srgb
from unnoise.data.icc import (
    BT2020_PRIMARIES,
    P3_PRIMARIES,
    SRGB_CURVE,
    SRGB_PRIMARIES,
    curve_tag,
    rgb_profile,
    write_profile,
)
from unnoise.errors import InputError


def gray_profile(curve):
    return write_profile(b"GRAY", {b"kTRC": curve})


P3 = rgb_profile(P3_PRIMARIES, SRGB_CURVE)
ADOBE = rgb_profile((0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), (2.19921875,))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
COLOUR = (200, 100, 50)


def flat(mode="RGB", colour=COLOUR, **info):
    image = Image.new(mode, (16, 16), colour)
    image.info.update(info)
    return image


def encode_srgb(linear):
    """Return 0..255 of linear light, by the equation of the standard."""
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    return 255 * curve.clip(0, 1)


def linear_srgb(values):
    values = np.asarray(values) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


# The matrix from linear Display P3 to linear sRGB, as CSS Color 4 gives it.
P3_TO_SRGB = np.array([[1.2249401, -0.2249404, 0.0], [-0.0420569, 1.0420571, 0.0], [-0.0196376, -0.0786361, 1.0982735]])


def test_display_p3_is_what_css_says():
    colours = noise(8, 8, 3)
    image = Image.fromarray(colours)
    image.info["icc_profile"] = P3
    changed, notes = to_srgb(image)
    assert notes == (BY_PROFILE,)
    np.testing.assert_allclose(np.asarray(changed), encode_srgb(linear_srgb(colours) @ P3_TO_SRGB.T), atol=1.5)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_profiles_of_files_count_and_are_told(root, load, kind):
    flat().save(root / f"a.{kind.lower()}", kind, icc_profile=ADOBE, **({"quality": 100} if kind != "PNG" else {}))
    data = load(root)
    expected, _ = to_srgb(flat(icc_profile=ADOBE))
    assert abs(np.asarray(expected)[0, 0].astype(int) - COLOUR).max() > 10
    np.testing.assert_allclose(everything(data)[0, :, 8, 8], np.asarray(expected)[0, 0], atol=3)
    assert "converted to sRGB by the embedded colour profile: 1 image" in data.notes


@pytest.mark.parametrize("profile", [SRGB, rgb_profile(SRGB_PRIMARIES, SRGB_CURVE)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_srgb_changes_no_bit(profile, mode):
    image = Image.fromarray(noise(16, 16, 4)).convert(mode)
    image.info["icc_profile"] = profile
    changed, notes = to_srgb(image)
    assert changed is image
    assert notes == ()


def test_alpha_stays_and_palettes_are_converted(root, load):
    image = flat("RGBA", (*COLOUR, 7), icc_profile=P3)
    expected = np.asarray(to_srgb(flat(icc_profile=P3))[0])[0, 0].tolist()
    assert np.asarray(to_srgb(image)[0])[0, 0].tolist() == [*expected, 7]
    flat().quantize(4).save(root / "a.png", icc_profile=P3)
    np.testing.assert_allclose(everything(load(root))[0, :, 0, 0], expected, atol=2)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
@pytest.mark.parametrize("profile", [gray_profile(curve_tag((1.0,))), rgb_profile(P3_PRIMARIES, (1.0,))])
def test_gray_follows_its_curve(mode, profile):
    value, top = (13107, 65535) if mode == "I;16" else (51, 255)
    image = flat(mode, (value, 9) if mode == "LA" else value, icc_profile=profile)
    changed, notes = to_srgb(image)
    assert notes == (BY_PROFILE,)
    assert changed.mode == mode
    got = np.asarray(changed)[0, 0]
    np.testing.assert_allclose(got[0] if mode == "LA" else got, encode_srgb(np.array(0.2)) * top / 255, atol=top / 255)
    assert mode != "LA" or got[1] == 9


CURVES = {
    "identity": (b"curv\0\0\0\0" + struct.pack(">I", 0), lambda x: x),
    "power": (b"curv\0\0\0\0" + struct.pack(">IH", 1, 512), lambda x: x**2),
    "table": (
        b"curv\0\0\0\0" + struct.pack(">I3H", 3, 0, 6554, 65535),
        lambda x: np.interp(x, [0, 0.5, 1], [0, 6554 / 65535, 1]),
    ),
    "steep": (curve_tag((0.4,)), lambda x: x**0.4),
    "sRGB": (curve_tag(SRGB_CURVE), lambda x: linear_srgb(255 * x)),
}


@pytest.mark.parametrize("name", CURVES)
def test_gray_of_every_value(name):
    tag, curve = CURVES[name]
    for dtype, step in ((np.uint8, 1), (np.uint16, 257)):
        values = np.arange(0, np.iinfo(dtype).max + 1, step, dtype)[None]
        image = Image.fromarray(values)
        image.info["icc_profile"] = gray_profile(tag)
        expected = encode_srgb(curve(values / np.iinfo(dtype).max)) * np.iinfo(dtype).max / 255
        np.testing.assert_allclose(np.asarray(to_srgb(image)[0]), expected, atol=2 if name == "sRGB" else 1)


def test_deep_gray_of_a_file_follows_its_profile(root, load):
    values = np.arange(0, 65536, 1024, np.uint16).reshape(8, 8)
    values[0, 0] = 65535
    Image.fromarray(values).save(root / "a.tif", icc_profile=gray_profile(curve_tag((1.0,))))
    data = load(root)
    assert "converted to sRGB by the embedded colour profile: 1 image" in data.notes
    np.testing.assert_allclose(everything(data)[0, 0], encode_srgb(values / 65535) * 257, atol=1)


@pytest.mark.parametrize("profile", [gray_profile(curve_tag((1.8,))), gray_profile(curve_tag(SRGB_CURVE))])
def test_gray_agrees_with_littlecms(profile):
    image = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    reference = ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    image.info["icc_profile"] = profile
    changed = np.asarray(to_srgb(image)[0]).astype(int)
    np.testing.assert_allclose(changed[:, 20:], np.asarray(reference)[:, 20:, 1], atol=2)


def cmyk_profile():
    """Return a small profile of CMYK: a table in which the darkest ink decides the lightness."""
    corners = [(100 * (1 - max(np.unravel_index(i, (2,) * 4))), 0, 0) for i in range(16)]
    table = b"".join(struct.pack(">BBB", round(lab[0] * 2.55), 128, 128) for lab in corners)
    curves = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + curves * 4 + table + curves * 3
    profile = bytearray(write_profile(b"CMYK", {b"A2B0": lut}))
    profile[8], profile[12:16], profile[20:24] = 2, b"prtr", b"Lab "
    return bytes(profile)


def test_cmyk_goes_through_its_profile(root, load):
    image = flat("CMYK", (0, 0, 0, 128))
    image.save(root / "a.jpg", icc_profile=cmyk_profile(), quality=100)
    data = load(root)
    expected = ImageCms.profileToProfile(
        image, io.BytesIO(cmyk_profile()), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert abs(np.asarray(expected)[0, 0].astype(int) - 127).max() > 5  # not Pillow's plain formula
    np.testing.assert_allclose(everything(data)[0, :, 8, 8], np.asarray(expected)[0, 0], atol=2)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_without_profile_is_not_inverted(root, load, kind):
    flat("CMYK", (0, 255, 255, 0)).save(root / f"a.{kind.lower()}", kind)
    np.testing.assert_allclose(everything(load(root))[0, :, 8, 8], [255, 0, 0], atol=3)


@pytest.mark.parametrize("profile", [b"garbage", P3[:200], cmyk_profile(), P3[:128] + b"\xff" * 264, "text"])
def test_damaged_or_foreign_profiles_keep_the_pixels(profile):
    image = flat(icc_profile=profile)
    changed, notes = to_srgb(image)
    assert changed is image
    assert notes == (NOT_APPLIED,)


def png_with(*chunks, image=None):
    """Return a PNG with chunks of our own after its header."""
    (image or flat()).save(buffer := io.BytesIO(), "PNG")
    made = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return buffer.getvalue()[:33] + made + buffer.getvalue()[33:]


LINEAR = (b"gAMA", struct.pack(">I", 100_000))
USUAL = (b"gAMA", struct.pack(">I", 45_455))
CHROMA_SRGB = (b"cHRM", struct.pack(">8I", *(round(100_000 * value) for value in SRGB_PRIMARIES)))
CHROMA_2020 = (b"cHRM", struct.pack(">8I", *(round(100_000 * value) for value in BT2020_PRIMARIES)))


def test_gamma_of_a_png_counts(root, load):
    (root / "a.png").write_bytes(png_with(LINEAR))
    data = load(root)
    np.testing.assert_allclose(everything(data)[0, :, 0, 0], encode_srgb(np.array(COLOUR) / 255), atol=1)
    assert BY_GAMMA.format(n=1).removesuffix("s") in data.notes


def test_gamma_of_deep_gray_with_a_transparent_value(root, load):
    values = np.tile(np.arange(16, dtype=np.uint16) * 60, (16, 1))
    values[8:] = np.arange(16) * 4096
    values[:, 0] = 5
    (root / "a.png").write_bytes(png_with(LINEAR, (b"tRNS", b"\0\5"), image=Image.fromarray(values)))
    data = load(root, channels=4)
    pixels = everything(data)[0]
    assert (pixels[3] == np.where(values == 5, 0, 255)).all()
    np.testing.assert_allclose(pixels[0, :, 1:], encode_srgb(values / 65535)[:, 1:], atol=1)
    assert BY_GAMMA.format(n=1).removesuffix("s") in data.notes


@pytest.mark.parametrize(
    "chunks",
    [
        (USUAL,),
        (USUAL, CHROMA_SRGB),
        (CHROMA_SRGB,),
        (LINEAR, (b"sRGB", b"\0")),
        ((b"cICP", bytes([1, 13, 0, 1])), LINEAR),
    ],
)
def test_png_of_srgb_keeps_every_bit(root, load, chunks):
    (root / "a.png").write_bytes(png_with(*chunks))
    data = load(root)
    assert everything(data)[0, :, 0, 0].tolist() == [*COLOUR]
    assert data.notes == ()


@pytest.mark.parametrize("chunks", [(USUAL, CHROMA_2020), ((b"cICP", bytes([9, 13, 0, 1])),)])
def test_primaries_of_a_png_count(root, load, chunks):
    (root / "a.png").write_bytes(png_with(*chunks))
    expected, _ = to_srgb(flat(icc_profile=rgb_profile(BT2020_PRIMARIES, SRGB_CURVE)))
    np.testing.assert_allclose(everything(load(root))[0, :, 0, 0], np.asarray(expected)[0, 0], atol=1)


@pytest.mark.parametrize("chunk", [(b"gAMA", b"\0\0\0\0"), (b"cHRM", bytes(32))])
def test_gamma_that_makes_no_sense_is_told(root, load, chunk):
    (root / "a.png").write_bytes(png_with(chunk))
    data = load(root)
    assert everything(data)[0, :, 0, 0].tolist() == [*COLOUR]
    assert "a colour profile is damaged or does not fit and was not applied: 1 image" in data.notes


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_by_name(root, load, transfer, name):
    (root / "a.png").write_bytes(png_with((b"cICP", bytes([9, transfer, 0, 1]))))
    with pytest.raises(InputError, match=rf"HDR image \({name}\)"):
        load(root)


def test_text_named_like_a_fact_is_text(root, load):
    text = PngImagePlugin.PngInfo()
    for name in ("gamma", "transparency", "icc_profile", "srgb", "exif"):
        text.add_text(name, "1.0")
    flat().save(root / "a.png", pnginfo=text)
    data = load(root)
    assert (data.mode, data.notes) == ("RGB", ())
    assert everything(data)[0, :, 0, 0].tolist() == [*COLOUR]


def test_threads_share_a_transform():
    images = [Image.fromarray(noise(64, 64, 3)) for _ in range(64)]
    for image in images:
        image.info["icc_profile"] = P3
    alone = [np.asarray(to_srgb(image)[0]) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = [np.asarray(changed) for changed, _ in pool.map(to_srgb, images)]
    np.testing.assert_array_equal(together, alone)


def test_lab_of_tiff(root, load):
    flat().save(root / "rgb.png")
    lab = ImageCms.profileToProfile(
        flat(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    lab.save(root / "lab.tif")
    pixels = everything(load(root))
    np.testing.assert_allclose(pixels[0].astype(int), pixels[1], atol=3)


def test_lab_agrees_with_its_equation(root, load):
    values = np.random.default_rng(0).integers([30, 108, 108], [230, 148, 148], (16, 16, 3)).astype(np.uint8)
    values[0, :, 0] = range(4, 20)  # dark
    values[0, :, 1:] = 128
    stored = (values ^ np.uint8([0, 128, 128])).tobytes()  # a and b have signs in a TIFF
    Image.frombytes("LAB", (16, 16), stored).save(root / "a.tif")
    lightness, a, b = values[..., 0] * (100 / 255), values[..., 1] - 128.0, values[..., 2] - 128.0
    y = (lightness + 16) / 116
    steps = np.stack([y + a / 500, y, y - b / 200], -1)
    light = np.where(steps > 6 / 29, steps**3, (steps - 4 / 29) * 3 * (6 / 29) ** 2) * (0.9642, 1.0, 0.8249)
    xyz_to_srgb = [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540]]
    xyz_to_srgb += [[0.0719453, -0.2289914, 1.4052427]]  # from the white of ICC, by Lindbloom
    expected = encode_srgb((light @ np.transpose(xyz_to_srgb)).clip(0, 1))
    np.testing.assert_allclose(everything(load(root))[0], expected.transpose(2, 0, 1), atol=1)
