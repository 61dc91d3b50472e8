"""Every registered sampler keeps the contract and solves closed-form worlds; the known ones agree with others'."""

import inspect
import math
from collections.abc import Iterator
from itertools import pairwise, product
from typing import Literal, get_args, get_origin

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from torch import nn
from torch.testing import assert_close

from unnoise import registry
from unnoise.backbones.unet import UNet
from unnoise.config import Sampling
from unnoise.diffusion.level import CLEAN, Level
from unnoise.diffusion.model import Diffusion, Prediction, clip_x0
from unnoise.diffusion.schedule import Levels
from unnoise.diffusion.target import check
from unnoise.errors import InputError
from unnoise.options import format_value, options_of
from unnoise.samplers import dpm_solver
from unnoise.samplers.base import Step
from unnoise.samplers.ddim import invert
from unnoise.samplers.draw import draw, seeded_noise
from unnoise.samplers.precision import choose_precision, describe_precision
from unnoise.types import RandnLike
from worlds import Gaussian, Points

SHAPE = (3, 8, 8)


def sampler_specs():
    """Each registered sampler by its defaults, and with each other value of its options that have a few."""
    specs = ["ddim:eta=1", "euler:churn=4", "heun:churn=4"]  # a number has no few values: these are other ends
    for name in registry.sampler.names():
        specs.append(name)
        for key, (hint, default) in options_of(registry.sampler.entries[name]).items():
            values = get_args(hint) if get_origin(hint) is Literal else (False, True) if hint is bool else ()
            specs += [f"{name}:{key}={format_value(value)}" for value in values if value != default]
    return sorted(specs)


SAMPLERS = sampler_specs()
SCHEDULES, SPACINGS, TARGETS = registry.schedule.names(), registry.spacing.names(), registry.target.names()


class Toy(nn.Module):
    """A network too small to be good: smooth, bounded, different at each time."""

    def __init__(self, channels=SHAPE[0], outputs=SHAPE[0]):
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, outputs, 3, padding=1)

    def forward(self, x, time, label=None):
        phase = (time[:, None] / 100 + torch.arange(8)).sin()[:, :, None, None]
        return self.last(torch.tanh(self.first(x) + phase))


