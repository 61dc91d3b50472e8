"""The Python interface: a loop, a network, a sampler, an objective and data of your own."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

import unnoise as un
from tiny import TINY, smooth
from unnoise import checkpoint, registry
from unnoise.errors import InputError
from unnoise.samplers.base import Step
from unnoise.samplers.ddim import ddim

ROOT = Path(__file__).parent.parent
SETTINGS = {name: value for name, value in TINY.items() if name != "backbone"} | {"images": "16"}


class MyNet(nn.Module):
    """A network of the user: two convolutions, with a time and batch statistics."""

    def __init__(self, channels: int, width: int = 8) -> None:
        super().__init__()
        self.into, self.out = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, channels, 3, padding=1)
        self.time, self.norm = nn.Linear(1, width), nn.BatchNorm2d(width)

    def forward(self, x, time, label=None):
        return self.out(self.norm(self.into(x) + self.time(time[:, None] / 1000)[..., None, None]).relu())


class Wrong(nn.Module):
    """A network whose output has a channel too many."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, channels + 1, 1)

    def forward(self, x, time, label=None):
        return self.layer(x)


def my_sampler(denoise, x, levels, *, randn_like, pull: float = 1.0):
    for t, s in pairwise(levels):
        x0, eps, _ = denoise(x, t)
        x = s.alpha.to(x) * pull * x0 + s.sigma.to(x) * eps
        yield Step(x, x0, s)


def my_loss(model, batch):
    return (model(batch.x_t, batch.t, batch.label).x0 - batch.x0).square().mean(dim=(1, 2, 3))


