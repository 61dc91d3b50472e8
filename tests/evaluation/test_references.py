"""The images that a run is compared with: held-out ones and training images; and sets with images in common."""

import numpy as np
import pytest
import torch

from tiny import TINY, smooth, train_folder
from unnoise.checkpoint import load
from unnoise.cli import main
from unnoise.config import EvalConfig, TuneConfig
from unnoise.data.cache import open_data
from unnoise.evaluation import comparison, references
from unnoise.evaluation.evaluate import evaluate, run_evaluation
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.image_sets import ImageSet, run_images, run_split
from unnoise.evaluation.measure import measure_pixels
from unnoise.evaluation.references import HELD_OUT, TRAINING, choose_references, overlap_warnings, shared_shares
from unnoise.evaluation.scores import plain_score, symmetric
from unnoise.evaluation.tune import make_scorer
from unnoise.images import as_uint8
from unnoise.progress import mute, silent
from unnoise.reporting.compare import compare_runs

pytestmark = pytest.mark.usefixtures("unchecked")

TRAINED, HELD, DRAWN = 300, 100, 200


def pixels_of(dataset):
    return as_uint8(torch.from_numpy(dataset.read(np.arange(len(dataset)))))


def small(*, size=16):
    """A feature extractor: the pixels of a tiny copy."""

    def extract(pixels):
        x = torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 127.5 - 1, 4).flatten(1)
        return x, torch.zeros(len(x), 0)

    return Extractor(extract, 48, 0, {"network": f"small:size={size}"})


