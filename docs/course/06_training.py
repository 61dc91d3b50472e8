# %% [markdown]
# # 6. Training
#
# Take images, choose a time for each, add noise, let the network predict the noise, and make the squared error smaller. As a
# loop this is a dozen lines. Here the network is small and the time is short (`COURSE_STEPS` sets it), which is enough to
# see that it works.

# %%
import os
from pathlib import Path

import torch

import unnoise
from unnoise import registry
from unnoise.diffusion.process import q_sample
from unnoise.images import to_float

torch.manual_seed(0)
data = unnoise.open_data("faces:count=2000", size="16")
faces = to_float(torch.from_numpy(data.read(range(2000))))
schedule = registry.schedule.get("linear")()
network = registry.backbone.get("unet:widths=16-32,layers=1,groups=4,head=16")(3, 0, 3)
optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)

losses = []
for _ in range(int(os.environ.get("COURSE_STEPS", "150"))):
    x0 = faces[torch.randint(len(faces), (32,))]
    time, eps = torch.randint(schedule.T, (32,)), torch.randn_like(x0)
    x_t = q_sample(x0, eps, schedule.level(time))
    loss = (network(x_t, time.float()) - eps).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"loss {losses[0]:.2f} at the start, {sum(losses[-20:]) / 20:.2f} at the end")

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(6, 2.5), layout="constrained")
axis.plot(losses, linewidth=0.8)
axis.set(xlabel="step", ylabel="loss", yscale="log")
plt.show()

# %% [markdown]
# A network that always predicts 0 has a loss of 1, because the noise has variance 1. Even a small network is below 1 after a
# few steps: at high noise it only has to copy its input. The low losses come late, and the quality of the images depends on
# them.
#
# ## What a real training adds
#
# [`loop`](unnoise.training.loop.loop) and [`Trainer.step`](unnoise.training.trainer.Trainer.step) are the same loop with what
# a long training needs: an average of the weights for sampling ([`EMA`](unnoise.training.ema.EMA)); mixed precision, with
# loss scaling for fp16; a learning rate that follows the clock; steps that are not finite are skipped; a saved state to
# resume from; held-out images. [Your own loop](../guides/loop.md) shows how to write one with the parts of unnoise.
#
# The notebook's training is a recipe: `unnoise train --recipe notebook` on its 10,000 images is the same training, setting
# for setting (50 epochs, AdamW, 2e-4, linear schedule). Its numbers are others: unnoise has its own order of the images, its
# own noise and first weights, and shrinks images in 8 bits. The default learns much more in the same time:

# %%
run = unnoise.train(
    "faces:count=2000",
    size="16",
    images=os.environ.get("COURSE_IMAGES", "2000"),
    batch=32,
    backbone="unet:widths=16-32,layers=1,groups=4",
)
print(sorted(path.name for path in Path(run).iterdir() if not path.name.startswith(".")))

# %% [markdown]
# ## Exercises
#
# 1. Train the loop above on $x_0$ instead of the noise. Are the two losses comparable?
# 2. The notebook's exercise: more images, a deeper network, more time.
#
# ### Solutions
#
# 1. No. $\hat x_0 - x_0 = -\frac{\sigma_t}{\alpha_t}(\hat\epsilon - \epsilon)$: the two errors differ by a factor that depends
#    on the time. This is why unnoise also reports the loss at fixed noise and levels, and scores of the images.
# 2. This training is a recipe too: `unnoise train --recipe notebook-exercise` (50,000 images, widths 64-128-256-512).

# %%
from unnoise.recipes import train_config

config = train_config("notebook-exercise", {})
print("2.", config.backbone, config.limit)