class Photos(TorchDataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return torch.from_numpy(self.images[i]).permute(2, 0, 1)


@pytest.fixture(scope="module")
def images():
    return smooth(64, 8, seed=0)


@pytest.fixture
def model():
    return un.Diffusion(MyNet(3), un.schedules.cosine(), un.targets.v, (3, 8, 8))


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    """A run of the smallest U-Net."""
    return un.train(images, out=tmp_path_factory.mktemp("api") / "run", **SETTINGS, backbone=TINY["backbone"])


def test_a_loop_of_ones_own_in_ten_lines(images, tmp_path):
    data = un.open_data(images, size=8)
    model = un.Diffusion(MyNet(3), un.schedules.cosine(), un.targets.v, data.shape)
    ema = un.EMA(model.backbone, halflife=50_000)
    opt = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(4):
        for x0, label in DataLoader(data, 16, shuffle=True):
            loss = un.objectives.capped_v(model, un.noised(x0, label, model.schedule)).mean()
            loss.backward()
            opt.step()
            opt.zero_grad()
            ema.update(len(x0))
            losses.append(loss.item())
    un.save(tmp_path / "mine.safetensors", model)
    drawn = un.sample(model, 4, sampler=my_sampler, steps=3)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert drawn.shape == (4, 3, 8, 8)
    assert torch.equal(un.sample(tmp_path / "mine.safetensors", 4, sampler=my_sampler, steps=3), drawn)
    assert model.backbone.training
    assert all(p.requires_grad for p in model.parameters())


def test_noised_batches(images):
    x0, schedule = torch.rand(512, 3, 4, 4) * 2 - 1, un.schedules.cosine(T=10)
    batch = un.noised(x0, torch.full((512,), -1), schedule, generator=torch.Generator().manual_seed(1))
    again = un.noised(x0, None, schedule, generator=torch.Generator().manual_seed(1))
    assert batch.label is again.label is None
    assert torch.equal(batch.x_t, again.x_t)
    assert set(batch.t.time.tolist()) == set(range(10))
    torch.testing.assert_close(batch.x_t, batch.t.alpha.float() * x0 + batch.t.sigma.float() * batch.eps)
    assert abs(batch.eps.mean()) < 0.05
    assert abs(batch.eps.std() - 1) < 0.05
    mixed = un.noised(x0[:3], torch.tensor([-1, 0, 1]), schedule)
    assert mixed.label.tolist() == [-1, 0, 1]


def test_an_array_is_trained_on(run):
    assert re.fullmatch(r"Run\('.*run', 8x8 RGB, 16 images trained\)", repr(run))
    assert Path(run) == run.folder == run.path.parent
    assert os.fspath(run) == str(run.folder)
    assert isinstance(run, os.PathLike)
    assert run.card.training["config"]["data"] == "array [64, 8, 8, 3] uint8"
    assert un.load(run).card == run.card


def test_a_torch_dataset_is_trained_on(images, tmp_path):
    run = un.train(Photos(images), out=tmp_path / "run", **SETTINGS, backbone=TINY["backbone"])
    assert run.card.shape == (3, 8, 8)
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_network_of_ones_own_is_trained(images, tmp_path):
    np.save(tmp_path / "photos.npy", images)
    own = MyNet(3, width=4)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    run = un.train(tmp_path / "photos.npy", out=tmp_path / "run", **SETTINGS, backbone=own)
    assert run.card.backbone == f"{__name__}:MyNet"
    assert all(torch.equal(before[name], tensor) for name, tensor in own.state_dict().items())
    assert own.training
    assert un.sample(run, 2, steps=2).shape == (2, 3, 8, 8)
    with pytest.raises(InputError, match=r"the weights do not fit the network .*:MyNet; give the network"):
        un.load(tmp_path / "run")  # which makes MyNet(3)
    for backbone in (own, MyNet(3, width=4), partial(MyNet, width=4), lambda channels: MyNet(channels, 4)):
        opened = un.load(tmp_path / "run", backbone=backbone)
        assert torch.equal(un.sample(opened, 2, steps=2), un.sample(run, 2, steps=2))


def test_runs_and_models_are_evaluated(run, model, images, tmp_path):
    """A run with its own data or other data, and a model in memory."""
    np.save(tmp_path / "photos.npy", images)
    again = un.train(tmp_path / "photos.npy", out=tmp_path / "run", **SETTINGS, backbone=TINY["backbone"])
    settings = {"metrics": "kid", "n": 50, "steps": 1, "batch": 50}
    scores = [
        un.evaluate(again, **settings)["kid"],
        un.evaluate(run, images, **settings)["kid"],
        un.evaluate(model, images, **settings)["kid"],
        un.evaluate(un.sample(model, 50, steps=1, batch=50), images, metrics="kid")["kid"],
    ]
    assert all(np.isfinite(score.value) for score in scores)
    assert scores[0] == scores[1]  # the same weights, and the same images to compare with
    assert scores[2] == scores[3]
    assert scores[0] != scores[2]
    with pytest.raises(InputError, match=r"trained on 'array \[64, 8, 8, 3\] uint8', which is not on this machine"):
        un.evaluate(run, **settings)


def test_a_class_is_built_with_the_sizes_it_takes():
    def sizes(*given):
        return nn.Linear(*given)

    def three(channels, classes, outputs):
        return sizes(channels, classes + outputs)

    assert checkpoint.build_network(MyNet, 2).into.in_channels == 2
    assert checkpoint.build_network(MyNet, 2).into.out_channels == 8
    assert checkpoint.build_network(three, 2, 3, 4).out_features == 7
    assert checkpoint.build_network("unet:widths=8,layers=1,groups=4", 2, 0, 4).conv_out.out_channels == 4


def test_an_objective_of_ones_own_is_trained_with(images, tmp_path):
    run = un.train(images, out=tmp_path / "run", **SETTINGS, backbone=TINY["backbone"], objective=my_loss)
    assert run.card.training["config"]["objective"] == f"{__name__}:my_loss"
    assert f"objective: {__name__}:my_loss" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("given", "spec"), [(ddim, "ddim"), (partial(ddim, eta=0.5), "ddim:eta=0.5"), (un.samplers.heun, "heun")]
)
def test_a_sampler_and_its_spec_draw_the_same(run, given, spec):
    assert torch.equal(un.sample(run, 2, sampler=given, steps=2), un.sample(run, 2, sampler=spec, steps=2))


def test_a_sampler_of_ones_own_draws(run):
    drawn = un.sample(run, 3, sampler=my_sampler, steps=2)
    assert torch.equal(drawn, un.sample(run, 3, sampler="ddim", steps=2))
    assert not torch.equal(drawn, un.sample(run, 3, sampler=partial(my_sampler, pull=0.5), steps=2))


def test_a_model_in_memory_is_a_run(model, tmp_path):
    model.backbone.into.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    drawn = un.sample(model, 4, steps=3)
    assert drawn.shape == (4, 3, 8, 8)
    run = checkpoint.as_run(model)
    assert run.path is None
    assert repr(run) == "Run(in memory, 8x8 RGB, 0 images trained)"
    for use in (lambda: run.folder, lambda: os.fspath(run)):
        with pytest.raises(InputError, match=r"only in memory; save it first: unnoise\.save"):
            use()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training
    assert [p.requires_grad for p in model.parameters()].count(False) == 2
    un.save(tmp_path / "new" / "mine.safetensors", run)
    opened = un.load(tmp_path / "new" / "mine.safetensors")
    assert opened.card == run.card
    assert checkpoint.weights_hash(opened) == checkpoint.weights_hash(run)
    assert torch.equal(un.sample(opened, 4, steps=3), drawn)


