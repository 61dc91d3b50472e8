"""Runs become pipelines of diffusers and come back: the networks and the images are the same."""

import json
from itertools import product

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDPMPipeline, DDPMScheduler, UNet2DModel
from torch.testing import assert_close

from unnoise import registry, sample, train
from unnoise.card import Card, Run
from unnoise.checkpoint import build_model, load, write_model
from unnoise.config import Sampling
from unnoise.diffusion.model import clip_x0
from unnoise.errors import InputError
from unnoise.interop.diffusers_write import to_diffusers
from unnoise.run_folder import MODEL
from unnoise.samplers.draw import draw
from unnoise.training.warm_start import adapt_weights

UNET = "unet:widths=8-16,layers=1,groups=4,head=4,attention=2"


def untrained_run(folder, backbone=UNET, target="v", schedule="cosine:T=50", **more):
    """Write a run with random weights and return it."""
    card = Card(backbone, schedule, target, (3, 8, 16), "RGB", sampling=Sampling("ddim", 10), **more)
    model = build_model(card).eval()
    for p in model.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    folder.mkdir()
    write_model(folder / MODEL, model.backbone.state_dict(), card)
    return Run(model.requires_grad_(False), card, folder / MODEL)


@pytest.mark.parametrize("more", [{}, {"learned_variance": True}, {"classes": ("a", "b")}], ids=str)
def test_a_network_is_the_same_after_the_round_trip(tmp_path, more):
    original = untrained_run(tmp_path / "run", **more)
    back = load(to_diffusers(original), "cpu")
    x, t = torch.randn(2, 3, 8, 16), original.model.schedule.level(torch.tensor([3, 40]))
    label = torch.tensor([0, 1]) if more.get("classes") else None
    assert_close(back.model.output(x, t, label), original.model.output(x, t, label), rtol=0, atol=1e-5)
    assert (back.card.schedule, back.card.target, back.card.shape) == ("cosine:T=50", "v", (3, 8, 16))
    assert (back.card.mode, back.card.learned_variance) == ("RGB", original.card.learned_variance)


def replay(noise):
    """Return a noise source that gives these tensors in turn, whatever its arguments are."""
    queue = iter(noise)
    return lambda *_, **__: next(queue)


SCHEDULES = ("cosine:T=50", "linear:T=50,end=0.4", "scaled_linear:T=50,end=0.3", "zero_snr")
PAIRS = [pair for pair in product(("eps", "v", "x0"), SCHEDULES) if pair != ("eps", "zero_snr")]  # which is no pair
PIPELINES = {"ddim": (DDIMPipeline, {"use_clipped_model_output": True}), "ddpm": (DDPMPipeline, {})}


@pytest.mark.parametrize("sampler", PIPELINES)
@pytest.mark.parametrize(("target", "schedule"), PAIRS)
def test_pipelines_draw_the_same_images(tmp_path, monkeypatch, target, schedule, sampler):
    """The folder alone draws the same images from the same noise.

    DDIM's option says that the noise follows from the clipped image, as it does in unnoise.
    """
    original, noise = untrained_run(tmp_path / "run", target=target, schedule=schedule), torch.randn(12, 2, 3, 8, 16)
    source, levels = replay(noise), original.model.schedule.grid(10)
    *_, last = registry.sampler.get(sampler)(clip_x0(original.model), source(), levels, randn_like=source)
    kind, how = PIPELINES[sampler]
    pipeline, source = kind.from_pretrained(to_diffusers(original)), replay(noise)
    pipeline.set_progress_bar_config(disable=True)
    for home in ("pipelines.ddim.pipeline_ddim", "pipelines.ddpm.pipeline_ddpm", "schedulers.scheduling_ddpm"):
        monkeypatch.setattr(f"diffusers.{home}.randn_tensor", source)
    theirs = pipeline(batch_size=2, num_inference_steps=10, output_type="np", **how).images
    assert_close(torch.from_numpy(theirs).permute(0, 3, 1, 2), (last.x / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-4)


@pytest.fixture
def pipeline(tmp_path):
    """Write a pipeline with diffusers alone, with options that our own U-Net does not have."""
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
    ).eval()
    scheduler = DDPMScheduler(num_train_timesteps=20, beta_end=0.4, variance_type="fixed_large", clip_sample=False)
    DDPMPipeline(network, scheduler).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs", network


def test_a_pipeline_of_diffusers_opens_as_a_run(pipeline):
    folder, network = pipeline
    opened = load(folder, "cpu")
    assert opened.card.sampling == Sampling("ddpm:variance=large", 20, "trailing", clip=False)
    assert opened.card.schedule == "linear:T=20,end=0.4"
    x = torch.randn(2, 1, 8, 8)
    output = opened.model.output(x, opened.model.schedule.level(7.0))
    assert_close(output, network(x, 7).sample)
    assert sample(folder, 2, steps=4).shape == (2, 1, 8, 8)
    *_, last = draw(opened.model, [0], opened.card.sampling)
    assert last.x.isfinite().all()


