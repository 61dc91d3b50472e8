"""`unnoise eval` and `unnoise.evaluate`: one path, the same numbers, from the command line and from Python."""

import functools
import inspect
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import unnoise
from tiny import smooth
from unnoise.checkpoint import load
from unnoise.cli import main
from unnoise.config import EvalConfig, SampleConfig
from unnoise.data.cache import open_data
from unnoise.errors import InputError
from unnoise.evaluation import metrics
from unnoise.evaluation.evaluate import by_default, evaluate, run_evaluation
from unnoise.evaluation.features import Extractor, efficientnet
from unnoise.evaluation.score_table import format_scores
from unnoise.evaluation.statistics import Statistics
from unnoise.files import finite_json
from unnoise.images import as_uint8, to_uint8
from unnoise.run_folder import evaluations
from unnoise.samplers.ddim import ddim
from unnoise.sampling import sample_to_folder

pytestmark = pytest.mark.usefixtures("unchecked")

FEW = ["-n", "60", "--metrics", "kid,fid,colour"]


# Scores


def test_a_run_is_scored_by_the_images_it_draws(world, extractor):
    """The same numbers as by hand, from files of `unnoise sample` too."""
    found = run_evaluation(EvalConfig(str(world / "run"), n=60, metrics="kid,fid"))["scores"]
    run = load(world / "run", "cpu")
    s = {}
    with torch.inference_mode():
        drawn = to_uint8(unnoise.sample(run, 60))
        data = as_uint8(torch.from_numpy(open_data(str(world / "train")).read(np.arange(80))))
        for name, pixels in (("drawn", drawn), ("data", data)):
            s[name] = Statistics.empty(320, 1000, 3)
            s[name].add(*extractor(pixels), pixels)
    assert found["values"]["fid"]["value"] == pytest.approx(metrics.fid(s["drawn"], s["data"]).value, rel=1e-3)
    assert found["values"]["kid"]["value"] == pytest.approx(
        metrics.kid(s["drawn"].kept, s["data"].kept).value, rel=1e-3
    )
    sample_to_folder(SampleConfig(str(world / "run"), 60, out=str(world / "files")))
    assert (world / "files-grid.png").is_file(), "beside, where it is not an image of the set"
    files = run_evaluation(EvalConfig(str(world / "files"), str(world / "train"), metrics="kid"))["scores"]
    assert files["values"]["kid"]["value"] == pytest.approx(found["values"]["kid"]["value"], rel=1e-3)


def test_everything_needed_to_compare_is_reported(world, capsys):
    file = world / "scores.json"
    assert main(["eval", str(world / "run"), *FEW, "--sampler", "ddim", "--steps", "3", "--json", str(file)]) == 0
    said, kept = capsys.readouterr(), json.loads(file.read_text())["scores"]
    assert "about" in said.err
    assert kept["of"]["sampler"] == "ddim"
    assert kept["of"]["steps"] == 3
    assert kept["of"]["n"] == 60
    assert kept["against"]["fingerprint"] == open_data(str(world / "train")).fingerprint
    assert len(kept["of"]["weights"]) == len(kept["features"]["weights"]) == 64
    for text in ("kid x 1000", "60 images", "ddim", "steps 3", "seed 0", "efficientnet-lite0:size=64", "80 of 80"):
        assert text in said.out
    low, high = kept["values"]["kid"]["interval"]
    assert low < kept["values"]["kid"]["value"] < high
    assert kept["values"]["fid"]["interval"] == [None, None]
    assert "warning: fid of 60 images has no interval: it needs 960" in said.out
    assert kept["values"]["fid"]["floor"]["value"] > 0
    assert len(kept["colour"]["of"]["mean"]) == 3


def test_what_is_not_known_is_null_in_json_and_a_dash_in_words(world, tmp_path, capsys):
    """The interval of images that are all the same; NaN is not JSON."""
    given = [str(world / "constant"), str(world / "like")]
    assert main(["eval", *given, "--metrics", "fid_infinity", "--json", str(tmp_path / "scores.json")]) == 0
    assert re.search(r"fid_infinity +- +- +- +-$", capsys.readouterr().out, re.MULTILINE)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    found = json.loads((tmp_path / "scores.json").read_text(), parse_constant=refuse)
    assert found["scores"]["values"]["fid_infinity"] == {"value": None, "standard_error": None, "interval": [None] * 2}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_score_reports_the_precision_its_images_were_drawn_in(world, precision):
    given = EvalConfig(str(world / "run"), str(world / "train"), n=60, metrics="kid", precision=precision)
    scores = run_evaluation(given, say=lambda _: None)["scores"]
    assert scores["of"]["precision"] == precision
    assert any(f"precision {precision}" in line for line in format_scores(scores))