@pytest.mark.parametrize(
    ("made", "spec"),
    [
        (un.schedules.cosine(), "cosine"),
        (un.schedules.linear(T=40, start=0.001, end=0.2), None),
        (un.schedules.flow(T=30), "flow:T=30"),
        (un.schedules.zero_snr(), "zero_snr"),
        (un.schedules.cosine(s=0.05, T=20), None),
    ],
)
def test_a_schedule_is_named_or_written_out(made, spec):
    text = checkpoint.schedule_text(made)
    assert text == spec or (spec is None and text.startswith("betas:values="))
    again = registry.schedule.get(text)()
    torch.testing.assert_close(again.alpha, made.alpha, rtol=0, atol=1e-12)
    torch.testing.assert_close(again.sigma, made.sigma, rtol=0, atol=1e-12)


def test_a_schedule_without_a_name_is_not_saved(tmp_path):
    alpha = torch.linspace(0.9, 0.2, 10, dtype=torch.float64)
    own = un.schedules.Schedule(alpha, 2 - alpha)
    model = un.Diffusion(MyNet(3), own, un.targets.v, (3, 8, 8))
    with pytest.raises(InputError, match="a model file holds the name of its schedule"):
        un.save(tmp_path / "mine.safetensors", model)
    assert not list(tmp_path.iterdir())


def test_a_registered_network_keeps_its_options(tmp_path):
    network = un.backbones.UNet(3, widths=(8, 16), layers=1, groups=4)
    un.save(tmp_path / "mine.safetensors", un.Diffusion(network, un.schedules.cosine(), un.targets.v, (3, 8, 8)))
    opened = un.load(tmp_path / "mine.safetensors")
    assert opened.card.backbone == "unet:widths=8-16,layers=1,groups=4"
    assert all(torch.equal(a, b) for a, b in zip(opened.model.parameters(), network.parameters(), strict=True))


def test_tied_weights_are_saved(tmp_path):
    network = MyNet(3, width=3)
    network.out.weight = network.into.weight
    model = un.Diffusion(network, un.schedules.cosine(), un.targets.v, (3, 8, 8))
    un.save(tmp_path / "tied.safetensors", model)
    opened = un.load(tmp_path / "tied.safetensors", backbone=network)
    assert torch.equal(opened.model.backbone.out.weight, network.into.weight)


