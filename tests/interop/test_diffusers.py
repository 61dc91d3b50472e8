"""Runs become pipelines of diffusers and come back: the networks and the images are the same."""

import inspect
import json
import shutil
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from unnoise import registry, sample, train
from unnoise.card import Card, Run
from unnoise.checkpoint import build_model, load, weights_hash, write_model
from unnoise.config import Sampling, TuneConfig
from unnoise.diffusion.model import clip_x0
from unnoise.distillation.teacher import Teacher
from unnoise.errors import InputError
from unnoise.evaluation.evaluate import open_run
from unnoise.evaluation.tune import check_tunable
from unnoise.images import to_uint8
from unnoise.interop.diffusers_format import (
    NETWORK_DEFAULTS,
    ONLY_IN_NETWORK,
    ONLY_IN_SCHEDULER,
    SCHEDULER_DEFAULTS,
)
from unnoise.interop.diffusers_write import to_diffusers
from unnoise.run_folder import MODEL, TEACHER
from unnoise.samplers.draw import draw
from unnoise.training.teaching import keep_teacher
from unnoise.training.warm_start import adapt_weights

UNET = "unet:widths=8-16,layers=1,groups=4,head=4,attention=2"


def untrained_run(folder, backbone=UNET, target="v", schedule="cosine:T=50", sampling=None, **more):
    """Write a run with random weights and return it."""
    card = Card(backbone, schedule, target, (3, 8, 16), "RGB", sampling=sampling or Sampling("ddim", 10), **more)
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


def weights_of(folder):
    """Return the file of the weights of a pipeline, and its content."""
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    return file, load_file(file)


def in_parts(folder):
    """Write the weights as two files and their index, as large networks are."""
    file, weights = weights_of(folder)
    names, parts = sorted(weights), ("part-1.safetensors", "part-2.safetensors")
    places = {name: parts[i % 2] for i, name in enumerate(names)}
    for part in parts:
        save_file({name: weights[name] for name in names if places[name] == part}, file.with_name(part))
    file.with_name(f"{file.name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    file.unlink()


def in_half_precision(folder):
    file, weights = weights_of(folder)
    save_file(
        {name: tensor.half() for name, tensor in weights.items()}, file.with_name(file.stem + ".fp16.safetensors")
    )
    file.unlink()


def with_older_names(folder):
    """Write the names that attention had until diffusers 0.15."""
    file, weights = weights_of(folder)
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in older.items():
        weights = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in weights.items()}
    assert sum(".query." in name for name in weights) > 2
    save_file(weights, file)


@pytest.mark.parametrize(("change", "precise"), [(in_parts, 1e-6), (in_half_precision, 2e-3), (with_older_names, 1e-6)])
def test_weights_in_other_layouts_are_read(pipeline, change, precise):
    folder, network = pipeline
    before = weights_hash(load(folder, "cpu"))
    change(folder)
    opened = load(folder, "cpu")
    x = torch.randn(2, 1, 8, 8)
    output = opened.model.output(x, opened.model.schedule.level(7.0))
    assert_close(output, network(x, 7).sample, rtol=0, atol=precise)
    assert output.dtype == torch.float32
    assert weights_hash(opened) != before or change is with_older_names


def test_a_pipeline_teaches_from_a_copy_that_opens(pipeline, tmp_path):
    """The copy in the folder of a student is a model file, whatever the teacher was."""
    folder, _ = pipeline
    teacher = load(folder, "cpu")
    keep_teacher(Teacher(teacher, "progressive", "theirs"), tmp_path)
    copy, x = load(tmp_path / TEACHER, "cpu"), torch.randn(2, 1, 8, 8)
    level = teacher.model.schedule.level(7.0)
    assert torch.equal(copy.model.output(x, level), teacher.model.output(x, level))
    assert weights_hash(copy) == weights_hash(teacher)


def test_a_part_that_is_missing_or_elsewhere_is_named(pipeline):
    folder, _ = pipeline
    in_parts(folder)
    (folder / "unet" / "part-2.safetensors").unlink()
    with pytest.raises(InputError, match=r"unet has no diffusion_pytorch_model.safetensors"):
        load(folder)
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(InputError, match="names files outside of its folder"):
        load(folder)


