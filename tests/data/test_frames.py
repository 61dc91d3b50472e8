"""Files of several frames or pages: the first and a note, or all of them."""

import io

import numpy as np
import pytest
from PIL import Image

from image_files import encoded, everything, noise, write_parquet, write_tar, write_zip
from unnoise.data.frames import read_as
from unnoise.data.open_image import open_image
from unnoise.errors import InputError

COLOURS = ("red", "lime", "blue")
RGB = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def animated(kind, colours=COLOURS, **options):
    first, *rest = [Image.new("RGB", (16, 16), colour) for colour in colours]
    first.save(buffer := io.BytesIO(), kind, save_all=True, append_images=rest, **options)
    return buffer.getvalue()


KINDS = {"gif": {}, "tiff": {}, "png": {}, "webp": {"lossless": True}, "avif": {"quality": 100}}


@pytest.mark.parametrize("kind", KINDS)
def test_first_frame_and_note(root, load, kind):
    (root / f"a.{kind}").write_bytes(animated(kind.upper(), **KINDS[kind]))
    data = load(root)
    np.testing.assert_allclose(everything(data)[0, :3, 8, 8], RGB[0], atol=4)
    assert "read the first frame or page alone (--frames all reads every one): 1 file" in data.notes
    assert "frames and pages that were left out: 2 images" in data.notes


@pytest.mark.parametrize("kind", KINDS)
def test_all_frames(root, load, kind):
    (root / f"a.{kind}").write_bytes(animated(kind.upper(), **KINDS[kind]))
    Image.new("RGB", (16, 16), "white").save(root / "b.png")
    data = load(read_as(root, "all"))
    np.testing.assert_allclose(everything(data)[:, :3, 8, 8], [*RGB, [255] * 3], atol=4)
    assert data.notes == ()


def members():
    return {"cat/a.gif": animated("GIF"), "dog/b.png": encoded(noise(16, 16, 3))}


def folder_of(place):
    for name, content in members().items():
        (place / name).parent.mkdir(parents=True)
        (place / name).write_bytes(content)
    return place


def zip_of(place):
    write_zip(place.with_suffix(".zip"), members())
    return place.with_suffix(".zip")


def tar_of(place):
    write_tar(place.with_suffix(".tar"), members())
    return place.with_suffix(".tar")


@pytest.mark.parametrize("make", [folder_of, zip_of, tar_of])
def test_frames_have_the_label_of_their_file(root, load, make):
    data = load(read_as(make(root), "all"))
    assert data.classes == ("cat", "dog")
    assert data.labels(range(4)).tolist() == [0, 0, 0, 1]
    assert len(load(read_as(make(root.with_name("other")), "all"), limit=2)) == 2


def test_frames_in_parquet(tmp_path, load):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    write_parquet(tmp_path / "a.parquet", [noise(16, 16, 3)], [1])
    pq.write_table(pa.table({"image": [*members().values()], "label": [0, 1]}), tmp_path / "b.parquet")
    assert len(load(read_as(tmp_path / "b.parquet", "all"))) == 4


def test_partial_frames_are_composited(root, load):
    frames = [Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "red")]
    frames[1].paste("blue", (0, 0, 8, 8))  # saved as a small rectangle over the first frame
    frames[0].save(root / "a.gif", save_all=True, append_images=frames[1:])
    pixels = everything(load(read_as(root, "all")))
    assert pixels[1, :, 4, 4].tolist() == RGB[2]
    assert pixels[1, :, 12, 12].tolist() == RGB[0]


def test_previews_and_smaller_versions_are_no_images(root, load):
    image = Image.fromarray(noise(32, 32, 3))
    image.save(root / "phone.jpg", "MPO", save_all=True, append_images=[image.resize((8, 8))])
    small = image.resize((16, 16))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    image.save(root / "pyramid.tif", save_all=True, append_images=[small])
    assert load(root).notes == ()
    assert len(load(read_as(root, "all"))) == 2


def test_a_thumbnail_before_the_image_is_passed_over(root, load):
    image = Image.fromarray(noise(32, 32, 3))
    image.encoderinfo = {"tiffinfo": {254: 0}}
    image.resize((16, 16)).save(root / "a.tif", save_all=True, append_images=[image], tiffinfo={254: 1})
    data = load(root)
    assert (data.shape, data.notes) == ((3, 32, 32), ())
    np.testing.assert_array_equal(everything(data)[0], np.asarray(image).transpose(2, 0, 1))


def test_a_damaged_later_frame_costs_only_itself(root, load):
    frames = [Image.fromarray(noise(64, 64, 3)) for _ in range(3)]
    frames[0].save(root / "a.gif", save_all=True, append_images=frames[1:])
    whole = (root / "a.gif").read_bytes()
    (root / "a.gif").write_bytes(whole[: len(whole) * 3 // 4])
    data = load(read_as(root, "all"))
    assert len(data) == 2
    assert "later frames (" in data.notes[0]


def test_frames_are_asked_for_in_words(root, load):
    folder_of(root)
    with pytest.raises(InputError, match="did you mean 'all'"):
        read_as(root, "al")
    with pytest.raises(InputError, match="--frames all and --stream exclude each other"):
        load(read_as(root, "all"), stream=True)


# Large images


def test_large_jpeg_is_read_at_a_fraction(root, load):
    image = np.repeat(np.repeat(noise(8, 8, 3), 16, 0), 16, 1)
    (root / "a.jpg").write_bytes(encoded(image, "JPEG", quality=95))
    data = load(read_as(root, max_pixels=64 * 64))
    assert data.shape == (3, 64, 64)
    np.testing.assert_allclose(everything(data)[0, :, 4::8, 4::8], image[8::16, 8::16].transpose(2, 0, 1), atol=40)
    assert any(note.startswith("too large, read at a fraction of the size") for note in data.notes)


def test_max_pixels_lets_large_images_in(root, load, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (root / "a.png").write_bytes(encoded(noise(64, 64, 3)))
    assert load(root).notes == ()
    with pytest.raises(InputError, match=r"too large: 64x64; --max-pixels 4096 allows it"):
        load(read_as(root, max_pixels=4095))
    assert len(load(read_as(root, max_pixels=4096))) == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "MPO"])
def test_a_sound_file_of_one_image_has_no_note(kind):
    Image.fromarray(noise(32, 32, 3)).save(file := io.BytesIO(), kind)
    with open_image(file.getvalue(), load=True) as (_, notes):
        assert notes == ()
