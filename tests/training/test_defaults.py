"""Defaults that depend on other settings, or on the data."""

from unnoise.config import TrainConfig
from unnoise.training.checks import WITHOUT_FEATURES, describe_objective, suited_to
from unnoise.training.optimizers import peak_lr


def test_the_learning_rate_is_the_one_that_the_optimizer_declares():
    assert peak_lr(TrainConfig()) == 3e-3
    assert peak_lr(TrainConfig(optimizer="adamw:beta1=0.5")) == 1e-3
    assert peak_lr(TrainConfig(optimizer="adamw", lr=0.0)) == 0


def test_images_that_are_no_pictures_are_trained_without_features_and_it_is_said():
    default = TrainConfig()
    for channels in (1, 3, 4):
        assert suited_to(channels, default) is default
        assert describe_objective(default, channels) == []
    suited = suited_to(5, default)
    assert suited.objective == WITHOUT_FEATURES
    assert "up to 4 channels" in describe_objective(suited, 5)[0]
    named = TrainConfig(objective="perceptual:weight=0.2")
    assert suited_to(5, named) is named
