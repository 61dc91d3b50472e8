"""Edits, against closed-form posteriors and by what must stay as it is."""

import io
import itertools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.testing import assert_close

import unnoise
from tiny import train_folder
from unnoise import registry
from unnoise.config import Sampling
from unnoise.diffusion.model import Diffusion
from unnoise.editing.inputs import Edit, EditInputs
from unnoise.editing.interpolation import interpolate_noise, slerp
from unnoise.editing.measurements import Blurred, Gray, Pixels, Shrunk
from unnoise.editing.posterior import Known, keeping, pigdm, pulled, repaint, replace
from unnoise.errors import InputError
from unnoise.images import save_gif
from unnoise.samplers.base import Step
from unnoise.samplers.ddim import ddim, invert
from unnoise.samplers.draw import seeded_noise
from worlds import Correlated, Gaussian

SCHEDULE = registry.schedule.get("cosine")()
KNOWN = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
KNOWN[..., :5] = True
MEASUREMENTS = {"pixels": Pixels(KNOWN), "gray": Gray(), "shrunk": Shrunk(4), "blurred": Blurred(1.5)}


@pytest.fixture(params=MEASUREMENTS)
def measure(request):
    return MEASUREMENTS[request.param]


def test_inverses_are_those_of_moore_and_penrose(measure, float64):
    """A A+ A = A and A+ A A+ = A+, with A A+ and A+ A symmetric."""
    x, z = torch.randn(2, 1, 3, 8, 8)
    y, y2 = measure(x), torch.randn_like(measure(x))
    assert_close(measure(measure.inverse(y)), y)
    assert_close(measure.inverse(measure(measure.inverse(y2))), measure.inverse(y2))
    assert_close((z * measure.inverse(measure(x))).sum(), (x * measure.inverse(measure(z))).sum())
    assert_close((y2 * measure(measure.inverse(y))).sum(), (y * measure(measure.inverse(y2))).sum())


def test_blur_is_that_of_scipy(float64):
    """With mirrored edges, of an image that has nothing in the frequencies that count as not measured."""
    smooth = gaussian_filter(np.random.default_rng(0).normal(size=(48, 64)), 3, mode="reflect")
    for sigma in (1.0, 2.0):
        expected = gaussian_filter(smooth, sigma, mode="reflect", truncate=8)
        blurred = Blurred(sigma)(torch.from_numpy(smooth)[None, None])[0, 0].numpy()
        assert np.abs(blurred - expected).max() < 1e-3 * np.abs(smooth).max()


def test_what_is_known_is_kept_and_nothing_else_is_touched(measure):
    x, y = torch.randn(4, 3, 8, 8), measure(torch.randn(1, 3, 8, 8))
    kept = Known(measure, y).keep(x)
    assert_close(measure(kept), measure(measure.inverse(y)).expand_as(measure(kept)), atol=1e-5, rtol=0)
    assert_close(kept - x, measure.inverse(measure(kept - x)), atol=1e-5, rtol=0)  # all of it lies in the range of A+


def posterior_of(world, known, x_t, level):
    """E[x0 | x_t, y] of independent pixels of one deviation: two linear measurements of a Gaussian."""
    prior = world(x_t, level).x0
    return prior + known.surprise(prior)


@pytest.mark.parametrize("std", [0.3, 1.0])
def test_guidance_by_the_pseudoinverse_is_exact_for_gaussians(measure, std, float64):
    world = Gaussian(torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), std))
    known = Known(measure, measure(torch.randn(1, 3, 8, 8)))
    for time in (10, 500, 990):
        level = SCHEDULE.level(time)
        x_t = world.draw(4, level)
        predicted = pulled(world, known, std)(x_t, level)
        assert_close(predicted.x0, posterior_of(world, known, x_t, level), atol=1e-8, rtol=0)
        assert_close(level.alpha * predicted.x0 + level.sigma * predicted.eps, x_t)