class Theirs(nn.Module):
    """A network of diffusers as our backbone."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, time, label=None):
        return self.net(x, time).sample


def schedule(spec):
    return registry.schedule.get(spec)()


def diffusion(target="x0", scheduled="linear", backbone=None):
    return Diffusion(backbone or Toy(), schedule(scheduled), registry.target.get(target), SHAPE).requires_grad_(False)


def steps_of(spec, denoise, x, levels, randn_like=torch.randn_like):
    return list(registry.sampler.get(spec)(denoise, x, levels, randn_like=randn_like))


def replay(noises):
    """A noise source that gives these tensors, one after the other."""
    queue = iter(noises)
    return lambda _: next(queue)


def agree(ours, theirs, atol):
    """Largest difference of two lists of states, in units of the largest value (but at least 1)."""
    ours, theirs = torch.stack(list(ours)).double(), torch.stack(list(theirs)).double()
    scale = max(1.0, theirs.abs().max().item())
    assert_close(ours / scale, theirs / scale, rtol=0, atol=atol)


# The contract


def check_contract(spec, scheduled, spaced, target):
    try:
        check(registry.target.get(target), schedule(scheduled))
    except InputError:
        return  # a senseless pair; test_process has which
    model, calls = diffusion(target, scheduled, Toy(outputs=2 * SHAPE[0])), 0  # with a learned variance

    def counted(x_t, level):
        nonlocal calls
        calls += 1
        return model(x_t, level)

    levels, start = model.schedule.grid(4, spaced), torch.randn(2, *SHAPE)
    given, rng = start.clone(), torch.get_rng_state()
    steps = registry.sampler.get(spec)(counted, given, levels, randn_like=seeded_noise([0, 1]))
    assert isinstance(steps, Iterator)
    done, calls_for_first = [next(steps)], calls
    done += list(steps)
    assert 0 < calls_for_first < calls, "steps are computed as they are asked for"
    assert [step.level for step in done] == [*levels[1:]]
    assert done[-1].level.sigma == 0
    for step in done:
        assert isinstance(step, Step)
        assert step.x.shape == step.x0.shape == start.shape
        assert step.x.dtype == step.x0.dtype == start.dtype
        assert step.x.isfinite().all()
        assert step.x0.isfinite().all()
    assert torch.equal(given, start), "the input is not changed"
    assert torch.equal(torch.get_rng_state(), rng), "all noise comes from randn_like"


@pytest.mark.parametrize("spec", SAMPLERS)
@pytest.mark.parametrize("scheduled", SCHEDULES)
@pytest.mark.parametrize("spaced", SPACINGS)
@pytest.mark.parametrize("target", TARGETS)
def test_contract(spec, scheduled, spaced, target):
    check_contract(spec, scheduled, spaced, target)


def test_contract_covers_and_catches_a_new_sampler(monkeypatch):
    """Registering is all it takes to be tested: nothing here names the samplers."""

    def careless(
        denoise, x, levels, *, sign: Literal["plus", "minus"] = "plus", randn_like: RandnLike = torch.randn_like
    ):
        for t, s in pairwise(levels):
            x0 = denoise(x, t).x0
            yield Step(x.copy_(x0), x0, s)

    monkeypatch.setitem(registry.sampler.entries, "careless", careless)
    assert {"careless", "careless:sign=minus"} <= set(sampler_specs())
    with pytest.raises(AssertionError, match="the input is not changed"):
        check_contract("careless", "linear", "trailing", "x0")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("spec", SAMPLERS)
def test_image_depends_on_its_seed_only(spec, clip):
    """Not on the images beside it: the same at any batch size."""
    model, how = diffusion("v", backbone=Toy(outputs=2 * SHAPE[0])), Sampling(spec, steps=6, clip=clip)

    def images(seeds):
        *_, last = draw(model, seeds, how)
        return last.x

    together = images([3, 4, 5, 6, 7])
    for split in ([[3], [4, 5], [6, 7]], [[3, 4, 5], [6], [7]], [[5, 3, 4], [7, 6]]):
        for seeds in split:
            assert_close(images(seeds), together[[seed - 3 for seed in seeds]], rtol=0, atol=1e-10)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_run_draws_every_step_and_passes_labels():
    seen = []

    class Labelled(Toy):
        def forward(self, x, time, label=None):
            seen.append(label)
            return super().forward(x, time)

    model = diffusion(backbone=Labelled()).requires_grad_()
    steps = list(draw(model, [0, 1], Sampling("ddim", steps=5, spacing="leading"), torch.tensor([1, 0])))
    assert [step.level.time for step in steps] == [600, 400, 200, 0, -1]
    assert [label.tolist() for label in seen] == [[1, 0]] * 5
    assert not steps[0].x.requires_grad
    assert next(draw(model, [0], Sampling("ddim", steps=1))).x.shape == (1, *SHAPE)
    assert seen[-1] is None


def test_run_leaves_gradients_on_between_steps():
    for _ in draw(diffusion(), [0], Sampling("ddpm", steps=2)):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_only_the_network_is_computed_in_bf16(precision):
    """Its products are; what the sampler sees and makes is not."""
    model, products = diffusion("v", backbone=(network := UNet(3, widths=(32,), groups=8, zero_init=False))), set()
    network.conv_out.register_forward_hook(lambda _, x, y: products.add(y.dtype))
    how = Sampling("dpmpp_2m", steps=5)
    *_, last = draw(model, [3, 4], how, precision=precision)
    assert products == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert last.x.dtype == last.x0.dtype == torch.float32
    *_, exact = draw(model, [3, 4], how)
    error = (last.x - exact.x).norm() / exact.x.norm()
    assert error == 0 if precision == "fp32" else 1e-6 < error < 0.02


@pytest.mark.parametrize(
    ("capabilities", "precision", "said"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "avx2": True}, "bf16", "precision bf16 (cpu with AMX)"),
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16", "precision bf16 (cpu with AVX512-BF16)"),
        ({"avx2": True, "avx512": True, "avx512_vnni": True}, "fp32", "precision fp32 (cpu)"),
        ({}, "fp32", "precision fp32 (cpu)"),
    ],
)
def test_the_precision_of_a_cpu_follows_from_its_instructions(monkeypatch, capabilities, precision, said):
    """A busy machine decides the same: no clock is read."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr("time.monotonic", lambda: pytest.fail("a clock was read"))
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == precision
    assert describe_precision(precision, cpu) == said
    for requested in ("fp32", "bf16"):
        assert choose_precision(requested, cpu) == requested


