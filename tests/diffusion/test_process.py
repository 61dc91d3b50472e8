"""The forward process, its posterior, schedules, spacings and targets, against closed forms and diffusers."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr
from torch.testing import assert_close

from unnoise import registry
from unnoise.diffusion.ideal import ideal
from unnoise.diffusion.level import CLEAN, Level
from unnoise.diffusion.model import Diffusion
from unnoise.diffusion.process import posterior_mean, posterior_variance, q_sample, q_step, transition
from unnoise.diffusion.schedule import Schedule
from unnoise.diffusion.target import check, decode, encode
from unnoise.errors import InputError
from worlds import Points

SCHEDULES = registry.schedule.names()
SPACINGS = registry.spacing.names()
TARGETS = registry.target.names()
f64 = torch.float64


def schedule(spec):
    return registry.schedule.get(spec)()


def images(*shape):
    return torch.randn(shape, dtype=f64)


def close(a, b, atol):
    assert_close(torch.as_tensor(a, dtype=f64), torch.as_tensor(b, dtype=f64), rtol=0, atol=atol)


# The forward process


def test_the_ideal_guess_is_the_mean_of_what_explains_the_image():
    points = images(12, 3, 4, 4)
    for time in (5, 300, 999):
        level = schedule("cosine").level(time)
        x_t = q_sample(points[:5], images(5, 3, 4, 4), level)
        found, true = ideal(points)(x_t, level), Points(points)(x_t, level)
        close(found.x0, true.x0, 1e-9)
        close(found.eps, true.eps, 1e-7)


def test_notebook_worked_example():
    """X = 0.80, beta = 0.02: the next value has mean 0.792 and standard deviation 0.1414."""
    t = Schedule.from_betas(torch.tensor([0.02], dtype=f64)).level(0)
    scale, variance = transition(CLEAN, t)
    close(scale, 0.99, 5e-3)
    close(scale * 0.80, 0.792, 5e-4)
    close(variance, 0.02, 1e-15)
    close(variance.sqrt(), 0.1414, 5e-5)

    pixels = torch.full((1, 1, 1000, 1000), 0.80, dtype=f64)
    after = q_step(pixels, torch.randn_like(pixels), CLEAN, t)
    close(after.mean(), 0.98**0.5 * 0.80, 5 * 0.1414 / 1000)  # five standard errors
    close(after.std(), 0.02**0.5, 5 * 0.1414 / (1000 * 2**0.5))


def test_notebook_direct_step_is_the_repeated_one():
    """The notebook's picture, T = 4 and beta from 0.03 to 0.3: moments of `forward_step` repeated and of q_sample."""
    coarse = Schedule.from_betas(torch.linspace(0.03, 0.3, 4, dtype=f64))
    x0 = torch.linspace(-1, 1, 5, dtype=f64).expand(200_000, 1, 1, 5)
    walked = x0
    for i in range(4):
        walked = q_step(walked, torch.randn_like(walked), coarse.level(i - 1), coarse.level(i))
    jumped = q_sample(x0, torch.randn_like(x0), coarse.level(3))
    error = 5 / 200_000**0.5
    close(walked.mean(0), jumped.mean(0), 2 * error)
    close(walked.std(0), jumped.std(0), 2 * error)
    close(jumped.mean(0), math.prod([0.97, 0.88, 0.79, 0.7]) ** 0.5 * x0[0], error)


@pytest.mark.parametrize("spec", SCHEDULES)
def test_one_step_transitions_compose_to_the_closed_form(spec):
    table = schedule(spec)
    scale, variance = torch.tensor(1.0, dtype=f64), torch.tensor(0.0, dtype=f64)
    for i in range(table.T):
        step, added = transition(table.level(i - 1), table.level(i))
        scale, variance = step * scale, step**2 * variance + added
        close(scale, table.alpha[i], 1e-12)
        close(variance, table.sigma[i] ** 2, 1e-12)


def test_q_sample_of_a_batch_uses_one_level_an_image():
    table, x0, eps = schedule("cosine"), images(3, 2, 4, 4), images(3, 2, 4, 4)
    batch = q_sample(x0, eps, table.level(torch.tensor([0, 500, 999])))
    for i, t in enumerate([0, 500, 999]):
        close(batch[i], table.alpha[t] * x0[i] + table.sigma[t] * eps[i], 1e-15)