def test_a_pipeline_of_diffusers_is_exported_unchanged(pipeline, tmp_path):
    folder, network = pipeline
    again = DDPMPipeline.from_pretrained(to_diffusers(load(folder, "cpu"), str(tmp_path / "again")))
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(again.unet(x, 3).sample, network(x, 3).sample)
    assert_close(again.scheduler.betas, DDPMScheduler(num_train_timesteps=20, beta_end=0.4).betas)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": UNET.replace("attention=2", "patch=2")}, "patch=1"),
        ({"backbone": UNET.replace("attention=2", "up=transposed")}, "up=nearest"),
        ({"backbone": UNET.replace("attention=2", "direct=true")}, "direct=false"),
        ({"backbone": UNET.replace("groups=4", "groups=3")}, "groups and head divide"),
        ({"target": "flow"}, "no target flow"),
        ({"schedule": "flow:T=50"}, "keeps the variance at 1"),
    ],
)
def test_a_run_that_diffusers_cannot_represent_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        to_diffusers(untrained_run(tmp_path / "run", **changes))


def test_a_damaged_pipeline_is_refused_with_its_file(pipeline):
    folder, _ = pipeline
    config = folder / "scheduler/scheduler_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"beta_schedule": "exp"}))
    with pytest.raises(InputError, match=r"beta_schedule of the pipeline's scheduler.*'exp'"):
        load(folder)
    config.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        load(folder)
    config.unlink()
    with pytest.raises(InputError, match="no complete pipeline"):
        load(folder)


# train --init


@pytest.fixture
def gray(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    np.save(tmp_path / "gray.npy", np.random.default_rng(0).integers(0, 256, (20, 8, 16), dtype=np.uint8))
    return tmp_path / "gray.npy"


def test_training_starts_from_a_pipeline(pipeline, gray, tmp_path, capsys):
    """The run takes over network, schedule, target and weights; at this learning rate, a step hardly moves them."""
    folder, network = pipeline
    out = str(tmp_path / "run")
    tuned = load(train(gray, init=str(folder), images="8", lr=1e-9, batch=8, out=out), "cpu")
    assert (tuned.card.target, tuned.card.schedule) == ("eps", "linear:T=20,end=0.4")
    assert tuned.card.sampling.steps == 20, "the default has more steps than the schedule has levels"
    x = torch.randn(2, 1, 8, 16)
    assert_close(tuned.model.backbone(x, torch.full((2,), 3.0)), network(x, 3).sample, atol=1e-4, rtol=0)
    whole = len(network.state_dict())
    said = capsys.readouterr().out
    assert f"{whole} tensors kept whole\n" in said
    assert "objective simple, since the network predicts eps\n" in said


def test_training_starts_from_a_run_of_other_channels(gray, tmp_path, capsys):
    untrained_run(tmp_path / "colour", target="x0")
    out = str(tmp_path / "run")
    tuned = load(train(gray, init=str(tmp_path / "colour"), images="8", lr=1e-9, batch=8, out=out), "cpu")
    original = load(tmp_path / "colour", "cpu").model.backbone
    assert_close(tuned.model.backbone.conv_in.weight[:, 0], original.conv_in.weight.sum(dim=1), atol=1e-4, rtol=0)
    assert_close(
        tuned.model.backbone.conv_out.weight, original.conv_out.weight.mean(0, keepdim=True), atol=1e-4, rtol=0
    )
    said = capsys.readouterr().out
    assert "conv_in.weight [8, 3, 3, 3] -> [8, 1, 3, 3]" in said
    assert "3 kept in part" in said


def test_adapting_lists_new_and_unused_tensors():
    network = registry.backbone.get(UNET)(1, 2)
    weights = registry.backbone.get(UNET.replace("8-16", "8-16-16"))(1).state_dict()
    report = adapt_weights(network, weights)
    assert "new: " in report
    assert "label.weight" in report
    assert "not used: " in report


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3)])
def test_another_number_of_colours_gives_the_same_images(before, after, patch):
    """A network of gray images sees gray images as the network of RGB images that it comes from, and the other way."""
    spec = f"unet:widths=8-16,layers=1,groups=4,patch={patch},zero_init=false"
    old, new = registry.backbone.get(spec)(before), registry.backbone.get(spec)(after)
    adapt_weights(new, old.state_dict())
    gray, time = torch.randn(2, 1, 8, 8), torch.tensor([10.0, 500.0])
    expected, found = (
        network(gray.expand(-1, count, -1, -1), time) for network, count in ((old, before), (new, after))
    )
    assert_close(found.mean(1), expected.mean(1))
    assert_close(found, found.mean(1, keepdim=True).expand_as(found)) if before == 1 else None
