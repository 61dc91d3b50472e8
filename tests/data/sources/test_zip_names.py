"""Names in zip files that do not say how they are encoded."""

import zipfile

import numpy as np
import pytest

from image_files import encoded, noise
from unnoise import cli
from unnoise.errors import InputError


def zip_with_names(path, names, encoding):
    """Write a zip whose names are these bytes, without the flag that says UTF-8."""
    stand_ins = {chr(65 + i) * len(name.encode(encoding)): name.encode(encoding) for i, name in enumerate(names)}
    with zipfile.ZipFile(path, "w") as archive:
        for stand_in in stand_ins:
            archive.writestr(stand_in, encoded(noise(8, 8, 3)))
    content = path.read_bytes()
    for stand_in, name in stand_ins.items():
        content = content.replace(stand_in.encode(), name)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("encoding", "classes"),
    [
        ("gbk", ("猫", "狗")),
        ("gbk", ("人物照片", "风景")),
        ("shift_jis", ("猫", "犬")),
        ("shift_jis", ("ねこ", "いぬ")),
        ("utf-8", ("猫", "café")),
        ("cp437", ("café", "naïve")),
    ],
)
def test_classes_are_read_as_people_wrote_them(tmp_path, load, encoding, classes):
    names = [f"{name}/number {i:04}.png" for name in classes for i in range(3)]
    zip_with_names(tmp_path / "x.zip", names, encoding)
    data = load(tmp_path / "x.zip")
    assert sorted(data.classes) == sorted(classes)
    assert len(data) == 6
    said = any(f"were read as {encoding}" in note for note in data.notes)
    assert said == (encoding != "cp437")


def test_an_address_of_a_file_is_its_path(tmp_path, load):
    np.save(tmp_path / "a b.npy", noise(4, 8, 8))
    assert len(load((tmp_path / "a b.npy").as_uri())) == 4


@pytest.mark.parametrize("shape", [(32, 32, 3), (64, 48, 4), (32, 32, 1)])
def test_one_image_in_an_array_is_not_taken_for_many(tmp_path, load, shape):
    np.save(tmp_path / "one.npy", np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match="one image of shape"):
        load(tmp_path / "one.npy")


def test_a_pattern_that_the_shell_has_replaced(capsys):
    assert cli.main(["train", "a.png", "b.png", "c.png"]) == 2
    assert "b.png c.png" in (said := capsys.readouterr().err)
    assert "give their folder" in said