# The posterior


def test_posterior_is_equations_6_and_7_of_ddpm():
    """Ho et al. 2020, with arrays as the paper writes them, at all of the 1000 levels."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=f64)
    alpha_bar = torch.cumprod(1 - beta, 0)
    table, x0, x_t = schedule("linear"), images(2, 1, 3, 3), images(2, 1, 3, 3)
    for t in range(1000):
        before = alpha_bar[t - 1] if t else torch.tensor(1.0, dtype=f64)
        mean = (before.sqrt() * beta[t] * x0 + (1 - beta[t]).sqrt() * (1 - before) * x_t) / (1 - alpha_bar[t])
        variance = (1 - before) / (1 - alpha_bar[t]) * beta[t]
        close(posterior_mean(x0, x_t, table.level(t), table.level(t - 1)), mean, 1e-9)
        close(posterior_variance(table.level(t), table.level(t - 1)), variance, 1e-9)
        close(transition(table.level(t - 1), table.level(t))[1], beta[t], 1e-9)


@pytest.mark.parametrize("spec", SCHEDULES)
@pytest.mark.parametrize(("s", "t"), [(0, 1), (0, 999), (3, 700), (249.5, 250), (10.25, 998.75), (500, 501)])
def test_posterior_between_any_two_levels_is_bayes_rule(spec, s, t):
    """q(x_s | x_t, x0) is proportional to q(x_t | x_s) q(x_s | x0): precisions add, means are weighted by them."""
    table, x0, x_t = schedule(spec), images(2, 1, 3, 3), images(2, 1, 3, 3)
    s, t = (table.level(time * ((table.T - 1) / 999)) for time in (s, t))
    scale, variance = t.alpha / s.alpha, t.sigma**2 - (t.alpha / s.alpha * s.sigma) ** 2
    precision = 1 / s.sigma**2 + scale**2 / variance
    mean = (s.alpha * x0 / s.sigma**2 + scale * x_t / variance) / precision
    close(posterior_variance(t, s), 1 / precision, 1e-9)
    close(posterior_mean(x0, x_t, t, s), mean, 1e-9)


def test_posterior_at_the_clean_level_is_the_image():
    t, x0, x_t = schedule("linear").level(400), images(2, 1, 3, 3), images(2, 1, 3, 3)
    close(posterior_mean(x0, x_t, t, CLEAN), x0, 1e-12)
    close(posterior_variance(t, CLEAN), 0.0, 0)


# Targets


def senseless(target, table):
    """Whether the pair is refused, and that it is exactly where the image can't be told from the output."""
    level = table.level(torch.arange(table.T))
    a, b = target(level)
    singular = bool(((level.alpha * b - level.sigma * a).abs() < 1e-6).any())
    if singular:
        with pytest.raises(InputError, match="choose the target v"):
            check(target, table)
    else:
        check(target, table)
    return singular


def test_eps_is_refused_where_the_schedule_ends_in_pure_noise():
    refused = {(s, t) for s in SCHEDULES for t in TARGETS if senseless(registry.target.get(t), schedule(s))}
    assert refused == {("flow", "eps"), ("zero_snr", "eps")}


@pytest.mark.parametrize("spec", SCHEDULES)
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("time", [0, 1, 500.5, 999, [0, 300, 999]], ids=str)
def test_target_round_trip(spec, name, time):
    """Whatever the network outputs, x0 and eps come back; also for new targets."""
    table, target = schedule(spec), registry.target.get(name)
    if senseless(target, table):
        return
    level = table.level(torch.tensor(time, dtype=f64) * ((table.T - 1) / 999))
    x0, eps = images(3, 2, 4, 4), images(3, 2, 4, 4)
    x_t = q_sample(x0, eps, level)
    clean, noise = decode(encode(x0, eps, level, target), x_t, level, target)
    close(clean, x0, 1e-9)
    close(noise, eps, 1e-9)