@pytest.mark.parametrize(("kind", "native", "precision"), [("cuda", True, "bf16"), ("cuda", False, "fp32")])
def test_the_precision_of_a_gpu_follows_from_its_hardware(monkeypatch, kind, native, precision):
    """A GPU that emulates bf16, and MPS, sample in fp32."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert choose_precision("auto", torch.device(kind)) == precision
    assert choose_precision("auto", torch.device("mps")) == "fp32"


def test_seeded_noise_is_standard_normal_and_moves_on():
    noise = seeded_noise(range(1000))
    x = torch.empty(1000, 1, 4, 4)
    first, second = noise(x), noise(x)
    assert abs(first.mean()) < 5 / 16_000**0.5
    assert abs(first.std() - 1) < 5 / 32_000**0.5
    assert (first - second).abs().max() > 1
    assert torch.equal(seeded_noise([7])(x[:1])[0], first[7])


def test_bad_options_are_refused():
    for spec, message in [
        ("ddim:eta=1.5", "between 0 .* and 1 .* got 1.5"),
        ("ddim:eta=nan", "got nan"),
        ("ddpm:variance=larg", "did you mean 'large'"),
        ("dpmpp_2n", "did you mean 'dpmpp_2m'"),
    ]:
        with pytest.raises(InputError, match=message):
            list(draw(diffusion(), [0], Sampling(spec, steps=2)))


# Clipping


def test_clip_x0_keeps_the_image_in_range_and_the_noise_consistent():
    level, x_t = schedule("linear").level(300), 3 * torch.randn(4, *SHAPE, dtype=torch.float64)

    def wild(x_t, level):
        x0 = 2 * x_t
        return Prediction(x0, (x_t - level.alpha * x0) / level.sigma, torch.zeros_like(x_t))

    free, kept = wild(x_t, level), clip_x0(wild)(x_t, level)
    assert free.x0.abs().max() > 2
    assert_close(kept.x0, free.x0.clamp(-1, 1))
    assert_close(level.alpha * kept.x0 + level.sigma * kept.eps, x_t)
    inside = free.x0.abs() < 1
    assert inside.any()
    assert_close(kept.eps[inside], free.eps[inside])


@pytest.mark.parametrize("spec", SAMPLERS)
def test_clip_keeps_images_in_range(spec):
    backbone = Toy(outputs=2 * SHAPE[0])
    with torch.no_grad():
        backbone.last.weight.mul_(30)
    model = diffusion(backbone=backbone)
    reach = {}
    for clip in (True, False):
        steps = list(draw(model, [0, 1], Sampling(spec, steps=8, clip=clip)))
        reach[clip] = max(step.x0.abs().max() for step in steps), steps[-1].x.abs().max()
    assert max(reach[True]) <= 1 + 1e-5
    assert min(reach[False]) > 2


# Closed-form worlds

PIXELS = (1, 1, 3)
GAUSSIAN = Gaussian(
    torch.tensor([-0.8, 0.1, 0.6], dtype=torch.float64).reshape(PIXELS),
    torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64).reshape(PIXELS),
)


@pytest.mark.parametrize("spec", SAMPLERS)
def test_gaussian_data_comes_back(spec):
    """With the best denoiser, samples have the data's mean and variance, within Monte-Carlo error."""
    count, levels = 10_000, schedule("linear").grid(1000)
    *_, last = steps_of(spec, GAUSSIAN, GAUSSIAN.draw(count, levels[0]), levels)
    assert ((last.x.mean(0) - GAUSSIAN.mean) / GAUSSIAN.std).abs().max() < 5 / math.sqrt(count)
    # 1000 steps are not infinitely many: with ddpm's small variance the narrowest pixel's is 1.9 % too narrow
    assert (last.x.std(0) / GAUSSIAN.std - 1).abs().max() < 5 / math.sqrt(2 * count) + 0.02


