# %% [markdown]
# # 9. Score, SDE and ODE
#
# The **score** of a density is $\nabla_x \log p(x)$, the direction in which the density grows fastest. The best prediction of
# the noise is the score, up to a factor (Vincent 2011; Song et al. 2021,
# [arXiv:2011.13456](https://arxiv.org/abs/2011.13456)):
#
# $$ \nabla_{x_t} \log q(x_t) = -\frac{\mathbb{E}[\epsilon \mid x_t]}{\sigma_t}. $$
#
# So a network that learned to predict noise has learned the score of every noised distribution. We check this in one
# dimension: an image is one number, -1 or 1.

# %%
import torch

from unnoise import registry
from unnoise.diffusion.model import Prediction

torch.manual_seed(0)
points = torch.tensor([-1.0, 1.0], dtype=torch.float64)
schedule = registry.schedule.get("cosine")()


def perfect(x_t, level):
    weight = torch.softmax(
        -((x_t[:, None] - level.alpha * points.view(1, 2, 1, 1, 1)) ** 2) / (2 * level.sigma**2), dim=1
    )
    x0 = (weight * points.view(1, 2, 1, 1, 1)).sum(dim=1)
    return Prediction(x0, (x_t - level.alpha * x0) / level.sigma)


def log_density(x, level):
    apart = (x[:, None] - level.alpha * points) ** 2 / (2 * level.sigma**2)
    return torch.logsumexp(-apart, dim=1) - torch.log(2 * level.sigma * (2 * torch.pi) ** 0.5)


level = schedule.level(600)
x = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
(score,) = torch.autograd.grad(log_density(x, level).sum(), x)
eps = perfect(x.detach().view(-1, 1, 1, 1), level).eps.flatten()
print("score:       ", [f"{float(s):+.3f}" for s in score])
print("-eps / sigma:", [f"{float(s):+.3f}" for s in -eps / level.sigma])

# %% [markdown]
# ## Two ways back
#
# In the limit of many small steps the forward process is a stochastic differential equation (SDE). The score allows us to run
# it backwards in time; ancestral sampling discretises this reverse SDE. There is also an ordinary differential equation
# (ODE), without randomness, whose paths have the same distribution at every level (Song et al. 2021, eq. 13): with
# $\rho = \sigma/\alpha$,
#
# $$ \frac{d\,(x/\alpha)}{d\rho} = \hat\epsilon(x, t), $$
#
# and `ddim` is Euler's method for it. Here are both, from 40 starting points:

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
start = torch.randn(40, 1, 1, 1, dtype=torch.float64)
for axis, name, title in ((axes[0], "ddim", "ODE"), (axes[1], "ddpm", "SDE")):
    path = [start, *(step.x for step in registry.sampler.get(name)(perfect, start, schedule.grid(300)))]
    axis.plot(torch.cat(path, dim=1)[:, :, 0, 0].T.numpy(), linewidth=0.6)
    axis.set(title=title, xlabel="step, from noise to data")
plt.show()

# %% [markdown]
# Paths of the ODE never cross. Each starting point belongs to one of the two numbers from the beginning, and neighbours stay
# neighbours. This is why you can interpolate between noises (`unnoise edit RUN --task interpolate`), and find the noise of a
# given image by going backwards ([`invert`](unnoise.samplers.ddim.invert)).
#
# ## Likelihood
#
# An ODE moves probability and loses none. So the density at its end follows from the density at its start and from how much
# the flow spreads on the way (Song et al. 2021, eq. 39): [`ode_log_density`](unnoise.diffusion.likelihood.ode_log_density).
# Here we compare it with the true density at a level of little noise, with hundreds of steps:

# %%
from unnoise.diffusion.likelihood import ode_log_density

levels = schedule.grid(400, "log_snr")
cut = levels[:300]
x = torch.tensor([-1.2, -0.9, 0.0, 0.8, 1.0], dtype=torch.float64).view(-1, 1, 1, 1) * cut[-1].alpha
estimate = ode_log_density(perfect, x, cut, probes=1).value
for found, true in zip(estimate, log_density(x.flatten(), cut[-1]), strict=True):
    print(f"by the ODE {found:+.3f}, true value {true:+.3f}")

# %% [markdown]
# ## Exercises
#
# 1. Show that $\nabla \log q(x_t) = -\mathbb{E}[\epsilon\mid x_t]/\sigma_t$. (Write $q(x_t) = \int q(x_t\mid x_0)q(x_0)\,dx_0$ and
#    differentiate under the integral.)
# 2. Which points of pure noise end at 1? Find the answer by symmetry, then by sampling.
#
# ### Solutions
#
# 1. $\nabla q(x_t \mid x_0) = -q(x_t\mid x_0)\,(x_t - \alpha_t x_0)/\sigma_t^2 = -q(x_t\mid x_0)\,\epsilon/\sigma_t$. Integrate over $x_0$
#    and divide by $q(x_t)$: the result is the mean of $-\epsilon/\sigma_t$ under $q(x_0\mid x_t)$.

# %%
*_, last = registry.sampler.get("ddim")(perfect, start, schedule.grid(300))
print("2. the points above 0:", bool((last.x.sign() == start.sign()).all()))
