"""Results of `unnoise eval` are measured again, and every value that was changed is named."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tiny import smooth
from unnoise.checkpoint import load, read_model, weights_hash, write_model
from unnoise.cli import main
from unnoise.errors import InputError
from unnoise.evaluation.judges import TUNED_BY, chosen_by
from unnoise.progress import mute, silent
from unnoise.run_folder import BEST, MODEL, reading_records
from unnoise.verification import scores
from unnoise.verification.check import AGREES
from verification_helpers import change, change_card, named, path_of, walk

OF_THE_PLACE = {("of", "name"), ("sheet",)}


def checks_of(run):
    """Return the checks of all evaluations."""
    with reading_records(run):
        return [*scores.evaluation_checks(load(run), silent, mute)]


def change_all(run, file, part):
    """Change every value of a part of an evaluation at once; return the names of all of them."""
    place = run / "evaluations" / file
    result = json.loads(place.read_text())
    every = [keys for keys in walk(result[part]) if keys not in OF_THE_PLACE and keys[-1] != "weights"]
    for keys in every:
        change(result[part], keys)
    place.write_text(json.dumps(result))
    return {(f"evaluations/{file} {part}", path_of(keys)) for keys in every}


def rewrite(run, change_it):
    """Write an evaluation again after a change."""
    place = run / "evaluations" / "0001.json"
    change_it(result := json.loads(place.read_text()))
    place.write_text(json.dumps(result))


def test_every_value_that_is_changed_is_named_and_no_other(run):
    every = change_all(run, "0001.json", "bpd")
    assert len(every) > 20
    assert named(checks_of(run)) == every


@pytest.mark.slow
@pytest.mark.parametrize(("file", "part"), [("0001.json", "scores"), ("0002.json", "memorization")])
def test_every_score_that_is_changed_is_named_and_no_other(scored_run, file, part):
    every = change_all(scored_run, file, part)
    assert len(every) > 40
    beside = {("evaluations/0001.safetensors", "feature extractors")}  # it is of the images that the result names
    assert named(checks_of(scored_run)) - beside == every


@pytest.mark.slow
def test_every_number_of_the_doctor_that_is_changed_is_named_and_no_other(run):
    np.savez(run.parent / "others.npz", images=smooth(160, 16, 7))
    assert main(["doctor", str(run), "-n", "100", "--steps", "4", "--data", str(run.parent / "others.npz")]) == 0
    assert not named(checks_of(run))
    every = change_all(run, "0002.json", "doctor")
    assert len(every) > 100
    assert named(checks_of(run)) == every


@pytest.mark.parametrize("measured", [MODEL, BEST])
def test_weights_of_the_end_that_are_the_best_ones_are_measured_as_the_file_that_was_named(run, measured):
    shutil.copy(run / MODEL, run / BEST)
    chosen = {"chosen_by": chosen_by(load(run / measured))}
    stored = scores.Stored("evaluations/0001.json", {"scores": {"weights": weights_hash(load(run)), **chosen}})
    with reading_records(run):
        found = scores.run_of_weights(load(run), stored)
    assert found.file.name == measured
    assert chosen_by(found) == chosen["chosen_by"]


@pytest.mark.parametrize("odd", [5, {"chosen_by": 5}, {"chosen_by": ["weights"]}])
def test_odd_values_do_not_say_what_was_chosen(run, odd):
    stored = scores.Stored("evaluations/0001.json", {"scores": odd})
    assert stored.chosen_by == {}
    with reading_records(run):
        assert scores.run_of_weights(load(run), stored).file.name == MODEL


def test_a_result_of_an_older_version_is_said(run):
    rewrite(run, lambda result: result.pop("asked"))
    checks = checks_of(run)
    assert not named(checks)
    assert {check.why for check in checks} == {scores.OLDER}


def test_a_part_that_is_not_known_is_said(run):
    rewrite(run, lambda result: result.update(doctor={"grid": 1.5}))
    assert [check.why for check in checks_of(run) if check.what == "grid"] == [scores.NOT_CHECKED]


def test_scores_of_weights_that_are_gone_are_said(run):
    rewrite(run, lambda result: result["bpd"].update(weights="0" * 64))
    checks = checks_of(run)
    assert not named(checks)
    assert all("which no file of the run holds" in check.why for check in checks)


def test_another_machine_may_round_otherwise(run):
    """The last digits may differ then; on the same machine they may not."""
    rewrite(run, lambda result: result["bpd"]["bound"].update(mean=1.001 * result["bpd"]["bound"]["mean"]))
    assert named(checks_of(run)) == {("evaluations/0001.json bpd", "bound.mean")}
    rewrite(run, lambda result: result["made_with"].update(torch="1.0"))
    assert not named(checks_of(run))
    rewrite(run, lambda result: result["bpd"]["bound"].update(mean=3 * result["bpd"]["bound"]["mean"]))
    assert named(checks_of(run)) == {("evaluations/0001.json bpd", "bound.mean")}


ODD = ("[1, 2]", "{", '{"asked": 3}', '{"asked": {"n": "x"}, "bpd": []}', '{"asked": {}, "bpd": {"of": 3}}')


@pytest.mark.parametrize("text", ODD)
def test_an_odd_result_is_said_or_refused_in_one_line(run, text):
    (run / "evaluations" / "0001.json").write_text(text)
    try:
        assert all(check.verdict != AGREES for check in checks_of(run))
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_a_result_may_not_name_data_that_would_be_downloaded(run):
    rewrite(run, lambda result: result["asked"].update(data="https://example.com/images.zip"))
    assert all("not on this machine" in check.why for check in checks_of(run))


def test_a_link_out_of_the_folder_is_not_followed(run, tmp_path):
    (tmp_path / "secret.json").write_text('{"asked": {}, "bpd": {"secret": 12345}}')
    (run / "evaluations" / "0001.json").unlink()
    (run / "evaluations" / "0001.json").symlink_to(tmp_path / "secret.json")
    assert checks_of(run) == []


def test_a_run_that_was_tuned_since_agrees(run):
    """The audit draws, and the bound clips, as the run did when it was measured."""
    change_card(run, ("sampling", "clip"))
    card, weights = read_model(run / "model.safetensors")
    write_model(run / "model.safetensors", weights, replace(card, training={**card.training, TUNED_BY: "a"}))
    assert not load(run).card.sampling.clip
    assert not named(checks_of(run))
