"""The audit finds planted copies, and flags new images at most at the rate it states."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tiny import TINY, smooth, train_folder
from unnoise import registry
from unnoise.checkpoint import load
from unnoise.cli import main
from unnoise.config import EvalConfig
from unnoise.data.cache import open_data
from unnoise.data.dataset import split_held_out
from unnoise.errors import InputError
from unnoise.evaluation import memorization
from unnoise.evaluation.image_sets import ImageSet
from unnoise.evaluation.memorization import ALARM, audit, limits
from unnoise.evaluation.near_copies import (
    SPACES,
    describe_copies,
    nearer,
    no_neighbours,
    plant,
    share_of_copies,
)
from unnoise.evaluation.scores import wilson

pytestmark = pytest.mark.usefixtures("unchecked")

TRAIN, NEW = smooth(300, 16, 0), smooth(300, 16, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memorization")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(folder / "cache"))
        np.savez(folder / "train.npz", images=TRAIN)
        np.savez(folder / "other.npz", images=NEW)
        train_folder(folder / "train.npz", images="16", out=str(folder / "run"), flip=False, **TINY)
        train_folder(folder / "train.npz", images="16", held_out=100, out=str(folder / "held"), **TINY)
        yield load(folder / "run", "cpu")


def seen(run):
    """Return the images that a run was trained on, [n, h, w, c]."""
    data = open_data(str(run.path.parent.parent / "train.npz"))
    trained, _ = split_held_out(data, run.card.data["held_out"])
    return trained.read(np.arange(len(trained))).transpose(0, 2, 3, 1)


def audited(run, monkeypatch, images):
    """Return the result of the audit if these are the images that are drawn."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    monkeypatch.setattr(
        memorization, "run_images", lambda *_: ImageSet(lambda _: iter(pixels.split(50)), len(pixels), 3, {}, 50)
    )
    extractor = registry.features.get("efficientnet:size=32")()
    return audit(EvalConfig(str(run.path)), run, extractor, len(pixels), lambda *_: None, run.folder)


def test_copies_are_found_and_new_images_are_not(run, monkeypatch):
    assert audited(run, monkeypatch, seen(run)[:100])["flagged"] == 1
    found = audited(run, monkeypatch, NEW)
    assert found["flagged"] < 0.04, "1 % on average"
    low, high = found["interval"]
    assert low <= ALARM <= high + 0.01
    assert found["calibrated_on"] == "270 training images"  # 30 held out are too few


def test_mirrored_copies_are_found_if_mirrored_images_were_trained_on(run, monkeypatch):
    copies = seen(run)[:100, :, ::-1].copy()
    assert audited(run, monkeypatch, copies)["by_space"]["pixels"] < 0.1
    config = run.card.training["config"] | {"flip": True}
    flipped = replace(run, card=replace(run.card, training=run.card.training | {"config": config}))
    assert audited(flipped, monkeypatch, copies)["by_space"]["pixels"] == 1
    assert audited(flipped, monkeypatch, NEW)["flagged"] < 0.04


def test_held_out_images_set_the_threshold_and_count_as_new(run, monkeypatch):
    monkeypatch.setattr(memorization, "ENOUGH", 100)
    held = load(run.path.parent.parent / "held", "cpu")
    data = open_data(str(run.path.parent.parent / "train.npz"))
    trained, new = (part.read(np.arange(100)).transpose(0, 2, 3, 1) for part in split_held_out(data, 100))
    found = audited(held, monkeypatch, trained)
    assert found["calibrated_on"] == "100 held-out images"
    assert found["training_images"] == 200
    assert found["flagged"] == 1
    assert found["false_alarms"] == pytest.approx(len(SPACES) / 101), "a hundred images cannot show fewer"
    assert audited(held, monkeypatch, new)["flagged"] <= 0.02


def test_the_stated_rate_of_false_alarms_holds_for_any_number():
    """By simulation, with two independent spaces."""
    torch.manual_seed(0)
    for m in (30, 64, 200, 2000):
        flagged = []
        for _ in range(200):
            thresholds, stated = limits(torch.rand(2, m))
            flagged.append((torch.rand(2, 500) < torch.tensor(thresholds)[:, None]).any(dim=0).double().mean())
        assert torch.stack(flagged).mean() == pytest.approx(stated, rel=0.2)
    assert stated == pytest.approx(ALARM, rel=0.01)


