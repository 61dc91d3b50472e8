"""The report shows what fewer calls of the network cost, and what the teacher of a student draws."""

import copy
import shutil

import pytest

import unnoise
from unnoise.distillation.config import DistillConfig
from unnoise.progress import mute, silent
from unnoise.reporting.calls import quality_against_calls
from unnoise.reporting.report import write_report
from unnoise.run_folder import evaluations
from unnoise.training.distill import score_both


@pytest.fixture
def result(runs):
    """Return a result of a run that draws by `ddim` in 3 steps."""
    return evaluations(runs / "two")[-1]


def drawn_in(result, steps, **changed):
    """Return a result as it is with other steps."""
    other = copy.deepcopy(result)
    other["scores"]["of"] |= {"steps": steps, **changed}
    return other


def calls(found):
    return [row[1] for row in found["rows"][1:]]


def test_each_number_of_calls_is_a_row_with_its_last_result(result):
    last = drawn_in(result, 3)
    last["scores"]["values"]["kid"]["value"] = 0.125
    found = quality_against_calls([result, drawn_in(result, 9), last], [])
    assert calls(found) == ["9", "3"]
    assert found["rows"][2][2].startswith("125 (")
    assert found["plot"].svg.startswith("<svg")


def test_two_calls_a_step_and_guidance_are_counted(result):
    found = quality_against_calls([result, drawn_in(result, 4, sampler="heun"), drawn_in(result, 5, guidance=2.0)], [])
    assert calls(found) == ["10", "8", "3"]
    assert "guidance 2" in found["rows"][1][0]


@pytest.mark.parametrize("changed", [{"n": 61}, {"weights": "0" * 64}])
def test_what_was_measured_on_others_is_left_out(result, changed):
    assert quality_against_calls([drawn_in(result, 9, **changed), result], []) == {}


def test_one_number_of_calls_is_no_section(result):
    assert quality_against_calls([result, result], []) == {}
    assert quality_against_calls([], []) == {}


def test_the_report_of_a_student_has_its_teacher(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(runs / "cache"))
    teacher = shutil.copytree(runs / "one", tmp_path / "teacher")
    student = unnoise.distill(teacher, steps=1, images="16", out=str(tmp_path / "student"))
    shutil.rmtree(teacher / "evaluations")
    score_both(DistillConfig(str(teacher), 1, n=60), student.folder, silent, mute)
    page = write_report(student).read_text()
    assert "Quality against calls" in page
    assert "its teacher: ddim, 1 step at trailing levels" in page
    assert "this run: ddim, 1 step at trailing levels" in page
    assert page.count("its teacher: ") == 2
    assert "Quality against calls" in write_report(teacher).read_text()
    (student.folder / "evaluations" / "beside.json").write_text("7")
    assert "its teacher: " not in write_report(student).read_text()
