"""`unnoise verify`: an honest run agrees in every value, and a value that is changed anywhere is named."""

import pytest

import unnoise
from unnoise.verification.check import AGREES


def changed(value):
    """Return another value of the same type: a number that is 1 % larger, or another text."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value * 1.01 + 1e-6 if isinstance(value, float) else f"{value}x"


def change_leaf(nest, path):
    """Change the value at a path of `leaves` in a nest."""
    keys = path.replace("[", ".[").strip(".").split(".")
    for key in keys[:-1]:
        nest = nest[int(key[1:-1]) if key.startswith("[") else key]
    last = int(keys[-1][1:-1]) if keys[-1].startswith("[") else keys[-1]
    nest[last] = changed(nest[last])


@pytest.fixture(scope="module")
def clean(honest):
    """Return the verification of the honest run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(honest.parent / "cache"))
        return unnoise.verify(honest)


def test_every_value_of_an_honest_run_agrees(clean, honest):
    assert [str(check) for check in clean.differing] == []
    agreeing = {check.part for check in clean.checks if check.verdict == AGREES}
    assert agreeing >= {
        "card",
        "config.yaml",
        "loss.png",
        "report.html",
        "metrics.jsonl KID",
        "metrics.jsonl held-out loss",
        "samples/final.png",
        "evaluations/0001.json scores",
        "evaluations/0002.json bpd",
        "evaluations/0002.json memorization",
        "memorization.png",
        "best.safetensors",
    }
    assert str(clean).splitlines()[-1].endswith(" values agree, 0 differ, 46 cannot be recomputed"), str(clean)


def test_nothing_is_written_into_the_run(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    unnoise.verify(run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
