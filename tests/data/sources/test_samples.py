"""Several images of one WebDataset sample: as a person would count them, in a tar alone and in a folder of shards."""

import numpy as np
import pytest

from image_files import encoded, everything, write_tar
from unnoise.data.sources.samples import is_annotation, kind_of


def stored(folder, load, names, how):
    """Store a gray image of its own value under each name, and return the values that are read and the notes."""
    members = {name: encoded(np.full((8, 8), i, np.uint8)) for i, name in enumerate(names)}
    for i in range(len(names)):
        members[names[i].split(".")[0] + ".cls"] = str(i % 2).encode()
    folder.mkdir(exist_ok=True)
    write_tar(folder / f"set.tar{'.gz' if 'gz' in how else ''}", members)
    path = next(folder.iterdir())
    data = load(folder if "shards" in how else path, stream="streamed" in how)
    return everything(data)[:, 0, 0, 0].tolist(), data.notes


HOW = ["tar", "tar streamed", "tar.gz", "shards", "shards streamed", "shards gz"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    ("endings", "used", "note"),
    [
        (["jpg", "png"], [0, 2, 4], "left out 3 images beside others of the same samples: .png 3; used: .jpg 3"),
        (["png", "jpg"], [1, 3, 5], "left out 3 images beside others of the same samples: .png 3; used: .jpg 3"),
        (["img.jpg", "mask.png"], [0, 2, 4], "left out 3 images beside others of the same samples: .mask.png 3"),
        (["depth.png", "jpg"], [1, 3, 5], "left out 3 images beside others of the same samples: .depth.png 3"),
        (["0.jpg", "1.jpg"], [0, 1, 2, 3, 4, 5], "3 samples hold several images, and all are used: .#.jpg"),
        (["input.png", "edited.png"], [0, 1, 2, 3, 4, 5], "3 samples hold several images, and all are used: "),
    ],
)
def test_one_image_of_each_sample(tmp_path, load, how, endings, used, note):
    names = [f"{i:04}.{ending}" for i in range(3) for ending in endings]
    values, notes = stored(tmp_path / "data", load, names, how)
    assert sorted(values) == used
    assert any(line.startswith(note) for line in notes)


@pytest.mark.parametrize("how", HOW)
def test_one_image_of_each_key_is_no_choice(tmp_path, load, how):
    for i, names in enumerate(
        (
            ["1.mask.png", "2.mask.png"],  # nothing else
            ["1.jpg", "2.png", "3.jpg"],
            ["cat/1.jpg", "dog/1.png"],  # the folder is a part of the key
            [f"IMG.{n}.jpg" for n in range(70)],  # numbers after a dot
            [*(f"{n}.jpg" for n in range(6)), "1.png"],  # a stray of another format
        )
    ):
        values, notes = stored(tmp_path / str(i), load, names, how)
        assert sorted(values) == [*range(len(names))]
        assert not [note for note in notes if "samples" in note]


def test_kinds_and_annotations():
    assert kind_of("a/0001.mask.png") == ".mask.png"
    assert kind_of("0001.12.jp2") == ".#.jp2"
    assert is_annotation("0001.seg.png")
    assert is_annotation("0001.left_mask.png")
    assert is_annotation("0001.normals.png")
    assert not is_annotation("0001.png")
    assert not is_annotation("a.mask/0001.png")
    assert not is_annotation("mask.png")
