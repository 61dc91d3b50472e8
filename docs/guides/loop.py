# %% [markdown]
# # Your own loop
#
# `unnoise.train` saves, resumes, measures and draws. If you want to write the loop yourself, the same parts work in a
# plain PyTorch loop. Nothing is written to the disk until you say so.
#
# First a network. A backbone is any `nn.Module` that takes a noisy image `[b, c, h, w]`, its time `[b]` (the number of
# the noise level) and a class `[b]` or None, and that returns a tensor of the image's shape.

# %%
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import unnoise as un


class MyNet(nn.Module):
    """Predict the target by three convolutions that also see the time."""

    def __init__(self, channels, width=16):
        super().__init__()
        self.time = nn.Linear(1, width)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x, time, label=None):
        h = self.first(x) + self.time(time[:, None] / 1000)[:, :, None, None]
        return self.last(F.silu(self.middle(F.silu(h))))


# %% [markdown]
# ## The loop
#
# `data[i]` is a pair `(x0, label)`: an image, `[c, h, w]` in [-1, 1], and the number of its class (-1 is no class).
# [`noised`](unnoise.noised) draws a level and noise for each image. An objective returns one loss per image.

# %%
torch.manual_seed(0)
data = un.open_data("faces:count=512", size=16)
model = un.Diffusion(MyNet(3), un.schedules.cosine(), un.targets.v, data.shape)
ema = un.EMA(model.backbone, halflife=50_000)
opt = torch.optim.AdamW(model.parameters(), 1e-3)
for x0, label in DataLoader(data, 64, shuffle=True):
    loss = un.objectives.capped_v(model, un.noised(x0, label, model.schedule)).mean()
    loss.backward()
    opt.step()
    opt.zero_grad()
    ema.update(len(x0))
print(f"loss {loss.item():.2f} after one pass over {len(data)} images")

# %% [markdown]
# One pass takes a second and is not enough for faces. The page [your own data](data.md) shows what `open_data` accepts.
#
# ## Sample, score, save
#
# Every function that takes a run also takes a `Diffusion`: `sample`, `evaluate`, `edit` and `save`.

# %%
images = un.sample(model, 4, sampler="ddim:eta=0.5", steps=10)
un.show(images)
score = un.evaluate(model, data, n=50, steps=5, metrics="kid")["kid"]
print(f"KID x 1000: {1000 * score.value:.0f}")

# %% [markdown]
# `ema.network` holds the average of the weights, which usually draws better images. Put it into a `Diffusion` and save
# that one. The file opens again in every place where Python can import `MyNet`: see [your own network](network.md).

# %%
average = un.Diffusion(ema.network, model.schedule, model.target, data.shape)
un.save("mine.safetensors", average)
