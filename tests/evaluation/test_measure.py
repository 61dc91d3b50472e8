"""Statistics of a set are computed once, survive an interrupt, and do not depend on batches."""

import os
from pathlib import Path

import pytest
import torch

from tiny import smooth
from unnoise.config import EvalConfig
from unnoise.evaluation import image_sets
from unnoise.evaluation.evaluate import run_evaluation
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.image_sets import dataset_images, open_images
from unnoise.evaluation.measure import expected_seconds, measure, measure_all, measure_pixels
from unnoise.evaluation.statistics import Statistics
from unnoise.progress import silent

pytestmark = pytest.mark.usefixtures("unchecked")


def test_statistics_of_data_are_computed_once(world, monkeypatch):
    config = EvalConfig(str(world / "train"), str(world / "like"), metrics="fid")
    first = run_evaluation(config)

    def refuse(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(image_sets, "as_uint8", refuse)
    assert run_evaluation(config) == first


def test_an_interrupt_leaves_nothing_half_done(world, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))  # in which no other test has measured the images
    config = EvalConfig(str(world / "large"), str(world / "large"), metrics="kid", batch=16)

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_evaluation(config, stop)
    assert {path.parent.name for path in (tmp_path / "cache").rglob("*")} <= {"cache", *cached_names(tmp_path)}
    assert run_evaluation(config)["scores"]["values"]["kid"]["value"] < 0.1


def cached_names(world):
    return [path.name for path in (world / "cache").iterdir() if path.name != "statistics"]


@pytest.mark.parametrize(("second", "judges"), [("none", 1), ("efficientnet:model=lite2", 2)])
def test_a_score_that_was_stopped_resumes(world, monkeypatch, second, judges):
    """Batches that were drawn and measured are not drawn again, and the numbers are the same by each judge."""
    given = EvalConfig(str(world / "run"), str(world / "train"), n=60, batch=8, metrics="kid", second=second)
    whole = run_evaluation(given, say=lambda _: None)["scores"]
    monkeypatch.setattr("unnoise.evaluation.measure.SAVE_EVERY", 0.0)
    add, added = Statistics.add, []

    def broken(self, features, probabilities, pixels, first):
        if len(added) == 5 * judges:
            raise KeyboardInterrupt
        added.append(len(pixels))
        add(self, features, probabilities, pixels, first)

    monkeypatch.setattr(Statistics, "add", broken)
    with pytest.raises(KeyboardInterrupt):
        run_evaluation(given, say=lambda _: None)
    drawn = []
    monkeypatch.setattr(Statistics, "add", lambda *given: drawn.append(len(given[3])) or add(*given))
    assert run_evaluation(given, say=lambda _: None)["scores"] == whole
    assert sum(drawn) == 60 * judges - sum(added)
    assert not [*(Path(os.environ["UNNOISE_CACHE"]) / "statistics").glob("partial-*")]


def test_images_in_memory_and_in_a_set_have_the_same_statistics(world, extractor):
    images = smooth(70, 16, 5)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    one, other = (
        measure_pixels(pixels, extractor),
        measure(dataset_images(open_images(images), None, 0, 64), extractor, "", silent),
    )
    assert all(torch.equal(value, getattr(other, name)) for name, value in vars(one).items())


def test_statistics_of_an_extractor_of_your_own_are_never_cached(world):
    """It says nothing about itself: another one of the same name would find them."""
    images = dataset_images(open_images(str(world / "like")), None, 0, 64)

    def scaled(scale):
        return Extractor(lambda x: (scale * x.float().mean((2, 3)), x.new_zeros(len(x), 0).float()), 3, 0, {}, False)

    one, two = (measure(images, scaled(scale), "", silent, shared=True) for scale in (1.0, 2.0))
    assert torch.equal(2 * one.total, two.total)
    assert expected_seconds(images, scaled(1.0)) > 0


def test_two_extractors_see_each_batch_once_and_each_has_its_own_cache(world, extractor, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    images = dataset_images(open_images(str(world / "like")), None, 0, 64)
    batches = []
    counted = images._replace(stream=lambda wanted: (batches.append(len(x)) or x for x in images.stream(wanted)))
    means = Extractor(lambda x: (x.float().mean((2, 3)), torch.zeros(len(x), 0)), 3, 0, {"network": "means"})
    alone = [measure(images, one, "", silent) for one in (extractor, means)]
    for path in (tmp_path / "cache" / "statistics").iterdir():
        path.unlink()
    assert expected_seconds(images, extractor, means) > 0
    together = measure_all(counted, [extractor, means], "", silent, shared=True)
    assert sum(batches) == images.n
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(value, getattr(other, name)) for name, value in vars(one).items())
    assert expected_seconds(images, extractor, means) == 0
    measure_all(counted, [extractor, means], "", silent, shared=True)
    assert sum(batches) == images.n  # both are in the cache
    another = means._replace(about={"network": "more means"})
    measure_all(counted, [extractor, another], "", silent)
    assert sum(batches) == 2 * images.n