def test_targets_are_what_their_papers_say():
    level, x0, eps = schedule("cosine").level(torch.tensor([10, 900])), images(2, 1, 3, 3), images(2, 1, 3, 3)

    def encoded(name):
        return encode(x0, eps, level, registry.target.get(name))

    close(encoded("eps"), eps, 0)
    close(encoded("x0"), x0, 0)
    close(encoded("v"), level.alpha * eps - level.sigma * x0, 1e-15)
    close(encoded("flow"), eps - x0, 1e-15)
    close(encoded("v:std=0"), -x0, 1e-15)
    on_a_line = schedule("flow").level(torch.tensor([10, 900]))
    plain = on_a_line.alpha * eps - on_a_line.sigma * x0
    close(encode(x0, eps, on_a_line, registry.target.get("v")), plain, 1e-15)


@pytest.mark.parametrize("std", [-1.0, math.nan, 1e200])
def test_a_deviation_that_is_none(std):
    with pytest.raises(InputError, match="std is 0 to 100"):
        registry.target.get(f"v:std={std}")(schedule("cosine").level(0))


@pytest.mark.parametrize("std", [0.1, 0.5, 1.0])
def test_v_is_what_edm_leaves_to_its_network(std):
    """Karras et al. 2022, eq. 7 and table 1, on x_t / alpha = x0 + ratio * eps; but of unit length, and negative."""
    level, x0, eps = schedule("cosine").level(torch.tensor([3, 400, 990])), images(3, 1, 3, 3), images(3, 1, 3, 3)
    ratio = level.ratio
    kept, scale = std**2 / (ratio**2 + std**2), ratio * std / (ratio**2 + std**2).sqrt()
    wanted = (x0 - kept * (x0 + ratio * eps)) / scale
    length = ((1 - kept).square() + (kept * ratio).square()).sqrt() / scale
    close(encode(x0, eps, level, registry.target.get(f"v:std={std}")), -wanted / length, 1e-12)


@pytest.mark.parametrize("name", TARGETS)
def test_diffusion_decodes_the_output_of_its_backbone(name):
    """A backbone that always outputs the right answer gives the right image and noise, for each image's own level."""
    table, target = schedule("linear"), registry.target.get(name)
    x0, eps = images(2, 1, 3, 3), images(2, 1, 3, 3)
    level = table.level(torch.tensor([100, 600]))
    seen = []

    class Oracle(torch.nn.Module):
        def forward(self, x, time, label):
            seen.append((time, label))
            return encode(x0, eps, level, target)

    model, label = Diffusion(Oracle(), table, target, (1, 3, 3)), torch.tensor([4, 5])
    guess = model(q_sample(x0, eps, level), level, label)
    close(guess.x0, x0, 1e-9)
    close(guess.eps, eps, 1e-9)
    assert [values.tolist() for values in seen[0]] == [[100, 600], [4, 5]]


# Levels


def test_level_properties():
    level = schedule("linear").level(torch.tensor([0.0, 321.5, 999.0]))
    assert level.time.shape == (3,)
    assert level.alpha.shape == level.sigma.shape == (3, 1, 1, 1)
    close(level.ratio, level.sigma / level.alpha, 1e-15)
    assert_close(level.snr, level.alpha**2 / level.sigma**2)
    assert_close(level.half_log_snr, torch.log(level.alpha) - torch.log(level.sigma))
    assert (CLEAN.time, CLEAN.alpha, CLEAN.sigma, CLEAN.ratio) == (-1, 1, 0, 0)
    assert CLEAN.snr == CLEAN.half_log_snr == math.inf


