"""What lies in a run may come from a stranger: no link in it leads to a file elsewhere."""

import base64
import io
import json
import os
import re
import shutil

import pytest
from PIL import Image, PngImagePlugin

import unnoise
from tiny import TINY, train_folder
from unnoise.app.training_view import training_view
from unnoise.cli import main
from unnoise.errors import InputError
from unnoise.files import LOCK
from unnoise.reporting.report import write_report
from unnoise.run_folder import evaluations, is_own, keep_evaluation, own_file

SECRET = "the private text"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a finished run."""
    out = tmp_path_factory.mktemp("made") / "run"
    return train_folder("faces:count=40", size="16", images="16", out=str(out), **TINY)


@pytest.fixture
def run(made, tmp_path):
    """Return a copy of a run; the folder above has a private file, a private image and a private model."""
    (tmp_path / "secret").write_text(SECRET)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "secret.png")
    shutil.copy(made / "model.safetensors", tmp_path / "private.safetensors")
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def link(path, target):
    """Put a link in the place of a file or folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def embedded(page):
    """Return the bytes of all images in a page."""
    return [base64.b64decode(found) for found in re.findall(r"data:image/png;base64,([^\"]+)", page)]


@pytest.mark.parametrize("name", ["samples/final.png", "samples/000000016.png", "memorization.png"])
@pytest.mark.parametrize("target", ["secret", "secret.png"])
def test_a_report_shows_no_file_from_elsewhere(run, name, target):
    private = (run.parent / target).read_bytes()
    link(run / name, run.parent / target)
    said = []
    page = write_report(run, say=said.append).read_text()
    assert said == [f"warning: {name} is not shown: it is a link out of the run folder"]
    assert f"{name} is not shown" in page
    colours = [Image.open(io.BytesIO(content)).convert("RGB").getcolors(2**16) for content in embedded(page)]
    assert all(private not in content for content in embedded(page))
    assert not any((64, (255, 0, 0)) in found for found in colours if found)


def test_a_folder_that_is_a_link_is_not_shown_either(run):
    shutil.copytree(run / "samples", run.parent / "samples")
    link(run / "samples", run.parent / "samples")
    assert not embedded(write_report(run).read_text())


def test_only_pixels_come_into_a_report(run):
    """A file that is no image is left out, and so are the texts in one that is."""
    about = PngImagePlugin.PngInfo()
    about.add_text("Comment", SECRET)
    with Image.open(run / "samples" / "final.png") as image:
        image.load()
        image.save(run / "samples" / "final.png", pnginfo=about)
    assert SECRET.encode() in (run / "samples" / "final.png").read_bytes()
    (content,) = embedded(write_report(run).read_text())
    assert SECRET.encode() not in content
    assert Image.open(io.BytesIO(content)).tobytes() == image.tobytes()
    (run / "samples" / "final.png").write_text(SECRET)
    said = []
    assert not embedded(write_report(run, say=said.append).read_text())
    assert said == ["warning: samples/final.png is not shown: text, not an image"]


def test_a_file_with_a_second_name_is_not_shown(run):
    (run / "samples" / "final.png").unlink()
    os.link(run.parent / "secret.png", run / "samples" / "final.png")
    said = []
    assert not embedded(write_report(run, say=said.append).read_text())
    assert "hard link" in said[0]


def test_the_view_of_a_training_shows_nothing_from_elsewhere(run):
    card = unnoise.load(run, "cpu").card
    link(run / "samples" / "000000016.png", run.parent / "secret.png")
    assert not embedded(training_view(run, card))
    shutil.copy(run / "metrics.jsonl", run.parent / "metrics.jsonl")
    link(run / "metrics.jsonl", run.parent / "metrics.jsonl")
    assert "no training log" in training_view(run, card)


def test_a_pipe_in_a_run_does_not_hang(run):
    (run / "samples" / "final.png").unlink()
    os.mkfifo(run / "samples" / "final.png")
    assert not embedded(write_report(run).read_text())


@pytest.mark.parametrize("command", ["info", "sample", "report", "compare", "edit", "eval", "tune"])
def test_a_model_elsewhere_is_no_model_of_the_run(run, command, capsys):
    link(run / "model.safetensors", "../private.safetensors")
    given = {"compare": [str(run), str(run)], "edit": [str(run), str(run.parent / "secret.png")]}
    assert main([command, *given.get(command, [str(run)])]) == 2
    assert "is a link out of" in capsys.readouterr().err