@pytest.mark.parametrize("method", [replace, repaint, pigdm])
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_2m_sde"])
def test_samples_are_those_of_the_gaussian_posterior(method, sampler, measure, float64):
    """Mean A+ y + (1 - A+ A) mean, and the world's own variance where nothing is known."""
    world = Gaussian(torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.5))
    known, n = Known(measure, measure(0.5 * torch.randn(1, 3, 8, 8))), 400
    levels = SCHEDULE.grid(40, "log_snr")
    options = {"resamplings": 2} if method is repaint else {}
    start = torch.randn(n, 3, 8, 8)
    for step in method(registry.sampler.get(sampler), known, **options)(
        world, start, levels, randn_like=torch.randn_like
    ):
        x = step.x
    mean = known.keep(world.mean[None])
    assert_close(x.mean(dim=0), mean[0], atol=0.12, rtol=0)
    free = x - known.keep(torch.zeros_like(x) + world.mean)  # what is left to chance
    share = (
        1
        - torch.stack([measure.inverse(measure(e)) for e in torch.eye(192).view(192, 1, 3, 8, 8)])
        .view(192, 192)
        .trace()
        / 192
    )
    assert_close(free.square().mean(), 0.25 * share, atol=0.02, rtol=0.05)


def test_repaint_makes_the_rest_agree_where_replacement_does_not(float64):
    """Two pixels of correlation 0.9, one known: the other is N(0.9 y, 1 - 0.81)."""
    world = Correlated(torch.zeros(1, 1, 2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
    known = Known(Pixels(torch.tensor([[[[True, False]]]])), torch.tensor([[[[1.5, 0.0]]]]))
    levels, start = SCHEDULE.grid(50, "log_snr"), torch.randn(4000, 1, 1, 2)
    found = {}
    for name, method in (("replace", replace), ("repaint", lambda s, k: repaint(s, k, resamplings=10, jump=5))):
        for step in method(registry.sampler.get("ddpm"), known)(world, start, levels, randn_like=torch.randn_like):
            x = step.x
        assert_close(x[..., 0], torch.full_like(x[..., 0], 1.5))
        found[name] = float(x[..., 1].mean()) - 0.9 * 1.5
    assert abs(found["repaint"]) < 0.06
    assert abs(found["replace"]) > 3 * abs(found["repaint"])
    assert float(x[..., 1].var()) == pytest.approx(0.19, abs=0.04)


def test_the_ways_between_begin_and_end_where_they_should():
    first, last = (seeded_noise([seed]) for seed in (3, 9))
    x = interpolate_noise(first, last, 5)(torch.empty(5, 1, 8, 8))
    assert_close(x[:1], seeded_noise([3])(x[:1]))
    assert_close(x[-1:], seeded_noise([9])(x[:1]))
    assert x.var(dim=(1, 2, 3)).mean() == pytest.approx(1, abs=0.2)
    a, b = torch.randn(2, 1, 1, 8, 8)
    way = slerp(a, b, torch.linspace(0, 1, 5))
    assert_close(way[:1], a)
    assert_close(way[-1:], b)
    angles = [torch.arccos((p * q).sum() / (p.norm() * q.norm())) for p, q in itertools.pairwise(way)]
    assert max(angles) - min(angles) < 0.05  # an even pace
    assert_close(slerp(a, 2 * a, torch.tensor([0.5])), 1.5 * a)


# With a run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_folder(
        "faces:count=64",
        size="16",
        images="64",
        batch=8,
        steps=4,
        backbone="unet:widths=8,layers=1,groups=4,head=8",
        precision="fp32",
        out=str(tmp_path_factory.mktemp("edit") / "run"),
    )


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(path := tmp_path / "picture.png")
    return path


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def tensor_of(image):
    return torch.from_numpy(np.atleast_3d(np.array(image))).permute(2, 0, 1) / 127.5 - 1


def test_known_pixels_are_identical_in_the_files(run, picture, tmp_path):
    mask = np.zeros((16, 16), np.uint8)
    mask[4:9, 6:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    given = pixels(picture)
    for by in registry.posterior.names():
        out = tmp_path / by
        assert unnoise_cli("edit", run, picture, "--task", "inpaint", "--mask", tmp_path / "mask.png", "--by", by,
                           "-n", 2, "--out", out) == 0  # fmt: skip
        for name in ("000000.png", "000001.png"):
            made = pixels(out / name)
            assert (made[mask == 0] == given[mask == 0]).all()
            assert (made[mask > 0] != given[mask > 0]).any()
        assert pixels(tmp_path / f"{by}-grid.png").shape[1] > 16


def test_what_is_transparent_is_filled_in(run, picture, tmp_path):
    image = Image.fromarray(pixels(picture)).convert("RGBA")
    image.putalpha(Image.fromarray(np.where(np.arange(16) < 8, 255, 0).astype(np.uint8)[None].repeat(16, 0)))
    image.save(tmp_path / "half.png")
    made = unnoise.edit(run, tmp_path / "half.png", task="inpaint", n=1)
    original = tensor_of(pixels(picture))
    assert_close(made[0, ..., :8], original[..., :8], atol=1e-5, rtol=0)
    assert (made[0, ..., 8:] - original[..., 8:]).abs().mean() > 0.05


@pytest.mark.parametrize("task", ["colorize", "enlarge:factor=2", "deblur:sigma=1"])
def test_measured_parts_stay(run, picture, task):
    """What is measured of the result is what was given, for in-range values as exactly as floats allow."""
    measure = {"colorize": Gray(), "enlarge:factor=2": Shrunk(2), "deblur:sigma=1": Blurred(1)}[task]
    made = unnoise.edit(run, picture, task=task, n=2, by="replace")
    image = Image.fromarray(pixels(picture))
    if task.startswith("colorize"):
        image = image.convert("L")
    elif task.startswith("enlarge"):
        image = image.resize((8, 8), Image.Resampling.BILINEAR)
    y = tensor_of(image)[None]
    assert_close(measure(made), measure(measure.inverse(y)).expand(2, -1, -1, -1), atol=1e-4, rtol=0)


class Echo(nn.Module):
    """Believes that every image is clean."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, time, label=None):
        return self.weight * x


def test_a_little_noise_leaves_the_picture_and_all_of_it_makes_a_new_one(picture):
    model = Diffusion(Echo(), SCHEDULE, registry.target.get("x0"), (3, 16, 16))
    work, given = EditInputs(model, Sampling(), "RGB", range(4), images=(picture,)), tensor_of(pixels(picture))
    with torch.no_grad():
        near, far = (
            ([*registry.edit.get(f"vary:strength={strength}")(work).steps][-1].x - given).abs().mean()
            for strength in (0.01, 1.0)
        )
    assert near < 0.1
    assert far > 0.3


def test_interpolation_ends_in_the_pictures_of_the_two_seeds(run):
    way = unnoise.edit(run, seed=3, task="interpolate:to=7", n=5)
    assert_close(way[:1], unnoise.sample(run, 1, seed=3), atol=1e-4, rtol=0)
    assert_close(way[-1:], unnoise.sample(run, 1, seed=7), atol=1e-4, rtol=0)
    apart = [(a - b).square().mean() for a, b in itertools.pairwise(way)]
    assert max(apart) < (way[0] - way[-1]).square().mean()


def test_morphs_end_in_the_pictures_in_a_gaussian_world(float64):
    """DDIM forth and back is exact where the fixed point is found."""
    world = Gaussian(torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.5))
    levels, x = SCHEDULE.grid(50, "log_snr")[1:], torch.randn(2, 3, 8, 8)
    *_, noise = invert(world, x, levels, iterations=60)
    *_, back = ddim(world, noise.x, levels)
    assert_close(back.x, x, atol=1e-6, rtol=0)


def test_a_morph_ends_in_the_two_pictures(picture):
    """With a network that finds what a Gaussian world has, so that the way back is known."""
    world, pictures = Gaussian(torch.zeros(3, 16, 16), torch.full((3, 16, 16), 0.5)), torch.rand(2, 3, 16, 16) - 0.5
    model = Diffusion(Echo(), SCHEDULE, registry.target.get("x0"), (3, 16, 16))
    how = Sampling(steps=100)
    work = EditInputs(model, how, "RGB", range(5), images=tuple(pictures))
    object.__setattr__(work, "denoise", lambda count=0: world)
    *_, last = registry.edit.get("morph:iterations=20")(work).steps
    assert_close(last.x[[0, -1]], pictures, atol=1e-2, rtol=0)
    assert (last.x[2] - pictures).abs().mean(dim=(1, 2, 3)).min() > 0.05  # another one


def test_a_morph_is_a_film(run, picture, tmp_path):
    Image.fromarray(pixels(picture)).rotate(90).save(tmp_path / "other.png")
    given = ("edit", run, picture, tmp_path / "other.png", "--task", "morph", "-n", 5, "--out", tmp_path / "way")
    assert unnoise_cli(*given) == 0
    assert sorted(path.name for path in (tmp_path / "way").iterdir()) == [f"{i:06d}.png" for i in range(5)]
    with Image.open(tmp_path / "way.gif") as made:
        assert made.size == (80, 80)
    before = (tmp_path / "way.gif").read_bytes()
    shutil.rmtree(tmp_path / "way")
    assert unnoise_cli(*given) == 2  # what lies there is not written over
    assert (tmp_path / "way.gif").read_bytes() == before


def test_the_way_between_equal_noises_is_that_noise():
    for seed in range(50):
        noise = seeded_noise([seed])(torch.empty(1, 3, 16, 16))
        assert_close(slerp(noise, noise, torch.tensor([0.0, 0.5, 1.0])), noise.expand(3, -1, -1, -1), atol=1e-3, rtol=0)


def test_where_nothing_is_left_of_the_picture_what_is_known_is_kept():
    """A schedule that ends in pure noise: no division by zero, whatever the way."""
    world, known = Gaussian(torch.zeros(3, 8, 8), torch.ones(3, 8, 8)), Known(Gray(), torch.zeros(1, 1, 8, 8))
    levels = registry.schedule.get("flow")().grid(20, "trailing")
    assert levels[0].alpha == 0
    for method in (replace, repaint, pigdm):
        *_, last = method(registry.sampler.get("dpmpp_2m"), known)(
            world, torch.randn(8, 3, 8, 8), levels, randn_like=torch.randn_like
        )
        assert last.x.isfinite().all()
        assert_close(Gray()(last.x), torch.zeros(8, 1, 8, 8), atol=1e-5, rtol=0)


def test_a_mask_may_be_transparent_where_nothing_is_hidden(run, picture, tmp_path):
    mask = np.zeros((16, 16, 4), np.uint8)
    mask[4:9, 6:12] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    made = unnoise.edit(run, picture, mask=tmp_path / "mask.png", task="inpaint", n=1)
    changed = (made[0] - tensor_of(pixels(picture))).abs().amax(dim=0) > 1e-4
    assert 25 <= changed.sum() <= 30
    assert not changed[:4].any()


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory):
    return train_folder("faces:count=64", size="16", images="64", batch=8, steps=4, classes=True, precision="fp32",
                         backbone="unet:widths=8,layers=1,groups=4,head=8",
                         out=str(tmp_path_factory.mktemp("edit") / "classes"))  # fmt: skip


def test_edits_follow_a_class_where_one_is_named(of_classes, picture):
    free = unnoise.edit(of_classes, picture, n=1)
    crown = unnoise.edit(of_classes, picture, n=1, label="crown")
    more = unnoise.edit(of_classes, picture, n=1, label="crown", guidance=4.0)
    assert (free - crown).abs().max() > 0
    assert (more - crown).abs().max() > 0
    with pytest.raises(InputError, match="name it by --label"):
        unnoise.edit(of_classes, picture, guidance=4.0)
    with pytest.raises(InputError, match="a class; name it"):
        unnoise.edit(of_classes, task="interpolate:to=4")
    way = unnoise.edit(of_classes, task="interpolate:to=4", label="cap", n=3)
    assert_close(way[-1:], unnoise.sample(of_classes, 1, seed=4, label="cap"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_pictures_of_other_kinds_are_edited(mode, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    chance = np.random.default_rng(0)
    for i in range(20):
        deep = chance.integers(0, 65536, (12, 20), np.uint16)
        image = Image.fromarray(deep) if mode == "I;16" else Image.fromarray((deep >> 8).astype(np.uint8)).convert(mode)
        image.save(tmp_path / "data" / f"{i}.png")
    run = train_folder(tmp_path / "data", images="16", batch=8, steps=3, precision="fp32", out=str(tmp_path / "run"),
                        backbone="unet:widths=8,layers=1,groups=4,head=8")  # fmt: skip
    for task, by in (("vary", None), ("deblur:sigma=1", "pigdm"), ("enlarge:factor=2", "repaint")):
        made = unnoise.edit(run, tmp_path / "data" / "3.png", task=task, by=by, n=2)
        assert made.shape[2:] == (12, 20)
        assert made.isfinite().all()
    assert unnoise_cli("edit", run, tmp_path / "data" / "3.png", "--out", tmp_path / "out", "-n", 1) == 0
    with Image.open(tmp_path / "out" / "000000.png") as image:
        assert image.mode == mode


def test_a_film_goes_there_and_back(tmp_path):
    save_gif([*torch.linspace(-1, 1, 5).view(5, 1, 1, 1, 1).expand(5, 1, 3, 8, 8)], tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as made:
        shades = [made.seek(i) or made.convert("L").getpixel((40, 40)) for i in range(made.n_frames)]
    assert len(shades) == 8
    assert shades[:5] == sorted(shades[:5])
    assert shades[5:] == shades[3:0:-1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"task": "paint"}, "did you mean 'inpaint'"),
        ({"task": "enlarge:factor=3"}, "divides 16 and 16, got 3"),
        ({"task": "enlarge", "by": "replce"}, "did you mean 'replace'"),
        ({"task": "inpaint"}, "nothing is to be filled in"),
        ({"task": "vary:strength=0"}, "strength is above 0"),
        ({"task": "deblur:sigma=-1"}, "sigma is above 0"),
        ({"task": "morph"}, "takes 2 images, got 1"),
        ({"task": "interpolate"}, "takes no images, got 1"),
        ({"task": "vary", "by": "pigdm"}, "vary keeps none"),
        ({"task": "vary", "mask": torch.zeros(1, 16, 16)}, "--mask is for inpaint"),
        ({"label": "crown"}, "unknown label"),
        ({"out": "x"}, "unknown setting"),
        ({"task": "vary", "clip": True, "n": 65}, "n takes 1 to 64"),
        ({"n": 0}, "n takes 1 to 64"),
        ({"stepps": 3}, "did you mean 'steps'"),
        ({"by": "repaint:jump=0", "task": "deblur"}, "jump takes 1 or more"),
        ({"by": "pigdm:std=0", "task": "deblur"}, "std is above 0"),
        ({"by": "pigdm:std=inf", "task": "deblur"}, "and finite"),
    ],
)
def test_what_cannot_be_is_refused(run, picture, settings, said):
    with pytest.raises(InputError, match=said):
        unnoise.edit(run, picture, **settings)


def test_bad_pictures_are_refused(run, tmp_path, picture):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be read"):
        unnoise.edit(run, tmp_path / "bad.png")
    with pytest.raises(InputError, match="cannot be read: missing"):
        unnoise.edit(run, tmp_path / "none.png")
    with pytest.raises(InputError, match="takes 1 image, got 0"):
        unnoise.edit(run)
    with pytest.raises(InputError, match="another seed than 4"):
        unnoise.edit(run, seed=4, task="interpolate:to=4")
    with pytest.raises(InputError, match="interpolate takes none"):
        unnoise.edit(run, task="interpolate", fit="pad")
    cut = Image.open(io.BytesIO(picture.read_bytes()[:-300]))
    with pytest.raises(InputError, match="cannot be read"):
        unnoise.edit(run, cut)
    with pytest.raises(InputError, match=r"of \(3, 16, 16\), got \(3, 8, 8\)"):
        unnoise.edit(run, torch.zeros(3, 8, 8))


def test_an_edit_that_says_nothing_of_itself_is_let_be(run, picture):
    def as_it_is(work):
        return Edit(work.image(), iter([Step(work.image(), work.image(), work.levels[-1])]))

    registry.edit.names()
    registry.edit(as_it_is)
    try:
        assert_close(unnoise.edit(run, picture, task="as_it_is", n=1)[0], tensor_of(pixels(picture)))
    finally:
        del registry.edit.entries["as_it_is"]


def test_a_morph_takes_no_sampler(run, picture):
    for settings in ({"sampler": "heun"}, {"clip": True}, {"seed": 3}):
        with pytest.raises(InputError, match="inverts and samples by ddim"):
            unnoise.edit(run, picture, picture, task="morph", **settings)


def test_the_folder_may_be_the_one_one_is_in(run, picture, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert unnoise_cli("edit", run, picture, "-n", 1, "--out", ".") == 0
    assert (tmp_path / "here-grid.png").exists()


def unnoise_cli(*arguments):
    from unnoise.cli import main

    return main([str(argument) for argument in arguments])


def test_predictions_that_are_kept_are_consistent(measure):
    world = Gaussian(torch.zeros(3, 8, 8), torch.ones(3, 8, 8))
    level, x_t = SCHEDULE.level(300), torch.randn(2, 3, 8, 8)
    predicted = keeping(world, Known(measure, measure(torch.randn(1, 3, 8, 8))))(x_t, level)
    assert_close((level.alpha * predicted.x0 + level.sigma * predicted.eps).float(), x_t, atol=1e-4, rtol=0)
