# %% [markdown]
# # 8. Fewer steps
#
# A thousand network calls for a picture are too many. Nothing in the training says that all levels must be visited: the
# network was asked for the noise at each level by itself. Any rule that leads from $x_t$ to a cleaner $x_s$ will do, if it
# keeps $x_s$ where pictures noised to level $s$ lie.
#
# **DDIM** (Song et al. 2021, [arXiv:2010.02502](https://arxiv.org/abs/2010.02502), eq. 12) takes the believed picture and
# noises it again to level $s$, with the very noise that was just found:
#
# $$ x_s = \alpha_s\,\hat x_0 + \sqrt{\sigma_s^2 - \eta^2\tilde\sigma^2}\;\hat\epsilon + \eta\,\tilde\sigma z. $$
#
# With $\eta = 1$ it is ancestral sampling, with $\eta = 0$ there is no chance at all: one noise, one picture. In unnoise:
# [`ddim`](unnoise.samplers.ddim.ddim), two lines of mathematics.
#
# To see what samplers do, we need a world where the right answer is known. Let pictures be Gaussian with the mean and the
# covariance of the faces: then the best guess is linear, and the exact solution is known in closed form.

# %%
import torch

import unnoise
from unnoise import registry
from unnoise.diffusion.model import Prediction
from unnoise.images import to_float

torch.manual_seed(0)
data = unnoise.open_data("faces:count=2000", size="16")
faces = to_float(torch.from_numpy(data.read(range(2000)))).double()
mean = faces.mean(dim=0)
values, vectors = torch.linalg.eigh(torch.cov((faces - mean).flatten(1).T))
values = values.clamp(min=0)


def exact(x_t, level):
    """E[x0 | x_t] where x0 is Gaussian: each direction by itself."""
    off = (x_t - level.alpha * mean).flatten(1) @ vectors
    share = level.alpha * values / (level.alpha**2 * values + level.sigma**2)
    x0 = mean + (share * off @ vectors.T).view_as(x_t)
    return Prediction(x0, (x_t - level.alpha * x0) / level.sigma)


def solution(x, t):
    """Where the noise-free way from x at level t ends: every direction keeps its quantile."""
    off = (x - t.alpha * mean).flatten(1) @ vectors
    return mean + (off * (values / (t.alpha**2 * values + t.sigma**2)).sqrt() @ vectors.T).view_as(x)


schedule = registry.schedule.get("cosine")()
start = torch.randn(8, 3, 16, 16, dtype=torch.float64)
truth = solution(start, schedule.level(schedule.T - 1))
unnoise.show(truth)

# %% [markdown]
# These are faces as far as a Gaussian goes: ghosts. But we know exactly where each noise should lead, and can measure how
# far a sampler is off after so many steps.

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
counts = (5, 10, 20, 40, 80)
for name in ("ddim", "dpmpp_2m", "dpmpp_3m", "unipc"):
    calls, errors = [], []
    for count in counts:
        *_, last = registry.sampler.get(name)(exact, start, schedule.grid(count, "log_snr"))
        calls.append(count * registry.sampler.declared(name)["evaluations"])
        errors.append(float((last.x - truth).square().mean().sqrt()))
    axis.loglog(calls, errors, "o-", label=name)
    print(f"{name:9}", " ".join(f"{error:.1e}" for error in errors))
axis.set(xlabel="network calls", ylabel="error, root mean square")
axis.set_xticks(counts, counts, minor=False)
axis.minorticks_off()
axis.legend()
plt.show()

# %% [markdown]
# Twice the steps halve the error of `ddim`, a method of order 1. Solvers of order 2 and 3 use what they saw before:
# [`dpmpp_2m`](unnoise.samplers.dpm_solver.dpmpp_2m) (Lu et al. 2022, [arXiv:2211.01095](https://arxiv.org/abs/2211.01095))
# looks at the last two believed pictures and goes on along the line through them, for one call a step. What is left at
# the end, a thousandth, is lost in the very last step, which takes the picture it believes in as it is.
#
# Which levels are visited matters as much: `schedule.grid(count, "karras")` and others are
# [spacings](unnoise.diffusion.spacing.log_snr). What is best for a trained network is measured, not proved: `unnoise tune
# RUN --time 50ms` tries samplers, steps and spacings and keeps the winner in the model's file. See also
# [which sampler when](../concepts/samplers.md).
#
# ## Exercises
#
# 1. Write a sampler of your own: `ddim` that takes half a step too far in every step and comes back by half. It is one
#    generator; register it with `@registry.sampler.declare(order=1, evaluations=1)` and add it to the plot.
# 2. Do samplers that draw noise come to the same pictures? Compare `ddim:eta=1` with 5 and with 80 steps.
#
# ### Solutions

# %%
from itertools import pairwise

from unnoise.samplers.base import Step


@registry.sampler.declare(order=1, evaluations=1)
def there_and_back(denoise, x, levels, *, randn_like=torch.randn_like):
    """An exercise of the course."""
    for t, s in pairwise(levels):
        x0, eps, _ = denoise(x, t)
        further = levels.schedule.at(s.half_log_snr + (s.half_log_snr - t.half_log_snr) / 2) if s.sigma > 0 else s
        x = further.alpha * x0 + further.sigma * eps
        x = s.alpha * x0 + s.sigma * eps  # the straight way back is the way it came: nothing is won
        yield Step(x, x0, s)


*_, last = registry.sampler.get("there_and_back")(exact, start, schedule.grid(20, "log_snr"))
print(f"1. {(last.x - truth).square().mean().sqrt():.1e}, as ddim: x0 and eps are the same, whatever lies between")
for count in (5, 80):
    *_, last = registry.sampler.get("ddim:eta=1")(exact, start, schedule.grid(count, "log_snr"))
    print(f"2. {count} steps: {(last.x - truth).square().mean().sqrt():.2f} from the noise-free end: other pictures")
