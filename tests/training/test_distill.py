"""A student learns from its teacher, resumes bit by bit, is a run like any other, and draws in its own steps alone."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import unnoise
from tiny import TINY, KilledError, assert_same, killed_at, smooth, train_folder
from unnoise import commands
from unnoise.card import describe_run
from unnoise.checkpoint import read_model, weights_hash, write_model
from unnoise.distillation.config import DistillConfig
from unnoise.distillation.progressive import progressive
from unnoise.errors import InputError
from unnoise.evaluation.doctor import OF_A_STUDENT
from unnoise.run_folder import MODEL, TEACHER
from unnoise.training.distill import student_config

pytestmark = pytest.mark.usefixtures("unchecked")
FAST = {"steps": 2, "images": "48"}


@pytest.fixture
def teacher(gray):
    """A run of 20 images of 8 x 8, which sees 80."""
    return unnoise.load(train_folder(gray, out="teacher", **TINY | {"images": "80"}))


def test_a_student_is_a_run_that_draws_in_its_steps(teacher):
    student = unnoise.distill(teacher, out="student", **FAST)
    card = student.card
    assert (card.sampling.sampler, card.sampling.steps, card.sampling.spacing) == ("ddim", 2, "trailing")
    assert card.backbone == teacher.card.backbone
    assert card.training["config"]["distill"] == "progressive"
    assert card.training["distilled"] == {"name": "teacher", "weights": weights_hash(teacher)}
    assert f"distilled from teacher, sha256 {weights_hash(teacher)[:16]}" in describe_run(student)
    assert unnoise.sample(student, 3).shape == (3, 1, 8, 8)
    assert Path("student", TEACHER).exists()
    assert Path("student", "samples", "final.png").exists()


def test_a_student_comes_nearer_to_its_teacher(teacher):
    """The images of the same seeds: after the distillation they are nearer to those of many steps than before."""
    wanted = unnoise.sample(teacher, 32, sampler="dpmpp_2m", steps=40, spacing="log_snr")
    before = unnoise.sample(teacher, 32, sampler="ddim", steps=1, spacing="trailing")
    student = unnoise.distill(teacher, steps=1, images="2000", lr=3e-3, method="progressive:calls=20")
    after = unnoise.sample(student, 32)
    assert (after - wanted).square().mean() < 0.5 * (before - wanted).square().mean()


def test_a_distillation_that_was_killed_ends_as_one_that_was_not(teacher, often):
    whole = unnoise.distill(teacher, out="whole", **FAST)
    for steps in (2, 1):
        with pytest.raises(KilledError):
            unnoise.distill(teacher, out="torn", monitors=killed_at(steps), **FAST)
    resumed = unnoise.distill(teacher, out="torn", **FAST)
    assert_same(Path(whole), Path(resumed))
    assert resumed.card.training["distilled"] == whole.card.training["distilled"]


def test_a_resumed_student_learns_from_its_own_copy_of_the_teacher(teacher, often):
    whole = unnoise.distill(teacher, out="whole", **FAST)
    with pytest.raises(KilledError):
        unnoise.distill(teacher, out="torn", monitors=killed_at(2), **FAST)
    other = unnoise.load(teacher).model.backbone.state_dict()
    write_model(teacher.file, {name: 0 * p for name, p in other.items()}, teacher.card)
    assert_same(Path(whole), Path(unnoise.distill(teacher, out="torn", **FAST)))


def test_a_copy_that_is_missing_is_named(teacher, often):
    with pytest.raises(KilledError):
        unnoise.distill(teacher, out="torn", monitors=killed_at(2), **FAST)
    Path("torn", TEACHER).unlink()
    with pytest.raises(InputError, match=f"has no {TEACHER}, from which this run learns; --fresh starts over"):
        unnoise.distill(teacher, out="torn", **FAST)


def test_a_student_teaches_a_student_of_fewer_steps(teacher):
    student = unnoise.distill(teacher, steps=4, images="16")
    own = unnoise.distill(student, steps=2, images="16")
    assert own.card.taught == (2, "trailing")
    with pytest.raises(InputError, match=r"is a student of 4 steps: its own student may take 1 or 2, got 3"):
        unnoise.distill(student, steps=3, images="16")
    with pytest.raises(InputError, match=r"is a student of 4 steps: its own student may take 1 or 2, got 4"):
        unnoise.distill(student, steps=4, images="16")


def test_a_student_draws_in_no_other_steps(teacher):
    student = unnoise.distill(teacher, **FAST)
    with pytest.raises(
        InputError, match="taught 2 steps of ddim at trailing levels and knows no others: got 8 of ddim at"
    ):
        unnoise.sample(student, 1, steps=8)
    with pytest.raises(InputError, match="got 2 of ddim at log_snr"):
        unnoise.sample(student, 1, spacing="log_snr")
    with pytest.raises(InputError, match="got 2 of ddpm at trailing"):
        unnoise.sample(student, 1, sampler="ddpm")
    with pytest.raises(InputError, match="was taught its 2 steps and no others; there is nothing to tune"):
        commands.tune({"run": str(Path(student))})
    with pytest.raises(InputError, match="bits per dimension need all noise levels"):
        unnoise.evaluate(student, metrics="bpd")
    with pytest.raises(InputError, match=r"--guide-with .*: it was taught 2 steps at trailing levels and no others"):
        unnoise.sample(teacher, 1, guidance=2.0, guide_with=student)


def test_a_student_edits_no_image_and_names_the_run_that_does(teacher):
    student, image = unnoise.distill(teacher, out="student", **FAST), torch.zeros(1, 8, 8)
    with pytest.raises(InputError, match=rf"taught to draw in 2 steps.*takes many; edit it by student/{TEACHER}"):
        unnoise.edit(student, image, n=2)
    assert unnoise.edit(student.teacher, image, n=2).shape == (2, 1, 8, 8)
    assert unnoise.edit(student, task="interpolate", n=2).shape == (2, 1, 8, 8)
    student.teacher.unlink()
    with pytest.raises(InputError, match="edit it by the run that it learned from"):
        unnoise.edit(student, image, n=2)


def test_a_disk_that_is_full_before_the_teacher_is_kept_leaves_a_folder_to_start_in(teacher, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("unnoise.training.teaching.write_model", full)
        with pytest.raises(OSError, match="No space"):
            unnoise.distill(teacher, out="torn", **FAST)
    assert not Path("torn", TEACHER).exists()
    whole = unnoise.distill(teacher, out="whole", **FAST)
    assert_same(Path(whole), Path(unnoise.distill(teacher, out="torn", **FAST)))


def test_a_teacher_that_gives_no_numbers_leaves_a_student_without_them(teacher, monkeypatch):
    """The distillation stops with a diagnosis, and its files have the last good weights."""
    monkeypatch.setattr("unnoise.training.loop.PATIENCE", 3)
    good = iter([True, True])

    def broken(teacher, batch):
        learned = progressive(teacher, batch)
        return learned if next(good, False) else learned._replace(x0=math.nan * learned.x0)

    with pytest.raises(InputError, match="not finite"):
        unnoise.distill(teacher, out="student", method=broken, **FAST | {"images": "800"})
    assert all(tensor.isfinite().all() for tensor in unnoise.load("student").model.backbone.state_dict().values())
    card, weights = read_model(teacher.file)
    write_model(teacher.file, {name: math.nan * tensor for name, tensor in weights.items()}, card)
    with pytest.raises(InputError, match="are not finite"):
        unnoise.distill("teacher", out="other", **FAST)
    assert not Path("other").exists()


def test_what_cannot_teach_is_refused_before_there_is_a_folder(gray, teacher, tmp_path):
    noise = train_folder(gray, out="eps", **TINY | {"images": "8", "target": "eps", "objective": "simple"})
    with pytest.raises(InputError, match="predicts the noise, which says nothing of the image"):
        unnoise.distill(noise, out="student", **FAST)
    with pytest.raises(InputError, match="from 1 to 1000"):
        unnoise.distill(teacher, out="student", steps=1001, images="16")
    with pytest.raises(InputError, match=r"unknown distillation 'progresive'.*progressive"):
        unnoise.distill(teacher, out="student", method="progresive", **FAST)
    with pytest.raises(InputError, match="--distill learns from a run: name it by --init RUN"):
        unnoise.train(gray, out="student", distill="progressive", steps=2, sampler="ddim")
    with pytest.raises(InputError, match="--distill teaches steps of ddim: give --sampler ddim"):
        unnoise.train(gray, out="student", distill="progressive", init=str(Path(teacher)))
    bare = tmp_path / "bare.safetensors"
    unnoise.save(bare, teacher.model)
    with pytest.raises(InputError, match="does not say what it was trained on; name images with --data"):
        unnoise.distill(bare, out="student", **FAST)
    assert not Path("student").exists()


def test_a_model_file_alone_teaches_with_images_that_are_named(gray, teacher, tmp_path):
    bare = tmp_path / "bare.safetensors"
    unnoise.save(bare, teacher.model)
    assert unnoise.distill(bare, data=gray, **FAST).card.taught == (2, "trailing")


def test_classes_and_guidance_are_distilled_too(tmp_path, monkeypatch):
    """The student draws the classes, and what guidance does is in its weights."""
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("two.npz", images=rng.integers(0, 256, (20, 8, 8), dtype=np.uint8), labels=np.array(["a", "b"] * 10))
    folder = train_folder("two.npz", out="teacher", **TINY | {"images": "40", "classes": True})
    student = unnoise.distill(folder, **FAST)
    assert student.card.classes == ("a", "b")
    assert unnoise.sample(student, 2, label="b").isfinite().all()
    with pytest.raises(InputError, match="also saw images without their class"):
        unnoise.sample(student, 2, guidance=2.0)
    card, weights = read_model(folder / MODEL)
    write_model(folder / MODEL, weights, replace(card, sampling=replace(card.sampling, guidance=8.0)))
    guided = unnoise.distill(folder, **FAST)
    assert guided.card.sampling.guidance == 1
    assert not torch.equal(unnoise.sample(guided, 2), unnoise.sample(student, 2))


def test_the_doctor_asks_a_student_for_no_other_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    np.save("many.npy", smooth(240, 16, seed=0))
    folder = train_folder("many.npy", out="teacher", **TINY | {"images": "16", "held_out": 110})
    found = unnoise.doctor(unnoise.distill(folder, **FAST), n=100)
    assert "steps" not in {finding["fault"] for finding in found.findings}
    advice = {finding["fault"]: finding["advice"] for finding in found.findings}
    assert advice["training"] == OF_A_STUDENT
    assert not any("train longer" in text or "more --steps, or" in text for text in advice.values())


def test_the_settings_of_a_student_are_those_of_its_images_and_of_its_teacher(teacher):
    config = student_config(DistillConfig(str(Path(teacher)), 2), teacher)
    then = teacher.card.training["config"]
    assert (config.data, config.fit, config.held_out) == (then["data"], then["fit"], then["held_out"])
    assert (config.backbone, config.schedule, config.target) == (then["backbone"], then["schedule"], then["target"])
    assert (config.budget, config.images, config.objective) == ("20m", None, "distance")
    assert config.clip == teacher.card.sampling.clip


def test_the_command_prints_the_scores_of_both(teacher, capsys, monkeypatch):
    seen = list[tuple[str, int | None]]()
    monkeypatch.setattr(
        "unnoise.training.distill.run_evaluation", lambda config, *_: seen.append((config.set, config.steps))
    )
    assert commands.distill({"run": "teacher", "out": "student", **FAST, "n": 10}) == 0
    assert seen == [("teacher", 2), ("teacher", None), ("student", None)]
    assert "teacher" in capsys.readouterr().out
    assert commands.distill({"run": "student", "out": "own", **FAST, "steps": 1, "n": 10}) == 0
    assert seen[3:] == [("student", None), ("own", None)]  # a student draws in one way
    with pytest.raises(InputError, match="n is of the command"):
        unnoise.distill(teacher, n=10, **FAST)
