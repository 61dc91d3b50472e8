"""Settings that cannot work are refused."""

import numpy as np
import pytest

import unnoise
from unnoise.errors import InputError
from unnoise.recipes import names, train_config
from unnoise.training.checks import check_config, pretrained_networks


def test_every_recipe_is_valid():
    for name in names():
        check_config(train_config(name, {}))


def test_what_cannot_work_together_is_refused():
    with pytest.raises(InputError, match="use --objective simple"):
        check_config(train_config(None, {"target": "eps"}))
    with pytest.raises(InputError, match="or min_snr_gamma, which is the weight of Hang"):
        check_config(train_config(None, {"target": "eps", "objective": "min_snr:gamma=5"}))
    check_config(train_config(None, {"target": "eps", "objective": "min_snr_gamma"}))
    with pytest.raises(InputError, match="pure noise"):
        check_config(train_config(None, {"schedule": "linear:T=100"}))
    with pytest.raises(InputError, match="--objective weighted is infinite at level 999 of --schedule flow"):
        check_config(train_config(None, {"objective": "weighted", "schedule": "flow"}))
    for objective in ("soft_min_snr:gamma=0", "p2:k=-1", "p2:gamma=-1", "hybrid:bound=-0.001"):
        with pytest.raises(InputError, match=r"objective .*(above 0|0 or more), got"):
            check_config(train_config(None, {"objective": objective}))
    with pytest.raises(InputError, match="learned no variance"):
        check_config(train_config(None, {"sampler": "ddpm:variance=learned"}))
    with pytest.raises(InputError, match="label_dropout takes 0 to 1, got"):
        check_config(train_config(None, {"label_dropout": 1.5}))
    with pytest.raises(InputError, match="eta lies between"):
        check_config(train_config(None, {"sampler": "ddim:eta=3"}))


def test_an_objective_of_your_own_may_use_a_pretrained_network_without_an_option(monkeypatch):
    assert pretrained_networks("perceptual:network=lite2") == ["efficientnet-lite2"]
    monkeypatch.setattr("unnoise.registry.objective.declared", lambda _: {"pretrained": True})
    assert pretrained_networks("simple") == ["simple"]


def test_a_network_that_ignores_its_classes_is_named(tmp_path, monkeypatch, capsys):
    """A norm with one channel in each group removes all that the embedding adds, so that the label had no effect."""
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "two.npz", images=images, labels=np.array(["a", "b"] * 10))
    settings = {
        "data": "two.npz",
        "classes": True,
        "images": "16",
        "batch": 8,
        "objective": "simple",
        "precision": "fp32",
    }
    for groups in (32, 4):
        unnoise.train(**settings, backbone=f"unet:widths=16,layers=1,groups={groups}", fresh=True)
        assert ("ignores the classes; a unet with one channel" in capsys.readouterr().out) == (groups == 32)
