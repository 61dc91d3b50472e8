"""The doctor: costs in closed form, planted faults that it must name, and a run from the command to the page."""

import json

import pytest
import torch

from tiny import smooth
from unnoise import doctor
from unnoise.cli import main
from unnoise.errors import InputError
from unnoise.evaluation import diagnosis
from unnoise.evaluation.copies import copied
from unnoise.evaluation.damage import blur, noise
from unnoise.evaluation.diagnosis import open_sets
from unnoise.evaluation.features import open_extractor
from unnoise.evaluation.kid_change import Weighted, kid_change, kid_score, repeat_cost
from unnoise.evaluation.metrics import kid
from unnoise.evaluation.modes import find_groups, reweighted
from unnoise.evaluation.noise_levels import parts
from unnoise.progress import silent
from unnoise.reporting.compare import compare_runs
from unnoise.reporting.report import write_report

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def features():
    chance = torch.Generator().manual_seed(0)
    return [torch.randn(n, 6, dtype=torch.float64, generator=chance) for n in (60, 90)]


def test_a_mend_that_changes_nothing_costs_exactly_nothing(features):
    pair = tuple(map(Weighted.even, features))
    assert kid_change(pair, pair) == (0.0, 0.0, (0.0, 0.0))


def test_images_that_all_count_once_have_the_usual_kid(features):
    assert kid_score(*map(Weighted.even, features)).value == pytest.approx(kid(*features).value, rel=1e-12)


def test_a_change_is_the_difference_of_two_kids(features):
    x, y = features
    before, after = (Weighted.even(x + 1), Weighted.even(y)), (Weighted.even(x), Weighted.even(y))
    found = kid_change(before, after)
    assert found.value == pytest.approx(kid(x + 1, y).value - kid(x, y).value, rel=1e-12)
    assert found.interval[0] > 0


def test_repeats_cost_what_the_equal_pairs_add(features):
    x = features[0]
    twice = torch.cat([x, x])
    first = torch.arange(60).repeat(2)
    cost = repeat_cost(twice, first)
    kernel = (twice @ twice.T / 6 + 1) ** 3
    same = first[:, None] == first[None]
    off = ~torch.eye(120, dtype=torch.bool)
    assert cost.value == pytest.approx(float(kernel[off].mean() - kernel[off & ~same].mean()), rel=1e-12)
    assert repeat_cost(x, torch.arange(60)).value == pytest.approx(0.0, abs=1e-12)


def test_groups_are_the_classes_and_their_weights_restore_the_proportions():
    chance = torch.Generator().manual_seed(0)
    middles = 5 * torch.eye(3, dtype=torch.float64)

    def images(counts):
        labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
        order = torch.randperm(len(labels), generator=chance)
        return (middles[labels] + torch.randn(len(labels), 3, dtype=torch.float64, generator=chance))[order], labels[
            order
        ]

    real, labels = images((100, 100, 100))
    drawn, _ = images((150, 100, 50))
    groups, once = find_groups(drawn, real, labels, ("a", "b", "c"), (drawn, real))[0], torch.ones(300).double()
    ours, theirs = groups.shares(once)
    assert ours.tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 6], abs=0.03)
    assert theirs.tolist() == pytest.approx([1 / 3] * 3)
    weights = reweighted(groups, once)
    assert [float(weights[labels == g].sum() / weights.sum()) for g in range(3)] == pytest.approx(ours.tolist())
    assert groups.errors(once).abs().max() > 3
    assert groups.errors(weights).abs().max() < 1


def test_shares_of_levels_add_up_to_1():
    def row(ratio, value):
        return {"noise": ratio, "kid": {"value": value}}

    found = parts([row(None, 0.4), row(2.0, 0.3), row(0.3, 0.1)])
    assert found == pytest.approx({"coarse": 0.25, "middle": 0.5, "fine": 0.25})
    assert parts([row(None, -0.1)]) == {}


@pytest.fixture(scope="module")
def sets():
    """Return 200 images of colour, 300 other ones, and EfficientNet."""
    images = [
        torch.from_numpy(smooth(n, 32, seed)).permute(0, 3, 1, 2).contiguous() for n, seed in ((200, 1), (300, 0))
    ]
    return *images, open_extractor("efficientnet")


def named(drawn, real, extractor):
    """Return the findings of the doctor, the most costly first."""
    return [one["fault"] for one in diagnosis.diagnose(open_sets(drawn, real, extractor), silent)["findings"]]


def test_equal_sets_have_no_fault(sets):
    assert named(*sets) == []


