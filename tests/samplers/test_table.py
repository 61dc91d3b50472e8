"""A sampler that calls the network once a step is a table of numbers; others are refused."""

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from process_helpers import SCHEDULES, SPACINGS, schedule
from sampler_helpers import GAUSSIAN, steps_of
from unnoise import registry
from unnoise.errors import InputError
from unnoise.samplers.base import Step
from unnoise.samplers.table import as_table, run_table

LINEAR = ["ddim", "ddim:eta=1", "ddpm", "ddpm:variance=large", "dpmpp_1s", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m",
          "euler", "euler_maruyama"]  # fmt: skip


@pytest.mark.parametrize("spec", LINEAR)
@pytest.mark.parametrize("scheduled", SCHEDULES)
def test_a_table_draws_what_its_sampler_draws(spec, scheduled):
    for spaced in SPACINGS:
        for steps in (1, 2, 9):
            try:
                levels = schedule(scheduled).grid(steps, spaced)
            except InputError:
                continue  # this spacing does not suit this schedule
            noises = torch.randn(steps + 1, 5, 1, 1, 3, dtype=torch.float64)
            queue, other = iter(noises[1:]), iter(noises[1:])
            expected = steps_of(spec, GAUSSIAN, noises[0], levels, lambda _, queue=queue: next(queue))
            found = run_table(as_table(spec, levels), lambda x, level: GAUSSIAN(x, level).x0, noises[0], other)
            for step, x in zip(expected, found, strict=True):
                assert_close(x, step.x, rtol=0, atol=1e-9)


def test_every_sampler_of_one_call_has_a_table_or_is_known_to_have_none():
    one_call = {name for name in registry.sampler.names() if registry.sampler.declared(name).get("evaluations") == 1}
    assert one_call - {spec.partition(":")[0] for spec in LINEAR} == {"unipc"}  # it corrects x by the next image


@pytest.mark.parametrize("spec", ["heun", "unipc", "predictor_corrector", "adaptive"])
def test_other_samplers_are_refused(spec):
    with pytest.raises(InputError, match=r"cannot be written as a table.*choose one such as ddim"):
        as_table(spec, schedule("cosine").grid(6))


def test_a_learned_variance_is_refused():
    with pytest.raises(InputError, match="learned no variance"):
        as_table("ddpm:variance=learned", schedule("cosine").grid(6))


def test_your_own_sampler_is_refused_if_it_is_curved():
    def curved(denoise, x, levels, *, randn_like):
        for t, s in pairwise(levels):
            x0 = denoise(x, t).x0
            x = x0 / x0.square().mean().clamp(min=1).sqrt()
            yield Step(x, x0, s)

    with pytest.raises(InputError, match="fixed weights"):
        as_table(curved, schedule("cosine").grid(6))


def test_the_rows_of_ddim_are_its_equation():
    """Song et al. 2021 (arXiv:2010.02502), eq. 12 with x0 alone."""
    levels = schedule("cosine").grid(4)
    for row, t, s in zip(as_table("ddim", levels), levels, levels[1:], strict=False):
        assert row.level is t
        assert row.of_x == pytest.approx(float(s.sigma / t.sigma))
        assert row.of_x0 == pytest.approx((float(s.alpha - s.sigma * t.alpha / t.sigma),))
        assert row.of_noise is None
