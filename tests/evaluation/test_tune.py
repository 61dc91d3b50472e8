"""`unnoise tune`: which settings are tried, which win, and what is stored."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import unnoise
from tiny import TINY, train_folder
from unnoise import registry
from unnoise.checkpoint import load, read_model, weights_hash, write_model
from unnoise.cli import main
from unnoise.config import EvalConfig, TuneConfig
from unnoise.errors import InputError
from unnoise.evaluation import tune as search
from unnoise.evaluation.evaluate import run_evaluation
from unnoise.evaluation.paired import contributions
from unnoise.evaluation.scores import symmetric
from unnoise.evaluation.tune import KEPT_SHARE, ROUNDS, Candidate, tune
from unnoise.evaluation.tune_table import format_candidates
from unnoise.samplers.draw import NonfiniteError
from unnoise.sampling import network_calls

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a run of a few steps."""
    folder = tmp_path_factory.mktemp("tune")
    random = np.random.default_rng(0)
    np.savez(
        folder / "data.npz",
        images=random.integers(0, 256, (240, 8, 8), dtype=np.uint8),
        labels=np.array(["a", "b"] * 120),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(folder / "cache"))
        train_folder(folder / "data.npz", images="64", out=str(folder / "run"), **TINY)
        yield folder / "run"


@pytest.fixture
def run(trained, monkeypatch):
    """Return the run, unchanged by other tests; a call of its network takes a millisecond."""
    card, weights = read_model(trained / "model.safetensors")
    monkeypatch.setattr("unnoise.evaluation.tune.seconds_per_image", lambda *_: 0.001)
    yield trained
    write_model(trained / "model.safetensors", weights, card)


def judged(monkeypatch, value):
    """Score settings by `value` in place of drawing; return the list of what was tried."""
    seen = []

    def score_settings(scorer, how, n, turn, *_):
        seen.append((turn, n, how))
        return Candidate(how, scorer.call_seconds * network_calls(how), symmetric(value(how), 1e-6))

    monkeypatch.setattr("unnoise.evaluation.tune.score_settings", score_settings)
    return seen


def quiet(*_):
    pass


def test_the_best_is_stored_and_the_weights_are_as_they_were(run, monkeypatch):
    seen = judged(monkeypatch, lambda how: 0.1 if (how.sampler, how.spacing) == ("unipc", "trailing") else 0.5)
    weights, before = weights_hash(load(run)), load(run).model.state_dict()
    found = tune(TuneConfig(str(run), time="20ms", n=200), say=quiet)
    opened = load(run)
    assert found["best"] == asdict(opened.card.sampling)
    assert (opened.card.sampling.sampler, opened.card.sampling.spacing) == ("unipc", "trailing")
    assert opened.card.sampling.steps == 20
    assert weights_hash(opened) == weights
    assert all(torch.equal(value, before[name]) for name, value in opened.model.state_dict().items())
    first = [how for turn, _, how in seen if turn == 0]
    assert {how.sampler for how in first} >= {"ddpm", "ddim", "heun", "dpmpp_2m_sde", "ddim:eta=0.5"}
    assert not any(how.sampler.startswith("adaptive") for how in first)
    for how in first:
        assert 0.001 * network_calls(how) <= 0.02 + 1e-9, how
    assert {n for _, n, _ in seen} == {round(share * 200) for share in ROUNDS}
    assert len([turn for turn, _, _ in seen if turn == 1]) == round(KEPT_SHARE * len(first))


def test_the_runs_own_settings_stay_unless_another_is_clearly_better(run, monkeypatch):
    own = load(run).card.sampling
    judged(monkeypatch, lambda how: 0.5 if how == own else 0.499)
    found = tune(TuneConfig(str(run), time="20ms", n=200), say=quiet)
    assert found["stored"] is None
    assert found["best"] == asdict(own) == asdict(load(run).card.sampling)


def test_the_runs_own_settings_go_if_they_take_too_long(run, monkeypatch):
    card, weights = read_model(run / "model.safetensors")
    own = replace(card.sampling, steps=100)
    write_model(run / "model.safetensors", weights, replace(card, sampling=own))
    judged(monkeypatch, lambda how: 0.5 if how == own else 0.9)
    tune(TuneConfig(str(run), time="20ms", n=200), say=quiet)
    assert 0.001 * network_calls(load(run).card.sampling) <= 0.02


def test_the_least_of_many_scores_has_to_be_the_least_on_new_seeds_too(run, monkeypatch):
    """Chance makes one of the settings the best in every round, but the scores of other seeds decide."""
    own, asked = load(run).card.sampling, []

    def score_settings(scorer, how, n, turn, seed, *_):
        asked.append((turn, n, seed))
        lucky = turn < len(ROUNDS) and how.sampler == "unipc"
        return Candidate(how, scorer.call_seconds * network_calls(how), symmetric(0.1 if lucky else 0.5, 1e-6))

    monkeypatch.setattr("unnoise.evaluation.tune.score_settings", score_settings)
    found = tune(TuneConfig(str(run), time="20ms", n=200), say=quiet)
    assert found["tried"][0]["sampler"] == found["final"]["settings"]["sampler"] == "unipc"
    assert found["best"] == asdict(own)
    assert found["stored"] is None
    last = [(n, seed) for turn, n, seed in asked if turn == len(ROUNDS)]
    assert last == [(200, 600)] * 2
    assert all(seed + n <= 600 for turn, n, seed in asked if turn < len(ROUNDS)), "no round had these seeds"
    text = "\n".join(format_candidates(found))
    assert "on 200 new images each: unipc 500.0, before 500.0, a difference of 0.0 (-3.0 to 3.0)" in text
    assert "no other settings are clearly better" in text


