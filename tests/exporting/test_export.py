"""A run that is exported draws the same images without PyTorch."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import unnoise
from exporting_helpers import UNET, drawn_by_unnoise, untrained_run
from unnoise.config import Sampling
from unnoise.diffusion.target import decode
from unnoise.errors import InputError
from unnoise.exporting.description import describe_drawing, of_output
from unnoise.samplers.draw import seeded_noise

onnx = pytest.importorskip("onnx", reason="needs the extra `onnx`")
numpy_sampler = pytest.importorskip("unnoise.exporting.numpy_sampler", reason="needs the extra `onnx`")

DIFFUSERS = "unet2d:block_out_channels=8-16,down_block_types=DownBlock2D-AttnDownBlock2D"
DIFFUSERS += ",up_block_types=AttnUpBlock2D-UpBlock2D,layers_per_block=1,norm_num_groups=4"
BACKBONES = (
    UNET,
    "unet:widths=8-16,layers=1,groups=4,head=8,patch=2",
    "dit:width=32,depth=2,heads=2",
    DIFFUSERS,
)


def drawn_by_numpy(folder, out, *flags):
    """Run the script of an exported folder where nothing but numpy and onnxruntime can be imported."""
    only = "import sys; sys.modules.update(dict.fromkeys(('torch', 'PIL', 'unnoise', 'onnx'))); sys.argv = sys.argv[1:]"
    code = f"{only}; import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(folder / "sample.py"), "--out", str(out), *map(str, flags)]
    subprocess.run(command, check=True, capture_output=True)
    return [np.asarray(Image.open(path)).astype(int) for path in sorted(out.glob("*.png"))]


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 5, 2**62])
@pytest.mark.parametrize("count", [16, 17, 100, 768])
def test_the_noise_is_that_of_pytorch(seed, count):
    """Also the second draw of a seed, which goes on where the first one ended."""
    ours, theirs = numpy_sampler.Noise(seed), seeded_noise([seed])
    for _ in range(2):
        assert_close(torch.from_numpy(ours.normal(count)), theirs(torch.empty(1, count))[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("target", ["eps", "x0", "v", "flow"])
def test_two_numbers_decode_an_output(target):
    aim, table = unnoise.registry.target.get(target), unnoise.registry.schedule.get("cosine")()
    x, output = torch.randn(2, 4, 1, 2, 2, dtype=torch.float64)
    for time in (0.0, 3.5, 700.0, 999.0):
        level = table.level(time)
        of_x, of_out = of_output(level, aim)
        assert_close(of_x * x + of_out * output, decode(output, x, level, aim)[0])


def test_the_script_draws_the_images_of_unnoise_sample(tmp_path):
    """By the default sampler, which draws noise at each step and remembers the image before."""
    run = untrained_run(tmp_path / "run", target="x0", sampling=Sampling("dpmpp_2m_sde", 9, "log_snr"))
    said = []
    folder = unnoise.export(run, to="numpy", out=str(tmp_path / "out"), say=said.append)
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "sample.py"}
    assert "differs from PyTorch by" in said[0]
    expected = drawn_by_unnoise(run, tmp_path / "b", 5, seed=3)
    found = drawn_by_numpy(folder, tmp_path / "a", "-n", 5, "--seed", 3, "--batch", 2)
    assert len(found) == 5
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other).max() <= 1
    assert np.abs(found[0] - found[1]).max() > 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "shape"), [("L", (1, 8, 8)), ("LA", (2, 8, 8)), ("RGBA", (4, 8, 8)), ("I;16", (1, 8, 8))]
)
def test_images_of_all_modes_are_written(mode, shape, tmp_path):
    run = untrained_run(tmp_path / "run", mode=mode, shape=shape)
    folder = unnoise.export(run, to="numpy", out=str(tmp_path / "out"))
    expected = drawn_by_unnoise(run, tmp_path / "b", 2)
    for one, other in zip(drawn_by_numpy(folder, tmp_path / "a", "-n", 2), expected, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= (257 if mode == "I;16" else 1)


@pytest.mark.slow
def test_classes_and_guidance_are_exported(tmp_path):
    more = {"classes": ("cat", "dog"), "training": {"config": {"label_dropout": 0.1}}}
    guided = Sampling("ddim", 6, guidance=3.0, guidance_interval="0.2-5")
    run = untrained_run(tmp_path / "run", sampling=guided, **more)
    folder = unnoise.export(run, to="numpy", out=str(tmp_path / "out"))
    for name, flags, settings in (("turn", (), {}), ("dog", ("--label", "dog"), {"label": "dog"})):
        expected = drawn_by_unnoise(run, tmp_path / f"b-{name}", 3, **settings)
        for one, other in zip(drawn_by_numpy(folder, tmp_path / name, "-n", 3, *flags), expected, strict=True):
            assert np.abs(one - other).max() <= 1
    steps = json.loads(onnx.load(folder / "model.onnx").metadata_props[0].value)["steps"]
    assert {step["guided"] for step in steps} == {True, False}
    with pytest.raises(subprocess.CalledProcessError) as caught:
        drawn_by_numpy(folder, tmp_path / "no", "--label", "cow")
    assert "unknown label 'cow'; known: cat, dog" in caught.value.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("more", [{}, {"classes": ("a", "b")}, {"learned_variance": True}], ids=str)
def test_every_network_is_the_same_in_onnx(backbone, more, tmp_path):
    """For other numbers of images than were traced; the export compares, and refuses what differs by 1e-4."""
    import onnxruntime

    run = untrained_run(tmp_path / "run", backbone, shape=(3, 16, 16), **more)
    path = unnoise.export(run, to="onnx", out=str(tmp_path / "out")) / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["unnoise.card"])["backbone"] == backbone
    for n in (1, 4):
        x, time = torch.randn(n, 3, 16, 16), torch.rand(n) * 49
        label = torch.arange(n) % 3 - 1 if "classes" in more else None
        expected = run.model.backbone(x, time, label)[:, :3]
        feed = {"x": x.numpy(), "time": time.numpy(), **({"label": label.numpy()} if label is not None else {})}
        assert_close(torch.from_numpy(session.run(None, feed)[0]), expected, rtol=0, atol=1e-4)
        assert expected.std() > 0.01


@pytest.mark.slow
def test_half_precision_is_half_as_large_and_nearly_the_same(tmp_path):
    run = untrained_run(tmp_path / "run", "unet:widths=32-64,layers=1,groups=4,head=8")
    whole, half = (
        unnoise.export(run, to="onnx", precision=precision, out=str(tmp_path / precision)) / "model.onnx"
        for precision in ("fp32", "fp16")
    )
    assert half.stat().st_size < 0.7 * whole.stat().st_size


def test_what_cannot_be_exported_is_refused_before_there_is_a_folder(tmp_path):
    run = untrained_run(tmp_path / "run")
    with pytest.raises(InputError, match="sampler heun cannot be written as a table"):
        unnoise.export(run, to="numpy", sampler="heun", out=str(tmp_path / "out"))
    with pytest.raises(InputError, match="--steps is for --to onnx, numpy and web"):
        unnoise.export(run, to="diffusers", steps=3, out=str(tmp_path / "out"))
    with pytest.raises(InputError, match="--precision is for --to onnx, numpy and web"):
        unnoise.export(run, to="diffusers", precision="fp16", out=str(tmp_path / "out"))
    with pytest.raises(InputError, match="only in memory"):
        unnoise.export(unnoise.checkpoint.run_in_memory(run.model), to="onnx")
    assert not (tmp_path / "out").exists()


def test_a_file_that_differs_from_pytorch_is_never_written(tmp_path, monkeypatch):
    run = untrained_run(tmp_path / "run")
    monkeypatch.setattr("unnoise.exporting.onnx_file.ALLOWED", {"fp32": -1.0})
    with pytest.raises(InputError, match=r"differs from PyTorch by .*nothing was written"):
        unnoise.export(run, to="onnx", out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_student_is_described_by_its_own_steps(tmp_path):
    config = {"config": {"distill": "progressive", "steps": 2, "spacing": "trailing"}}
    run = untrained_run(tmp_path / "run", sampling=Sampling("ddim", 2, "trailing"), training=config)
    assert len(describe_drawing(run, run.card.sampling)["steps"]) == 2