def test_copies_within_the_data_do_not_blind_it(run, monkeypatch):
    """Calibration images with a twin among the training images say nothing about new images, and are left out."""
    data = open_data(str(run.path.parent.parent / "train.npz"))
    twice = data.part(np.concatenate([np.arange(200), np.arange(40)]))
    monkeypatch.setattr(memorization, "run_split", lambda *_: (twice, data.part(np.arange(0))))
    found = audited(run, monkeypatch, data.read(np.arange(100)).transpose(0, 2, 3, 1))
    assert found["copies_in_the_data"] == 80
    assert found["flagged"] > 0.5, "images without a twin; if there is a second copy, the nearest is not alone"
    few = data.part(np.arange(21))
    monkeypatch.setattr(memorization, "run_split", lambda *_: (few, data.part(np.arange(0))))
    with pytest.raises(InputError, match="22 training images or more, there are 21"):
        audited(run, monkeypatch, NEW)


def test_copies_are_found_behind_noise_blur_and_among_others(run, monkeypatch):
    noise = np.random.default_rng(0).normal(0, 8, seen(run)[:100].shape)
    noisy = (seen(run)[:100] + noise).clip(0, 255).astype(np.uint8)
    small = np.stack([np.asarray(Image.fromarray(image).resize((8, 8)).resize((16, 16))) for image in seen(run)[:100]])
    assert audited(run, monkeypatch, noisy)["flagged"] > 0.95
    assert audited(run, monkeypatch, small)["flagged"] > 0.95
    mixed = audited(run, monkeypatch, np.concatenate([noisy, NEW]))
    assert mixed["flagged"] == pytest.approx(0.25, abs=0.04)
    blurred = np.stack([np.asarray(Image.fromarray(image).resize((4, 4)).resize((16, 16))) for image in NEW])
    assert audited(run, monkeypatch, blurred)["flagged"] < 0.06, "near to all training images alike, which is no copy"


def test_the_contact_sheet_shows_the_nearest_pairs(run, monkeypatch):
    copied = seen(run)[7:8]
    found = audited(run, monkeypatch, np.concatenate([NEW[:40], copied]))
    sheet = np.asarray(Image.open(found["sheet"]).convert("RGB"))
    factor = 4
    left, right = (sheet[2 * factor :: factor, x * factor :: factor][:16, :16] for x in (2, 20))
    assert np.array_equal(left, copied[0])
    assert np.array_equal(right, copied[0])


