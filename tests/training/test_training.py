"""The training loop and its parts."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import unnoise
from tiny import train_folder
from unnoise import registry
from unnoise.card import Card
from unnoise.checkpoint import build_model, load, write_model
from unnoise.config import Sampling, TrainConfig
from unnoise.data.cache import DecodedImages, open_data
from unnoise.data.dataset import Dataset, split_held_out
from unnoise.diffusion.objective import add_noise
from unnoise.diffusion.times import Uniform
from unnoise.errors import InputError
from unnoise.evaluation.metrics import Score, kid
from unnoise.images import to_uint8
from unnoise.recipes import names, train_config
from unnoise.samplers.draw import seeded_noise
from unnoise.training import precision as device
from unnoise.training import tracker as follower
from unnoise.training import train as loop
from unnoise.training.batches import noise, noised, order, read
from unnoise.training.checks import learned_variance, validate
from unnoise.training.clock import Clock
from unnoise.training.ema import EMA
from unnoise.training.monitors.kid import MARKS, KidMonitor
from unnoise.training.monitors.monitor import TimeBudget
from unnoise.training.monitors.previews import PreviewMonitor, affordable, look, sample
from unnoise.training.monitors.validation import BANDS, ValidationMonitor, fixed_subset
from unnoise.training.plan import WIDTHS, unet
from unnoise.training.precision import choose
from unnoise.training.signals import Stop
from unnoise.training.trainer import Trainer

TINY = {"backbone": "unet:widths=8,layers=1,groups=4,head=8", "batch": 8, "steps": 2, "precision": "fp32"}


@pytest.fixture
def gray(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    np.save(tmp_path / "gray.npy", np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8))
    return tmp_path / "gray.npy"


def test_ema_follows_its_half_life():
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = EMA(network, halflife=100, ramp=math.inf)
    nn.init.ones_(network.weight)
    for _ in range(10):
        ema.update(seen=1000, batch=10)
    assert ema.network.weight.item() == pytest.approx(0.5)  # 100 images are one half-life


def test_ema_warms_up():
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = EMA(network, halflife=1e9, ramp=0.1)
    nn.init.ones_(network.weight)
    ema.update(seen=100, batch=10)
    assert ema.network.weight.item() == pytest.approx(0.5)  # the half-life is 10 so far


def test_ema_of_zero_is_the_network_itself():
    network = nn.Linear(1, 1)
    assert EMA(network, 0.0).network is network


def test_the_schedule_is_no_part_of_the_weights_and_survives_averaging(gray, tmp_path):
    """A schedule among the averaged tensors gives black images (denoising-diffusion-pytorch, issue 136)."""
    run = load(train_folder(gray, images="200", out=str(tmp_path / "run"), **TINY))
    assert not list(run.model.buffers())
    fresh = registry.schedule.get(run.card.schedule)()
    torch.testing.assert_close(run.model.schedule.alpha, fresh.alpha, rtol=0, atol=0)


def test_a_model_file_of_any_header_length_is_no_pickle(tmp_path):
    """The first byte of safetensors is its header's length modulo 256; a pickle starts with 0x80."""
    card = Card("unet:widths=8,groups=4,head=4", "linear", "eps", (1, 8, 8), "L")
    weights, starts = build_model(card).backbone.state_dict(), set()
    for extra in range(0, 256, 8):
        path = tmp_path / f"{extra}.safetensors"
        write_model(path, weights, replace(card, data={"name": "x" * extra}))
        starts.add(path.read_bytes()[0])
        assert load(path, "cpu").card.data["name"] == "x" * extra
    assert 0x80 in starts


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2D", 172800)])
def test_budgets(text, seconds):
    assert Clock.of(TrainConfig(budget=text), 10).seconds == seconds


@pytest.mark.parametrize(("text", "images"), [("500", 500), ("50k", 50_000), ("2M", 2_000_000)])
def test_images(text, images):
    assert Clock.of(TrainConfig(images=text), 10).images == images


def test_epochs_count_images():
    clock = Clock.of(TrainConfig(epochs=3), 10)
    clock.seen = 15
    assert clock.progress == pytest.approx(0.5)


def numbered(count):
    return Dataset(DecodedImages(Path(), count, (1, 8, 8)), "x", "L", (1, 8, 8), count, (), "", ())


