# %% [markdown]
# # 7. Sampling
#
# From pure noise, for $t = T \ldots 1$: guess the noise, take the mean of the step back, add noise of the step's variance,
# none at the last (Ho et al. 2020, algorithm 2):
#
# $$ x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\left(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon_\theta(x_t, t)\right)
# + \sqrt{\tilde\beta_t}\,z. $$
#
# By hand, with the perfect guess for 200 faces in place of a network:

# %%
import torch

import unnoise
from unnoise import registry
from unnoise.diffusion.ideal import ideal
from unnoise.images import to_float

torch.manual_seed(0)
data = unnoise.open_data("faces:count=200", size="32")
faces = to_float(torch.from_numpy(data.read(range(200))))
schedule, perfect = registry.schedule.get("linear")(), ideal(faces)

beta, bar = schedule.betas.float(), schedule.alphas_cumprod.float()
x = torch.randn(8, 3, 32, 32)
for t in reversed(range(schedule.T)):
    eps = perfect(x, schedule.level(t)).eps
    x = (x - beta[t] / (1 - bar[t]).sqrt() * eps) / (1 - beta[t]).sqrt()
    if t > 0:
        x = x + (beta[t] * (1 - bar[t - 1]) / (1 - bar[t])).sqrt() * torch.randn_like(x)
unnoise.show(x)

# %% [markdown]
# Faces! But which? The perfect guess knows 200 pictures and nothing else, so what it draws are these very 200:

# %%
nearest = torch.cdist(x.flatten(1), faces.flatten(1)).min(dim=1)
print("distance to the nearest of the 200:", [round(float(d), 2) for d in nearest.values])

# %% [markdown]
# A network that had learned its training set by heart would do the same. What makes diffusion models useful is that
# networks of limited size, shown each picture a limited number of times, guess something smoother, and draw pictures that
# are new. `unnoise eval RUN --metrics memorization` looks for those that are not.
#
# ## A sampler is a generator
#
# In unnoise the loop above is eight lines, [`ddpm`](unnoise.samplers.ddpm.ddpm). It gets a guess, noise, and the levels to
# visit, and yields each [`Step`](unnoise.samplers.base.Step): the picture as it is, and the one that is believed in.

# %%
sampler = registry.sampler.get("ddpm")
steps = list(sampler(perfect, torch.randn(1, 3, 32, 32), schedule.grid(1000)))
shown = [0, 200, 400, 600, 800, 900, 950, 999]
unnoise.show(torch.cat([steps[i].x for i in shown]), [f"step {i}" for i in shown])
unnoise.show(torch.cat([steps[i].x0 for i in shown]), ["believed" for _ in shown])

# %% [markdown]
# From a trained run it is one call, `unnoise.sample(run, 16)`: the run knows how it wants to be sampled, and picture i has
# a seed of its own, so that it is the same at any batch size.
#
# ## Exercises
#
# 1. Leave out the noise $z$ in the loop. What happens?
# 2. Are all of the 200 faces as likely? Draw 64 on 50 levels and count how many different ones there are. If each is drawn
#    with probability 1/200, there should be about $200\,(1 - (1 - 1/200)^{64})$.
#
# ### Solutions

# %%
x = torch.randn(8, 3, 32, 32)
for t in reversed(range(schedule.T)):
    eps = perfect(x, schedule.level(t)).eps
    x = (x - beta[t] / (1 - bar[t]).sqrt() * eps) / (1 - beta[t]).sqrt()
unnoise.show(x, ["no noise" for _ in x])
*_, last = registry.sampler.get("ddpm")(perfect, torch.randn(64, 3, 32, 32), schedule.grid(50))
which = torch.cdist(last.x.flatten(1), faces.flatten(1)).argmin(dim=1)
print(f"2. {len(which.unique())} different ones; expected are {200 * (1 - (1 - 1 / 200) ** 64):.0f}")