def is_deterministic(spec):
    levels, x = schedule("linear").grid(5), torch.randn(2, *PIXELS, dtype=torch.float64)
    noisy, quiet = (steps_of(spec, GAUSSIAN, x, levels, noise)[-1].x for noise in (torch.randn_like, torch.zeros_like))
    return torch.equal(noisy, quiet)


@pytest.mark.parametrize("spec", [spec for spec in SAMPLERS if is_deterministic(spec)])
def test_deterministic_samplers_follow_the_probability_flow(spec):
    """x_s = mean_s + (std_s / std_t) (x_t - mean_t), at every level on the way."""
    levels = schedule("linear").grid(1000)
    x = GAUSSIAN.draw(8, levels[0])
    for step in steps_of(spec, GAUSSIAN, x, levels):
        assert_close(step.x, GAUSSIAN.flow(x, levels[0], step.level), rtol=0, atol=0.02)


def between(first, last, steps):
    """Levels evenly spaced in half_log_snr, both ends included and neither clean."""
    lam = torch.linspace(first.half_log_snr, last.half_log_snr, steps + 1, dtype=torch.float64)
    return Levels(tuple(map(preserving, lam)), schedule("linear"))


def preserving(lam):
    """The level of that half_log_snr where the variance is preserved, and its time on the linear schedule."""
    return Level(schedule("linear").time(lam), torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt())


def declared(spec):
    return registry.sampler.facts[spec.partition(":")[0]]


@pytest.mark.parametrize("spec", [spec for spec in SAMPLERS if not declared(spec).get("adaptive")])
def test_evaluations_are_those_declared(spec):
    calls = 0

    def counted(x_t, level):
        nonlocal calls
        calls += 1
        return GAUSSIAN(x_t, level)

    steps_of(spec, counted, torch.randn(1, *PIXELS), schedule("linear").grid(7))
    each = declared(spec)["evaluations"]
    assert calls in (7 * each, 7 * each - (each - 1)), "all steps alike, or the last takes one"


def moments(spec, levels, first):
    """Exact mean and variance at the end, for Gaussian data: every sampler is linear there, so each noise adds its own.

    A batch of which each image meets one impulse: in the start, or in one of the noises drawn.
    """
    drawn = 0

    def count(x):
        nonlocal drawn
        drawn += 1
        return torch.zeros_like(x)

    mean0 = (first.alpha * GAUSSIAN.mean)[None]
    steps_of(spec, GAUSSIAN, mean0, levels, count)
    impulses = iter(torch.eye(drawn + 2, dtype=torch.float64)[2:].reshape(drawn, -1, 1, 1, 1))
    x = mean0.repeat(drawn + 2, 1, 1, 1)
    x[1] += GAUSSIAN.variance(first).sqrt()
    end = steps_of(spec, GAUSSIAN, x, levels, lambda x: next(impulses).expand_as(x))[-1].x
    return end[0], (end[1:] - end[0]).square().sum(0)


