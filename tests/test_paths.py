"""Places that are not there: homes, links to nothing, the current folder."""

import os

import numpy as np
import pytest
from PIL import Image

from unnoise import cli
from unnoise.errors import InputError
from unnoise.files import new_folder, refuse_dead_link, user_path

TINY = ["--backbone=unet:widths=8,layers=1,groups=4,head=8", "--batch=8", "--steps=2", "--precision=fp32", "--images=8"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with data and an image, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    np.save("data.npy", np.zeros((12, 8, 8), np.uint8))
    Image.new("L", (8, 8)).save("image.png")
    return tmp_path


def one_line(capsys) -> str:
    """Return the error, which is one line."""
    err = capsys.readouterr().err
    assert err.startswith("unnoise: ")
    assert err.count("\n") == 1
    return err


NOBODY = "~nosuchuser12345/x"
WITHOUT_HOME = {
    "out": ["train", "data.npy", *TINY, "--out", NOBODY],
    "plugin": ["list", "data", "--plugin", NOBODY],
    "run": ["info", NOBODY],
    "data": ["train", NOBODY],
    "json": ["data", "data.npy", "--json", NOBODY],
}


@pytest.mark.parametrize("command", WITHOUT_HOME.values(), ids=WITHOUT_HOME)
def test_a_home_of_nobody_is_told_in_one_line(command, place, capsys):
    assert cli.main(command) == 2
    assert "~nosuchuser12345" in one_line(capsys)
    assert {path.name for path in place.iterdir()} == {"data.npy", "image.png"}


def test_a_path_without_a_home_names_what_to_do(monkeypatch):
    def no_home(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.expanduser", no_home)
    with pytest.raises(InputError, match=r"~/x: no home folder of ~ is known here; write the path without ~"):
        user_path("~/x")


LINKS = {
    "data": ["train", "link"],
    "out": ["train", "data.npy", *TINY, "--out", "link"],
    "below": ["train", "data.npy", *TINY, "--out", "link/run"],
    "run": ["info", "link"],
    "model in it": ["sample", "link/model.safetensors"],
}


@pytest.mark.parametrize("target", ["nowhere/x", "link"])
@pytest.mark.parametrize("command", LINKS.values(), ids=LINKS)
def test_a_link_to_nothing_is_told_in_one_line(command, target, place, capsys):
    os.symlink(target, "link")  # noqa: PTH211  # it may point to itself
    assert cli.main(command) == 2
    assert f"link is a link to {target}, which is not there" in one_line(capsys)
    assert not (place / "nowhere").exists()


def test_a_folder_of_runs_that_is_a_link_to_nothing_is_not_tried_for_ever(place):
    os.symlink("nowhere", "runs")  # noqa: PTH211
    with pytest.raises(InputError, match="runs is a link to nowhere"):
        new_folder(None, place / "runs", "data")
    refuse_dead_link(place / "data.npy")


@pytest.mark.skipif(os.name != "posix", reason="Windows deletes no folder that is in use")
def test_a_deleted_current_folder_is_told_in_one_line(place, capsys, monkeypatch):
    (place / "gone").mkdir()
    monkeypatch.chdir(place / "gone")
    (place / "gone").rmdir()
    for command in (["train", str(place / "data.npy")], ["info", "run"], ["list", "data"]):
        assert cli.main(command) == 2
        assert "the current folder was deleted" in one_line(capsys)