@pytest.fixture(scope="module")
def split_folder(tmp_path_factory):
    """Write data, and a run that holds out a quarter of it."""
    folder = tmp_path_factory.mktemp("split")
    np.savez(folder / "data.npz", images=smooth(TRAINED + HELD, 8, 0))
    np.savez(folder / "other.npz", images=smooth(200, 8, 7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(folder / "cache"))
        train_folder(folder / "data.npz", images="16", held_out=HELD, out=str(folder / "run"), **TINY)
    return folder


@pytest.fixture
def split(split_folder, monkeypatch):
    """Return the folder; 100 held-out images are enough."""
    monkeypatch.setenv("UNNOISE_CACHE", str(split_folder / "cache"))
    monkeypatch.setattr(references, "ENOUGH", HELD)
    return split_folder


def drawn_as(monkeypatch, pixels):
    """Let every run draw these pixels."""

    def draw(config, run, n, rule=None):
        about = run_images(config, run, n).about
        return ImageSet(lambda _: iter([pixels]), len(pixels), 3, about, config.batch, resumable=False)

    monkeypatch.setattr(comparison, "run_images", draw)


def test_a_run_is_compared_with_images_it_has_not_seen_and_with_as_many_training_images(split):
    run = load(split / "run")
    trained, held = run_split(open_data(split / "data.npz"), run)
    main_set, training = choose_references(EvalConfig(), run, 10_000, mute)
    assert torch.equal(torch.cat([*main_set.stream(lambda _: True)]), pixels_of(held))
    assert main_set.n == training.n == HELD
    assert main_set.about["which"] == HELD_OUT
    assert training.about["which"] == TRAINING
    shown = {row.numpy().tobytes() for row in torch.cat([*training.stream(lambda _: True)])}
    assert len(shown & {row.numpy().tobytes() for row in pixels_of(trained)}) == HELD
    assert choose_references(EvalConfig(), run, 60, mute).training.n == 60
    given = choose_references(EvalConfig(data=str(split / "other.npz")), run, 10_000, mute)
    assert given.training is None
    assert given.main.n == 200


def test_tune_compares_with_images_that_the_run_has_not_seen(split, monkeypatch):
    run = load(split / "run")
    _, held = run_split(open_data(split / "data.npz"), run)
    scorer = make_scorer(TuneConfig(str(split / "run"), features=small), run, 0.001, silent, mute)
    assert torch.equal(torch.cat([*scorer.data.stream(lambda _: True)]), pixels_of(held))
    monkeypatch.setattr(references, "ENOUGH", HELD + 1)
    scorer = make_scorer(TuneConfig(str(split / "run"), features=small), run, 0.001, silent, mute)
    assert scorer.data.about["which"].startswith(TRAINING)


def test_few_held_out_images_are_not_compared_with_and_the_table_says_so(split, monkeypatch):
    monkeypatch.setattr(references, "ENOUGH", HELD + 1)
    found = evaluate(split / "run", features=small, metrics="kid", n=60)
    assert "training" not in found.details["scores"]
    assert f"400 of 400 training images, since 100 images are held out and {HELD + 1} are needed" in str(found)


def test_data_that_has_changed_has_no_held_out_images(split, monkeypatch):
    monkeypatch.chdir(split)
    run, said = load(split / "run"), []
    changed = split / "changed.npz"
    np.savez(changed, images=smooth(TRAINED + HELD, 8, 5))
    run.card.training["config"]["data"] = str(changed)
    found = choose_references(EvalConfig(), run, 10_000, said.append)
    assert found.training is None
    assert found.main.n == TRAINED + HELD
    assert "which" not in found.main.about
    assert any("has changed since the training" in line for line in said)


def test_copies_of_training_images_are_told_by_the_gap(split, monkeypatch, capsys):
    trained, _ = run_split(open_data(split / "data.npz"), load(split / "run"))
    drawn_as(monkeypatch, copies := pixels_of(trained.part(np.arange(DRAWN))))
    given = {"features": small, "metrics": "kid"}
    found = run_evaluation(EvalConfig(str(split / "run"), **given), say=mute)["scores"]
    assert found["training"]["values"]["kid"]["value"] < found["training"]["held_out"]["kid"]["value"]
    assert any("in the 100 training images of data" in text for text in found["warnings"])
    nudged = (copies.int() + torch.randint(-1, 2, copies.shape, generator=torch.Generator().manual_seed(0))).clamp(
        0, 255
    )
    drawn_as(monkeypatch, nudged.byte())
    found = run_evaluation(EvalConfig(str(split / "run"), **given), say=mute)["scores"]
    assert not any("pixel for pixel" in text for text in found["warnings"])
    drawn_as(monkeypatch, torch.from_numpy(smooth(DRAWN, 8, 9)).permute(0, 3, 1, 2).contiguous())
    found = run_evaluation(EvalConfig(str(split / "run"), **given), say=mute)["scores"]
    assert found["warnings"] == []


def test_the_table_says_which_images_are_which(split):
    found = evaluate(split / "run", features=small, metrics="kid,fid", n=60)
    text = str(found)
    assert "against 100 training images" in text
    assert "100 held-out images get there" in text
    assert "data: 100 of 100 held-out images, 8x8, sha256" in text
    assert len([line for line in text.splitlines() if line.startswith("kid x 1000")]) == 2
    (row,) = [
        line for line in compare_runs([split / "run", split / "run"]) if line.startswith("60 images against 100 ")
    ]
    assert "held-out images" in row


def test_no_reader_of_nothing_is_told_of_copies_by_chance():
    found = [{"kid_difference": plain_score(symmetric(value, 0.01))} for value in (0.5, -0.1, -0.5)]
    assert references.copy_warnings({}) == []
    assert [references.copy_warnings(one) for one in found] == [[], [], [references.NEARER]]


def test_the_shares_of_common_images_are_exact_and_estimated_from_the_smallest_keys(monkeypatch):
    images = torch.from_numpy(smooth(400, 4, 0)).permute(0, 3, 1, 2).contiguous()
    a, b = images[:300], images[150:]
    assert shared_shares(*(measure_pixels(x, small()) for x in (a, b))) == (150 / 300, 150 / 250)
    monkeypatch.setattr("unnoise.evaluation.statistics.MAX_KEPT", 100)
    of_a, of_b = shared_shares(*(measure_pixels(x, small()) for x in (a, b)))
    assert abs(of_a - 0.5) < 0.2
    assert abs(of_b - 0.6) < 0.2


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (slice(0, 80), slice(0, 80), "one and two are the same images, pixel for pixel"),
        (slice(0, 60), slice(0, 80), "all of one are also in two"),
        (slice(0, 80), slice(0, 60), "all of two are also in one"),
        (slice(0, 60), slice(45, 120), "25% of one are also in two"),
        (slice(0, 60), slice(60, 120), None),
    ],
)
def test_sets_with_images_in_common_get_a_warning(a, b, said):
    images = torch.from_numpy(smooth(120, 4, 0)).permute(0, 3, 1, 2).contiguous()
    found = overlap_warnings(*(measure_pixels(images[part], small()) for part in (a, b)), ("one", "two"))
    assert [said] == [text[: len(said)] for text in found] if said else found == []


def test_a_set_against_itself_is_told(split, capsys):
    data = str(split / "other.npz")
    assert main(["eval", data, data, "--metrics", "kid"]) == 0
    assert "the 200 images of other and the 200 images of other are the same images" in capsys.readouterr().out
    assert main(["eval", data, data, "-n", "60", "--reference", "100", "--metrics", "kid"]) == 0
    assert "all of the 60 images of other are also in the 100 images of other" in capsys.readouterr().out