# From Python


def same(details, file):
    return finite_json(details) == json.loads(file.read_text())


def test_python_and_the_command_line_give_the_same_numbers(world, tmp_path):
    """To the last bit, for a run by its folder, its model file, or opened."""
    names, file = "kid,fid,precision_recall,colour,bpd", tmp_path / "scores.json"
    given = ["-n", "60", "--metrics", names, "--levels", "3", "--no-ode", "--steps", "3", "--json", str(file)]
    assert main(["eval", str(world / "run"), *given]) == 0
    for run in (world / "run", str(world / "run" / "model.safetensors"), load(world / "run")):
        found = evaluate(run, metrics=names, n=60, levels=3, ode=False, steps=3)
        assert same(found.details, file)
    assert list(found) == ["kid", "fid", "precision", "recall", "bpd"]
    for name, score in json.loads(file.read_text())["scores"]["values"].items():
        assert found[name].value == float(found[name]) == score["value"]
        assert finite_json([found[name].standard_error, found[name].interval]) == [
            score["standard_error"],
            score["interval"],
        ]
    assert found["bpd"].value == found.details["bpd"]["bound"]["mean"]
    assert list(found["bpd"].interval) == found.details["bpd"]["bound"]["interval"]


def test_an_evaluation_is_a_table(world, capsys):
    assert main(["eval", str(world / "run"), *FEW]) == 0
    found = evaluate(world / "run", n=60, metrics="kid,fid,colour")
    assert f"{found}\n" == capsys.readouterr().out
    assert len(str(found).splitlines()) >= 6
    assert re.fullmatch(r"Evaluation\(kid [\d.e-]+, fid [\d.e-]+\)", repr(found))
    assert len(found) == 2
    with pytest.raises(KeyError, match="no score 'recall'; measured are kid, fid"):
        found["recall"]


def test_results_of_a_run_are_stored_and_those_of_memory_are_not(world):
    stored = len(evaluations(world / "run"))
    found = evaluate(world / "run", n=50, metrics="kid")
    assert len(evaluations(world / "run")) == stored + 1
    assert evaluations(world / "run")[-1] == finite_json(found.details)
    files = {*(world / "run").rglob("*")}
    run, images = load(world / "run"), smooth(60, 16, 7)
    for subject, data in (
        (run, images),
        (run.model, world / "like"),
        (run, torch.from_numpy(images)),
        (images, images),
    ):
        evaluate(subject, data, n=50, metrics="kid", steps=2)
    assert {*(world / "run").rglob("*")} == files


def test_a_model_in_memory_scores_as_its_run(world):
    """It needs data, since it does not say what it was trained on."""
    run = load(world / "run")
    one, other = (evaluate(x, world / "like", n=60, metrics="kid,fid", steps=3) for x in (run, run.model))
    own = evaluate(run.model, world / "like", n=60, metrics="kid,fid", sampler=run.card.sampling.sampler, steps=3)
    assert one["kid"] == other["kid"] == own["kid"]
    assert one["fid"] == other["fid"]
    assert other.details["scores"]["of"]["name"] == "a model in memory"
    with pytest.raises(InputError, match="does not say what it was trained on"):
        evaluate(run.model)
    with pytest.raises(InputError, match="does not say which they were"):
        evaluate(run.model, world / "train", metrics="memorization")
    bits = evaluate(run.model, world / "like", n=4, metrics="bpd", levels=2)
    assert {*bits} == {"bpd", "bpd_ode"}


def test_sampled_images_score_as_the_run_that_drew_them(world):
    found = evaluate(world / "run", n=60, metrics="kid,fid")
    images = unnoise.sample(world / "run", 60)
    assert images.amin() < 0
    for given in (images, to_uint8(images)):
        scored = evaluate(given, world / "train", metrics="kid,fid")
        assert scored["kid"] == found["kid"]
        assert scored["fid"] == found["fid"]


def test_images_and_data_in_any_form_score_alike(world):
    arrays = smooth(80, 16, 0), smooth(200, 16, 1)
    forms = [
        (world / "train", world / "like"),
        (str(world / "train"), open_data(world / "like")),
        arrays,
        [torch.from_numpy(array).permute(0, 3, 1, 2) for array in arrays],
        [[*array] for array in arrays],
    ]
    kids = {evaluate(images, data, metrics="kid")["kid"] for images, data in forms}
    assert len(kids) == 1