def test_each_epoch_is_a_permutation_and_any_position_can_be_returned_to():
    dataset = numbered(10)
    batches = order(dataset, 4, seed=1)
    first = [next(batches) for _ in range(6)]
    assert [len(batch) for batch in first] == [4, 4, 2, 4, 4, 2]
    assert sorted(np.concatenate(first[:3])) == sorted(np.concatenate(first[3:])) == list(range(10))
    assert list(np.concatenate(first[:3])) != list(np.concatenate(first[3:]))
    np.testing.assert_array_equal(next(order(dataset, 4, seed=1, seen=14)), first[4])


def test_noise_depends_on_seed_and_position_alone():
    like = torch.zeros(1, 1, 2, 3)
    whole = {key: noise(*key, range(20), like) for key in ((0, 0), (0, 8), (1, 0))}
    assert len({tuple(image.flatten().tolist()) for batch in whole.values() for image in batch}) == 60
    for rows in (range(3), range(3, 20), range(8, 16), range(19, 20)):
        assert torch.equal(noise(0, 8, rows, like), whole[0, 8][rows.start : rows.stop])
    many = noise(0, 0, range(4000), like)
    assert abs(many.mean()) < 0.02
    assert abs(many.std() - 1) < 0.02


def test_a_share_of_a_batch_is_what_the_whole_batch_has_there(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.array(["a", "b"] * 10))
    dataset = open_data(str(tmp_path / "data.npz"))
    config = train_config(None, {"flip": True, "classes": True, "label_dropout": 0.5})
    times = Uniform(registry.schedule.get("linear")())
    whole = noised(read(dataset, np.arange(20)), times, config, 40)
    part = noised(read(dataset, np.arange(20), slice(5, 13)), times, config, 40)
    expected = whole.part(slice(5, 13))
    for name in ("x0", "eps", "x_t", "label"):
        assert torch.equal(getattr(part, name), getattr(expected, name))
    assert torch.equal(part.t.time, expected.t.time)
    assert torch.equal(part.s.sigma, expected.s.sigma)


