"""Spacings are their equations, agree with diffusers, and make grids that decrease to the clean level."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler
from torch.testing import assert_close

from process_helpers import SCHEDULES, SPACINGS, close, f64, schedule
from unnoise import registry
from unnoise.diffusion.level import Level
from unnoise.errors import InputError
from unnoise.options import options_of


def test_karras_and_log_snr_are_their_equations():
    """Between the ends of the table: Karras et al. 2022, eq. 5, and an evenly spaced half_log_snr."""
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
    """Their table is float32; ours goes up to the highest ratio here too."""
    ours = torch.stack([level.ratio for level in schedule("linear").grid(20, "karras:highest=1000")])
    expected = EulerDiscreteScheduler(beta_schedule="linear", use_karras_sigmas=True)
    expected.set_timesteps(20)
    assert_close(ours, expected.sigmas.double(), rtol=1e-3, atol=0)


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


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spec", [name for name in SCHEDULES if "T" in options_of(registry.schedule.entries[name])])
@pytest.mark.parametrize("spaced", SPACINGS)
@pytest.mark.parametrize("T", [10, 1000])
def test_grid_decreases_and_ends_clean(spec, spaced, T):
    table = schedule(f"{spec}:T={T}")
    for steps in [n for n in (1, 2, 3, 7, 10, 20, 250, 333, 999, 1000) if n <= T]:
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


def test_bad_grids_are_refused():
    for steps in (0, -1, 1001):
        with pytest.raises(InputError, match=f"from 1 to 1000 .* got {steps}"):
            schedule("linear").grid(steps)
    with pytest.raises(InputError, match="did you mean 'trailing'"):
        schedule("linear").grid(10, "trailling")