@pytest.mark.parametrize("spec", SCHEDULES)
def test_level_is_the_table_at_integers(spec):
    table = schedule(spec)
    level = table.level(torch.arange(table.T))
    assert torch.equal(level.alpha.flatten(), table.alpha)
    assert torch.equal(level.sigma.flatten(), table.sigma)
    for i in (0, 1, table.T // 2, table.T - 1):
        one = table.level(i)
        assert one.alpha.shape == one.time.shape == ()
        assert (one.time, one.alpha, one.sigma) == (i, table.alpha[i], table.sigma[i])


@pytest.mark.parametrize("spec", SCHEDULES)
def test_level_between_integers_is_monotone_and_linear_in_half_log_snr(spec):
    table = schedule(spec)
    level = table.level(torch.linspace(0, table.T - 1, 10 * (table.T - 1) + 1, dtype=f64))
    assert (level.half_log_snr.flatten().diff() < 0).all()
    assert (level.alpha.flatten().diff() <= 0).all()
    assert (level.sigma.flatten().diff() >= 0).all()
    i = table.T // 24
    ends = table.level(torch.tensor([i, i + 1])).half_log_snr.flatten()
    close(table.level(i + 0.25).half_log_snr, 0.75 * ends[0] + 0.25 * ends[1], 1e-12)
    norm = level.alpha.square() + level.sigma.square()
    table_norm = table.alpha.square() + table.sigma.square()
    assert norm.min() >= table_norm.min() - 1e-12
    assert norm.max() <= table_norm.max() + 1e-12


def test_level_minus_one_is_clean():
    level = schedule("cosine").level(torch.tensor([-1, 0]))
    assert level.alpha[0] == 1
    assert level.sigma[0] == 0
    assert level.sigma[1] > 0
    one = schedule("cosine").level(-1)
    assert (one.time, one.alpha, one.sigma) == (-1, 1, 0)


def test_level_beyond_the_table_is_refused():
    for time in (1000, 999.5, -1.5):
        with pytest.raises(AssertionError):
            schedule("linear").level(time)


# Schedules and spacings


def test_linear_is_the_notebooks():
    def get_betas(T=1000, beta_start=1e-4, beta_end=0.02):
        return torch.linspace(beta_start, beta_end, T, dtype=f64)

    table, betas = schedule("linear"), get_betas()
    alpha_bar = torch.cumprod(1 - betas, dim=0)
    close(table.betas, betas, 1e-12)
    close(table.alphas_cumprod, alpha_bar, 1e-12)
    close(table.alpha, alpha_bar.sqrt(), 1e-12)
    close(table.sigma, (1 - alpha_bar).sqrt(), 1e-12)
    close(schedule("linear:T=4,start=0.03,end=0.3").betas, get_betas(4, 0.03, 0.3), 1e-12)


def test_cosine_is_equation_17():
    """Nichol & Dhariwal 2021: alpha_bar = f(t) / f(0), but for the last betas, which are kept below 0.999."""
    table = schedule("cosine")
    f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    close(table.alphas_cumprod[:-1], torch.tensor(f[1:-1], dtype=f64) / f[0], 1e-12)
    assert table.betas.max() <= 0.999 + 1e-12
    assert schedule("cosine:max_beta=0.5").betas.max() <= 0.5 + 1e-12


@pytest.mark.parametrize("spec", SCHEDULES)
def test_time_is_the_inverse_of_level(spec):
    table = schedule(spec)
    last = table.T - 1 if table.alpha[-1] > 0 else table.T - 2  # beyond, half_log_snr has no end
    times = torch.linspace(0, last, 5 * last + 1, dtype=f64)
    close(table.time(table.level(times).half_log_snr.flatten()), times, 1e-6)
    assert table.time(-math.inf) == table.T - 1
    assert table.time(math.inf) == 0
    assert table.at(table.level(last / 2).half_log_snr).time.ndim == 0


def test_flow_is_a_straight_line():
    table, x0, eps = schedule("flow:T=4"), images(1, 1, 2, 2), images(1, 1, 2, 2)
    for i, u in enumerate([0.25, 0.5, 0.75, 1.0]):
        close(q_sample(x0, eps, table.level(i)), (1 - u) * x0 + u * eps, 1e-15)


def test_sigmoid_is_the_papers_function():
    """Chen 2023 (arXiv:2301.10972), algorithm 1, transcribed; the last level is where a beta is kept below 0.999."""

    def gamma(t, start=-3, end=3, tau=1.0):
        v_start, v_end = (1 / (1 + math.exp(-x / tau)) for x in (start, end))
        return (v_end - 1 / (1 + math.exp(-(t * (end - start) + start) / tau))) / (v_end - v_start)

    expected = [gamma((i + 1) / 1000) for i in range(999)]
    close(schedule("sigmoid").alphas_cumprod[:-1], expected, 1e-12)


def test_laplace_levels_are_quantiles():
    """Half of the levels on each side of mu, and log(SNR) - mu exponential of scale b in each half."""
    log_snr = 2 * schedule("laplace:T=2000,mu=0.5,b=0.7").half_log_snr
    below = (0.5 - log_snr[1000:]) / 0.7
    close(torch.exp(-below), 1 - 2 * ((torch.arange(1000, 2000, dtype=f64) + 0.5) / 2000 - 0.5), 1e-12)
    close(log_snr + log_snr.flip(0), torch.ones(2000), 1e-9)


def test_karras_and_log_snr_are_their_equations():
    """Between the ends of the table; Karras et al. 2022, eq. 5, and evenly spaced half_log_snr."""
    table = schedule("linear")
    first, last = table.level(999).ratio, table.level(0).ratio
    ratios = [float(level.ratio) for level in table.grid(10, "karras:highest=1000")[:10]]
    expected = [(first ** (1 / 7) + i / 9 * (last ** (1 / 7) - first ** (1 / 7))) ** 7 for i in range(10)]
    assert_close(torch.tensor(ratios, dtype=f64), torch.stack(expected), rtol=1e-9, atol=0)
    lam = torch.stack([level.half_log_snr for level in table.grid(10, "log_snr:highest=1000")[:10]])
    close(lam.diff(), lam.diff().mean().expand(9), 1e-9)
    assert [level.time for level in table.grid(4, "quadratic")][::3] == [999, 0]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers and NumPy 2
def test_karras_is_that_of_diffusers():
    """With their float32 table, and up to the highest ratio there is."""
    ours = torch.stack([level.ratio for level in schedule("linear").grid(20, "karras:highest=1000")])
    expected = EulerDiscreteScheduler(beta_schedule="linear", use_karras_sigmas=True)
    expected.set_timesteps(20)
    assert_close(ours, expected.sigmas.double(), rtol=1e-3, atol=0)


def test_zero_snr_is_that_of_diffusers():
    """From our betas; theirs ends in an alpha-bar of 0 as ours does."""
    expected = torch.cumprod(1 - rescale_zero_terminal_snr(schedule("scaled_linear").betas), 0)
    ours = schedule("zero_snr:of=scaled_linear")
    close(ours.alphas_cumprod, expected, 1e-12)
    assert ours.alpha[-1] == 0


@pytest.mark.parametrize(
    ("spec", "theirs"),
    [("linear", "linear"), ("cosine", "squaredcos_cap_v2"), ("scaled_linear:start=0.0001,end=0.02", "scaled_linear")],
)
@pytest.mark.parametrize("T", [1000, 50])
def test_schedules_agree_with_diffusers(spec, theirs, T):
    """Theirs is made of float32 betas: the agreement is that of float32."""
    expected = DDPMScheduler(num_train_timesteps=T, beta_schedule=theirs).alphas_cumprod
    close(schedule(f"{spec}{',' if ':' in spec else ':'}T={T}").alphas_cumprod, expected, 1e-6)


def test_flow_is_that_of_diffusers():
    """Their sigmas, float32, are the whole of it."""
    close(schedule("flow").sigma.flip(0), FlowMatchEulerDiscreteScheduler().sigmas[:1000], 1e-6)


def test_laplace_of_diffusers_takes_alpha_for_its_square():
    """Their alpha-bar is the alpha of b = 0.5, over its value at their start; every second level is one of ours.

    The quantile of level k of 500 is (2 k + 1) / 1000, that of their level 2 k; they add 1e-6 inside the logarithm.
    """
    start = torch.sigmoid(torch.tensor(-0.5 * math.log(1e-6), dtype=f64)).sqrt()
    theirs = DDPMScheduler(beta_schedule="laplace").alphas_cumprod[::2]
    ours = schedule("laplace:T=500,b=0.5")
    close(ours.alpha / start, theirs, 1e-4)
    assert (ours.alphas_cumprod - theirs).abs().max() > 0.2


def test_sigmoid_of_diffusers_is_another_function():
    """Theirs is of the betas, ours of alphas_cumprod (Jabri et al. 2022): far apart, and both can be had here."""
    theirs = DDPMScheduler(beta_schedule="sigmoid")
    values = "-".join(f"{float(beta):.9g}" for beta in theirs.betas)
    close(schedule(f"betas:values={values}").alphas_cumprod, theirs.alphas_cumprod, 1e-6)
    assert (schedule("sigmoid").alphas_cumprod - theirs.alphas_cumprod).abs().max() > 0.2


@pytest.mark.parametrize("name", ["trailing", "leading", "linspace"])
def test_spacings_agree_with_diffusers(name):
    theirs, spaced = DDPMScheduler(timestep_spacing=name), registry.spacing.get(name)
    # linspace of one step differs on purpose: theirs is the cleanest level, ours the noisiest
    for steps in range(2 if name == "linspace" else 1, 1001):
        theirs.set_timesteps(steps)
        apart = spaced(schedule("linear"), steps).numpy() - theirs.timesteps[:steps].numpy()
        # They add up floats, so an exact half may be rounded to the other side, and trailing may visit one too many
        span, parts = (999, steps - 1) if name == "linspace" else (1000, steps)
        half = (2 * span * np.arange(steps) % parts == 0) & (name != "leading")
        if span % parts == 0:
            assert len(theirs.timesteps) == steps
            half[:] = False
        assert (apart[~half] == 0).all(), steps
        assert (abs(apart) <= 1).all(), steps


@pytest.mark.parametrize(
    "spec", [name for name in SCHEDULES if "T" in registry.options(registry.schedule.entries[name])]
)
@pytest.mark.parametrize("spaced", SPACINGS)
@pytest.mark.parametrize("T", [10, 1000])
def test_grid_decreases_and_ends_clean(spec, spaced, T):
    table = schedule(f"{spec}:T={T}")
    for steps in (1, 2, 3, 7, 10, 20, 250, 333, 999, 1000):
        if steps > T:
            continue
        levels = table.grid(steps, spaced)
        assert len(levels) == steps + 1
        assert all(isinstance(level, Level) and level.time.ndim == 0 for level in levels)
        assert (levels[-1].time, levels[-1].alpha, levels[-1].sigma) == (-1, 1, 0)
        assert (torch.stack([level.time for level in levels]).diff() < 0).all()
        assert (torch.stack([level.half_log_snr for level in levels]).diff() > 0).all()
        assert levels[0].time <= T - 1


@pytest.mark.parametrize("spaced", SPACINGS)
def test_spacing_decreases_for_any_number_of_steps(spaced):
    for steps in range(1, 101):
        times = registry.spacing.get(spaced)(schedule("linear:T=100"), steps)
        assert times.shape == (steps,)
        assert (times.diff() < 0).all()
        assert times.min() >= 0
        assert times.max() <= 99


def test_trailing_starts_at_the_noisiest_level_and_can_visit_all():
    table = schedule("linear:T=40")
    assert [level.time for level in table.grid(40)] == list(range(39, -2, -1))
    assert all(table.grid(steps)[0].time == 39 for steps in range(1, 41))
    assert [level.time for level in table.grid(4)] == [39, 29, 19, 9, -1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("linear:T=0", "at least 1 level, got 0"),
        ("cosine:T=-3", "at least 1 level, got -3"),
        ("linear:start=0", "between 0 and 1, got 0"),
        ("linear:end=1.5", "between 0 and 1, got 1.5"),
        ("cosine:s=0", "between 0 and 1, got 0"),
        ("cosine:s=nan", "between 0 and 1, got nan"),
        ("cosine:max_beta=1", "between 0 and 1, got 1"),
        ("linear:T=2.5", "takes a whole number, got '2.5'"),
        ("linear:beta=0.1", "unknown option of schedule linear 'beta'"),
        ("linaer", "did you mean 'linear'"),
    ],
)
def test_bad_schedules_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        schedule(spec)


def test_bad_grids_are_refused():
    for steps in (0, -1, 1001):
        with pytest.raises(InputError, match=f"from 1 to 1000 .* got {steps}"):
            schedule("linear").grid(steps)
    with pytest.raises(InputError, match="did you mean 'trailing'"):
        schedule("linear").grid(10, "trailling")