def test_the_best_model_of_a_run_is_not_elsewhere(run, capsys):
    """A file that is named is opened wherever it leads, except in a run folder."""
    link(run / "best.safetensors", "../private.safetensors")
    assert main(["info", str(run / "best.safetensors")]) == 2
    assert "is a link out of" in capsys.readouterr().err
    link(run.parent / "mine.safetensors", "private.safetensors")
    assert main(["info", str(run.parent / "mine.safetensors")]) == 0


def test_results_are_not_read_or_kept_through_a_link(run):
    (run.parent / "kept").mkdir()
    (run.parent / "kept" / "0001.json").write_text(json.dumps({"scores": SECRET}))
    link(run / "evaluations", run.parent / "kept")
    assert evaluations(run) == []
    with pytest.raises(InputError, match="is a link out of"):
        keep_evaluation(run, {})
    assert [path.name for path in (run.parent / "kept").iterdir()] == ["0001.json"]
    (run / "evaluations").unlink()
    (run / "evaluations").mkdir()
    link(run / "evaluations" / "0001.json", run.parent / "kept" / "0001.json")
    assert evaluations(run) == []


@pytest.mark.parametrize("name", ["samples", "metrics.jsonl", "state-before.safetensors", "evaluations", LOCK])
def test_a_run_with_a_link_out_of_it_is_not_resumed(run, name):
    (run.parent / "folder").mkdir()
    link(run / name, run.parent / ("folder" if name in ("samples", "evaluations") else "secret"))
    with pytest.raises(InputError, match="is a link"):
        train_folder("faces:count=40", size="16", images="32", out=str(run), **TINY)
    assert (run.parent / "secret").read_text() == SECRET


def test_drawn_images_are_not_taken_from_elsewhere(run, capsys):
    """Neither when a folder is resumed, nor when it is scored."""
    assert main(["sample", str(run), "-n", "4", "--steps", "1"]) == 0
    folder = run / "sampled-1"
    link(folder / "000003.png", run.parent / "secret.png")
    (run / "sampled-1-grid.png").unlink()
    assert main(["sample", str(run), "-n", "4", "--steps", "1"]) == 0
    assert (run / "sampled-2-grid.png").exists()
    assert not (run / "sampled-1-grid.png").exists()
    for command in (["eval", str(folder), "faces:count=40"], ["data", str(folder)], ["sample", str(run), "-n", "4"]):
        assert main([*command, *(["--out", str(folder), "--steps", "1"] if command[0] == "sample" else [])]) == 2
        assert "is a link out of" in capsys.readouterr().err


def test_settings_elsewhere_are_no_recipe(run, capsys):
    link(run / "config.yaml", run.parent / "secret")
    assert main(["train", "--recipe", str(run / "config.yaml")]) == 2
    assert SECRET not in capsys.readouterr().err


def test_a_run_folder_may_be_a_link_itself(run):
    (run.parent / "name").symlink_to("run")
    assert embedded(write_report(run.parent / "name").read_text())
    assert unnoise.load(run.parent / "name", "cpu").card.shape == (3, 16, 16)
    train_folder("faces:count=40", size="16", images="32", out=str(run.parent / "name"), **TINY)


def test_a_cache_of_hugging_face_consists_of_links(run):
    snapshot = run.parent / "models--x" / "snapshots" / "0a1b"
    snapshot.mkdir(parents=True)
    (blobs := run.parent / "models--x" / "blobs").mkdir()
    shutil.move(run / "model.safetensors", blobs / "f00")
    (snapshot / "model.safetensors").symlink_to("../../blobs/f00")
    assert unnoise.load(snapshot, "cpu").card.shape == (3, 16, 16)
    link(snapshot / "model.safetensors", run.parent / "private.safetensors")
    assert own_file(snapshot, "model.safetensors") is None


def test_own_files_end_at_loops_and_dots(run):
    link(run / "loop", "loop")
    assert not is_own(run, run / "loop")
    assert own_file(run, "..", "secret") is None
    assert own_file(run, str(run.parent / "secret")) is None
    assert own_file(run, "samples", "..", "config.yaml") is not None