def brightness(*, size=1):
    """A feature extractor of three numbers."""
    about = {"network": f"brightness:size={size}", "weights": "none", "resize": "none"}
    return Extractor(lambda pixels: (pixels.float().mean((2, 3)) / 255, torch.zeros(len(pixels), 0)), 3, 0, about)


def test_features_and_samplers_are_specs_or_callables(world):
    given = {"n": 60, "metrics": "kid"}
    texts = evaluate(world / "run", features="efficientnet:size=32", sampler="ddim:eta=0.5", steps=2, **given)
    calls = evaluate(
        world / "run",
        features=functools.partial(efficientnet, size=32),
        sampler=functools.partial(ddim, eta=0.5),
        steps=2,
        **given,
    )
    assert texts["kid"] == calls["kid"]
    assert texts.details["scores"]["features"] == calls.details["scores"]["features"]
    assert texts.details["scores"]["of"] == calls.details["scores"]["of"]
    own = evaluate(world / "train", world / "like", features=brightness, metrics="kid,fid")
    assert own.details["scores"]["features"]["network"] == "brightness:size=1"
    assert own["fid"].value > 0
    with pytest.raises(InputError, match="it must return an Extractor"):
        evaluate(world / "train", world / "like", features=lambda: None)


@pytest.mark.parametrize(
    ("subject", "settings", "message"),
    [
        ("run", {"precision": "fp64"}, "fp64"),
        ("run", {"clip": "no"}, "clip"),
        ("run", {"n": 0}, "n takes 1 or more"),
        ("run", {"metrics": "fidd"}, "did you mean 'fid'"),
        ("run", {"sampler": "ddin"}, "did you mean 'ddim'"),
        ("run", {"features": "inceptoin"}, "did you mean 'inception'"),
        ("run", {"seed": -1}, "seed"),
        ("run", {"steps": "many"}, "steps"),
        ("run", {"data": 7}, "give a path"),
        ("train", {}, "is no run"),
        ("train", {"data": "like", "metrics": "memorization"}, "needs a run"),
    ],
)
def test_wrong_values_from_python_are_refused_in_one_line(world, subject, settings, message):
    if settings.get("data") == "like":
        settings = {**settings, "data": world / "like"}
    with pytest.raises(InputError, match=message) as error:
        inspect.unwrap(evaluate)(world / subject, **settings)  # the checks of the tests would refuse types before
    assert "\n" not in str(error.value)


# Mistakes


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["{run}", "--metrics", "fidd"], "unknown metric 'fidd'; did you mean 'fid'"),
        (["{run}", "--features", "inceptoin"], "unknown features"),
        (["{run}", "--features", "efficientnet:size=8"], "32 to 1,024"),
        (["{run}", "--features", "efficientnet:size=9999"], "32 to 1,024"),
        (["{run}", "-n", "0"], "1 or more"),
        (["{run}", "-n", "10"], "50 images or more; .* has 10"),
        (["{run}", "--batch", "0"], "1 or more"),
        (["{run}", "--reference", "3"], "50 or more"),
        (["{run}", "--steps", "0"], "got 0"),
        (["{run}", "--sampler", "ddin"], "did you mean 'ddim'"),
        (["{run}", "--data", "{nowhere}"], "no data at"),
        (["{run}", "{like}", "--data", "{like}"], "once"),
        (["{train}"], "is no run: name the images to compare it with"),
        (["{nowhere}", "{like}"], "no data at"),
        (["{few}", "{like}"], "50 images or more; few has 10"),
        (["{train}", "{like}", "-n", "81"], "81 images were asked for, but train has 80"),
        (["{train}", "{like}", "--metrics", "bpd"], "needs a run, and .* is none"),
        (["{run}", "--metrics", ""], "name one"),
    ],
)
def test_mistakes_get_one_clear_line(world, capsys, asked, message):
    given = [
        text.format(**{name: world / name for name in ("run", "train", "like", "few", "nowhere")}) for text in asked
    ]
    assert main(["eval", *given]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("unnoise: ")
    assert re.search(message, said), said


def test_copies_are_looked_for_by_default_if_the_training_images_are_few(world):
    run = load(world / "run")
    few = replace(run, card=replace(run.card, data={"fingerprint": "x", "count": 200}))
    assert by_default(EvalConfig("run"), few)[-1] == "memorization"
    for data in ({"fingerprint": "x", "count": 1_000}, {"fingerprint": "x", "count": 21}, {"count": 200}, {}):
        other = replace(run, card=replace(run.card, data=data))
        assert "memorization" not in by_default(EvalConfig("run"), other)
    for config in (EvalConfig("run", data="other"), EvalConfig("run", against="other")):
        assert "memorization" not in by_default(config, few)
    assert "memorization" not in by_default(EvalConfig("images"), None)
