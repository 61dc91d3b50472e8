# %% [markdown]
# # 6. Training
#
# Take pictures, choose a time for each, noise them, let the network guess the noise, and make the squared error smaller.
# That is all; as a loop it is a dozen lines. Here on a small network and for a short time (`COURSE_STEPS` changes it),
# which is enough to see it work.

# %%
import os

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
print(f"loss {losses[0]:.2f} at first, {sum(losses[-20:]) / 20:.2f} at the end")

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(6, 2.5), layout="constrained")
axis.plot(losses, linewidth=0.8)
axis.set(xlabel="step", ylabel="loss", yscale="log")
plt.show()

# %% [markdown]
# A loss of 1 is what always guessing 0 gets, since the noise has variance 1. Even a small network comes below that in a
# few steps, for at high noise it need only copy its input. The low losses come late, and they are what pictures hang on.
#
# ## What a real training adds
#
# The same loop, with what people miss when it is not there, is
# [`loop.py`](unnoise.training.train.steps) and [`Training.step`](unnoise.training.trainer.Training.step): an average of the
# weights, from which one samples ([`EMA`](unnoise.training.ema.EMA)); mixed precision, with a loss scale where it is fp16;
# a learning rate that ends with the time; steps that are not finite skipped; a state to go on from; held-out images.
#
# The notebook's training is a recipe: `unnoise train --recipe notebook` on its 10,000 pictures is that training, number
# for number (50 epochs, AdamW, 2e-4, linear schedule). The default learns much more in the same time:

# %%
run = unnoise.train(
    "faces:count=2000",
    size="16",
    images=os.environ.get("COURSE_IMAGES", "2000"),
    batch=32,
    backbone="unet:widths=16-32,layers=1",
)
print(sorted(path.name for path in run.iterdir() if not path.name.startswith(".")))

# %% [markdown]
# ## Exercises
#
# 1. Train the loop above on $x_0$ instead of the noise. Are the two losses comparable?
# 2. The notebook's exercise: more pictures, a deeper network, more time.
#
# ### Solutions
#
# 1. No. $\hat x_0 - x_0 = -\frac{\sigma_t}{\alpha_t}(\hat\epsilon - \epsilon)$: the same guess has another error, and each time
#    another factor. That is why unnoise also reports the loss on fixed noise and levels, and pictures' scores.
# 2. It is a recipe too: `unnoise train --recipe notebook-exercise` (50,000 pictures, widths 64-128-256-512).

# %%
from unnoise.recipes import train_config

config = train_config("notebook-exercise", {})
print("2.", config.backbone, config.limit)
