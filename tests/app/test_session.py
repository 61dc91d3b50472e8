"""The run behind the page, and the files that users download."""

import os
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise.app.session import KEEP_FILES, MAX_FOLDERS, Session
from unnoise.checkpoint import load, weights_hash


@pytest.fixture
def session(run, tmp_path):
    """Return the session of a copy of the run."""
    (out := tmp_path / "out").mkdir()
    return Session(str(shutil.copytree(run, tmp_path / "run")), out)


def test_a_model_file_that_is_replaced_is_opened_again(session):
    first = session.run
    assert session.run is first
    later = session.written + 10**9
    os.utime(session.path, ns=(later, later))
    assert session.run is not first


def test_a_student_is_edited_by_its_teacher(session, student, run, tmp_path):
    assert session.editor is None
    of_student = Session(str(student), tmp_path / "out")
    assert weights_hash(of_student.editor) == weights_hash(load(run))


def test_a_run_has_the_tabs_of_what_it_can_do(run, student, tmp_path):
    page = pytest.importorskip("unnoise.app.page")
    whole, own = page.tabs_of(load(run)), page.tabs_of(load(student))
    assert set(page.TABS) - set(whole) == {"Live"}
    assert set(page.TABS) - set(own) == {"Samplers"}
    alone = shutil.copy(student / "model.safetensors", tmp_path / "alone.safetensors")
    assert set(own) - set(page.tabs_of(load(alone))) == {"Edit"}


def test_the_description_says_what_the_run_is(session):
    assert session.name == "run"
    seen = session.run.card.training["images"]
    assert session.describe() == f"16 x 16, RGB; unet:widths=8,layers=1,groups=4,head=8; trained on {seen} images"


def test_an_upload_keeps_its_pixels_through_the_editor(session):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    fitted, small = session.fit_upload(Image.fromarray(pixels))
    assert fitted.size == (640, 640)
    assert small is None
    assert (np.asarray(session.to_run_size(fitted)) == pixels).all()
    tiny = Image.fromarray(pixels[:8, :8])
    assert session.fit_upload(tiny)[1] is tiny, "upscaling needs the small image itself"


def test_a_pixel_with_a_little_faint_paint_is_in_the_mask(session):
    layer = Image.new("RGBA", (640, 640))
    layer.paste((255, 255, 255, 1), (85, 40, 88, 43))  # 9 of 1,600 pixels of the screen, in column 2, row 1 of the run
    mask = np.asarray(session.painted_mask([None, layer]))
    assert mask.shape == (16, 16)
    assert [*zip(*np.nonzero(mask), strict=True)] == [(1, 2)]
    assert session.painted_mask([]) is None


def test_files_are_kept_for_an_hour_in_folders_that_nobody_can_guess(session):
    sheet, packed = session.save_images(torch.zeros(2, 3, 16, 16), ["000005", "000006"])
    (gif,) = session.save_animation([torch.zeros(1, 3, 16, 16)] * 2)
    assert Path(sheet).is_file()
    assert Path(gif).is_file()
    assert Path(sheet).parent != Path(gif).parent
    assert len(Path(sheet).parent.name) == 32
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == ["000005.png", "000006.png"]
    old = time.time() - KEEP_FILES - 1
    os.utime(Path(sheet).parent, (old, old))
    session.new_download_folder()
    assert not Path(sheet).parent.exists()
    assert Path(gif).is_file()
    kept = [session.new_download_folder() for _ in range(MAX_FOLDERS)]
    assert not Path(gif).exists()
    assert all(folder.exists() for folder in kept)