@pytest.mark.parametrize(
    "spec", [spec for spec in SAMPLERS if "order" in declared(spec) and not is_deterministic(spec)]
)
def test_weak_order(spec):
    """Mean and variance converge to those of x_s as fast as is declared."""
    first, last = schedule("linear").level(800.5), schedule("linear").level(50.25)
    errors = []
    for steps in (40, 80, 160, 320):
        mean, variance = moments(spec, between(first, last, steps), first)
        apart = torch.cat([mean - last.alpha * GAUSSIAN.mean, variance - GAUSSIAN.variance(last)])
        errors.append(apart.abs().max())
    for coarse, fine in pairwise(errors):
        assert -0.15 < math.log2(coarse / fine) - declared(spec)["order"] < 0.5


@pytest.mark.parametrize(
    "spec", [spec for spec in SAMPLERS if is_deterministic(spec) and not declared(spec).get("adaptive")]
)
def test_order_of_the_solvers(spec):
    """Doubling the steps divides the error by 2^order, as declared: what is apart from that falls with the steps.

    From nearly pure noise. Further in, what the first steps of dpmpp_3m and unipc do not know yet would show.
    """
    order = declared(spec)["order"]
    first, last = schedule("linear").level(990.5), schedule("linear").level(100.25)
    x = GAUSSIAN.draw(16, first)
    exact = GAUSSIAN.flow(x, first, last)
    errors = [
        (steps_of(spec, GAUSSIAN, x, between(first, last, steps))[-1].x - exact).square().mean().sqrt()
        for steps in (20, 40, 80, 160, 320)
    ]
    for (coarse, fine), most in zip(pairwise(errors), (0.35, 0.2, 0.1, 0.06), strict=True):
        assert abs(math.log2(coarse / fine) - order) < most


