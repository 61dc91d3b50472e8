# %% [markdown]
# # 4. The network
#
# The prediction $\epsilon_\theta(x_t, t)$ has the shape of the image. So the network maps images to images, and it also gets
# the time. The usual network is a **U-Net** (Ronneberger et al. 2015, [arXiv:1505.04597](https://arxiv.org/abs/1505.04597)): the
# first half shrinks the image step by step, so that each step sees a larger part of it. The second half enlarges it again. At
# each size the second half also gets the output of the first half, so that no detail is lost.
#
# ## Enlarging
#
# A convolution with stride 2 halves the size of an image. Its transpose doubles the size: every input pixel adds a copy of
# the kernel, times its value, to the output. The copies lie `stride` pixels apart, and they add up where they overlap. By
# hand, for one channel:

# %%
import torch
from torch.nn import functional as F


def conv_transpose2d(x, kernel, stride):
    (h, w), (k, l) = x.shape, kernel.shape
    out = torch.zeros((h - 1) * stride + k, (w - 1) * stride + l)
    for i in range(h):
        for j in range(w):
            out[i * stride : i * stride + k, j * stride : j * stride + l] += x[i, j] * kernel
    return out


square = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
print(conv_transpose2d(square, square, stride=1))
expected = F.conv_transpose2d(square[None, None], square[None, None], stride=1)[0, 0]
print("equal to PyTorch's:", torch.equal(conv_transpose2d(square, square, stride=1), expected))

# %% [markdown]
# If the size of the kernel is not a multiple of the stride, some pixels get more copies than others, and a checkerboard
# appears. The U-Net of unnoise repeats pixels and then applies a convolution ([`Up`](unnoise.backbones.layers.Up)).
#
# ## Time
#
# A network works best with numbers of about the same size; 731 is a bad input. So the time becomes a vector of sines and
# cosines of many frequencies (after Vaswani et al. 2017, section 3.5). This is the form of the notebook:
#
# $$ \mathrm{emb}(t) = [\sin(t\omega_0), \ldots, \sin(t\omega_{d/2-1}), \cos(t\omega_0), \ldots, \cos(t\omega_{d/2-1})],
# \qquad \omega_i = 10000^{-i/(d/2-1)}. $$
#
# Two linear layers with a SiLU between them turn this vector into the input of the blocks. The class
# [`TimeEmbedding`](unnoise.backbones.layers.TimeEmbedding) has the cosines first and divides by $d/2$, like the
# `UNet2DModel` of diffusers.

# %%
import matplotlib.pyplot as plt

from unnoise.backbones.layers import TimeEmbedding

half = 32
frequencies = 10000 ** (-torch.arange(half) / (half - 1))
angles = torch.arange(200)[:, None] * frequencies
figure, axis = plt.subplots(figsize=(6, 2.5), layout="constrained")
axis.imshow(torch.cat([angles.sin(), angles.cos()], dim=1).T.numpy(), aspect="auto", cmap="RdBu")
axis.set(xlabel="t", ylabel="element")
plt.show()

embedding = TimeEmbedding(8)
print(embedding(torch.tensor([0.0, 1.0, 10.0, 100.0])).shape)

# %% [markdown]
# ## The whole network
#
# Networks are registered, and a spec string names one. The first is the notebook's, with widths 64, 128 and 256 and 14.4
# million parameters ([`UNet`](unnoise.backbones.unet.UNet)). unnoise trains the second one in minutes on a
# laptop: it first folds 2 x 2 pixels into channels, so that the expensive convolutions work on a quarter of the pixels. The third is a
# transformer over patches ([`DiT`](unnoise.backbones.dit.DiT); Peebles & Xie 2023,
# [arXiv:2212.09748](https://arxiv.org/abs/2212.09748)). All have the same arguments: image, time, and class, if there is one.

# %%
from unnoise import registry

x, t = torch.randn(1, 3, 32, 32), torch.tensor([500.0])
for spec in (
    "unet:widths=64-128-256,layers=2,groups=32,head=8",
    "unet:widths=32-64-128,layers=1,patch=2,groups=8,head=32",
    "dit:width=96,depth=4,heads=3,patch=4",
):
    network = registry.backbone.get(spec)(3, 0, 3)
    size = sum(p.numel() for p in network.parameters())
    print(f"{size / 1e6:5.1f} M parameters, {tuple(x.shape)} -> {tuple(network(x, t).shape)}: {spec}")

# %% [markdown]
# ## Exercises
#
# 1. With a kernel of 4 and a stride of 2, how large is the output of `conv_transpose2d` for a 5 x 5 input? Which padding
#    makes the output exactly twice as large as the input?
# 2. A network that gets the time as one number in [0, 1] can hardly distinguish 500 from 501. How far apart are the two in
#    the embedding, compared with 500 and 600?
#
# ### Solutions

# %%
print("1.", conv_transpose2d(torch.ones(5, 5), torch.ones(4, 4), 2).shape, "minus 1 at each side: 10 x 10")


def emb(t):
    return torch.cat([(t * frequencies).sin(), (t * frequencies).cos()])


print(f"2. {(emb(501) - emb(500)).norm():.2f} and {(emb(600) - emb(500)).norm():.2f}, of {emb(500).norm():.2f}")
