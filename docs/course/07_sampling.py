# %% [markdown]
# # 7. Sampling
#
# Start from pure noise. For $t = T \ldots 1$: predict the noise, take the mean of the step back, and add noise with the
# variance of the step, except in the last step (Ho et al. 2020, algorithm 2):
#
# $$ x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\left(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon_\theta(x_t, t)\right)
# + \sqrt{\tilde\beta_t}\,z. $$
#
# By hand, with the perfect prediction for 200 faces in place of a network:

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
# The result is faces. But which faces? The perfect prediction knows only 200 images, so the sampler draws exactly these:

# %%
nearest = torch.cdist(x.flatten(1), faces.flatten(1)).min(dim=1)
print("distance to the nearest of the 200:", [round(float(d), 2) for d in nearest.values])

# %% [markdown]
# A network that memorised its training set would do the same. Diffusion models are useful because a network of limited size,
# which sees each image a limited number of times, predicts something smoother, and so it draws new images.
# `unnoise eval RUN --metrics memorization` looks for images that are copies.
#
# ## A sampler is a generator
#
# In unnoise the loop above is eight lines, [`ddpm`](unnoise.samplers.ddpm.ddpm). It takes a denoiser, noise, and the levels
# to visit. It yields a [`Step`](unnoise.samplers.base.Step) after each level: the noisy image, and the predicted clean image.

# %%
sampler = registry.sampler.get("ddpm")
steps = list(sampler(perfect, torch.randn(1, 3, 32, 32), schedule.grid(1000)))
shown = [0, 200, 400, 600, 800, 900, 950, 999]
unnoise.show(torch.cat([steps[i].x for i in shown]), [f"step {i}" for i in shown])
unnoise.show(torch.cat([steps[i].x0 for i in shown]), ["predicted" for _ in shown])

# %% [markdown]
# A trained run needs one call, `unnoise.sample(run, 16)`. The run contains its sampling settings. Image i has its own seed, so
# it is the same at any batch size.
#
# ## Exercises
#
# 1. Leave out the noise $z$ in the loop. What happens?
# 2. Are all of the 200 faces equally likely? Draw 64 images with 50 levels and count the different faces. If each face has
#    the probability 1/200, there should be about $200\,(1 - (1 - 1/200)^{64})$.
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
print(f"2. {len(which.unique())} different faces; expected are {200 * (1 - (1 - 1 / 200) ** 64):.0f}")
