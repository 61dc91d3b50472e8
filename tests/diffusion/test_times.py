"""The levels of training have the distribution that their name says."""

import pytest
import torch
from torch.testing import assert_close

from unnoise import registry
from unnoise.errors import InputError

MANY = 40_000


def times(spec, schedule="linear:T=4"):
    return registry.times.get(spec)(registry.schedule.get(schedule)())


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scheduled", registry.schedule.names())
@pytest.mark.parametrize("name", registry.times.names())
def test_every_way_draws_levels_of_every_schedule(name, scheduled):
    """Levels lie within the schedule, s is one step cleaner, the generator decides alone, and weights are finite."""
    way = times(name, scheduled)
    t, s = way.levels(64, seeded())
    assert torch.equal(way.levels(64, seeded())[0].time, t.time)
    assert t.time.min() >= 0
    assert t.time.max() <= way.schedule.T - 1
    assert_close(s.time, (t.time - 1).clamp(min=-1))
    assert (s.sigma < t.sigma).all()
    way.update(t.time, torch.rand(64))
    weight = way.weight(t.time)
    assert weight.shape == (64,)
    assert weight.isfinite().all()
    assert (weight > 0).all()


def test_uniform_draws_every_level_as_often():
    way = times("uniform")
    t, s = way.levels(MANY, seeded())
    assert_close(torch.bincount(t.time.long()) / MANY, torch.full((4,), 0.25), atol=0.01, rtol=0)
    assert (s.sigma.flatten()[t.time == 0] == 0).all()
    assert torch.equal(t.alpha.flatten(), way.schedule.alpha[t.time.long()])


def test_stratified_draws_every_level_as_often_and_one_in_each_part_in_every_batch():
    way, rng = times("stratified", "linear:T=40"), seeded()
    drawn = torch.stack([way.draw(8, rng) for _ in range(MANY // 8)])
    assert_close(torch.bincount(drawn.long().flatten()) / MANY, torch.full((40,), 1 / 40), atol=0.005, rtol=0)
    assert_close(drawn.sort().values.diff(dim=1), torch.full((MANY // 8, 7), 5.0, dtype=torch.float64))


def test_lognormal_has_its_mean_and_spread():
    """The ratio sigma / alpha is the one of EDM for every schedule that reaches it."""
    t, _ = times("lognormal:mean=-1,std=0.5", "cosine").levels(MANY, seeded())
    log_ratio = t.ratio.log()
    assert_close(log_ratio.mean().item(), -1.0, atol=0.01, rtol=0)
    assert_close(log_ratio.std().item(), 0.5, atol=0.01, rtol=0)


def test_importance_is_uniform_until_it_knows_every_level():
    way = times("importance:history=2")
    way.update(torch.tensor([0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0], dtype=torch.float64), torch.full((7,), 5.0))
    assert_close(way.probability, torch.full((4,), 0.25, dtype=torch.float64))


def test_importance_follows_the_last_losses_and_keeps_the_expected_loss():
    way = times("importance:history=2,uniform=0.1")
    for loss in (100.0, 1.0, 1.0):  # the first is forgotten
        way.update(torch.arange(4.0, dtype=torch.float64), loss * torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert_close(way.probability, 0.9 * torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64) + 0.025)
    t = way.draw(MANY, seeded())
    assert_close((torch.bincount(t.long()) / MANY).double(), way.probability, atol=0.01, rtol=0)
    anything = torch.tensor([3.0, -1.0, 4.0, 1.0], dtype=torch.float64)
    assert_close(
        (way.probability * way.weight(torch.arange(4.0, dtype=torch.float64)) * anything).sum(), anything.mean()
    )


def test_importance_learns_nothing_from_losses_that_are_not_finite():
    way = times("importance:history=1")
    way.update(torch.arange(4.0, dtype=torch.float64), torch.tensor([1.0, float("nan"), float("inf"), 1.0]))
    assert way.count.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    "spec", ["lognormal:std=0", "importance:history=0", "importance:history=1001", "importance:uniform=0"]
)
def test_senseless_options_are_refused(spec):
    with pytest.raises(InputError, match="got"):
        times(spec)
