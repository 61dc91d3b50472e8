"""Every distillation keeps the noisy image, gives targets that are numbers, and leads where the teacher's flow does."""

import pytest
import torch
from torch.testing import assert_close

from distillation_helpers import SHAPE, Exact, batch_of, land
from process_helpers import schedule
from unnoise import registry
from worlds import Gaussian, Points

f64 = torch.float64
TABLE = schedule("cosine")


@pytest.fixture(params=registry.distillation.names())
def method(request):
    return registry.distillation.get(request.param)


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_a_step_leads_along_the_exact_flow_of_gaussian_data(method, steps):
    world = Gaussian(torch.randn(SHAPE, dtype=f64), 0.1 + torch.rand(SHAPE, dtype=f64))
    batch = batch_of(TABLE, steps)
    learned = method(Exact(world, TABLE), batch)
    assert_close(land(learned), world.flow(batch.x_t, batch.t, batch.s), atol=0.05, rtol=0)


@pytest.mark.parametrize("taught", [None, 4])
def test_a_batch_gets_other_targets_and_nothing_else(method, taught):
    world = Points(torch.randn(5, *SHAPE, dtype=f64))
    batch = batch_of(TABLE, 2)
    learned = method(Exact(world, TABLE, taught), batch)
    for name in set(batch._fields) - {"x0", "eps", "mean"}:
        assert getattr(learned, name) is getattr(batch, name)
    assert learned.x0.isfinite().all()
    assert learned.mean is None  # no other target is in the way
    assert_close(learned.t.alpha * learned.x0 + learned.t.sigma * learned.eps, batch.x_t)
    assert not learned.x0.requires_grad


def test_images_of_a_batch_do_not_depend_on_each_other(method):
    world = Gaussian(torch.zeros(SHAPE, dtype=f64), torch.ones(SHAPE, dtype=f64))
    batch = batch_of(TABLE, 4)
    together = method(Exact(world, TABLE), batch).x0
    for i in range(len(together)):
        assert_close(method(Exact(world, TABLE), batch.part(slice(i, i + 1))).x0[0], together[i])


def test_a_world_of_one_point_is_learned_exactly(method):
    point = torch.randn(1, *SHAPE, dtype=f64)
    batch = batch_of(TABLE, 4)
    clean = batch.s.time < 0  # elsewhere the step ends in noise
    learned = method(Exact(Points(point), TABLE), batch)
    assert_close(learned.x0[clean.flatten()], point.expand(int(clean.sum()), *SHAPE), atol=1e-3, rtol=0)
    assert clean.any()
