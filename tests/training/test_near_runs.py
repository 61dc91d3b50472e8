"""A command that nearly resumes a run says what differs; paths of the same data are the same data."""

import os
import shutil
import signal

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from tiny import TINY, At, train_folder
from unnoise.errors import InputError
from unnoise.files import LOCK
from unnoise.reporting.compare import compare_runs
from unnoise.training import resume
from unnoise.training.signals import Interrupted

pytestmark = pytest.mark.usefixtures("unchecked")


def stopped(data, **settings):
    """Stop a training after three steps."""
    stop = At(3, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        train_folder(data, monitors=[stop], **{**TINY, "images": "40", **settings})


def new_images(path, count):
    np.save(path, np.random.default_rng(1).integers(0, 256, (count, 8, 8), dtype=np.uint8))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Return a folder of 20 images, in the folder the test runs in."""
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(20):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def test_added_images_are_named_with_the_way_to_go_on(gray, capsys):
    stopped(gray)
    new_images(gray, 30)
    assert train_folder(gray, **TINY, images="8").name == "gray-2"  # another length too: not said
    assert "new run" not in capsys.readouterr().out
    assert train_folder(gray, **TINY, images="40", fresh=True).name == "gray-3"
    assert "new run" not in capsys.readouterr().out
    shutil.rmtree(gray.parent / "runs" / "gray-3")
    assert train_folder(gray, **TINY, images="40").name == "gray-3"
    said = capsys.readouterr().out
    assert "new run   since runs/gray-1 was trained on other images (then 18, now 27)" in said
    assert "add --init runs/gray-1" in said
    assert train_folder(gray, **{**TINY, "images": "40"}, init="runs/gray-1").name == "gray-4"


def test_in_a_named_folder_added_images_are_counted(gray):
    stopped(gray, out="run")
    new_images(gray, 30)
    with pytest.raises(InputError, match=r"not the same \(18 then, 27 now\).*a new folder with --init run to start"):
        train_folder(gray, **TINY, images="40", out="run")


def test_renamed_data_is_recognised(gray, capsys):
    stopped(gray)
    shutil.move(gray, gray.with_name("other.npy"))
    assert train_folder(gray.with_name("other.npy"), **TINY, images="40").name == "other-1"
    assert "since runs/gray-1 has these images under the name gray" in (said := capsys.readouterr().out)
    assert "to resume it, add --out runs/gray-1" in said
    train_folder(gray.with_name("other.npy"), **TINY, images="40", out="runs/gray-1")
    assert "resume    from 18 images" in capsys.readouterr().out


def test_one_other_setting_is_named(gray, capsys):
    stopped(gray)
    train_folder(gray, **TINY, images="8", lr=2e-3)  # two of them: another training
    assert "new run" not in capsys.readouterr().out
    train_folder(gray, **TINY, images="40", lr=2e-3)
    assert "since runs/gray-1 was stopped with another setting: lr was 0.003, now 0.002" in capsys.readouterr().out
    train_folder(gray, **TINY, images="24")
    assert "images was '40', now '24'" in capsys.readouterr().out


def test_a_run_that_is_over_or_damaged_is_not_named(gray, tmp_path, capsys):
    train_folder(gray, **TINY, images="8")
    for name, about in (("gray-7", b"x"), ("gray-8", b"")):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "state.safetensors").write_bytes(about)
    train_folder(gray, **TINY, images="8")
    assert "new run" not in capsys.readouterr().out


def test_a_run_that_another_program_trains_is_named(gray, capsys):
    stopped(gray)
    with FileLock(gray.parent / "runs" / "gray-1" / LOCK):
        train_folder(gray, **TINY, images="40")
    assert "since another program trains runs/gray-1" in capsys.readouterr().out


def test_every_path_of_a_folder_is_the_same_data(photos, tmp_path, capsys):
    """With a slash at the end, through a link, and by way of another folder."""
    (tmp_path / "link").symlink_to("photos")
    (tmp_path / "inner").mkdir()
    stopped(photos)
    for path in ("./photos//", "inner/../link/"):
        with pytest.raises(Interrupted):
            train_folder(path, monitors=[At(1, lambda _: os.kill(os.getpid(), signal.SIGTERM))], **TINY, images="40")
        assert "resume    from" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["photos-1"]
    assert len([*(tmp_path / "cache").glob("*/images.bin")]) == 1
    stopped("photos", lr=2e-3)
    train_folder(str(tmp_path / "link"), **TINY, images="40", lr=2e-3)
    given = [str(tmp_path / "runs" / name) for name in ("photos-1", "photos-2")]
    assert not [line for line in compare_runs(given) if line.startswith("data")]


def test_another_number_of_threads_is_told(gray, monkeypatch, capsys):
    stopped(gray)
    now = torch.get_num_threads()
    monkeypatch.setattr(resume.torch, "get_num_threads", lambda: now + 1)
    train_folder(gray, **TINY, images="40")
    assert f"threads   {now} until now, {now + 1} from now on: rounding differs" in capsys.readouterr().out


def test_a_place_for_runs_is_tried_before_the_data_is_read(gray, monkeypatch):
    (gray.parent / "runs").write_text("")
    monkeypatch.setattr("unnoise.training.train.open_parts", None)
    for out in (None, "runs/x"):
        with pytest.raises(InputError, match="choose another folder with --out"):
            train_folder(gray, **TINY, images="8", out=out)


def test_a_run_in_a_read_only_folder_is_refused_in_one_line(gray, monkeypatch):
    stopped(gray, out="run")

    def refuse(_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("unnoise.files.FileLock.acquire", refuse)
    with pytest.raises(InputError, match=r"cannot write to run \(Read-only file system\)"):
        train_folder(gray, **TINY, images="40", out="run")
