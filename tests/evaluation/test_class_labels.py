"""Classes are drawn in the proportions of the training data, so that a perfect model gets a perfect score."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from tiny import TINY, smooth, train_folder
from unnoise import sampling
from unnoise.checkpoint import load, read_model, write_model
from unnoise.config import EvalConfig, TuneConfig
from unnoise.data.cache import open_data
from unnoise.data.dataset import class_counts, split_held_out
from unnoise.errors import InputError
from unnoise.evaluation.evaluate import evaluate, run_evaluation
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.image_sets import label_rule, run_images
from unnoise.evaluation.measure import measure
from unnoise.evaluation.score_table import format_scores
from unnoise.evaluation.tune import make_scorer, score_settings
from unnoise.progress import silent
from unnoise.reporting.compare import compare_runs
from unnoise.run_folder import evaluations, keep_evaluation
from unnoise.samplers.base import Step
from unnoise.samplers.draw import labels_by_count

pytestmark = pytest.mark.usefixtures("unchecked")

DARK, LIGHT = 900, 100


def images_of(label, count, seed):
    """Return dark images of class 0, and light ones of class 1."""
    return smooth(count, 8, seed) // 2 + 128 * label


def colours():
    """A feature extractor: the mean colours and their spreads."""

    def extract(pixels):
        x = pixels.float() / 127.5 - 1
        return torch.cat([x.mean((2, 3)), x.std((2, 3))], dim=1), torch.zeros(len(x), 0)

    return Extractor(extract, 6, 0, {"network": "colours"})


@pytest.fixture(scope="module")
def unbalanced_folder(tmp_path_factory):
    """Write data of two classes, 9 to 1, and a run that learns classes."""
    folder = tmp_path_factory.mktemp("unbalanced")
    images = np.concatenate([images_of(0, DARK, 0), images_of(1, LIGHT, 1)])
    np.savez(folder / "data.npz", images=images, labels=np.array(["dark"] * DARK + ["light"] * LIGHT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(folder / "cache"))
        train_folder(folder / "data.npz", images="16", classes=True, held_out=0, out=str(folder / "run"), **TINY)
    return folder


@pytest.fixture
def unbalanced(unbalanced_folder, monkeypatch):
    """Return the folder; the run draws images of the very distribution of its classes, and notes their labels."""
    monkeypatch.setenv("UNNOISE_CACHE", str(unbalanced_folder / "cache"))
    drawn = {}

    def draw_perfectly(model, seeds, how, labels, *_):
        drawn.update(zip(seeds, labels.tolist(), strict=True))
        x = np.concatenate([images_of(drawn[seed], 1, 10_000 + seed) for seed in seeds])
        x = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1
        return iter([Step(x, x, model.schedule.level(0))])

    monkeypatch.setattr(sampling, "run_sampler", draw_perfectly)
    return unbalanced_folder, drawn


def forget_counts(folder):
    """Make the card one of version 0.1.0, which has no counts; return the card as it was."""
    card, weights = read_model(folder / "run" / "model.safetensors")
    old = {name: value for name, value in card.data.items() if name != "class_counts"}
    write_model(folder / "run" / "model.safetensors", weights, replace(card, data=old))
    return card, weights


def test_labels_come_in_the_proportions_of_the_counts_at_any_seeds():
    counts = [700, 250, 0, 50]  # the last one: without a label
    labels = labels_by_count(counts, range(1000))
    found = Counter(labels.tolist())
    assert set(found) == {0, 1, -1}
    for label, wanted in ((0, 700), (1, 250), (-1, 50)):
        assert abs(found[label] - wanted) <= 3
    assert torch.equal(torch.cat([labels_by_count(counts, [seed]) for seed in range(1000)]), labels)
    assert labels_by_count(counts, [2**62, 5]).tolist()[1] == labels[5]
    for start in (0, 17, 12_345):
        few = labels_by_count([90, 10, 0], range(start, start + 100))
        assert 8 <= int((few == 1).sum()) <= 12


def test_classes_are_counted_with_what_has_no_label(unbalanced):
    folder, _ = unbalanced
    data = open_data(folder / "data.npz")
    assert class_counts(data) == [DARK, LIGHT, 0]
    assert class_counts(data.part([0, 1, 999])) == [2, 1, 0]
    assert class_counts(open_data(smooth(5, 8, 0))) == [5]
    trained, _ = split_held_out(data, 0)
    assert list(load(folder / "run").card.data["class_counts"]) == class_counts(trained)


@pytest.mark.slow
def test_a_perfect_model_of_unbalanced_data_gets_a_perfect_score(unbalanced):
    folder, drawn = unbalanced
    given = {"metrics": "kid,colour", "n": 500, "features": colours, "batch": 50}
    found = run_evaluation(EvalConfig(str(folder / "run"), **given), say=lambda _: None)["scores"]
    low, high = found["values"]["kid"]["interval"]
    assert low < 0 < high or abs(found["values"]["kid"]["value"]) < 1e-3
    assert found["warnings"] == []
    assert 45 <= sum(drawn.values()) <= 55
    assert found["of"]["class_counts"] == [DARK, LIGHT, 0]
    assert any("labels in the proportions of the data" in line for line in format_scores(found))
    even = run_evaluation(EvalConfig(str(folder / "run"), **given, labels="even"), say=lambda _: None)["scores"]
    assert sum(drawn.values()) == 250
    assert even["values"]["kid"]["interval"][0] > 0.01
    assert any("colour drift" in text for text in even["warnings"])
    assert any("labels in turn" in line for line in format_scores(even))


def test_an_image_keeps_its_label_at_any_batch_and_part(unbalanced):
    folder, drawn = unbalanced
    run, labels = load(folder / "run"), []
    for batch, wanted in ((7, lambda _: True), (64, lambda _: True), (8, lambda i: i % 2 == 1)):
        drawn.clear()
        [*run_images(EvalConfig(seed=5, batch=batch), run, 100).stream(wanted)]
        labels.append(dict(drawn))
    assert labels[0] == labels[1]
    assert 0 < len(labels[2]) < 100
    assert labels[2].items() <= labels[0].items()


def test_an_unknown_rule_is_a_warning_beside_the_scores(unbalanced, monkeypatch):
    folder, drawn = unbalanced
    monkeypatch.setattr("unnoise.evaluation.image_sets.training_counts", lambda _: None)
    found = evaluate(folder / "run", metrics="kid", n=60, features=colours).details["scores"]
    assert sum(drawn.values()) == 30
    assert any("it is not known how many training images each class has" in text for text in found["warnings"])


def test_tune_draws_in_the_proportions_too(unbalanced, monkeypatch):
    folder, drawn = unbalanced
    config = TuneConfig(str(folder / "run"), features=colours)
    scorer = make_scorer(config, run := load(folder / "run"), 0.001, silent, lambda _: None)
    real = measure(scorer.data, scorer.extractor, "", silent)
    score_settings(scorer, run.card.sampling, 300, 0, 0, real)
    assert 27 <= sum(drawn.values()) <= 33


def test_scores_of_other_classes_are_not_compared(unbalanced):
    """Scores of version 0.1.0 say nothing of classes, which came in turn."""
    folder, _ = unbalanced
    given = {"metrics": "kid", "n": 70, "features": colours}
    for labels in ("data", "even"):
        evaluate(folder / "run", labels=labels, **given)
    rows = [line for line in compare_runs([folder / "run", folder / "run"]) if line.startswith("70 images")]
    assert [row.rpartition("classes ")[2] for row in rows] == ["in the proportions of the data", "in turn"]
    old = json.loads(json.dumps(evaluations(folder / "run")[-1]))
    del old["scores"]["of"]["labels"]
    for file in (folder / "run" / "evaluations").iterdir():
        file.unlink()
    keep_evaluation(folder / "run", old)
    assert "classes in turn" in "\n".join(compare_runs([folder / "run", folder / "run"]))


def test_damaged_counts_in_a_card_are_refused(unbalanced):
    folder, _ = unbalanced
    file = folder / "run" / "model.safetensors"
    card, weights = read_model(file)
    try:
        for wrong in ([1, 2], [0, 0, 0], [1, -1, 0], "many", [1.5, 1, 1]):
            write_model(file, weights, replace(card, data={**card.data, "class_counts": wrong}))
            with pytest.raises(InputError, match="class_counts"):
                load(folder / "run")
    finally:
        write_model(file, weights, card)


def test_an_old_run_is_counted_from_its_data_and_else_draws_in_turn_with_a_warning(unbalanced, monkeypatch):
    folder, _ = unbalanced
    card, weights = forget_counts(folder)
    try:
        assert label_rule(EvalConfig(), load(folder / "run")).counts == [DARK, LIGHT, 0]

        def gone(*_, **__):
            raise InputError("gone")

        monkeypatch.setattr("unnoise.evaluation.image_sets.run_data", gone)
        rule = label_rule(EvalConfig(), load(folder / "run"))
        assert rule.counts is None
        assert rule.facts == {"labels": "in turn", "labels_unknown": True}
    finally:
        write_model(folder / "run" / "model.safetensors", weights, card)
