# %% [markdown]
# # 2. Any number of steps at once
#
# Training needs $x_t$ for random $t$. To take $t$ steps for each image would be slow, and it is not necessary. The sum of
# Gaussian noises is Gaussian noise, so all steps can be done as one.
#
# With $\alpha_t = 1 - \beta_t$, two steps are
#
# $$ x_2 = \sqrt{\alpha_2}\left(\sqrt{\alpha_1}\,x_0 + \sqrt{1-\alpha_1}\,\epsilon_1\right) + \sqrt{1-\alpha_2}\,\epsilon_2. $$
#
# The noises are independent, so their variances add up, $\alpha_2(1-\alpha_1) + (1-\alpha_2) = 1 - \alpha_1\alpha_2$, and one draw
# replaces both: $x_2 = \sqrt{\alpha_1\alpha_2}\,x_0 + \sqrt{1-\alpha_1\alpha_2}\,\epsilon$. Each further step multiplies one more
# $\alpha$ into the product, and this is the whole induction (Ho et al. 2020, eq. 4):
#
# $$ \bar\alpha_t = \prod_{s=1}^{t} \alpha_s, \qquad x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon. $$
#
# unnoise calls the two factors `alpha` and `sigma` of a level, so that the equation reads
# $x_t = \alpha_t x_0 + \sigma_t \epsilon$ from here on, whatever the schedule. It is
# [`q_sample`](unnoise.diffusion.process.q_sample).

# %%
import torch

import unnoise
from unnoise import registry
from unnoise.diffusion.process import q_sample
from unnoise.images import to_float

torch.manual_seed(0)
data = unnoise.open_data("faces:count=64", size="32")
x0 = to_float(torch.from_numpy(data.read(range(1))))
schedule = registry.schedule.get("linear")()

t = schedule.level(400)
x_t = q_sample(x0, torch.randn_like(x0), t)  # alpha x0 + sigma eps
print(
    f"alpha^2 {t.alpha**2:.6f} = {schedule.alphas_cumprod[400]:.6f}, alpha^2 + sigma^2 = {t.alpha**2 + t.sigma**2:.6f}"
)

times = range(0, 1000, 111)
eps = torch.randn_like(x0)
unnoise.show(torch.cat([q_sample(x0, eps, schedule.level(t)) for t in times]), [f"t = {t}" for t in times], columns=10)

# %% [markdown]
# ## The same, step by step?
#
# We take a hundred steps of one pixel, a hundred thousand times, and compare them with one draw of the closed form. The mean
# and the standard deviation agree.

# %%
pixel = torch.full((100_000,), 0.8)
x = pixel
for beta in schedule.betas[:100].float():
    x = (1 - beta).sqrt() * x + beta.sqrt() * torch.randn_like(x)
t = schedule.level(99)
print(f"step by step: mean {x.mean():.4f}, deviation {x.std():.4f}")
print(f"closed form:  mean {0.8 * t.alpha:.4f}, deviation {t.sigma:.4f}")

# %% [markdown]
# ## Other schedules
#
# The linear schedule destroys small images early: the second half of the strip above contains hardly anything to learn. The cosine schedule (Nichol & Dhariwal 2021, [arXiv:2102.09672](https://arxiv.org/abs/2102.09672), eq. 17)
# spreads the loss of signal more evenly,
#
# $$ \bar\alpha_t = \frac{f(t)}{f(0)}, \qquad f(t) = \cos^2\left(\frac{t/T + s}{1 + s}\cdot\frac{\pi}{2}\right), $$
#
# and is unnoise's default ([`cosine`](unnoise.diffusion.schedule.cosine)).

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for name in ("linear", "cosine", "sigmoid", "flow"):
    axis.plot(registry.schedule.get(name)().alpha.numpy(), label=name)
axis.set(xlabel="t", ylabel="alpha, the share of the image")
axis.legend()
plt.show()

# %%
cosine = registry.schedule.get("cosine")()
unnoise.show(torch.cat([q_sample(x0, eps, cosine.level(t)) for t in times]), [f"t = {t}" for t in times], columns=10)

# %% [markdown]
# ## Exercises
#
# 1. The signal-to-noise ratio is $\alpha_t^2 / \sigma_t^2$. At which $t$ is it 1, for each of the two schedules?
# 2. Show that $q(x_t \mid x_s)$ for any $s < t$ is a Gaussian of mean $\frac{\alpha_t}{\alpha_s} x_s$ and variance
#    $\sigma_t^2 - \frac{\alpha_t^2}{\alpha_s^2}\sigma_s^2$. (It is [`transition`](unnoise.diffusion.process.transition).)
#
# ### Solutions

# %%
for name in ("linear", "cosine"):
    table = registry.schedule.get(name)()
    print("1.", name, int((table.level(torch.arange(table.T)).snr < 1).flatten().nonzero()[0]))

# %% [markdown]
# 2. Steps $s+1 \ldots t$ shrink by $\prod \sqrt{\alpha_i} = \alpha_t / \alpha_s$ in all. The noise that they add has some variance $v$,
#    and it adds to the scaled noise of $x_s$: $\sigma_t^2 = (\alpha_t/\alpha_s)^2 \sigma_s^2 + v$. Solve for $v$.
