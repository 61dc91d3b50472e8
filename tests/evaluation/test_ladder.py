"""The damage ladder: closed forms of its rungs, and the place of a KID on it."""

import math

import pytest
import torch

from tiny import smooth
from unnoise.config import EvalConfig
from unnoise.evaluation import ladder as ladders
from unnoise.evaluation.damage import blur, jpeg, noise
from unnoise.evaluation.evaluate import format_evaluation, run_evaluation
from unnoise.evaluation.features import Extractor
from unnoise.evaluation.image_sets import dataset_images, open_images
from unnoise.evaluation.ladder import REAL, REPEATED, damage_kid, describe_ladder, ladder, plain_ladder, repeated_kid
from unnoise.evaluation.measure import measure
from unnoise.evaluation.metrics import cubic
from unnoise.evaluation.scores import Score
from unnoise.progress import silent


def colours(pixels):
    """Return the mean and the spread of each channel as features: a judge that tests can follow."""
    x = pixels.float().flatten(2) / 127.5 - 1
    return torch.cat([x.mean(2), 10 * x.diff(dim=2).square().mean(2)], dim=1), torch.empty(len(pixels), 0)


JUDGE = Extractor(colours, 6, 0, {"network": "colours", "weights": "", "resize": ""})


def rungs_of(folder, batch=16):
    images = dataset_images(open_images(str(folder)), None, 0, batch)
    return ladder(images, measure(images, JUDGE, "", silent), JUDGE, silent)


@pytest.fixture
def whole(monkeypatch):
    monkeypatch.setattr(ladders, "MOST", 60)


def test_a_damage_that_changes_nothing_is_exactly_0(world, whole, monkeypatch):
    monkeypatch.setattr(ladders, "RUNGS", {"nothing": lambda pixels: pixels})
    assert rungs_of(world / "large")["nothing"] == Score(0.0, 0.0, (0.0, 0.0))


def test_one_image_repeated_is_the_mean_kid_of_such_sets():
    y = torch.randn(12, 4, dtype=torch.float64)
    each = []
    for i in range(12):
        others = torch.cat([y[:i], y[i + 1 :]])
        inside = cubic(y, y)
        off = (inside.sum() - inside.trace()) / (12 * 11)
        each.append(float(cubic(y[i : i + 1], y[i : i + 1]) + off - 2 * cubic(y[i : i + 1], others).mean()))
    assert repeated_kid(y).value == pytest.approx(sum(each) / 12, rel=1e-12)


def expected_kernel(one, other):
    """Return E k(x, y) of two independent vectors of 3 independent normal numbers of this mean and deviation."""
    first, second, third = (
        a * b for a, b in zip(*((m, m * m + s * s, m**3 + 3 * m * s * s) for m, s in (one, other)), strict=True)
    )  # the moments of the product of two numbers
    squares = 3 * second + 6 * first**2
    cubes = 3 * third + 18 * second * first + 6 * first**3
    return 1 + 3 * first + squares / 3 + cubes / 27


def test_a_rung_has_no_bias_and_its_interval_holds_the_truth():
    """An image and its own damaged copy never meet."""
    chance = torch.Generator().manual_seed(0)

    def draw(n):
        y = torch.randn(n, 3, dtype=torch.float64, generator=chance)
        return 0.8 * y + 0.3, y

    x, y = (0.3, 0.8), (0.0, 1.0)
    truth = expected_kernel(x, x) + expected_kernel(y, y) - 2 * expected_kernel(x, y)
    found = [damage_kid(*draw(60)) for _ in range(400)]
    mean = sum(score.value for score in found) / len(found)
    spread = math.sqrt(sum((score.value - mean) ** 2 for score in found) / len(found))
    assert mean == pytest.approx(truth, abs=4 * spread / 20)
    held = sum(score.interval[0] <= truth <= score.interval[1] for score in found) / len(found)
    assert 0.91 <= held <= 0.99


def test_rungs_rise_and_order_and_batches_change_nothing(world, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path))
    found = rungs_of(world / "large")
    assert set(found) == {*ladders.RUNGS, REPEATED}
    assert [score.value for score in found.values()] == sorted(score.value for score in found.values())
    assert found["blur 0.5 px"].value < found["blur 1 px"].value < found["blur 2 px"].value
    assert found["noise 2 %"].value < found["noise 10 %"].value
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "other"))
    again = rungs_of(world / "large", batch=7)
    assert {name: score.value for name, score in again.items()} == pytest.approx(
        {name: score.value for name, score in found.items()}, rel=1e-6
    )


def test_the_rungs_of_data_are_computed_once(world, tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path))
    first = rungs_of(world / "large")

    def refuse(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(ladders, "climb", refuse)
    assert rungs_of(world / "large") == first


def exact(value):
    return Score(value, 0.0, (value, value))


@pytest.mark.parametrize(
    ("low", "value", "high", "text"),
    [
        (-0.001, 0.0, 0.001, "between real images and JPEG (10): 0% of the way"),
        (0.02, 0.04, 0.05, "between JPEG (10) and blur (90): 20% of the way"),
        (0.02, 0.04, 0.2, "between JPEG (10) and one image repeated (1,000): 20% of the way"),
        (
            1.5,
            2.25,
            4,
            "above one image repeated (1,000): 150% of the way",
        ),
    ],
)
def test_a_kid_lies_between_the_rungs_that_its_interval_is_clear_of(low, value, high, text):
    rungs = {"JPEG": exact(0.01), "blur": exact(0.09), REPEATED: exact(1.0)}
    assert text in describe_ladder(plain_ladder(Score(value, 0.01, (low, high)), rungs))


def test_a_blurred_set_lies_near_the_blur_it_got(world, tmp_path):
    """The ladder of the reference names the damage that the scored images have."""
    from PIL import Image

    (tmp_path / "blurred").mkdir()
    x = torch.from_numpy(smooth(200, 16, 7)).permute(0, 3, 1, 2)
    for i, image in enumerate(blur(x, 2.0).permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(tmp_path / "blurred" / f"{i:03d}.png")
    found = run_evaluation(EvalConfig(str(tmp_path / "blurred"), str(world / "like"), metrics="kid"))
    place = found["scores"]["ladder"]
    kids = {name: rung["value"] for name, rung in place["rungs"].items()}
    assert found["scores"]["values"]["kid"]["value"] > kids["JPEG 90"]
    assert place["from"] != REAL
    assert any(line.startswith("damage    between ") for line in format_evaluation(found))


def test_damage_follows_from_the_image_alone():
    x = torch.randint(0, 256, (4, 3, 9, 8), dtype=torch.uint8)
    for change in (lambda p: jpeg(p, 50), lambda p: blur(p, 1.0), lambda p: noise(p, 0.1)):
        whole = change(x)
        assert whole.shape == x.shape
        assert whole.dtype == torch.uint8
        assert not torch.equal(whole, x)
        assert torch.equal(whole[2:3], change(x[2:3]))
        assert change(x[:, :1]).shape == (4, 1, 9, 8)
    flat = torch.full((1, 1, 64, 64), 128, dtype=torch.uint8)
    assert float(noise(flat, 0.1).float().std()) == pytest.approx(25.5, rel=0.05)
    assert torch.equal(blur(flat, 2.0), flat)