@pytest.mark.parametrize("same_noise", [True, False])
def test_images_of_the_same_seeds_tell_apart_what_both_intervals_do_not(run, monkeypatch, same_noise):
    """The other settings are a little better for every seed; independent images do not show it."""
    own, chance = load(run).card.sampling, torch.Generator().manual_seed(0)
    noise, more, y = (torch.randn(n, 8, generator=chance) for n in (100, 100, 200))
    pairs = {
        True: contributions(noise + 0.4, y),
        False: contributions((noise if same_noise else more) + 0.37, y),
    }

    def score_settings(scorer, how, *_):
        score = symmetric(0.5 if how == own else 0.45, 0.1**2)
        return Candidate(how, scorer.call_seconds * network_calls(how), score, pairs[how == own])

    monkeypatch.setattr("unnoise.evaluation.tune.score_settings", score_settings)
    found = tune(TuneConfig(str(run), n=200), say=quiet)
    assert (found["best"] != asdict(own)) == same_noise
    (row,) = [row for row in found["tried"] if row["sampler"] == own.sampler and row["spacing"] == own.spacing]
    assert row["difference"] == {"value": 0.0, "standard_error": 0.0, "interval": [0.0, 0.0]}
    assert all(row["difference"]["value"] < 0 for row in found["tried"] if row["value"] < 0.5) or not same_noise


def test_without_a_time_the_budget_is_the_time_of_an_image_now(run, monkeypatch):
    seen = judged(monkeypatch, lambda _: 0.5)
    tune(TuneConfig(str(run), n=200), say=quiet)
    evaluations = TINY["steps"] * registry.sampler.declared("dpmpp_2m_sde")["evaluations"]
    assert max(network_calls(how) for _, _, how in seen) == evaluations


def test_stronger_guidance_is_tried_at_the_same_cost(trained, tmp_path, monkeypatch):
    """Only for a run that also saw images without their class."""
    monkeypatch.setattr("unnoise.evaluation.tune.seconds_per_image", lambda *_: 0.001)
    data, found = trained.parent / "data.npz", {}
    for dropout in (0.1, 0.0):
        place = tmp_path / f"run{dropout}"
        train_folder(data, images="64", out=str(place), classes=True, label_dropout=dropout, **TINY)
        with monkeypatch.context() as patch:
            seen = judged(patch, lambda how: 0.5 / how.guidance)
            found = tune(TuneConfig(str(place), time="20ms", n=200), say=quiet)
        guided = [how for turn, _, how in seen if turn == 1 and how.guidance != 1]
        assert {how.guidance for how in guided} == ({1.5, 2.0, 3.0} if dropout else set())
        assert all(0.001 * network_calls(how) <= 0.02 + 1e-9 for how in guided)
        assert found["best"]["guidance"] == (3.0 if dropout else 1.0)
        unnoise.sample(place, 2)  # as it is kept now


def test_a_sampler_that_chooses_its_own_steps_needs_a_time(run):
    card, weights = read_model(run / "model.safetensors")
    write_model(run / "model.safetensors", weights, replace(card, sampling=replace(card.sampling, sampler="adaptive")))
    with pytest.raises(InputError, match="give a --time"):
        tune(TuneConfig(str(run), n=200), say=quiet)


@pytest.mark.slow
def test_scores_equal_those_of_eval(run, capsys, tmp_path):
    """To the last bit, from the command line; each round has seeds of its own."""
    path = tmp_path / "tuned.json"
    assert main(["tune", str(run), "--time", "4ms", "-n", "200", "--json", str(path)]) == 0
    said = capsys.readouterr()
    assert "this takes about" not in said.out
    assert "this takes about" in said.err
    assert " best" in said.out
    row = json.loads(path.read_text())["tried"][0]
    how = {name: row[name] for name in ("sampler", "steps", "spacing", "clip", "guidance")}
    config = EvalConfig(str(run), n=200, seed=(len(ROUNDS) - 1) * 200, metrics="kid", **how)
    score = run_evaluation(config, say=quiet)["scores"]["values"]["kid"]
    assert score["value"] == row["value"]
    assert score["standard_error"] == row["standard_error"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"time": "fast"}, "such as 50ms or 2s, got 'fast'"),
        ({"time": "0s"}, "such as 50ms"),
        ({"time": "1ms"}, "give 2ms or more"),
        ({"n": 30}, "n takes 200 or more, got 30"),
        ({"batch": 0}, "batch takes 1 or more"),
        ({"reference": 5}, "reference takes 20 or more"),
        ({"features": "eye"}, "unknown features"),
        ({"data": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_tried_is_refused(run, settings, words):
    with pytest.raises(InputError, match=words):
        tune(TuneConfig(str(run), **settings), say=quiet)


def test_settings_that_draw_no_numbers_are_the_worst(run, monkeypatch):
    """Some samplers overflow with few steps: the search goes on without them."""
    real = []

    def measure(images, extractor, task, report, measure=search.measure):
        if "ddim" in task or "heun" in task:
            raise NonfiniteError("not finite")
        real.append(real[0] if real else measure(images, extractor, task, report))
        return real[0]

    monkeypatch.setattr("unnoise.evaluation.tune.measure", measure)
    monkeypatch.setattr("unnoise.evaluation.tune.kid", lambda *_: symmetric(0.5, 0.01))
    found = tune(TuneConfig(str(run), n=200), quiet, quiet)
    assert math.isfinite(found["tried"][0]["value"])
    monkeypatch.setattr("unnoise.evaluation.tune.kid", lambda *_: symmetric(math.inf, 0.0))
    with pytest.raises(InputError, match="no sampling settings draw images that are finite"):
        tune(TuneConfig(str(run), n=200), quiet, quiet)
