"""What is wrong with a place to write is said before the work, or the result is given anyway."""

import json

import numpy as np
import pytest
from PIL import Image

from unnoise import commands
from unnoise.cli import main
from unnoise.config import EvalConfig, TuneConfig
from unnoise.evaluation import evaluate, tune
from unnoise.evaluation.tune_table import format_candidates

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def full(world):
    """Return a run whose results cannot be kept: a file lies where their folder should be."""
    folder, aside = world / "run" / "evaluations", world / "evaluations of other tests"
    if folder.exists():
        folder.rename(aside)
    folder.write_text("")
    yield world
    folder.unlink()
    if aside.exists():
        aside.rename(folder)


def work(*_):
    raise AssertionError("nothing may be computed")


def test_scores_are_given_though_the_run_cannot_keep_them(full, tmp_path, capsys):
    command = ["eval", str(full / "run"), "-n", "50", "--metrics", "kid", "--steps", "1"]
    assert main([*command, "--json", str(tmp_path / "numbers.json")]) == 0
    told = capsys.readouterr()
    assert "kid x 1000" in told.out
    assert "warning: the result is not kept in" in told.err
    assert json.loads((tmp_path / "numbers.json").read_text())["scores"]["of"]["n"] == 50


@pytest.mark.parametrize("command", ["eval", "tune", "data"])
@pytest.mark.parametrize("place", ["missing/numbers.json", "file/numbers.json", "."])
def test_a_place_for_json_is_tried_before_the_work(world, tmp_path, monkeypatch, capsys, command, place):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(evaluate, "run_evaluation", work)
    monkeypatch.setattr(tune, "tune", work)
    monkeypatch.setattr("unnoise.data.audit.audit_data", work)
    assert main([command, str(world / "run"), "--json", str(tmp_path / place)]) == 2
    assert "--json" in capsys.readouterr().err


def test_a_result_is_printed_though_its_file_cannot_be_written(tmp_path, capsys):
    with pytest.raises(OSError, match=r"numbers\.json"):
        commands.show_result(str(tmp_path / "missing" / "numbers.json"), {}, ["the numbers"])
    assert capsys.readouterr().out == "the numbers\n"


def test_a_part_that_fails_does_not_throw_away_the_others(world, capsys):
    given = ["--metrics", "bpd,kid", "--levels", "2", "--no-ode", "-n", "2"]
    assert main(["eval", str(world / "run"), *given]) == 2
    told = capsys.readouterr()
    assert "bits/dim" in told.out or "bound" in told.out
    assert "warning: scores are not measured: scores need 50 images" in told.err
    found = evaluate.run_evaluation(
        EvalConfig(str(world / "run"), metrics="bpd,kid", levels=2, ode=False, n=2), say=lambda _: None
    )
    with pytest.warns(UserWarning, match="scores could not be measured"):
        assert "bpd" in evaluate.Evaluation(found)


def test_the_search_is_given_though_it_cannot_be_stored(world, monkeypatch):
    said = []
    monkeypatch.setattr(tune, "ROUNDS", (1.0,))
    monkeypatch.setattr(tune, "candidate_settings", lambda run, _: [tune.replace(run.card.sampling, steps=1)])
    monkeypatch.setattr(tune, "guided_settings", lambda *_: [])
    monkeypatch.setattr(tune, "choose_best", lambda _, before, *__: tune.replace(before.how, steps=1))
    monkeypatch.setattr(tune, "unwritable", lambda _: "Read-only file system")

    def write(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tune, "write_model", write)
    found = tune.tune(TuneConfig(str(world / "run"), n=200), say=said.append)
    assert said[0].startswith("warning: the best settings will only be printed")
    assert any("not stored: " in line for line in said)
    assert found["stored"] is None
    assert "add to unnoise sample: --sampler dpmpp_2m_sde --steps 1" in format_candidates(found)[-1]


@pytest.mark.parametrize("command", ["edit", "sample", "report"])
def test_a_place_for_images_is_tried_before_they_are_made(world, tmp_path, monkeypatch, capsys, command):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("unnoise.editing.edit.last_images", work)
    monkeypatch.setattr("unnoise.sampling.write_images", work)
    monkeypatch.setattr("unnoise.reporting.report.collect_facts", work)
    image = [str(world / "train" / "000.png")] if command == "edit" else []
    assert main([command, str(world / "run"), *image, "--out", str(tmp_path / "file" / "new")]) == 2
    assert "with --out" in (told := capsys.readouterr().err) or "by --out" in told


def test_statistics_need_no_cache(world, monkeypatch, tmp_path, capsys):
    """The data is decoded; the folder for statistics cannot be made."""
    for name in ("train", "like"):
        assert main(["data", str(world / name)]) == 0
    monkeypatch.setattr("unnoise.evaluation.measure.cache_folder", lambda: tmp_path / "file")
    (tmp_path / "file").write_text("")
    assert main(["eval", str(world / "like"), str(world / "train"), "--metrics", "kid"]) == 0
    assert "kid x 1000" in capsys.readouterr().out


def test_how_images_were_read_is_said_once(world, tmp_path, capsys):
    for i in range(50):
        Image.fromarray(np.full((12, 24, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert main(["eval", str(tmp_path), str(world / "like"), "--metrics", "kid"]) == 0
    assert f"{tmp_path.name}: skipped 1 of 51 files: broken.png" in capsys.readouterr().err
    given = ["--data", str(tmp_path), "--metrics", "kid,bpd", "--levels", "2", "--no-ode", "-n", "50", "--steps", "1"]
    assert main(["eval", str(world / "run"), *given]) == 0
    told = capsys.readouterr().err
    assert told.count("skipped 1 of 51 files") == 1
    assert told.count("center-cropped 50 images") == 1
