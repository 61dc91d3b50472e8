"""`edit` writes images, follows a class, and refuses in one line."""

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import unnoise
from editing_helpers import pixels, unnoise_cli
from tiny import train_folder
from unnoise import registry
from unnoise.cli import main
from unnoise.errors import InputError


def test_known_pixels_are_identical_in_the_files(run, image_path, tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:9, 6:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    given = pixels(image_path)
    for by in registry.posterior.names():
        out = tmp_path / by
        assert unnoise_cli("edit", run, image_path, "--task", "inpaint", "--mask", tmp_path / "mask.png", "--by", by,
                           "-n", 2, "--out", out) == 0  # fmt: skip
        for name in ("000000.png", "000001.png"):
            made = pixels(out / name)
            assert (made[mask == 0] == given[mask == 0]).all()
            assert (made[mask > 0] != given[mask > 0]).any()
        assert pixels(tmp_path / f"{by}-grid.png").shape[1] > 16


def test_a_morph_is_an_animation(run, image_path, tmp_path):
    Image.fromarray(pixels(image_path)).rotate(90).save(tmp_path / "other.png")
    given = ("edit", run, image_path, tmp_path / "other.png", "--task", "morph", "-n", 5, "--out", tmp_path / "way")
    assert unnoise_cli(*given) == 0
    assert sorted(path.name for path in (tmp_path / "way").iterdir()) == [f"{i:06d}.png" for i in range(5)]
    with Image.open(tmp_path / "way.gif") as made:
        assert made.size == (80, 80)
    before = (tmp_path / "way.gif").read_bytes()
    shutil.rmtree(tmp_path / "way")
    assert unnoise_cli(*given) == 2  # what lies there is not written over
    assert (tmp_path / "way.gif").read_bytes() == before


def test_edits_follow_a_class_if_one_is_named(of_classes, image_path):
    free = unnoise.edit(of_classes, image_path, n=1)
    crown = unnoise.edit(of_classes, image_path, n=1, label="crown")
    more = unnoise.edit(of_classes, image_path, n=1, label="crown", guidance=4.0)
    assert (free - crown).abs().max() > 0
    assert (more - crown).abs().max() > 0
    with pytest.raises(InputError, match="name it by --label"):
        unnoise.edit(of_classes, image_path, guidance=4.0)
    with pytest.raises(InputError, match="a class; name it"):
        unnoise.edit(of_classes, task="interpolate:to=4")
    way = unnoise.edit(of_classes, task="interpolate:to=4", label="cap", n=3)
    assert_close(way[-1:], unnoise.sample(of_classes, 1, seed=4, label="cap", precision="fp32"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_images_of_other_modes_are_edited(mode, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    chance = np.random.default_rng(0)
    for i in range(20):
        deep = chance.integers(0, 65536, (12, 20), np.uint16)
        image = Image.fromarray(deep) if mode == "I;16" else Image.fromarray((deep >> 8).astype(np.uint8)).convert(mode)
        image.save(tmp_path / "data" / f"{i}.png")
    run = train_folder(tmp_path / "data", images="16", batch=8, steps=3, precision="fp32", out=str(tmp_path / "run"),
                        backbone="unet:widths=8,layers=1,groups=4,head=8")  # fmt: skip
    for task, by in (("vary", None), ("deblur:sigma=1", "pigdm"), ("enlarge:factor=2", "repaint")):
        made = unnoise.edit(run, tmp_path / "data" / "3.png", task=task, by=by, n=2)
        assert made.shape[2:] == (12, 20)
        assert made.isfinite().all()
    assert unnoise_cli("edit", run, tmp_path / "data" / "3.png", "--out", tmp_path / "out", "-n", 1) == 0
    with Image.open(tmp_path / "out" / "000000.png") as image:
        assert image.mode == mode


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"task": "paint"}, "did you mean 'inpaint'"),
        ({"task": "enlarge:factor=3"}, "divides 16 and 16, got 3"),
        ({"task": "enlarge", "by": "replce"}, "did you mean 'replace'"),
        ({"task": "inpaint"}, "nothing is to be filled in"),
        ({"task": "vary:strength=0"}, "strength is above 0"),
        ({"task": "deblur:sigma=-1"}, "sigma is above 0"),
        ({"task": "morph"}, "takes 2 images, got 1"),
        ({"task": "interpolate"}, "takes no images, got 1"),
        ({"task": "vary", "by": "pigdm"}, "vary keeps none"),
        ({"task": "vary", "mask": torch.zeros(1, 16, 16)}, "--mask is for inpaint"),
        ({"label": "crown"}, "unknown label"),
        ({"out": "x"}, "unknown setting"),
        ({"task": "vary", "clip": True, "n": 65}, "n takes 1 to 64"),
        ({"n": 0}, "n takes 1 to 64"),
        ({"stepps": 3}, "did you mean 'steps'"),
        ({"by": "repaint:jump=0", "task": "deblur"}, "jump takes 1 or more"),
        ({"by": "pigdm:std=0", "task": "deblur"}, "std is above 0"),
        ({"by": "pigdm:std=inf", "task": "deblur"}, "std is a finite number"),
    ],
)
def test_wrong_settings_are_refused(run, image_path, settings, said):
    with pytest.raises(InputError, match=said):
        unnoise.edit(run, image_path, **settings)


