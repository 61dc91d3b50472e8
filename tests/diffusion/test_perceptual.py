"""The perceptual distance, and the objective that adds it where noise is low."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from tiny import TINY, smooth, train_folder
from unnoise import evaluate, load, registry
from unnoise.config import TrainConfig
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.objective import add_noise
from unnoise.diffusion.perceptual import CHECKERS, STAGES, open_network, perceptual_distance
from unnoise.errors import InputError
from unnoise.evaluation.score_table import format_scores
from unnoise.pretrained.efficientnet import load_efficientnet, weights_file
from unnoise.training.checks import check_config
from unnoise.training.state import read_facts

BOARD = torch.tensor([[[[1.0, -1.0], [-1.0, 1.0]]]]) / 4


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(smooth(6, 32, 0)).permute(0, 3, 1, 2) / 127.5 - 1


def test_the_distance_is_its_equation(images):
    x, y = images[:3], images[3:]
    network = open_network("lite0", torch.device("cpu"))
    expected = CHECKERS * F.conv2d(F.pad(x - y, (1, 0, 1, 0), mode="circular").reshape(9, 1, 33, 33), BOARD).reshape(
        3, -1
    ).square().mean(dim=1)
    for a, b in zip(network.early(x, STAGES), network.early(y, STAGES), strict=True):
        cosine = F.cosine_similarity(a, b)  # |a - b|^2 = 2 - 2 cos of unit vectors
        expected += (2 - 2 * cosine).mean(dim=(1, 2))
    assert_close(perceptual_distance(x, y, "lite0"), expected, rtol=1e-4, atol=1e-5)
    assert perceptual_distance(x, x, "lite0").abs().max() == 0


@pytest.mark.parametrize(("model", "blind"), [("lite0", 4), ("lite1", 10)])
def test_patterns_of_one_power_count_alike_at_all_fine_frequencies(images, model, blind):
    place, found = torch.arange(32), []
    images = images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    for down, right in ((0.0, 0.25), (0.0, 0.375), (0.25, 0.25), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5)):
        pattern = torch.cos(2 * torch.pi * (down * place[:, None] + right * place))
        pattern = 0.02 * pattern / pattern.square().mean().sqrt()
        found.append(float(perceptual_distance(images + pattern, images, model).mean()))
    assert max(found) < 4 * min(found)
    by_the_network_alone = found[-1] - CHECKERS * 0.02**2
    assert blind * by_the_network_alone < min(found)


def test_gray_images_are_rgb_images_of_equal_channels_and_alpha_is_not_compared(images):
    x, y = images[:3], images[3:]
    gray = perceptual_distance(x[:, :1], y[:, :1], "lite0")
    assert_close(
        gray, perceptual_distance(x[:, :1].repeat(1, 3, 1, 1), y[:, :1].repeat(1, 3, 1, 1), "lite0"), rtol=0, atol=0
    )
    assert torch.equal(perceptual_distance(x[:, :2], y[:, :2], "lite0"), gray)
    with_alpha = [torch.cat([some, other[:, :1]], dim=1) for some, other in ((x, y), (y, x))]
    assert torch.equal(perceptual_distance(*with_alpha, "lite0"), perceptual_distance(x, y, "lite0"))
    with pytest.raises(InputError, match="gray or RGB images, and these have 5 channels"):
        perceptual_distance(x.repeat(1, 2, 1, 1)[:, :5], y.repeat(1, 2, 1, 1)[:, :5], "lite0")


def test_early_maps_are_those_of_the_whole_network(images):
    network = load_efficientnet(str(weights_file("lite0", "a test")), "lite0")
    seen = []
    first = [network.blocks[network.first[stage]] for stage in STAGES]
    handles = [block.register_forward_hook(lambda *given: seen.append(given[2])) for block in first]
    network(images)
    for handle in handles:
        handle.remove()
    for early, whole in zip(network.early(images, STAGES)[1:], seen, strict=True):
        assert torch.equal(early, whole)


class Shifted(nn.Module):
    """Predict the images with an error."""

    def __init__(self, x0):
        super().__init__()
        self.x0, self.error = x0, nn.Parameter(torch.full((1,), 0.1))

    def forward(self, x, time, label):
        return self.x0 + self.error * self.x0.roll(1, -1)


@pytest.mark.parametrize(
    ("progress", "last", "white", "weight"),
    [(0.0, 0.1, 0.0, 0.3), (0.5, 0.1, 0.5, 0.3 * 0.1**0.5), (1.0, 0.1, 0.5, 0.03), (1.0, 1.0, 0.0, 0.3)],
)
def test_it_is_added_where_noise_is_below_2_3_times_the_image(images, progress, last, white, weight):
    schedule = registry.schedule.get("cosine")()
    times = torch.tensor([0, 300, 600, 700, 800, 990])
    levels = schedule.level(times), schedule.level(times - 1)
    batch = add_noise(images, torch.randn_like(images), levels)
    model = Diffusion(Shifted(images), schedule, registry.target.get("x0"), (3, 32, 32))
    batch = batch._replace(progress=progress)
    plain = registry.objective.get(f"capped_v:gamma=2.5,first=20,white={white}")(model, batch)
    spec = f"perceptual:weight=0.3,last={last},network=lite0,white={white}"
    found = registry.objective.get(spec)(model, batch)
    counts = batch.t.ratio.flatten() < 2.3
    assert counts.tolist() == [True, True, True, True, False, False]
    added = weight * perceptual_distance(model.backbone(None, None, None), images, "lite0")
    assert_close(found - plain, added * counts, rtol=1e-4, atol=1e-5)
    found.sum().backward()
    assert model.backbone.error.grad.abs() > 0
    assert all(p.grad is None for p in open_network("lite0", torch.device("cpu")).parameters())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("stages=1-7", r"0 to 6, got \(1, 7\)"),
        ("weight=-1", "weight is 0 or more, got -1"),
        ("last=0", "last is above 0 up to 1, got 0"),
        ("last=2", "last is above 0 up to 1, got 2"),
        ("white=2", "white is 0 to 1, got 2"),
        ("network=lite9", "lite9"),
    ],
)
def test_options_out_of_range_are_refused_before_a_training(options, said):
    with pytest.raises(InputError, match=said):
        check_config(TrainConfig(objective=f"perceptual:{options}"))


def test_the_network_that_was_trained_with_is_no_judge(tmp_path, capsys):
    run = train_folder(
        smooth(120, 32, 0), out=str(tmp_path / "run"), images="32", objective="perceptual:network=lite0", **TINY
    )
    assert load(run).card.training["features"] == ["efficientnet-lite0"]
    assert "KID       is not measured during this training: the objective uses its judge" in capsys.readouterr().out
    assert "kid" not in read_facts(run)["monitors"]
    found = evaluate(run, data=smooth(60, 32, 1), metrics="kid", n=50).details["scores"]
    assert found["trained_with"] == ["efficientnet-lite0"]
    assert any(line.startswith("trained   with features of efficientnet-lite0;") for line in format_scores(found))
    assert "no_judge" in found["features"]
    assert "no_judge" not in found["second"]["features"]
    assert any("efficientnet-lite0" in text and "no judge" in text for text in found["warnings"])


def test_the_distance_does_not_depend_on_the_precision_of_the_caller(images):
    expected = perceptual_distance(images[:3], images[3:], "lite1")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(perceptual_distance(images[:3], images[3:], "lite1"), expected)
