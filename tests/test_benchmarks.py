"""Every benchmark script starts and is listed in benchmarks/README.md; every result is in the manifest."""

import hashlib
import json
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch

from unnoise.training.expected import LAW

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
RESULTS = BENCHMARKS / "results"
SCRIPTS = sorted(path for path in BENCHMARKS.glob("*/*.py") if "\nif __name__ ==" in path.read_text())
OWN = ("unnoise", "benchmarks")  # modules that must not be missing

# Run in one process for all scripts of a folder, since importing PyTorch takes most of the time.
PRINT_HELP = """
import contextlib, io, json, runpy, sys
found = {}
for module in sys.argv[1:]:
    sys.argv, out, why = [module, "--help"], io.StringIO(), ["it did not print its help"]
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_module(module, run_name="__main__")
    except SystemExit as end:
        why = [] if end.code == 0 else [f"exit status {end.code}"]
    except ModuleNotFoundError as error:
        why = [repr(error), error.name]
    except Exception as error:
        why = [repr(error)]
    found[module] = [out.getvalue(), why]
    sys.modules.pop(module, None)
print(json.dumps(found))
"""


def module_of(script):
    return ".".join(script.relative_to(ROOT).with_suffix("").parts)


@cache
def helps(folder):
    """Return (help text, what is wrong) of each script of a folder, by module."""
    modules = [module_of(script) for script in SCRIPTS if script.parent == folder]
    line = [sys.executable, "-W", "ignore::RuntimeWarning", "-c", PRINT_HELP, *modules]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_starts_and_its_help_names_its_command(script):
    text, wrong = helps(script.parent)[module_of(script)]
    if len(wrong) == 2 and wrong[1].partition(".")[0] not in OWN:
        pytest.skip(f"{script.name} needs the package {wrong[1]}")
    assert not wrong, wrong
    assert f"python -m {module_of(script)}" in text


def test_benchmarks_take_their_scores_from_the_package():
    """A KID of their own had errors from two or four blocks, and used the first held-out images only."""
    made = re.compile(r"^ *def \w*(kid|fid|frechet|mmd)\w*\(.*\) -> (tuple|float|Score)", re.MULTILINE)
    assert not [path.name for path in BENCHMARKS.glob("*/*.py") if made.search(path.read_text())]


def test_every_script_is_in_the_readme():
    text = (BENCHMARKS / "README.md").read_text()
    assert len(SCRIPTS) >= 18
    for script in SCRIPTS:
        assert f"| `{script.name}` |" in text, f"{script.name} has no row in benchmarks/README.md"
        assert f"`python -m {module_of(script)}" in text, f"the command of {script.name} is not in benchmarks/README.md"


def test_every_result_is_in_the_manifest():
    """Files that git ignores are runs and images that a benchmark leaves; they are no results."""
    manifest = json.loads((RESULTS / "MANIFEST.json").read_text())
    files = {str(path.relative_to(RESULTS)): path for path in RESULTS.glob("*/*") if path.suffix in (".json", ".md")}
    assert manifest.keys() == files.keys(), "run python -m benchmarks.lib.manifest"
    for name, entry in manifest.items():
        assert entry["sha256"] == hashlib.sha256(files[name].read_bytes()).hexdigest(), f"{name} has changed"
        assert (ROOT / entry["script"]) in SCRIPTS, f"{name}: there is no script {entry['script']}"


@pytest.fixture
def expected(monkeypatch):
    """The script that fits the law of what to expect of a training."""
    monkeypatch.syspath_prepend(ROOT)
    return import_module("benchmarks.quality.expected")


def test_the_law_is_that_of_the_results(expected):
    trainings = [training for folder in RESULTS.glob("yardstick*") for training in expected.read(folder)]
    assert tuple(LAW) == pytest.approx(tuple(expected.fit(trainings)), rel=0.02)
    assert len({training["set"] for training in trainings} - {*expected.FITTED}) >= 3  # it was checked on others


def test_the_fit_finds_a_law_that_the_trainings_follow(expected):
    law = LAW._replace(limit=0.05, power=1.1, half=20_000)
    kids = {(name, n): law.at(expected.side(name), n).kid for name in expected.FITTED for n in (2e4, 1e5)}
    rows = [{"set": name, "images": n, "scores": {"lite0": {"kid": [kid]}}} for (name, n), kid in kids.items()]
    found = expected.fit(rows)
    assert tuple(found)[:3] == pytest.approx(tuple(law)[:3], rel=1e-2)
    assert found.spread == pytest.approx(1, abs=1e-3)


@pytest.fixture
def leak(monkeypatch):
    """The script that counts transformed images among drawn ones."""
    monkeypatch.syspath_prepend(ROOT)
    return import_module("benchmarks.quality.leak")


def test_a_classifier_flags_the_share_of_images_that_are_transformed(leak):
    rng = torch.Generator().manual_seed(0)
    real, transformed = torch.randn(600, 12, generator=rng), 1.5 + torch.randn(600, 12, generator=rng)
    classify = leak.Classifier(real[:300], transformed[:300])
    limit = classify(real[300:]).quantile(1 - leak.ALARM)
    mixed = torch.cat([real[300:500], transformed[300:400]])  # a third is transformed
    shares = {"real": 0.05, "transformed": 1.0, "run": float((classify(mixed) > limit).float().mean())}
    shares = {name: {"value": share} for name, share in shares.items()}
    assert float(leak.row("turned", "run", shares).split("|")[-2]) == pytest.approx(1 / 3, abs=0.05)
    assert "cannot be told" in leak.row("turned", "run", shares | {"transformed": {"value": 0.06}})


def test_each_kind_of_transform_changes_images_by_itself(leak):
    pixels = torch.randint(256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert leak.transformed(pixels, "mirrored", 0).equal(pixels.flip(3))
    assert leak.transformed(pixels, "upside down", 0).equal(pixels.flip(2))
    for kind in leak.KINDS:
        assert not leak.transformed(pixels, kind, 0).equal(pixels), kind


def test_copies_begin_where_more_images_are_flagged_than_new_ones_may_be(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    horizon = import_module("benchmarks.quality.few_images").horizon
    new = {"value": 0.02, "interval": [0.01, 0.05]}
    marks = [(1_000, 0.01), (10_000, 0.03), (100_000, 0.07)]
    rows = [{"images": images, "copies": {"drawn": {"value": share}, "new": new}} for images, share in marks]
    assert horizon([{"images": 500, "copies": None}, *rows]) == pytest.approx(10_000 * 10**0.5)
    assert horizon(rows[:2]) is None
