"""The targets of progressive distillation are its paper's, and exact where the teacher is known in closed form."""

from itertools import pairwise, product

import pytest
import torch
from torch.testing import assert_close

from distillation_helpers import SHAPE, Exact, batch_of, land
from process_helpers import SCHEDULES, SPACINGS, schedule
from unnoise.diffusion.model import Prediction
from unnoise.diffusion.objective import add_noise
from unnoise.distillation.progressive import levels_between, progressive
from unnoise.errors import InputError
from unnoise.samplers import ddim
from worlds import Gaussian, Points

f64 = torch.float64


@pytest.fixture
def gaussian():
    return Gaussian(torch.randn(SHAPE, dtype=f64), 0.1 + torch.rand(SHAPE, dtype=f64))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_step_ends_on_the_exact_flow_of_gaussian_data(gaussian, steps):
    """The error falls to 2e-3, where the ends of the schedule keep it; elsewhere by the order of the solver, 2."""
    table = schedule("cosine")
    batch = batch_of(table, steps)
    exact = gaussian.flow(batch.x_t, batch.t, batch.s)
    inside = (batch.t.time < table.T - 1) & (batch.s.time >= 0)
    errors = []
    for calls in (16, 64, 256):
        learned = progressive(Exact(gaussian, table), batch, calls=calls)
        errors.append((land(learned) - exact).abs().amax(dim=(1, 2, 3)))
        assert_close(learned.t.alpha * learned.x0 + learned.t.sigma * learned.eps, batch.x_t)
    assert (errors[1] < errors[0]).all()
    assert errors[2].max() < 2e-3
    assert (errors[2][inside] < errors[1][inside] / 14).all()
    assert inside.any() or steps < 4


def test_the_targets_are_those_of_algorithm_2():
    """A student of 8 steps teaches one of 4: literally Salimans & Ho 2022, algorithm 2, the loop body, in float64."""
    table, world = schedule("cosine"), Points(torch.randn(5, *SHAPE, dtype=f64))
    N = 4  # the paper's name
    batch = batch_of(table, N)
    learned = progressive(Exact(world, table, taught=2 * N), batch)
    for i in range(len(batch.x_t)):
        z_t, step = batch.x_t[i : i + 1], round((float(batch.t.time[i]) + 1) / table.T * N)

        def at(u):  # alpha, sigma and the level of t = u, where 1 is pure noise
            level = table.level(torch.tensor(round(u * table.T) - 1.0))
            return level.alpha, level.sigma, level

        def teacher_x(z, u):
            return world(z, at(u)[2]).x0

        t = step / N
        t1, t2 = t - 0.5 / N, t - 1 / N
        (a_t, s_t, _), (a_1, s_1, _), (a_2, s_2, _) = at(t), at(t1), at(t2)
        z_t1 = a_1 * teacher_x(z_t, t) + s_1 / s_t * (z_t - a_t * teacher_x(z_t, t))
        z_t2 = a_2 * teacher_x(z_t1, t1) + s_2 / s_1 * (z_t1 - a_1 * teacher_x(z_t1, t1))
        x_tilde = (z_t2 - s_2 / s_t * z_t) / (a_2 - s_2 / s_t * a_t)
        assert_close(learned.x0[i : i + 1], x_tilde, rtol=0, atol=1e-10)


def test_a_student_of_one_step_draws_the_points_of_a_world_of_two():
    """Every target from pure noise is one of the two points, and both are drawn."""
    table, points = schedule("cosine"), torch.ones(2, *SHAPE, dtype=f64)
    points[1] *= -1
    batch = batch_of(table, 1, n=64)
    learned = progressive(Exact(Points(points), table), batch, calls=64)
    apart, which = Points(points).nearest(learned.x0)
    assert apart.max() < 1e-3
    assert set(which.tolist()) == {0, 1}


@pytest.mark.parametrize("steps", [1, 2])
def test_a_student_that_fits_its_targets_draws_as_the_exact_flow_does(gaussian, steps):
    """Gaussian targets are affine in x_t: a student that is fitted by least squares at each level is exact."""
    table = schedule("cosine")
    visited, fits = table.grid(steps), {}
    for t, s in pairwise(visited):
        x0, eps = torch.randn(2, 64, *SHAPE, dtype=f64)
        level, following = (table.level(one.time.expand(64)) for one in (t, s))
        batch = progressive(Exact(gaussian, table), add_noise(x0, eps, (level, following)), calls=512)
        centred = batch.x_t - batch.x_t.mean(0)
        slope = (centred * batch.x0).sum(0) / centred.square().sum(0)
        fits[float(t.time)] = slope, batch.x0.mean(0) - slope * batch.x_t.mean(0)

    def student(x_t, level):
        slope, offset = fits[float(level.time)]
        x0 = slope * x_t + offset
        return Prediction(x0, (x_t - level.alpha * x0) / level.sigma)

    start = torch.randn(8, *SHAPE, dtype=f64)
    *_, last = ddim(student, start, visited)
    assert_close(last.x, gaussian.flow(start, visited[0], visited[-1]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("spaced", SPACINGS)
def test_the_teachers_levels_fall_from_t_to_s(name, spaced):
    """With every schedule and spacing: the ends are exact, and all levels differ."""
    table = schedule(name)
    try:
        grid = table.grid(min(4, table.T), spaced)
    except InputError:
        pytest.skip("this spacing does not suit this schedule")
    for (t, s), calls in product(pairwise(grid), (1, 16, 100)):
        levels = levels_between(t, s, calls, Exact(None, table))
        assert (levels[0].time, levels[-1].time) == (t.time, s.time)
        assert all(a.time > b.time for a, b in pairwise(levels))


def test_the_teacher_takes_about_the_calls_that_are_given():
    """However many steps the student has: at least 2 for each of them."""
    table = schedule("cosine")
    for steps, taken in ((1, 16), (2, 16), (4, 17), (8, 23)):
        pairs = pairwise(table.grid(steps))
        assert sum(len(levels_between(t, s, 16, Exact(None, table))) - 1 for t, s in pairs) == taken


def test_no_steps_are_refused(gaussian):
    table = schedule("cosine")
    with pytest.raises(InputError, match="calls is 1 or more"):
        progressive(Exact(gaussian, table), batch_of(table, 4), calls=0)
