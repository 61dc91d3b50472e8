# %% [markdown]
# # 5. What to minimise
#
# A model is good if it finds real pictures likely: $-\log p_\theta(x_0)$ should be small. But $p_\theta(x_0)$ is an integral
# over all ways from noise to $x_0$, and cannot be computed. As in a variational autoencoder one bounds it: multiply and
# divide by the forward process, and use Jensen's inequality,
#
# $$ -\log p_\theta(x_0) \le \mathbb{E}_q\left[-\log\frac{p_\theta(x_{0:T})}{q(x_{1:T}\mid x_0)}\right] =: L. $$
#
# Both processes are chains. Written backwards (by Bayes' rule for each step), the forward one is
# $q(x_{1:T}\mid x_0) = q(x_T \mid x_0)\prod_{t>1} q(x_{t-1}\mid x_t, x_0)$, and the bound falls into one term for each step
# (Ho et al. 2020, eq. 5):
#
# $$ L = \mathbb{E}_q\Big[\underbrace{D_{\mathrm{KL}}(q(x_T\mid x_0)\,\|\,p(x_T))}_{L_T}
#  + \sum_{t>1}\underbrace{D_{\mathrm{KL}}(q(x_{t-1}\mid x_t,x_0)\,\|\,p_\theta(x_{t-1}\mid x_t))}_{L_{t-1}}
#  \underbrace{-\log p_\theta(x_0\mid x_1)}_{L_0}\Big]. $$
#
# All but the last are between Gaussians, and the last is a Gaussian's share of one of 256 values, so all can be computed: [`bound`](unnoise.diffusion.likelihood.bound), whose
# [`term`](unnoise.diffusion.likelihood.term) is one $L_{t-1}$, in bits per dimension. Here for the perfect guess of
# chapter 3, on faces of the 200 it knows. To say which of 200 equally likely pictures one means takes $\log_2 200$ bits.

# %%
import math

import torch

import unnoise
from unnoise import registry
from unnoise.diffusion.ideal import ideal
from unnoise.diffusion.likelihood import bound
from unnoise.diffusion.model import Prediction
from unnoise.images import to_float

torch.manual_seed(0)
data = unnoise.open_data("faces:count=200", size="32")
faces = to_float(torch.from_numpy(data.read(range(200))))
schedule, perfect = registry.schedule.get("linear")(), ideal(faces)

found = bound(perfect, faces[:16], schedule.grid(1000))
size = faces[0].numel()
print(f"L_T          {found.prior.mean() * size:8.2f} bits a picture: nothing is left of it at level T")
print(f"all L_(t-1)  {found.terms[:, :-1].sum(dim=1).mean() * size:8.2f}; log2(200) = {math.log2(200):.2f}")
print(f"L_0          {found.terms[:, -1].mean() * size:8.2f}, or {found.terms[:, -1].mean():.2f} a pixel and channel")

# %% [markdown]
# The steps need hardly more than that. $L_0$ is the price of the last one: a Gaussian of the width that is left must hit
# the right one of 256 values, for every pixel and channel, however certain the picture is.
#
# Where are the bits of the steps spent? Each term tells how much more is known about the picture after its step. Nothing is decided
# in the noise, and nothing in the last steps, where the face is long recognised: all of it happens in between.

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(6, 2.8), layout="constrained")
axis.plot((found.terms[:, :-1].mean(dim=0) * size).numpy())
axis.set(xlabel="step, from noise to picture", ylabel="bits")
plt.show()

# %% [markdown]
# ## From the bound to one line
#
# With the variance fixed, a KL divergence of two Gaussians is the squared distance of their means,
# $\frac{1}{2\sigma_t^2}\|\tilde\mu_t - \mu_\theta\|^2$. Both means have the same share of $x_t$ (chapter 3, exercise 1), and only
# the noise differs:
#
# $$ L_{t-1} = \mathbb{E}\left[w_t\,\|\epsilon - \epsilon_\theta(x_t, t)\|^2\right] + C,\qquad
# w_t = \frac{\beta_t^2}{2\sigma_t^2\,\alpha_t\,(1-\bar\alpha_t)}. $$
#
# The paper then drops the weight, and what is left is a squared error (its eq. 14), here the objective
# [`simple`](unnoise.diffusion.objective.simple):
#
# $$ L_{\mathrm{simple}} = \mathbb{E}_{x_0,\epsilon,t}\left[\|\epsilon - \epsilon_\theta(x_t, t)\|^2\right]. $$
#
# Dropping it is a choice, and a good one: the bound's own weight spends most of its force on noise too faint to be seen.

# %%
beta, bar = schedule.betas, schedule.alphas_cumprod
posterior = beta * (1 - torch.cat([torch.ones(1), bar[:-1]])) / (1 - bar)
weight = beta**2 / (2 * posterior * (1 - beta) * (1 - bar))
print("w_t at t = 1, 10, 100, 999:", [f"{weight[t]:.4f}" for t in (1, 10, 100, 999)])

# %% [markdown]
# ## Exercises
#
# 1. Why is $L_T$ no part of the training?
# 2. The objective `bound` of unnoise trains on the bound itself. Find out by `unnoise list objectives` what others there are.
# 3. How many bits does a guess that always says "the mean of all faces" need?
#
# ### Solutions

# %%
print("1. it holds nothing that is learned: both of its distributions are ours")
print("2.", ", ".join(registry.objective.names()))
mean = faces.mean(dim=0, keepdim=True)
dull = bound(
    lambda x, level: Prediction(mean.expand_as(x), (x - level.alpha.to(x) * mean) / level.sigma.to(x)),
    faces[:16],
    schedule.grid(1000),
)
print(f"3. {dull.terms[:, :-1].sum(dim=1).mean() * size:,.0f} a picture in the steps: it pays for every pixel anew")
