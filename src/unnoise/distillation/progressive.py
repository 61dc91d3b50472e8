"""Progressive distillation: a step of the student goes as far as several steps of the teacher."""

import torch

from unnoise.diffusion.level import Level
from unnoise.diffusion.objective import Noised
from unnoise.diffusion.process import noise_of
from unnoise.diffusion.spacing import ends
from unnoise.distillation.teacher import Teacher
from unnoise.errors import InputError
from unnoise.registry import distillation
from unnoise.samplers.dpm_solver import dpmpp_1s
from unnoise.samplers.unipc import unipc
from unnoise.types import Images

NOISIEST = 80.0  # noise-to-signal ratio; above it nothing can be seen, and no step of the teacher is spent there
LEAST = 2  # steps of the teacher for one of the student: the first one is corrected by the second


@distillation
def progressive(teacher: Teacher, batch: Noised, *, calls: int = 32) -> Noised:
    """Learn a step from several of the teacher's, Salimans & Ho 2022 (arXiv:2202.00512), algorithm 2.

    The paper halves the number of steps again and again, so that each step learns from two. Here a step learns from as
    many steps as are needed, by UniPC. A teacher that is a student itself makes its own steps, as in the paper.

    Args:
        calls: The calls of the teacher's network from pure noise to an image, about; a teacher that is a student has
            its own number.

    Raises:
        InputError: There is no call.
    """
    if calls < 1:
        raise InputError(f"distillation progressive: calls is 1 or more, got {calls}")
    x_s = torch.empty_like(batch.x_t)
    for time in sorted(set(batch.t.time.tolist())):  # of each step of the student, for all its images at once
        rows = (batch.t.time == time).nonzero().flatten()
        part = batch.part(rows)
        t, s = teacher.schedule.level(time), teacher.schedule.level(part.s.time[0])
        levels = levels_between(t, s, calls, teacher)
        solve = unipc if teacher.visited is None else dpmpp_1s
        with torch.no_grad():
            *_, last = solve(teacher.denoiser(part.label), part.x_t, levels)
        x_s[rows.to(x_s.device)] = last.x
    x0 = image_of_step(batch.x_t, x_s, batch.t, batch.s)
    return batch._replace(x0=x0, eps=noise_of(batch.x_t, x0, batch.t), mean=None)


def image_of_step(x_t: Images, x_s: Images, t: Level, s: Level) -> Images:
    """Return the image x0 with which a step of DDIM leads from x_t to x_s; algorithm 2 of the paper."""
    keep = s.sigma / t.sigma
    return (x_s - keep.to(x_t) * x_t) / (s.alpha - keep * t.alpha).to(x_t)


def levels_between(t: Level, s: Level, calls: int, teacher: Teacher) -> list[Level]:
    """Return the levels that the teacher visits from t to s, as dense as `calls` steps from pure noise to an image.

    They are evenly spaced in half_log_snr.
    """
    schedule = teacher.schedule
    if teacher.visited is not None:
        return [level for level in teacher.visited if s.time <= level.time <= t.time]
    low, high = ends(schedule, NOISIEST)
    begin = min(max(float(t.half_log_snr), low), high)
    end = min(max(float(s.half_log_snr), low), high)  # of the clean level it is infinite
    steps = max(LEAST, round(calls * (end - begin) / (high - low))) if begin < end else 1
    inner = schedule.time(torch.linspace(begin, end, steps + 1, dtype=torch.float64)[1:-1])
    return [t, *map(schedule.level, inner), s]
