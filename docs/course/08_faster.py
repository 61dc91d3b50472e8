# %% [markdown]
# # 8. Fewer steps
#
# A thousand network calls for one image are too many. The training does not demand that all levels are visited: the network
# learned the noise at each level separately. Any rule that leads from $x_t$ to a cleaner $x_s$ is allowed, if $x_s$ has the
# distribution of images noised to level $s$.
#
# **DDIM** (Song et al. 2021, [arXiv:2010.02502](https://arxiv.org/abs/2010.02502), eq. 12) takes the predicted image
# and noises it again to level $s$, with the predicted noise:
#
# $$ x_s = \alpha_s\,\hat x_0 + \sqrt{\sigma_s^2 - \eta^2\tilde\sigma^2}\;\hat\epsilon + \eta\,\tilde\sigma z. $$
#
# With $\eta = 1$ this is ancestral sampling. With $\eta = 0$ it is deterministic: one noise gives one image. In unnoise it is
# [`ddim`](unnoise.samplers.ddim.ddim), two lines of mathematics.
#
# To compare samplers, we need a case with a known solution. Let the images be Gaussian, with the mean and the covariance of
# the faces. Then the best prediction is linear, and the exact solution has a closed form.

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
    """Return E[x0 | x_t] for a Gaussian x0, each direction separately."""
    off = (x_t - level.alpha * mean).flatten(1) @ vectors
    share = level.alpha * values / (level.alpha**2 * values + level.sigma**2)
    x0 = mean + (share * off @ vectors.T).view_as(x_t)
    return Prediction(x0, (x_t - level.alpha * x0) / level.sigma)


def solution(x, t):
    """Return the end of the noise-free path from x at level t: every direction keeps its quantile."""
    off = (x - t.alpha * mean).flatten(1) @ vectors
    return mean + (off * (values / (t.alpha**2 * values + t.sigma**2)).sqrt() @ vectors.T).view_as(x)


schedule = registry.schedule.get("cosine")()
start = torch.randn(8, 3, 16, 16, dtype=torch.float64)
truth = solution(start, schedule.level(schedule.T - 1))
unnoise.show(truth)

# %% [markdown]
# A Gaussian cannot make better faces than these. But we know exactly where each noise should lead, so we can measure the
# error of a sampler for a given number of steps.

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
# Twice the steps halve the error of `ddim`, a method of order 1. Solvers of order 2 and 3 also use earlier predictions:
# [`dpmpp_2m`](unnoise.samplers.dpm_solver.dpmpp_2m) (Lu et al. 2022, [arXiv:2211.01095](https://arxiv.org/abs/2211.01095))
# follows the line through the last two predicted images, for one call per step. The remaining error, a thousandth, comes from
# the very last step, which takes the predicted image unchanged.
#
# The choice of levels matters as much: `schedule.grid(count, "karras")` uses one of the
# [spacings](unnoise.diffusion.spacing.log_snr). The best choice for a trained network is measured, not proved: `unnoise tune
# RUN --time 50ms` tries samplers, steps and spacings, and stores the winner in the model file. See also
# [which sampler when](../concepts/samplers.md).
#
# ## Distillation
#
# Below about ten calls no solver helps: the way is curved. But a network can learn where the way leads. **Progressive
# distillation** (Salimans & Ho 2022, [arXiv:2202.00512](https://arxiv.org/abs/2202.00512), algorithm 2) trains a student. One of its
# steps goes as far as several steps of the teacher. If these lead from $x_t$ to $x_s$, the student should predict the image with which
# a single step of DDIM leads there:
#
# $$ \tilde x_0 = \frac{x_s - \frac{\sigma_s}{\sigma_t}\,x_t}{\alpha_s - \frac{\sigma_s}{\sigma_t}\,\alpha_t}. $$
#
# It is [`image_of_step`](unnoise.distillation.progressive.image_of_step). Here the best student is linear too, so it needs no training: a
# line is fitted along each direction, at each level that the student visits.

# %%
from itertools import pairwise

from unnoise.distillation.progressive import image_of_step


def distilled(steps, images=400):
    """Return a student of the exact denoiser: E[x0] for images, along each direction, at the levels of its steps."""
    lines = {}
    for t, s in pairwise(schedule.grid(steps)):
        x0, eps = faces[:images], torch.randn_like(faces[:images])
        x_t = t.alpha * x0 + t.sigma * eps
        times = torch.linspace(float(t.time), float(s.time), 60)
        *_, last = registry.sampler.get("dpmpp_2m")(exact, x_t, [schedule.level(time) for time in times])
        wanted = (image_of_step(x_t, last.x, t, s) - mean).flatten(1) @ vectors
        off = (x_t - t.alpha * mean).flatten(1) @ vectors
        lines[float(t.time)] = (off * wanted).sum(0) / off.square().sum(0)

    def student(x_t, level):
        off = (x_t - level.alpha * mean).flatten(1) @ vectors
        x0 = mean + (lines[float(level.time)] * off @ vectors.T).view_as(x_t)
        return Prediction(x0, (x_t - level.alpha * x0) / level.sigma)

    return student


for steps in (1, 2, 4):
    for name, denoise in (("teacher", exact), ("student", distilled(steps))):
        *_, last = registry.sampler.get("ddim")(denoise, start, schedule.grid(steps))
        print(f"{steps} calls of the {name}: {(last.x - truth).square().mean().sqrt():.4f} from the end of the way")
unnoise.show(last.x)

# %% [markdown]
# The student needs one call. With a trained network it is a training, `unnoise distill RUN --steps 4`, and the student starts
# with the weights of its teacher; see [few steps](../guides/few-steps.md).
#
# ## Exercises
#
# 1. Write your own sampler: a `ddim` that goes half a step too far in every step, and then comes back. It is one generator;
#    register it with `@registry.sampler.declare(order=1, evaluations=1)` and add it to the plot.
# 2. Do samplers that draw noise end at the same images? Compare `ddim:eta=1` with 5 and with 80 steps.
#
# ### Solutions

# %%
from unnoise.samplers.base import Step


@registry.sampler.declare(order=1, evaluations=1)
def there_and_back(denoise, x, levels, *, randn_like=torch.randn_like):
    """Take ddim's step too far and back, an exercise of the course."""
    for t, s in pairwise(levels):
        x0, eps, _ = denoise(x, t)
        further = levels.schedule.at(s.half_log_snr + (s.half_log_snr - t.half_log_snr) / 2) if s.sigma > 0 else s
        x = further.alpha * x0 + further.sigma * eps
        x = s.alpha * x0 + s.sigma * eps  # the way back is the same line, so nothing changes
        yield Step(x, x0, s)


*_, last = registry.sampler.get("there_and_back")(exact, start, schedule.grid(20, "log_snr"))
print(f"1. {(last.x - truth).square().mean().sqrt():.1e}, equal to ddim: x0 and eps do not change between")
for count in (5, 80):
    *_, last = registry.sampler.get("ddim:eta=1")(exact, start, schedule.grid(count, "log_snr"))
    print(f"2. {count} steps: {(last.x - truth).square().mean().sqrt():.2f} from the noise-free end: different images")
