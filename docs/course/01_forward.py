# %% [markdown]
# # 1. Noise, one step at a time
#
# Diffusion starts with something easy: it destroys an image. The **forward process** $q$ takes an image $x_0$ and makes
# $x_1, x_2, \ldots, x_T$ from it. Each one is a little noisier than the one before, until nothing of the image is left.
# Nothing is learned here; we choose the process.
#
# We draw our images ourselves: `faces` is a dataset that is part of unnoise, so nothing is downloaded. Pixels lie
# between -1 and 1.

# %%
import torch

import unnoise
from unnoise.images import to_float

torch.manual_seed(0)
data = unnoise.open_data("faces:count=64", size="32")
x0 = to_float(torch.from_numpy(data.read(range(5))))
unnoise.show(x0)

# %% [markdown]
# ## One step
#
# A step shrinks every pixel a little towards 0 and adds a little noise with variance $\beta_t$ (Ho et al. 2020,
# [arXiv:2006.11239](https://arxiv.org/abs/2006.11239), eq. 2):
#
# $$ q(x_t \mid x_{t-1}) = \mathcal{N}\left(x_t;\ \sqrt{1-\beta_t}\,x_{t-1},\ \beta_t I\right)
# \qquad\text{or}\qquad x_t = \sqrt{1-\beta_t}\,x_{t-1} + \sqrt{\beta_t}\,\epsilon_t,\quad \epsilon_t \sim \mathcal{N}(0, I). $$
#
# Why shrink? If noise were only added, the pixels would grow without end. If they are shrunk by $\sqrt{1-\beta_t}$, pixels
# with variance 1 keep the variance $(1-\beta_t) + \beta_t = 1$.
#
# In unnoise a step leads from a [`Level`](unnoise.diffusion.level.Level) `s` to a noisier one `t`, by
# [`q_step`](unnoise.diffusion.process.q_step). Levels come from a **schedule**, the table of all $\beta_t$. In the
# first paper they grow linearly from $10^{-4}$ to $0.02$ over $T = 1000$ steps
# ([`linear`](unnoise.diffusion.schedule.linear)).

# %%
from unnoise import registry
from unnoise.diffusion.process import q_step, transition

schedule = registry.schedule.get("linear")()
s, t = schedule.level(399), schedule.level(400)
x_s = x0
x_t = q_step(x_s, torch.randn_like(x_s), s, t)  # x_t = sqrt(1 - beta) x_s + sqrt(beta) eps

scale, variance = transition(s, t)
print(f"scale {scale:.5f} = sqrt(1 - beta) = {(1 - schedule.betas[400]).sqrt():.5f}")
print(f"variance {variance:.5f} = beta = {schedule.betas[400]:.5f}")

# %% [markdown]
# ## One pixel
#
# Take a pixel with the value 0.8, and $\beta = 0.02$. Its next value is drawn around $\sqrt{0.98} \cdot 0.8 \approx 0.792$
# with a standard deviation of $\sqrt{0.02} \approx 0.14$. We draw it a hundred thousand times and look at the result.

# %%
pixel, beta = torch.full((100_000,), 0.8), torch.tensor(0.02)
after = (1 - beta).sqrt() * pixel + beta.sqrt() * torch.randn_like(pixel)
print(f"mean {after.mean():.3f}, deviation {after.std():.3f}")

# %% [markdown]
# ## Step by step
#
# Four steps show something only if they are larger than usual: $\beta$ goes from 0.03 to 0.3.

# %%
short = registry.schedule.get("linear:T=4,start=0.03,end=0.3")()
x, s, row = x0[:1], unnoise.diffusion.level.CLEAN, [x0[:1]]
for time in range(short.T):
    t = short.level(time)
    x = q_step(x, torch.randn_like(x), s, t)
    row, s = [*row, x], t
unnoise.show(torch.cat(row), [f"$x_{i}$" for i in range(5)])

# %% [markdown]
# !!! note "Numbers of levels"
#     The paper counts $t = 1 \ldots T$ and calls the clean image $x_0$. A table in Python starts at 0, so unnoise has
#     levels 0 to T - 1, and `CLEAN` before them, at time -1.
#
# ## Exercises
#
# 1. How many steps of the 1,000 does it take until less than half of a pixel's original value is left?
# 2. Replace the noise by uniform noise of the same variance. After many steps, can you see the difference?
#
# ### Solutions

# %%
left = (1 - schedule.betas).sqrt().cumprod(0)
print("1. after step", 1 + int((left < 0.5).nonzero()[0]))

x = torch.full((100_000,), 0.8)
for beta in schedule.betas[:300].float():
    x = (1 - beta).sqrt() * x + beta.sqrt() * (torch.rand_like(x) - 0.5) * 12**0.5
z = (x - x.mean()) / x.std()
print(f"2. third moment {z.pow(3).mean():.3f}, fourth {z.pow(4).mean():.3f}; of a Gaussian 0 and 3: a sum of many")