def test_a_checkpoint_of_a_training_opens_with_its_average(pipeline, tmp_path):
    """As diffusers' train_unconditional.py writes it: no index, and the scheduler one folder above."""
    folder, network = pipeline
    (checkpoint := folder / "checkpoint-500").mkdir()
    shutil.copytree(folder / "unet", checkpoint / "unet_ema")
    other = {name: 0 * tensor for name, tensor in network.state_dict().items()}
    shutil.copytree(folder / "unet", checkpoint / "unet")
    save_file(other, checkpoint / "unet" / "diffusion_pytorch_model.safetensors")
    opened = load(checkpoint, "cpu")
    x = torch.randn(2, 1, 8, 8)
    assert_close(opened.model.output(x, opened.model.schedule.level(7.0)), network(x, 7).sample)
    assert opened.folder == checkpoint
    assert sample(checkpoint, 1, steps=2).shape == (1, 1, 8, 8)
    assert weights_hash(opened) == weights_hash(load(folder, "cpu"))
    assert open_run(checkpoint).folder == checkpoint  # and is not taken for a folder of images
    with pytest.raises(InputError, match="is a folder of diffusers, which unnoise does not change"):
        check_tunable(TuneConfig(str(checkpoint)), opened)
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(InputError, match=r"has no scheduler/scheduler_config.json"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("scheduler/scheduler_config.json", {"thresholding": True}, "thresholding is True, and unnoise knows False"),
        ("scheduler/scheduler_config.json", {"clip_sample_range": 2.0}, "clip_sample_range is 2.0.*knows 1.0 alone"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
        ("unet/config.json", {"time_embedding_dim": 99}, "time_embedding_dim is 99"),
        ("unet/config.json", {"attn_norm_num_groups": 2}, "attn_norm_num_groups is 2"),
        ("unet/config.json", {"mid_block_type": None}, "mid_block_type is None"),
    ],
)
def test_settings_that_change_the_images_are_refused_by_name(pipeline, file, change, message):
    folder, _ = pipeline
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    with pytest.raises(InputError, match=message):
        load(folder)


def test_what_a_file_leaves_out_has_the_defaults_of_diffusers():
    theirs = inspect.signature(UNet2DModel.__init__).parameters
    for name, value in {**NETWORK_DEFAULTS, **ONLY_IN_NETWORK}.items():
        assert theirs[name].default == value
    scheduler = inspect.signature(DDPMScheduler.__init__).parameters
    assert all(scheduler[name].default == value for name, value in {**SCHEDULER_DEFAULTS, **ONLY_IN_SCHEDULER}.items())
    ours = registry.backbone.settings("unet2d")
    assert {name for name in ours if theirs[name].default != ours[name]} == set(NETWORK_DEFAULTS)


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


def test_a_run_with_classes_has_a_script_that_draws_them(tmp_path):
    """The script draws what DDPM draws in unnoise from the same noise."""
    run = untrained_run(tmp_path / "run", classes=("a", "b"), sampling=Sampling("ddpm", 50, "trailing", clip=True))
    folder = to_diffusers(run)
    command = [sys.executable, folder / "draw.py", "-n", "3", "--seed", "5", "--out", tmp_path / "images"]
    subprocess.run([*command, "--label", "1"], check=True, capture_output=True)
    generator = torch.Generator().manual_seed(5)
    start = torch.randn(3, 3, 8, 16, generator=generator)
    denoise = clip_x0(run.model.given(torch.full((3,), 1)))
    steps = registry.sampler.get("ddpm")(
        denoise, start, run.model.schedule.grid(50), randn_like=lambda x: torch.randn(x.shape, generator=generator)
    )
    *_, last = steps
    for i, expected in enumerate(to_uint8(last.x)):
        drawn = np.asarray(Image.open(tmp_path / "images" / f"{i:06d}.png")).astype(int)
        assert np.abs(drawn - expected.permute(1, 2, 0).numpy()).max() <= 1
    wrong = subprocess.run([*command, "--label", "2"], check=False, capture_output=True, text=True)
    assert "--label is from 0 to 1, got 2" in wrong.stderr
    assert not (to_diffusers(untrained_run(tmp_path / "plain")) / "draw.py").exists()


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