def test_the_variance_that_a_network_learns_is_noticed():
    network = registry.backbone.get("unet:widths=8,layers=1,groups=4")(3, 0, 6)
    model = un.Diffusion(network, un.schedules.cosine(), un.targets.eps, (3, 8, 8))
    assert checkpoint.as_run(model).card.learned_variance
    assert un.sample(model, 2, sampler="ddpm:variance=learned", steps=2).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (Wrong(3), r"Wrong gives \[1, 4, 8, 8\] for images \[1, 3, 8, 8\]; it must give 3 channels"),
        (nn.Conv2d(3, 3, 1), r"Conv2d cannot be called as network\(x, time, label\)"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_there_is_a_folder(images, tmp_path, network, says):
    with pytest.raises(InputError, match=says):
        un.sample(un.Diffusion(network, un.schedules.cosine(), un.targets.v, (3, 8, 8)), 1)
    with pytest.raises(InputError, match=says):
        un.train(images, out=tmp_path / "run", **SETTINGS, backbone=network)
    assert not (tmp_path / "run").exists()


def test_random_streams_stay_as_they_were(run, model):
    before = torch.get_rng_state()
    un.load(run)
    checkpoint.as_run(model)
    assert torch.equal(torch.get_rng_state(), before)


MISSING = """
import sys, unnoise as un
try:
    un.load(sys.argv[1])
except un.InputError as error:
    print(error)
print("strange" in sys.modules)
"""


def test_the_network_of_a_stranger_is_never_imported(model, tmp_path):
    """A model file names a class of a module that could be imported, and would do harm."""
    (tmp_path / "strange.py").write_text("from pathlib import Path\nPath('harm').touch()\n")
    card = checkpoint.as_run(model).card
    named = replace(card, backbone="strange:Net")
    checkpoint.write_model(tmp_path / "mine.safetensors", model.backbone.state_dict(), named)
    done = subprocess.run(
        [sys.executable, "-c", MISSING, "mine.safetensors"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    said = (
        "mine.safetensors: its network is the class Net of the module strange, which is not known here; add --plugin "
        "FILE.py that defines it, or import it in Python: unnoise.load('mine.safetensors', backbone=Net)"
    )
    assert done.stdout.splitlines() == [said, "False"]
    assert not (tmp_path / "harm").exists()
    assert un.load(tmp_path / "mine.safetensors", backbone=MyNet).card.backbone == "strange:Net"


WRONG = {  # a call -> the error
    "un.sample(model, n='3')": "n takes a whole number, got '3'",
    "un.sample(model, n=-1)": "n takes 1 or more, got -1",
    "un.sample(model, n=True)": "n takes a whole number, got True",
    "un.sample(model, steps=0)": "steps takes 1 or more, got 0",
    "un.sample(model, steps='ten')": "steps takes a whole number, got 'ten'",
    "un.sample(model, steps=5000)": "steps must be from 1 to 1000",
    "un.sample(model, precision='fp64')": "unknown value for precision 'fp64'",
    "un.sample(model, clip='no')": "clip takes true or false, got 'no'",
    "un.sample(model, seed=-1)": "seed takes 0 to",
    "un.sample(model, seed=0.5)": "seed takes a whole number, got 0.5",
    "un.sample(model, batch=0)": "batch takes 1 or more, got 0",
    "un.sample(model, guidance='high')": "guidance takes a number, got 'high'",
    "un.sample(model, guidance=-1)": "guidance takes 0 or more, got -1",
    "un.sample(model, guidance_interval='a')": "LOW-HIGH",
    "un.sample(model, sampler=3.5)": "sampler takes a text or a callable, got 3.5",
    "un.sample(model, sampler='ddin')": "did you mean 'ddim'?",
    "un.sample(model, sampler=partial(un.samplers.ddim, eta='x'))": "sampler ddim: eta takes a number, got 'x'",
    "un.sample(model, sampler=partial(un.samplers.ddim, etta=1))": "did you mean 'eta'?",
    "un.sample(model, spacing=1.5)": "spacing takes a text or a callable, got 1.5",
    "un.sample(model, label='cat')": "unknown label 'cat'",
    "un.sample(3)": "a run is a run folder, a model file, a Diffusion or the result of load, got 3",
    "un.load(None)": "got None",
    "un.load('nowhere')": "no run at nowhere",
    "un.save('mine.pt', model)": "a model is saved in a file NAME.safetensors, got 'mine.pt'",
    "un.train('faces', batch='many')": "batch takes a whole number, got 'many'",
    "un.train('faces', bach=3)": "did you mean 'batch'?",
    "un.train('faces', lr='fast')": "lr takes a number, got 'fast'",
    "un.train('faces', lr=float('nan'))": "lr takes a number, got nan",
    "un.train('faces', flip='yes')": "flip takes true or false, got 'yes'",
    "un.train('faces', decay='linear')": "unknown value for decay 'linear'",
    "un.train('faces', backbone=3.5)": "backbone takes a text or a callable, got 3.5",
    "un.train('faces', objective=[])": "objective takes a text or a callable, got []",
    "un.train('faces', epochs=0)": "epochs takes 1 to 1,000,000,000, got 0",
    "un.train('faces', recipe='notbook')": "did you mean 'notebook'?",
    "un.train('faces', recipe=3.5)": "recipe takes a text, got 3.5",
    "un.train('faces', init=model)": "init takes a text, got Diffusion(",
    "un.edit(model, task=0.5)": "task takes a text or a callable, got 0.5",
    "un.edit(model, n=100)": "n takes 1 to 64, got 100",
}

CALLS = """
import json, sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
import torch
import unnoise as un

class Net(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.layer = torch.nn.Conv2d(channels, channels, 1)
    def forward(self, x, time, label=None):
        return self.layer(x)

model, said = un.Diffusion(Net(3), un.schedules.cosine(), un.targets.v, (3, 8, 8)), {}
for call in json.loads(sys.argv[1]):
    try:
        eval(call)
        said[call] = ["nothing", ""]
    except Exception as error:
        said[call] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The error of each wrong call, in a process without the shape checks of the tests."""
    done = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps([*WRONG])],
        cwd=tmp_path_factory.mktemp("wrong"),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_value_gets_one_line(answers, call):
    kind, text = answers[call]
    assert kind == "InputError"
    assert WRONG[call] in text
    assert "\n" not in text


def test_importing_unnoise_is_instant():
    code = "import sys, unnoise; unnoise.__all__; print(sys.modules.keys() & {'torch', 'numpy', 'PIL', 'yaml'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_public_names():
    assert sorted(un.__all__) == sorted({*un.LAZY, "InputError", "SampleConfig", "TrainConfig", "train"})
    for name in un.__all__:
        assert getattr(un, name) is not None
    assert set(un.__all__) <= set(dir(un))
    assert (ROOT / "src" / "unnoise" / "py.typed").is_file()
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        un.trian  # noqa: B018


def test_the_documentation_names_what_is_public():
    """Every `unnoise.NAME` of the guides is there."""
    texts = [
        path.read_text("utf-8")
        for path in (ROOT / "README.md", *ROOT.glob("docs/guides/*"), *ROOT.glob("docs/*.md"))
        if path.suffix in (".md", ".py")
    ]
    named = {name for text in texts for name in re.findall(r"\b(?:un|unnoise)\.(\w+)\(", text)}
    assert named <= {*un.__all__}