# Of 100 steps: the first leaves hardly any image, and the last hardly any noise, or a sample may end between two points
CALM = [name for name in SCHEDULES if (table := schedule(name)).alpha[-1] < 0.1 and table.sigma[table.T // 100] < 0.1]


@pytest.mark.parametrize("spec", SAMPLERS)
@pytest.mark.parametrize("scheduled", CALM)
def test_samples_of_a_finite_set_are_its_members(spec, scheduled):
    corners = Points(torch.tensor(list(product([-0.9, 0.6], repeat=2)), dtype=torch.float64).reshape(4, 1, 2, 1))
    x = torch.randn(400, 1, 2, 1, dtype=torch.float64)
    *_, last = steps_of(spec, corners, x, schedule(scheduled).grid(100))
    distance, index = corners.nearest(last.x)
    assert distance.max() < 1e-3
    assert (torch.bincount(index, minlength=4) - 100).abs().max() < 5 * math.sqrt(400 * 3 / 16)


# Inversion


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("scheduled", ["linear", "cosine"])
def test_inversion_and_back(scheduled):
    """To noise and back: the error falls with the steps, and with the iterations."""
    table, x = schedule(scheduled), GAUSSIAN.draw(16, CLEAN)

    def error(steps, iterations):
        levels = table.grid(steps)
        *_, noise = invert(GAUSSIAN, x, levels, iterations=iterations)
        assert noise.level is levels[0]
        return float((steps_of("ddim", GAUSSIAN, noise.x, levels)[-1].x - x).abs().max())

    once = [error(steps, 1) for steps in (20, 40, 80, 160)]
    assert once[0] < 0.3
    assert all(coarse / fine > 1.5 for coarse, fine in pairwise(once))
    assert error(20, 10) < once[0] / 2
    if scheduled == "linear":  # cosine's first level is 20,000 parts noise: there the fixed point is slow to come
        assert error(80, 10) < 1e-9


def test_inversion_needs_an_iteration():
    with pytest.raises(InputError, match="1 or more iterations, got 0"):
        next(invert(GAUSSIAN, torch.zeros(1, *PIXELS), schedule("linear").grid(5), iterations=0))


# Agreement with the notebook


@torch.no_grad()
def sample_ddpm(model, betas, image_size=32, n_samples=16, channels=3, device=None):
    """The notebook's loop as it stands there, without its progress bar."""
    device = device or next(model.parameters()).device
    model.eval()
    alphas = 1 - betas
    alpha_bars = torch.cumprod(alphas, dim=0)
    T = len(betas)
    x = torch.randn(n_samples, channels, image_size, image_size, device=device)
    for t in range(T - 1, -1, -1):
        t_batch = torch.full((n_samples,), t, device=device, dtype=torch.long)
        beta_t = betas[t]
        alpha_t = alphas[t]
        alpha_bar_t = alpha_bars[t]
        alpha_bar_prev_t = alpha_bars[t - 1] if t > 0 else torch.tensor(1.0, device=device)
        eps_pred = model(x, t_batch).sample
        mean = (1 / torch.sqrt(alpha_t)) * (x - (beta_t / torch.sqrt(1 - alpha_bar_t)) * eps_pred)
        if t > 0:
            posterior_var_t = beta_t * (1 - alpha_bar_prev_t) / (1 - alpha_bar_t)
            x = mean + torch.sqrt(posterior_var_t) * torch.randn_like(x)
        else:
            x = mean
    model.train()
    return x


def notebook_pair(T):
    """The image of the notebook's loop, and ours of the same network from the same random numbers."""
    net = UNet2DModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    model = diffusion("eps", f"linear:T={T}", Theirs(net))
    torch.manual_seed(1)
    expected = sample_ddpm(net, torch.linspace(1e-4, 0.02, T), image_size=8, n_samples=2)
    torch.manual_seed(1)
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        *_, last = steps_of("ddpm", model, x, model.schedule.grid(T))
    return last.x, expected


@pytest.mark.usefixtures("float64")
def test_ddpm_is_the_notebooks_loop():
    ours, expected = notebook_pair(1000)
    assert_close(ours, expected, rtol=0, atol=1e-9)


def test_ddpm_is_the_notebooks_loop_in_float32():
    """As the notebook runs it, but for fewer levels. Relative: an untrained network lets the image grow."""
    ours, expected = notebook_pair(250)
    agree([ours], [expected], 1e-5)


# Agreement with diffusers

PREDICTION = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
BETAS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


def their_states(scheduler, model, x, **options):
    """Run a scheduler of diffusers with the outputs of our model."""
    states = []
    for i, t in enumerate(scheduler.timesteps):
        output = model.output(x, model.schedule.level(t))
        extra = {key: value[i] if isinstance(value, list) else value for key, value in options.items()}
        x = scheduler.step(output, t, x, **extra).prev_sample
        states.append(x)
    return states


def exact_table(scheduler, model):
    """Give a scheduler our float64 table: theirs is made of float32 betas, which is all that sets us apart."""
    scheduler.alphas_cumprod = model.schedule.alphas_cumprod
    return scheduler


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("exact", [True, False], ids=["our table", "their table"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [4, 20, 100])
@pytest.mark.parametrize("spaced", ["trailing", "leading"])
@pytest.mark.parametrize(("scheduled", "target"), [("linear", "eps"), ("linear", "v"), ("cosine", "x0")])
def test_ddim_is_that_of_diffusers(scheduled, target, spaced, steps, eta, exact):
    model = diffusion(target, scheduled)
    scheduler = DDIMScheduler(
        beta_schedule=BETAS[scheduled], clip_sample=False, prediction_type=PREDICTION[target], timestep_spacing=spaced
    )
    scheduler.set_timesteps(steps)
    if exact:
        exact_table(scheduler, model)
    x, *noises = torch.randn(steps + 1, 2, *SHAPE)
    ours = steps_of(f"ddim:eta={eta}", model, x, model.schedule.grid(steps, spaced), replay(noises))
    theirs = their_states(scheduler, model, x, eta=eta, variance_noise=noises)
    # where cosine's beta is 0.999, 1 - beta has 1 / 1000 of float32's precision
    agree((step.x for step in ours), theirs, 1e-10 if exact else 1e-4 if scheduled == "linear" else 1e-3)


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers and NumPy 2
@pytest.mark.parametrize("spaced", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [3, 10, 20, 50])
@pytest.mark.parametrize(("scheduled", "target"), [("linear", "eps"), ("linear", "v"), ("cosine", "x0")])
def test_dpmpp_2m_is_that_of_diffusers(scheduled, target, steps, spaced):
    """Their sigmas and states are always float32: the agreement is that of float32.

    Their leading and linspace leave out the cleanest level: the levels of ours are made of their times.
    """
    model = diffusion(target, scheduled)
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule=BETAS[scheduled],
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        final_sigmas_type="zero",
        prediction_type=PREDICTION[target],
        timestep_spacing=spaced,
    )
    scheduler.set_timesteps(steps)
    levels = [*map(model.schedule.level, scheduler.timesteps), CLEAN]
    if spaced == "trailing":
        assert [level.time for level in levels] == [level.time for level in model.schedule.grid(steps)]
    x = torch.randn(2, *SHAPE)
    ours = steps_of("dpmpp_2m", model, x, levels)
    agree((step.x for step in ours), their_states(scheduler, model, x), 1e-4)


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers and NumPy 2
def test_dpmpp_3m_is_that_of_diffusers_with_half_the_second_derivative(monkeypatch):
    """They take the divided difference for the derivative, which is twice that: ours differs by this alone."""
    model = diffusion("v", "linear")
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule="linear",
        solver_order=3,
        final_sigmas_type="zero",
        lower_order_final=False,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(20)
    x, whole = torch.randn(2, *SHAPE), dpm_solver.derivatives
    theirs = their_states(scheduler, model, x)
    ours = [step.x for step in steps_of("dpmpp_3m", model, x, model.schedule.grid(20))]
    assert (ours[-1] - theirs[-1]).abs().max() > 1e-4

    def halved(past):
        first, second = whole(past)
        return first, second / 2

    monkeypatch.setattr(dpm_solver, "derivatives", halved)
    agree((step.x for step in steps_of("dpmpp_3m", model, x, model.schedule.grid(20))), theirs, 1e-4)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [4, 20, 100])
@pytest.mark.parametrize("spaced", ["trailing", "leading"])
@pytest.mark.parametrize("exact", [True, False], ids=["our table", "their table"])
def test_ddpm_on_some_levels_is_that_of_diffusers(exact, spaced, steps, variance):
    """They add noise to the very last image too unless its time is 0; where it is not (trailing), it is left out here.

    That noise has a variance of 1e-20 for fixed_small, but all of 1 - alpha_bar for fixed_large.
    """
    model = diffusion("v", "linear")
    scheduler = DDPMScheduler(
        clip_sample=False,
        prediction_type="v_prediction",
        timestep_spacing=spaced,
        variance_type=f"fixed_{variance}",
    )
    scheduler.set_timesteps(steps)
    if exact:
        exact_table(scheduler, model)
    x, *noises = torch.randn(steps + 1, 2, *SHAPE)
    ours = steps_of(f"ddpm:variance={variance}", model, x, model.schedule.grid(steps, spaced), replay(noises))
    ours = [step.x for step in ours]
    same = steps - 1 if variance == "large" and spaced == "trailing" else steps
    draw = inspect.getmodule(DDPMScheduler)
    with pytest.MonkeyPatch.context() as patch:
        queue = iter(noises)
        patch.setattr(draw, "randn_tensor", lambda *_, **__: next(queue))
        theirs = their_states(scheduler, model, x)
    agree(ours[:same], theirs[:same], 1e-9 if exact else 1e-4)


@pytest.mark.parametrize("steps", [3, 50])
def test_ddim_with_eta_1_is_ddpm(steps):
    """Song et al. 2021, section 4.1: the posterior's variance makes the process Markovian."""
    levels = schedule("cosine").grid(steps)
    x, *noises = torch.randn(steps + 1, 4, *PIXELS, dtype=torch.float64)
    ddim, ddpm = (steps_of(spec, GAUSSIAN, x, levels, replay(noises)) for spec in ("ddim:eta=1", "ddpm"))
    agree((step.x for step in ddim), [step.x for step in ddpm], 1e-12)