def test_bad_images_are_refused(run, tmp_path, image_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read"):
        unnoise.edit(run, tmp_path / "bad.png")
    with pytest.raises(InputError, match="cannot be read: missing"):
        unnoise.edit(run, tmp_path / "none.png")
    with pytest.raises(InputError, match="takes 1 image, got 0"):
        unnoise.edit(run)
    with pytest.raises(InputError, match="another seed than 4"):
        unnoise.edit(run, seed=4, task="interpolate:to=4")
    with pytest.raises(InputError, match="interpolate takes none"):
        unnoise.edit(run, task="interpolate", fit="pad")
    with pytest.raises(InputError, match="share is from 0 to 1, got 2"):
        unnoise.edit(run, task="blend:share=2")
    with pytest.raises(InputError, match="to is a seed, 0 or more and below 2\\^63, got -1"):
        unnoise.edit(run, task="blend:to=-1")
    cut = Image.open(io.BytesIO(image_path.read_bytes()[:-300]))
    with pytest.raises(InputError, match="cannot be read"):
        unnoise.edit(run, cut)
    with pytest.raises(InputError, match=r"of \(3, 16, 16\), got \(3, 8, 8\)"):
        unnoise.edit(run, torch.zeros(3, 8, 8))


def test_the_output_may_be_the_current_folder(run, image_path, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert unnoise_cli("edit", run, image_path, "-n", 1, "--out", ".") == 0
    assert (tmp_path / "here-grid.png").exists()


def test_what_is_done_to_a_given_image_is_said(run, tmp_path, capsys):
    Image.new("L", (32, 20)).save(tmp_path / "wide.png")
    Image.new("L", (32, 20), 255).save(tmp_path / "mask.png")
    given = ["edit", str(run), str(tmp_path / "wide.png"), "-n", "1", "--steps", "2", "--by", "replace"]
    assert main([*given, "--task", "inpaint", "--mask", str(tmp_path / "mask.png"), "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/wide.png: center-cropped 1 image (--fit pad keeps all of the image)" in said
    assert f"{tmp_path}/wide.png: converted 1 gray to RGB" in said
    assert f"{tmp_path}/mask.png: center-cropped 1 image (--fit pad keeps all of the image)" in said
    assert len(said) == 3


def test_an_edit_is_not_made_if_it_cannot_be_written(run, image_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("unnoise.editing.edit.last_images", None)
    (tmp_path / "file").write_text("")
    assert main(["edit", str(run), str(image_path), "--out", str(tmp_path / "file" / "new")]) == 2
    assert "choose another folder with --out" in capsys.readouterr().err