@pytest.mark.slow
def test_what_is_planted_removes_what_is_found(sets):
    """Costs and rest add up to the KID, and the rest is what equal sets get."""
    drawn, real, extractor = sets
    found = diagnosis.diagnose(open_sets(tinted(noise(drawn[:100], 0.05)), real[:200], extractor), silent)
    assert [one["fault"] for one in found["findings"]] == ["grain", "tint"]
    parts = [one["cost"]["value"] for one in found["findings"]]
    assert sum(parts) + found["rest"]["value"] == pytest.approx(found["kid"]["value"], rel=1e-9)
    assert found["rest"]["value"] < 0.1 * found["kid"]["value"]


def test_copies_at_the_end_of_a_set_are_seen(monkeypatch):
    monkeypatch.setattr("unnoise.evaluation.copies.MOST", 30)
    trained, new, other = (torch.from_numpy(smooth(100, 16, seed)).permute(0, 3, 1, 2) for seed in (1, 2, 3))
    found = copied(torch.cat([other[:40], trained[:20]]), new, trained)
    assert found["drawn"]["value"] > 1 / 3
    assert found["new"]["value"] < 0.1


def test_mirrored_copies_are_named_if_mirrored_images_were_trained_on():
    trained, real, other = (torch.from_numpy(smooth(100, 16, seed)).permute(0, 3, 1, 2) for seed in (1, 2, 3))
    sets = open_sets(
        torch.cat([other[:50], trained[:50].flip(-1)]), real, open_extractor("efficientnet"), trained=trained
    )
    assert not diagnosis.copy_findings(sets)
    (found,) = diagnosis.copy_findings(sets._replace(mirrored=True))
    assert found["number"] >= 0.5


def checkerboard(pixels):
    """Return images with a grid of 2 pixels."""
    rows, columns = (torch.arange(side).remainder(2) for side in pixels.shape[-2:])
    grid = torch.where(rows[:, None] == columns, 12, -12)
    return (pixels.int() + grid).clamp(0, 255).byte()


def tinted(pixels):
    """Return images with too much red."""
    return (pixels.int() + torch.tensor([30, 0, 0])[:, None, None]).clamp(0, 255).byte()


@pytest.mark.parametrize(
    ("fault", "plant"),
    [
        pytest.param("tint", tinted, marks=pytest.mark.slow),
        pytest.param("grid", checkerboard, marks=pytest.mark.slow),
        pytest.param("grain", lambda pixels: noise(pixels, 0.06), marks=pytest.mark.slow),
        pytest.param("brightness", lambda pixels: (pixels.int() + 30).clamp(0, 255).byte(), marks=pytest.mark.slow),
        pytest.param("repeats", lambda pixels: pixels[:20].repeat(10, 1, 1, 1), marks=pytest.mark.slow),
    ],
)
def test_a_planted_fault_is_the_first_that_is_named(sets, fault, plant):
    drawn, real, extractor = sets
    assert named(plant(drawn), real, extractor)[:1] == [fault]


@pytest.mark.slow
def test_blurred_images_are_hazy(sets):
    """Real images of this world are smooth, so they are made sharper by noise first."""
    drawn, real, extractor = sets
    sharp, crisp = noise(drawn, 0.05), noise(real, 0.05)
    assert named(blur(sharp, 0.7), crisp, extractor)[:1] == ["haze"]


def test_a_run_from_the_command_to_the_page(world, tmp_path, capsys):
    given = ["--data", str(world / "like"), "--json", str(tmp_path / "found.json")]
    assert main(["doctor", str(world / "run"), "-n", "100", *given]) == 0
    text, found = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())["doctor"]
    assert text.startswith("doctor    ")
    assert "levels    KID of" in text
    assert found["findings"], "the run has seen 800 images"
    page = write_report(str(world / "run"), str(tmp_path / "page.html")).read_text()
    for finding in found["findings"]:
        assert finding["name"].replace("'", "&#39;") in page
    assert "{{" not in page
    assert compare_runs([str(world / "run")] * 2), "compare passes over it"


def test_what_the_doctor_cannot_judge_is_one_line(world):
    with pytest.raises(InputError, match="is no run: name the real images with --data"):
        doctor(str(world / "train"))
    with pytest.raises(InputError, match="needs 100 images or more"):
        doctor(str(world / "few"), str(world / "like"))
    with pytest.raises(InputError, match="--size 16x16 brings both to one"):
        doctor(str(world / "large"), str(world / "like"))