def test_the_network_is_chosen_where_none_is_named(gray, tmp_path):
    """And written down; how fast it was tried changes no weight."""
    given = {"batch": 8, "steps": 2, "precision": "fp32", "images": "16"}
    runs = [train_folder(gray, out=tmp_path / str(i), **given) for i in range(2)]
    one, two = map(unnoise.load, runs)
    assert one.card.backbone == unet(WIDTHS[0]) == yaml.safe_load((runs[0] / "config.yaml").read_text())["backbone"]
    for p, q in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_loss_that_is_not_finite_changes_nothing(gray, tmp_path):
    config = train_config(None, {"data": str(gray), "images": "100", **TINY})
    dataset, held = split_held_out(open_data(str(gray)))
    card = loop.card_of(config, dataset, held)
    (tmp_path / "run").mkdir()
    ready = loop.planned(config, dataset.shape, len(dataset))
    run = loop.Training(config, (dataset, held), (loop.build(card), card), ready, tmp_path / "run")
    batch = noised(read(dataset, np.arange(8)), Uniform(run.model.schedule), config, 0)
    run.clock.seen = 8
    assert run.step(batch) is not None
    before = [p.clone() for p in (*run.model.parameters(), *run.ema.network.parameters())]
    poisoned = batch._replace(x_t=batch.x_t.clone().index_put((torch.tensor(0),) * 4, torch.tensor(math.nan)))
    assert run.step(poisoned) is None
    after = [*run.model.parameters(), *run.ema.network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert run.step(batch) is not None  # and training goes on


def test_training_that_never_is_finite_stops_with_a_diagnosis(gray, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Training, "step", lambda *_: None)
    with pytest.raises(InputError, match=r"not finite.*--lr"):
        train_folder(gray, images="2k", out=str(tmp_path / "run"), **TINY)


def test_the_model_learns_a_world_of_one_image(tmp_path, monkeypatch):
    """With one picture in the data the samples must become that picture."""
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    picture = np.zeros((1, 8, 8), np.uint8)
    picture[:, 2:6, 2:6] = 255
    np.save(tmp_path / "one.npy", np.repeat(picture, 8, axis=0))
    run = train_folder(
        tmp_path / "one.npy", images="6k", warmup=100, out=str(tmp_path / "run"), **(TINY | {"steps": 10})
    )
    images = unnoise.sample(run, 4)
    truth = torch.from_numpy(picture).float()[None] / 127.5 - 1
    assert (images - truth).abs().mean() < 0.1


def test_epoch_losses_are_the_mean_of_their_batches(gray, tmp_path):
    run = train_folder(gray, epochs=2, held_out=0, out=str(tmp_path / "run"), **TINY)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [row for row in rows if "epoch" in row]
    assert [(row["epoch"], row["images"]) for row in epochs] == [(1, 20), (2, 40)]
    assert all(0 < row["loss"] < 100 for row in epochs)


def test_same_seed_same_weights_other_seed_other_weights(gray, tmp_path):
    runs = [
        load(train_folder(gray, images="64", seed=seed, out=str(tmp_path / name), **TINY)).model
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    a, b, c = (torch.cat([p.flatten() for p in model.parameters()]) for model in runs)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


class Told:
    """A tracker that writes down what it is told."""

    requires_logging_directory = True
    rows: ClassVar[list] = []
    trouble: ClassVar[int] = 10**9

    def __init__(self, project, folder):
        assert project == "unnoise"
        assert (folder / "state.safetensors").exists()  # there is a run to be told of

    def start(self):
        self.rows.clear()

    def store_init_configuration(self, settings):
        assert settings["batch"] == "8"

    def log(self, numbers, step):
        if len(self.rows) >= self.trouble:
            raise OSError(28, "No space left on device")
        self.rows.append((step, numbers))

    def finish(self):
        self.rows.append("finished")


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setitem(follower.LOGGER_TYPE_TO_CLASS, "tensorboard", Told)
    monkeypatch.setattr(follower, "get_available_trackers", lambda: ["tensorboard"])
    return Told


def test_a_tracker_is_told_what_the_log_is(gray, tmp_path, told):
    run = train_folder(gray, epochs=2, out=str(tmp_path / "run"), tracker="tensorboard", **TINY)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    *told_rows, end = told.rows
    assert end == "finished"
    assert [step for step, _ in told_rows] == [row["images"] for row in rows]
    for (_, numbers), row in zip(told_rows, rows, strict=True):
        wanted = {"epoch_loss" if name == "loss" and "epoch" in row else name: value for name, value in row.items()}
        wanted = {name: np.mean(value) for name, value in wanted.items() if name != "images"}
        assert numbers == pytest.approx(wanted)
    assert {"loss", "held_out", "epoch_loss", "training_seconds"} <= {name for _, row in told_rows for name in row}


def test_trouble_of_a_tracker_ends_no_training(gray, tmp_path, told, monkeypatch, capsys):
    monkeypatch.setattr(told, "trouble", 1)
    run = train_folder(gray, epochs=2, out=str(tmp_path / "run"), tracker="tensorboard", **TINY)
    assert len(told.rows) == 1
    assert "training_seconds" in (run / "metrics.jsonl").read_text()
    assert capsys.readouterr().out.count("tensorboard is told no more") == 1


def test_rows_that_are_taken_back_are_not_told_again(told):
    elsewhere = follower.Tracker.__new__(follower.Tracker)
    elsewhere.name, elsewhere.say, elsewhere.seen, elsewhere.tracker = "tensorboard", print, 0, told.__new__(told)
    told.rows.clear()
    for seen in (8, 16, 8, 16, 24):
        elsewhere.tell({"images": seen, "loss": 1.0})
    assert [step for step, _ in told.rows] == [8, 16, 16, 24]


def test_tensorboard_can_read_what_it_is_told(gray, tmp_path):
    run = train_folder(gray, images="24", out=str(tmp_path / "run"), tracker="tensorboard", **TINY)
    assert [*(run / "unnoise").glob("*tfevents*")]


@pytest.mark.parametrize(
    ("name", "said"), [("tensorbord", "did you mean 'tensorboard'"), ("wandb", "pip install wandb")]
)
def test_trackers_that_are_not_there_are_refused(name, said, told):
    with pytest.raises(InputError, match=said):
        train_folder("faces", tracker=name)


def test_a_run_tells_how_it_was_made_and_its_config_is_a_recipe(gray, tmp_path):
    run = train_folder(gray, images="64", lr=0.002, out=str(tmp_path / "run"), **TINY)
    card = load(run).card
    assert (card.shape, card.mode, card.data["count"], card.data["held_out"]) == ((1, 8, 8), "L", 18, 2)
    assert len(card.data["fingerprint"]) == 64
    assert card.training["config"]["lr"] == 0.002
    again = train_config(str(run / "config.yaml"), {})
    assert again.lr == 0.002
    assert again.out is None


def test_every_recipe_is_valid():
    for name in names():
        validate(train_config(name, {}))


def test_the_notebook_recipe_is_the_notebook_number_for_number():
    config = train_config("notebook", {})
    assert (config.limit, config.size, config.batch, config.epochs, config.lr) == (10_000, "32", 256, 50, 2e-4)
    assert (config.schedule, config.target, config.objective) == ("linear", "eps", "simple")
    assert (config.ema_halflife, config.decay, config.warmup, config.max_grad_norm) == (0, "none", 0, 0)
    assert (config.sampler, config.steps, config.clip) == ("ddpm", 1000, False)
    network = registry.backbone.get(config.backbone)(3)
    assert sum(p.numel() for p in network.parameters()) == 14_406_531
    assert "widths=64-128-256-512" in train_config("notebook-exercise", {}).backbone


def test_another_length_replaces_the_recipes():
    config = train_config("notebook", {"budget": "5m"})
    assert (config.budget, config.epochs) == ("5m", None)


def test_settings_of_the_wrong_name_or_type_are_refused():
    with pytest.raises(InputError, match="did you mean 'budget'"):
        train_config(None, {"budgett": "5m"})
    with pytest.raises(InputError, match="batch takes int, got '8'"):
        train_config(None, {"batch": "8"})


def test_fp16_is_for_cuda_only():
    if not torch.cuda.is_available():
        assert choose("fp16", lambda: True) == "fp32"
    assert choose("fp32", lambda: True) == "fp32"


def test_bf16_is_chosen_where_it_gains(monkeypatch):
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("of a processor")
    for computes, faster, precision in ((True, True, "bf16"), (True, False, "fp32"), (False, True, "fp32")):
        monkeypatch.setattr(device, "fast_bf16", lambda _, computes=computes: computes)
        assert choose("auto", lambda faster=faster: faster) == precision


def test_channels_come_first_where_the_norm_of_channels_last_is_slow():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    eight = registry.backbone.get("unet:widths=32-64,layers=1,groups=8")(1)
    found = [device.layout(eight, place, kind) for place, kind in ((cpu, "bf16"), (cpu, "fp32"), (cuda, "bf16"))]
    assert found == [torch.contiguous_format, torch.channels_last, torch.channels_last]
    sixteens = registry.backbone.get("unet:widths=32-64,layers=1,groups=2")(1)
    assert device.layout(sixteens, cpu, "bf16") == torch.channels_last


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_network_is_laid_out_for_its_precision(gray, tmp_path, precision, monkeypatch):
    """In memory, from the first step to the last."""
    if torch.cuda.is_available():
        pytest.skip("of a processor")
    seen, step = set(), Trainer.step

    def watched(run, *batch):
        weight = run.accelerator.unwrap_model(run.model.backbone).down[0].res.conv1.weight
        seen.add(weight.is_contiguous())
        return step(run, *batch)

    monkeypatch.setattr(Trainer, "step", watched)
    train_folder(gray, images="24", out=str(tmp_path / "run"), **TINY | {"precision": precision})
    assert seen == {precision == "bf16"}


def test_timing_the_precisions_leaves_no_trace():
    network = registry.backbone.get("unet:widths=8,layers=1,groups=4,dropout=0.5")(1)
    weights, random = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    device.gains(network, (1, 8, 8), 2)
    assert all(torch.equal(v, weights[k]) for k, v in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in network.parameters())


def test_previews_keep_to_their_share(tmp_path):
    previews = PreviewMonitor(tmp_path, "L", usual=0.0)
    clock = Clock(600.0, None)
    clock.start()
    clock.started -= 30
    assert not previews.due(clock, 100.0)
    clock.started -= 15
    assert previews.due(clock, 100.0)
    assert not previews.due(clock, math.nan)  # before the pace is known
    previews.occasions.spent = previews.occasions.last = 10.0  # two of them in 60 s would be far more than 5 %
    clock.started -= 60
    assert not previews.due(clock, 100.0)


def test_previews_name_what_is_wrong():
    assert "not finite" in look(torch.full((1, 1, 8, 8), math.nan))[0]
    assert "one colour" in look(torch.zeros(1, 1, 8, 8))[0]
    assert "ends of its range" in look(torch.ones(2, 1, 8, 8).copysign(torch.randn(2, 1, 8, 8)))[0]
    assert not look(torch.rand(4, 3, 8, 8) * 1.8 - 0.9)
    assert not look(torch.ones(2, 1, 8, 8).copysign(torch.randn(2, 1, 8, 8)), usual=0.95)  # the data is line art


def test_a_slow_network_shows_fewer_images():
    assert affordable(6750.0, 10) == 64
    assert affordable(115.0, 10) == 9  # 2.25 seconds of the notebook's network on two cores
    assert affordable(6.75, 10) == 1


def test_the_last_grid_takes_its_share_of_the_time_by_what_a_call_takes(tmp_path, gray, monkeypatch):
    """Sampling may be in another precision than the training, whose pace then says nothing of it."""
    made = list[int]()
    monkeypatch.setattr(loop, "sample", lambda model, count, *_: made.append(count))
    for seconds in (1e-6, 1.0, 20.0):  # that a call takes for a picture: two calls each, in 20 seconds
        monkeypatch.setattr(loop, "call", lambda *_, seconds=seconds: seconds)
        train_folder(gray, images="8", out=str(tmp_path / f"{seconds}"), **TINY)
    assert made == [64, 9, 1]


def test_flips_and_levels_say_nothing_of_the_noise(gray):
    """They came from one stream once, and the first pixels of the noise told whether the image was mirrored."""
    config = train_config(None, {"flip": True, **TINY})
    dataset, schedule = open_data(str(gray)), registry.schedule.get("linear")()
    pairs = []
    for seen in range(700):
        batch = noised(read(dataset, np.arange(2)), Uniform(schedule), config, seen)
        straight = noised(read(dataset, np.arange(2)), Uniform(schedule), train_config(None, TINY), seen)
        pairs.append((not torch.equal(batch.x0[0], straight.x0[0]), batch.eps[0, 0, 0].square().mean().item()))
    flipped = np.mean([power for mirrored, power in pairs if mirrored])
    kept = np.mean([power for mirrored, power in pairs if not mirrored])
    assert 0.45 < np.mean([mirrored for mirrored, _ in pairs]) < 0.55
    assert abs(flipped - kept) < 0.1  # each is 1 within 0.03


def test_what_cannot_work_together_is_refused():
    with pytest.raises(InputError, match="use --objective simple"):
        validate(train_config(None, {"target": "eps"}))
    with pytest.raises(InputError, match="pure noise"):
        validate(train_config(None, {"schedule": "linear:T=100"}))
    with pytest.raises(InputError, match="--objective weighted is infinite at level 999 of --schedule flow"):
        validate(train_config(None, {"objective": "weighted", "schedule": "flow"}))
    with pytest.raises(InputError, match="learned no variance"):
        validate(train_config(None, {"sampler": "ddpm:variance=learned"}))
    with pytest.raises(InputError, match="--label-dropout is a share"):
        validate(train_config(None, {"label_dropout": 1.5}))
    with pytest.raises(InputError, match="eta lies between"):
        validate(train_config(None, {"sampler": "ddim:eta=3"}))


def test_natural_values_are_understood():
    config = train_config(None, {"size": 32, "images": 2000, "lr": "1e-3", "weight_decay": 1})
    assert (config.size, config.images, config.lr, config.weight_decay) == ("32", "2000", 1e-3, 1.0)


@pytest.mark.parametrize("name", registry.objective.names())
@pytest.mark.parametrize("target", registry.target.names())
def test_every_objective_is_zero_for_a_perfect_network_and_positive_otherwise(name, target):
    from unnoise.diffusion.model import Diffusion
    from unnoise.diffusion.target import encode

    schedule, aim = registry.schedule.get("linear")(), registry.target.get(target)
    x0, eps = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64)
    batch = add_noise(x0, eps, Uniform(schedule).levels(4, torch.Generator().manual_seed(0)))

    class Perfect(nn.Module):
        shift = 0.0

        def forward(self, x, time, label=None):
            variance = [-torch.ones_like(x)] if learned_variance(name) else []  # the posterior's
            return torch.cat([encode(x0, eps, batch.t, aim) + self.shift, *variance], dim=1)

    network = Perfect()
    model = Diffusion(network, schedule, aim, (3, 8, 8))
    objective = registry.objective.get(name)
    torch.testing.assert_close(objective(model, batch), torch.zeros(4, dtype=torch.float64), atol=1e-10, rtol=0)
    network.shift = 1.0
    assert (objective(model, batch) > 0).all()


def test_simple_loss_is_the_notebooks_mse():
    schedule = registry.schedule.get("linear")()
    x0, eps = torch.randn(2, 4, 3, 8, 8)
    batch = add_noise(x0, eps, Uniform(schedule).levels(4, torch.Generator().manual_seed(0)))
    network = registry.backbone.get("unet:widths=8-16,layers=1,groups=4,head=8,zero_init=false")(3)
    from unnoise.diffusion.model import Diffusion

    model = Diffusion(network, schedule, registry.target.get("eps"), (3, 8, 8))
    literal = nn.functional.mse_loss(network(batch.x_t, batch.t.time.float()), eps)
    torch.testing.assert_close(registry.objective.get("simple")(model, batch).mean(), literal)


def test_config_yaml_is_plain(gray, tmp_path):
    run = train_folder(gray, images="16", out=str(tmp_path / "run"), **TINY)
    values = yaml.safe_load((run / "config.yaml").read_text())
    assert values["images"] == "16"
    assert values["data"] == str(gray)


# Held-out loss


def held_out(gray, objective="simple", **config):
    data, held = split_held_out(open_data(str(gray)), 8)
    card = Card("unet:widths=8,groups=4,head=4,zero_init=false", "linear", "eps", (1, 8, 8), "L")
    return build_model(card), ValidationMonitor(
        TrainConfig(**config), registry.objective.get(objective), data, held, count=8
    )


def test_held_out_loss_is_that_of_its_images_at_fixed_noise_and_levels(gray):
    """By hand; the same again, in other batches, and with the network left in its mode."""
    model, measure = held_out(gray)
    losses = measure.losses(model.train(), measure.held)
    assert model.backbone.training
    assert losses.shape == (BANDS, 8)
    for again in (measure.losses(model, measure.held), held_out(gray, batch=3)[1].losses(model, measure.held)):
        torch.testing.assert_close(again, losses, rtol=1e-5, atol=1e-6)
    i, band = 5, 2
    x0 = torch.from_numpy(measure.held.read(np.array([i]))).float() / 127.5 - 1
    noise = seeded_noise([i])
    *_, eps = [noise(x0) for _ in range(band + 1)]
    level = model.schedule.level(torch.tensor([math.floor((band + (i + 0.5) / 8) / BANDS * 1000)]))
    x_t = level.alpha.float() * x0 + level.sigma.float() * eps
    with torch.no_grad():
        expected = (model.eval().output(x_t, level) - eps).square().mean()
    assert losses[band, i] == pytest.approx(float(expected), rel=1e-4)


def test_overfitting_is_told_once_it_is_one(gray, monkeypatch):
    model, measure = held_out(gray)
    truth = {"held": 1.0, "trained": 1.0}

    def losses(_, dataset):
        name = "held" if dataset is measure.held else "trained"
        return truth[name] + 0.01 * torch.randn(BANDS, 8, dtype=torch.float64)

    monkeypatch.setattr(measure, "losses", losses)
    for held, trained, told in [(1.0, 1.0, False), (0.5, 0.5, False), (0.5, 0.4, False), (0.6, 0.3, True)]:
        truth.update(held=held, trained=trained)
        warning = measure.measure(model)
        assert (warning is not None) == told, (held, trained)
    assert "overfitting: the loss on held-out images is 0.6" in warning
    assert len(measure.rows) == 4
    assert "on held-out images" in str(measure)


def test_a_run_keeps_images_out_and_logs_the_loss_on_them(gray, tmp_path, capsys):
    run = train_folder(gray, images="200", held_out=5, out=str(tmp_path / "run"), **TINY)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (last,) = [row for row in rows if "held_out" in row]
    assert len(last["held_out"]) == len(last["trained"]) == BANDS
    assert all(math.isfinite(value) for value in last["held_out"])
    said = capsys.readouterr().out
    assert "15 images" in said
    assert "5 more are held out" in said
    assert "on held-out images" in said
    assert load(run, "cpu").card.data["held_out"] == 5
    assert load(run, "cpu").card.data["count"] == 15


def test_held_out_images_are_never_trained_on(gray, tmp_path, monkeypatch):
    seen = set()
    given = loop.noised

    def noted(batch, *rest):
        seen.update(image.tobytes() for image in batch.pixels)
        return given(batch, *rest)

    monkeypatch.setattr(loop, "noised", noted)
    train_folder(gray, images="200", held_out=6, out=str(tmp_path / "run"), **TINY)
    _, held = split_held_out(open_data(str(gray)), 6)
    assert len(seen) == 14
    assert not seen & {image.tobytes() for image in held.read(np.arange(6))}


def test_measuring_keeps_to_its_share_of_the_time(monkeypatch):
    clock, occasions = Clock(600.0, None), TimeBudget(0.05)
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock.start()
    for _ in range(600):
        now[0] += 1.0
        if occasions.due(clock):
            with occasions.taken(clock):
                now[0] += 3.0
    assert 3 <= occasions.spent <= 0.05 * 600 + 3
    assert occasions.spent / 3 >= 4, "soon, then at growing intervals"


# KID on the way


@pytest.fixture
def scored(gray, monkeypatch):
    """What is measured, on a run whose network draws nothing of note, for 100 pictures at five marks."""
    data = open_data(str(gray))
    clock, now = Clock(1000.0, None), [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock.start()
    now[0] = 100.0
    monkeypatch.setattr("unnoise.training.monitors.kid.FEWEST", 10)
    model = build_model(Card("unet:widths=8,groups=4,head=4", "linear", "eps", (1, 8, 8), "L"))
    monkeypatch.setattr("unnoise.training.monitors.kid.seeing", lambda _: 0.01)

    def draw(count, seconds=math.inf):
        return sample(model, count, Sampling("ddim", steps=2), Stop(), seconds)

    return KidMonitor(data, Sampling("ddim", steps=2)), draw, clock, now


def test_kid_is_planned_within_its_share_and_told_beforehand(scored):
    quality, _, clock, _ = scored
    assert quality.due(clock)
    text = quality.plan(clock, images_per_second=10.0)
    assert 10 <= quality.count <= 1000
    assert "pictures at 10%, 20%, 40%, 70%, 100% of the way" in text
    slow = KidMonitor(quality.dataset, Sampling("ddim", steps=500))
    assert slow.how.steps == 20, "it is there to tell weights apart"
    assert "there is none for 10 pictures" in slow.plan(clock, images_per_second=1.0)
    assert not slow.due(clock)
    fixed_subset = KidMonitor(quality.dataset.part(np.arange(9)), Sampling("ddim", steps=2))
    assert "it takes 10 images or more" in fixed_subset.plan(clock, images_per_second=10.0)
    wide = KidMonitor(replace(quality.dataset, shape=(5, 8, 8)), Sampling("ddim", steps=2))
    assert "of 1 to 4 channels" in wide.plan(clock, images_per_second=10.0)
    for images_per_second in (3.0, 5.0):
        plan = KidMonitor(quality.dataset, Sampling("ddim", steps=20))
        plan.plan(clock, images_per_second)
        cost = plan.count * (20 / (3 * images_per_second) + 0.01) * len(MARKS) + 20 * 0.01
        assert cost <= 0.04 * 1000
    one, two = (KidMonitor(quality.dataset, Sampling(name, steps=20)) for name in ("ddim", "heun"))
    for plan in (one, two):
        plan.plan(clock, 8.0)
    assert two.count <= one.count / 2 + 1, "heun asks the network twice a step"


def test_kid_on_the_way_is_that_of_the_same_pictures(scored, gray):
    quality, draw, clock, _ = scored
    quality.plan(clock, 10.0)
    quality.count = 20
    assert quality.measure(draw, clock) is None
    look = registry.features.get("efficientnet")()
    with torch.inference_mode():
        drawn = to_uint8(draw(20))
        expected = kid(*(look(pixels)[0] for pixels in (drawn, torch.from_numpy(np.load(gray))[:, None])))
    assert quality.rows[0]["kid"] == pytest.approx(expected.value, rel=1e-3)
    assert quality.rows[0]["pictures"] == 20
    assert quality.best
    assert not quality.due(clock), "until the next mark"


def test_kid_keeps_to_its_share_on_a_machine_that_became_busy(scored):
    """40 of 1000 seconds: the first takes 35, so the rest is for the last; drawing that takes more is cut off."""
    quality, draw, clock, now = scored
    quality.plan(clock, 10.0)
    planned = quality.count

    def slow(count, seconds):
        assert seconds == pytest.approx(40)
        now[0] += 35
        return draw(count)

    quality.measure(slow, clock)
    assert "again at the end only" in quality.measure(slow, clock)
    assert quality.spent == 35
    assert 10 <= quality.count < planned
    assert quality.count * quality.each <= 5
    assert not quality.due(clock)
    now[0] = 1000.0
    assert quality.due(clock), "the end"
    quality.measure(draw, clock)
    assert [row["pictures"] for row in quality.rows] == [planned, quality.count]

    spent = KidMonitor(quality.dataset, quality.how)
    now[0] = 100.0
    spent.plan(clock, 10.0)
    spent.spent, spent.last = 39.99, 30.0
    assert "its share of the time is spent" in spent.measure(slow, clock)
    assert not spent.due(clock)

    never = KidMonitor(quality.dataset, quality.how)
    never.plan(clock, 10.0)

    def busy(count, seconds):
        now[0] += 41
        return draw(count, seconds - 41)

    assert "longer than planned" in never.measure(busy, clock)
    assert not never.rows
    assert not never.due(clock)


def test_the_best_is_the_lowest_and_standing_still_is_told(scored, monkeypatch):
    quality, draw, clock, now = scored
    quality.plan(clock, 10.0)
    found = []
    for mark, value in zip((100, 200, 400, 2500, 4700), (0.5, 0.3, 0.4, 0.32, 0.31), strict=True):
        now[0] = mark
        monkeypatch.setattr("unnoise.training.monitors.kid.kid", lambda *_, value=value: Score(value, 0.02))
        found.append((quality.measure(draw, clock), quality.best))
    assert [best for _, best in found] == [True, True, False, False, False]
    assert [note is not None for note, _ in found] == [False, False, False, False, True]
    assert "has not moved beyond its interval for 36:40" in found[-1][0]


def test_what_was_not_scored_is_never_the_best(scored, monkeypatch):
    """Drawing that a signal cut short, pictures that are no numbers, a full disk: no row, and nothing to keep."""
    quality, draw, clock, _ = scored
    quality.plan(clock, 10.0)
    quality.measure(draw, clock)
    assert quality.best
    for made in (None, torch.full((4, 1, 8, 8), math.nan)):
        assert quality.measure(lambda *_, made=made: made, clock) is None
        assert not quality.best
    assert len(quality.rows) == 1

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unnoise.training.monitors.kid.kid", full)
    assert "No space left" in quality.measure(draw, clock)
    assert not quality.best
    assert not quality.due(clock)


def test_a_run_with_time_for_it_logs_kid_and_keeps_the_best(gray, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("unnoise.training.monitors.kid.FEWEST", 4)
    monkeypatch.setattr("unnoise.training.monitors.kid.SHARE", 20.0)
    monkeypatch.setattr("unnoise.training.monitors.kid.MOST", 30)
    run = train_folder(gray, images="400", out=str(tmp_path / "run"), **TINY)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = [row for row in rows if "kid" in row]
    assert len(scores) == len(MARKS)
    assert [row["images"] for row in scores] == sorted(row["images"] for row in scores)
    best = load(run / "best.safetensors", "cpu").card.training["images"]
    assert best == min(scores, key=lambda row: row["kid"])["images"]
    assert "pictures at 10%, 20%" in capsys.readouterr().out


def test_held_out_loss_is_of_all_kinds_and_as_much_as_there_is_time_for(gray):
    """Not the first images, which in a folder of classes are of one; and fewer where the network is slow."""
    data = open_data(str(gray))
    many = data.part(np.arange(20).repeat(50))
    rows = fixed_subset(many).rows
    assert len(rows) == 256
    assert set(rows.tolist()) == set(range(20))
    assert np.array_equal(fixed_subset(many).rows, rows)
    counts = []
    for seen in (100, 3_000, 1_000_000):
        clock = Clock(600.0, None)
        clock.start()
        clock.started -= 60
        clock.seen = seen
        measure = ValidationMonitor(
            TrainConfig(), registry.objective.get("simple"), fixed_subset(many), fixed_subset(many)
        )
        measure.plan(clock)
        counts.append(measure.count)
    assert counts[0] == 8
    assert counts[0] < counts[1] < counts[2] == 256
