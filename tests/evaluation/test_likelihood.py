"""`unnoise eval --metrics bpd`: the numbers equal the functions, and say what they were measured on."""

import json
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tiny import TINY, train_folder
from unnoise.checkpoint import load
from unnoise.cli import main
from unnoise.config import EvalConfig
from unnoise.data.cache import open_data
from unnoise.diffusion.likelihood import bound, ode_bits_per_dim
from unnoise.diffusion.model import clip_x0
from unnoise.errors import InputError
from unnoise.evaluation.likelihood import bits_per_dim, format_bits, without_weak_noise
from unnoise.images import to_float
from unnoise.samplers.draw import seeded_noise


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Write runs with and without a learned variance, their training images, and other images."""
    folder = tmp_path_factory.mktemp("evaluate")
    random = np.random.default_rng(0)
    for name in ("train", "held-out"):
        np.save(folder / f"{name}.npy", random.integers(0, 256, (20, 8, 8), dtype=np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(folder / "cache"))
        for objective in ("simple", "hybrid"):
            how = {"images": "40", "target": "eps", "objective": objective, "out": str(folder / objective)}
            train_folder(folder / "train.npy", held_out=0, **how, **TINY)
        train_folder(folder / "train.npy", held_out=5, images="40", out=str(folder / "parted"), **TINY)
        yield folder


def measured(world, run="simple", **more):
    return bits_per_dim(EvalConfig(run, **{"n": 6, "levels": 5, **more}), load(world / run, "cpu"))


def test_numbers_equal_the_functions(world):
    run = load(world / "simple", "cpu")
    found = measured(world, data=str(world / "held-out.npy"))
    chosen = sorted(np.random.default_rng(0).permutation(20)[:6].tolist())
    images = to_float(torch.from_numpy(np.load(world / "held-out.npy")[chosen][:, None]))
    levels = without_weak_noise(run.model.schedule.grid(5, "log_snr"))
    by_bound = min(
        (
            bound(clip_x0(run.model), images, levels, variance=variance, randn_like=seeded_noise(chosen))
            for variance in ("small", "large")
        ),
        key=lambda each: each.total.mean(),
    )
    by_ode, _ = ode_bits_per_dim(run.model, images, levels, probes=2, randn_like=seeded_noise(chosen))
    assert found["bound"]["mean"] == pytest.approx(by_bound.total.mean().item(), rel=1e-4)
    assert found["bound"]["standard_error"] == pytest.approx(by_bound.total.std().item() / math.sqrt(6), rel=1e-3)
    assert found["ode"]["mean"] == pytest.approx(by_ode.mean().item(), rel=1e-4)
    assert sum(found["terms"].values()) == pytest.approx(found["bound"]["mean"], rel=1e-5)
    assert_close(torch.tensor(found["curve"]["bits"]), by_bound.terms.mean(dim=0), rtol=1e-4, atol=1e-4)
    assert found["data"] == {
        "name": "held-out",
        "count": 20,
        "fingerprint": open_data(str(world / "held-out.npy"), size="8x8", channels=1).fingerprint,
    }


def test_batch_changes_no_number(world):
    assert measured(world, batch=6)["bound"]["mean"] == pytest.approx(
        measured(world, batch=4)["bound"]["mean"], rel=1e-5
    )


def test_it_says_whether_the_images_were_trained_on(world):
    assert measured(world, ode=False)["trained_on_it"]
    assert not measured(world, ode=False, data=str(world / "held-out.npy"))["trained_on_it"]
    parted = measured(world, "parted", ode=False)  # those that were held out, without being asked
    assert not parted["trained_on_it"]
    assert parted["n"] == 5
    assert parted["data"]["name"] == "train, the images held out"


def test_learned_variance_is_used_if_the_run_learned_it(world):
    assert measured(world, "hybrid", ode=False)["bounds"].keys() == {"small", "large", "learned"}
    assert measured(world, ode=False)["bounds"].keys() == {"small", "large"}
    assert measured(world, "hybrid", ode=False, variance="learned")["settings"]["variance"] == "learned"
    with pytest.raises(InputError, match="this run did not learn a variance"):
        measured(world, variance="learned")


def test_the_lowest_bound_comes_first(world):
    found = measured(world, ode=False)
    alone = {name: measured(world, ode=False, variance=name) for name in ("small", "large")}
    means = {name: each["bound"]["mean"] for name, each in alone.items()}
    best, other = sorted(means, key=means.__getitem__)
    assert [*found["bounds"]] == [best, other]
    assert found["settings"] | {"spacing": "log_snr", "variance": best} == found["settings"]
    assert found["bound"]["mean"] == means[best] < means[other] == found["bounds"][other]["mean"]
    assert f"which are higher: {other} {means[other]:.4f}" in "\n".join(format_bits(found))
    as_before = measured(world, ode=False, variance="small", spacing="trailing")
    assert as_before["settings"]["spacing"] == "trailing"
    assert as_before["bound"]["mean"] != means["small"]


def test_command_prints_and_keeps_everything(world, capsys):
    file = world / "bits.json"
    asked = ["eval", str(world / "hybrid"), "--metrics", "bpd", "-n", "4", "--levels", "3", "--variance", "learned"]
    assert main([*asked, "--json", str(file)]) == 0
    said, kept = capsys.readouterr().out, json.loads(file.read_text())["bpd"]
    assert f"bound   {kept['bound']['mean']:.4f}, {kept['bound']['interval'][0]:.4f} to " in said
    assert "variance learned, 3 levels" in said
    assert "training images, not held out" in said
    assert kept["n"] == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [({"levels": 0}, "got 0"), ({"variance": "learned"}, "did not learn a variance"), ({"data": "nowhere"}, "nowhere")],
)
def test_wrong_settings_are_refused(world, more, message):
    with pytest.raises(InputError, match=message):
        measured(world, **more)