def test_nearest_is_the_nearest_of_all_pairs_and_not_oneself():
    torch.manual_seed(3)
    x = torch.randn(50, 6)
    near, own = no_neighbours(50, 4), torch.arange(50)
    for part in own.split(13):
        near = nearer(near, x, x[part], part, own)
    apart = torch.cdist(x, x).fill_diagonal_(torch.inf)
    assert torch.equal(near.first, apart.argmin(dim=1))
    expected = apart.sort(dim=1).values[:, :4]
    torch.testing.assert_close(near.distances, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(near.closeness, expected[:, 0] / expected[:, 1:].mean(1), rtol=1e-4, atol=0)


def test_interval_of_a_share():
    """Wilson's interval for 0 and for 5 in 100."""
    assert wilson(0, 100) == pytest.approx((0, 0.03700), abs=1e-4)
    assert wilson(0.05, 100) == pytest.approx((0.02154, 0.11175), abs=1e-4)


def test_command_prints_the_audit(run, capsys):
    folder = run.path.parent
    assert (
        main(["eval", str(folder), "--metrics", "memorization", "-n", "4", "--features", "efficientnet:size=32"]) == 0
    )
    said = capsys.readouterr().out
    assert "of 4 images" in said
    assert str(folder / "memorization.png") in said


def test_other_data_is_refused(run):
    extractor = registry.features.get("efficientnet:size=32")()
    config = EvalConfig(str(run.path), data=str(run.path.parent.parent / "other.npz"))
    with pytest.raises(InputError, match="other is other data"):
        audit(config, run, extractor, 4, lambda *_: None)


def test_twins_in_the_data_are_no_copies_and_are_said(run, monkeypatch):
    """A fifth of the new images has a twin in the training data: flagged, but not estimated as copies."""
    data = open_data(str(run.path.parent.parent / "train.npz"))
    trained = data.part(np.arange(200))
    held = data.part(np.concatenate([np.arange(20), np.arange(200, 280)]))
    monkeypatch.setattr(memorization, "run_split", lambda *_: (trained, held))
    monkeypatch.setattr(memorization, "ENOUGH", 100)
    found = audited(run, monkeypatch, np.concatenate([NEW[:80], data.read(np.arange(40, 60)).transpose(0, 2, 3, 1)]))
    assert found["flagged"] == pytest.approx(0.2, abs=0.05)
    assert found["twins"] == pytest.approx(0.2, abs=0.02)
    assert found["false_alarms_with_twins"] == pytest.approx(0.2, abs=0.03)
    low, high = found["copies"]["interval"]
    assert low == 0
    assert found["copies"]["share"] < 0.05 < high
    said = "\n".join(memorization.format_audit(found))
    assert "of them have a twin in the training images" in said
    assert "% of new images are flagged too" in said


def test_flagged_images_are_counted_by_class(run, monkeypatch):
    """Of the class of their nearest training image; half of one class is copied, and nothing of the other."""
    folder = run.path.parent.parent
    np.savez(folder / "classes.npz", images=TRAIN, labels=np.array(["cat", "dog"] * 150))
    made = load(train_folder(folder / "classes.npz", images="16", classes=True, out=str(folder / "cl"), **TINY), "cpu")
    trained, _ = split_held_out(open_data(folder / "classes.npz"), made.card.data["held_out"])
    cats = np.flatnonzero(trained.labels(np.arange(len(trained))) == trained.classes.index("cat"))[:60]
    found = audited(made, monkeypatch, np.concatenate([trained.read(cats).transpose(0, 2, 3, 1), NEW[:100]]))
    assert sum(found["by_class"].values()) == round(found["flagged"] * 160)
    assert 60 <= found["by_class"]["cat"] <= 63
    assert found["by_class"].get("dog", 0) <= 3
    said = "\n".join(memorization.format_audit(found))
    assert f"of classes: cat {found['by_class']['cat']}" in said
    assert audited(run, monkeypatch, NEW[:50])["by_class"] == {}


def test_weak_copies_are_found_too(run, monkeypatch):
    """Copies of exchanged colours, and half copies, which features and whole pixels rarely find."""
    images = torch.from_numpy(seen(run)[:100]).permute(0, 3, 1, 2)
    made = plant(images, torch.from_numpy(NEW[:100]).permute(0, 3, 1, 2), 0)
    for kind in ("shift", "colours", "half"):
        assert audited(run, monkeypatch, made[kind].permute(0, 2, 3, 1).numpy())["flagged"] > 0.9, kind
    found = audited(run, monkeypatch, np.concatenate([seen(run)[:90], NEW[:210]]))
    assert found["detection"].keys() == {"noise", "blur", "shift", "colours", "half"}
    low, high = found["copies"]["interval"]
    assert low <= 0.3 <= high
    assert high - low < 0.15


@pytest.mark.parametrize("truth", [0.0, 0.01, 0.1, 0.5])
@pytest.mark.parametrize(("alarm", "power"), [(0.01, 0.95), (0.15, 0.8), (0.01, 0.5)])
def test_the_interval_of_the_share_of_copies_covers(truth, alarm, power):
    """By simulation: 2,000 images drawn, 2,000 new images, 192 planted copies."""
    random, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        flagged = random.binomial(2000, truth * power + (1 - truth) * alarm)
        alarms, detected = random.binomial(2000, alarm), random.binomial(192, power)
        low, high = share_of_copies((flagged, 2000), (alarms, 2000), (detected, 192))["interval"]
        covered += low <= truth <= high
    assert covered >= 930


def test_no_share_of_copies_is_stated_if_planted_ones_are_not_found():
    assert share_of_copies((10, 1000), (10, 1000), (2, 192)) is None
    assert "is not known" in describe_copies(None)
