# %% [markdown]
# # 5. The loss
#
# A model is good if it gives real images a high likelihood: $-\log p_\theta(x_0)$ should be small. But $p_\theta(x_0)$ is an
# integral over all paths from noise to $x_0$, and cannot be computed. As for a variational autoencoder, there is a bound:
# multiply and divide by the forward process, and use Jensen's inequality,
#
# $$ -\log p_\theta(x_0) \le \mathbb{E}_q\left[-\log\frac{p_\theta(x_{0:T})}{q(x_{1:T}\mid x_0)}\right] =: L. $$
#
# Both processes are chains. Written backwards (by Bayes' rule for each step), the forward one is
# $q(x_{1:T}\mid x_0) = q(x_T \mid x_0)\prod_{t>1} q(x_{t-1}\mid x_t, x_0)$, and the bound splits into one term for each step
# (Ho et al. 2020, eq. 5):
#
# $$ L = \mathbb{E}_q\Big[\underbrace{D_{\mathrm{KL}}(q(x_T\mid x_0)\,\|\,p(x_T))}_{L_T}
#  + \sum_{t>1}\underbrace{D_{\mathrm{KL}}(q(x_{t-1}\mid x_t,x_0)\,\|\,p_\theta(x_{t-1}\mid x_t))}_{L_{t-1}}
#  \underbrace{-\log p_\theta(x_0\mid x_1)}_{L_0}\Big]. $$
#
# All terms except the last are between Gaussians. The last term is the probability that a Gaussian gives to one of 256
# values. So all terms can be computed, in bits per dimension: [`bound`](unnoise.diffusion.likelihood.bound) computes them
# all, and [`term`](unnoise.diffusion.likelihood.term) computes one $L_{t-1}$. Here is the bound of the perfect prediction of
# chapter 3, on some of the 200 faces it knows. To name one of 200 equally likely images takes $\log_2 200$ bits.

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
print(f"L_T          {found.prior.mean() * size:8.2f} bits an image: nothing of it is left at level T")
print(f"all L_(t-1)  {found.terms[:, :-1].sum(dim=1).mean() * size:8.2f}; log2(200) = {math.log2(200):.2f}")
print(f"L_0          {found.terms[:, -1].mean() * size:8.2f}, or {found.terms[:, -1].mean():.2f} per pixel and channel")

# %% [markdown]
# The steps need hardly more than $\log_2 200$ bits. $L_0$ is the cost of the last step: for every pixel and channel, a
# Gaussian with the remaining width must hit the right one of 256 values, even if the image is certain.
#
# Which steps need the bits? Each term says how much a step adds to the knowledge about the image. The first steps, in the
# noise, decide nothing. The last steps decide nothing either, because the face is already known. All bits belong to the
# steps between.

# %%
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(6, 2.8), layout="constrained")
axis.plot((found.terms[:, :-1].mean(dim=0) * size).numpy())
axis.set(xlabel="step, from noise to image", ylabel="bits")
plt.show()

# %% [markdown]
# ## From the bound to one line
#
# With the variance fixed, a KL divergence of two Gaussians is the squared distance of their means,
# $\frac{1}{2\sigma_t^2}\|\tilde\mu_t - \mu_\theta\|^2$. Both means contain the same multiple of $x_t$ (chapter 3, exercise 1),
# and only the noise differs:
#
# $$ L_{t-1} = \mathbb{E}\left[w_t\,\|\epsilon - \epsilon_\theta(x_t, t)\|^2\right] + C,\qquad
# w_t = \frac{\beta_t^2}{2\sigma_t^2\,\alpha_t\,(1-\bar\alpha_t)}. $$
#
# The paper then drops the weight. The result is a squared error (its eq. 14), the objective
# [`simple`](unnoise.diffusion.objective.simple):
#
# $$ L_{\mathrm{simple}} = \mathbb{E}_{x_0,\epsilon,t}\left[\|\epsilon - \epsilon_\theta(x_t, t)\|^2\right]. $$
#
# To drop the weight is a good choice: the weight of the bound is largest for noise that is too weak to be seen.

# %%
beta, bar = schedule.betas, schedule.alphas_cumprod
posterior = beta * (1 - torch.cat([torch.ones(1), bar[:-1]])) / (1 - bar)
weight = beta**2 / (2 * posterior * (1 - beta) * (1 - bar))
print("w_t at t = 1, 10, 100, 999:", [f"{weight[t]:.4f}" for t in (1, 10, 100, 999)])

# %% [markdown]
# Later papers choose a weight between the two. Hang et al. 2023 cap the signal-to-noise ratio: the weight of the squared error
# of $x_0$ is $\min(\mathrm{SNR}, \gamma)$, so that of the noise is $\min(1, \gamma / \mathrm{SNR})$. This is
# [`min_snr_gamma`](unnoise.diffusion.objective.min_snr_gamma). The default of unnoise,
# [`capped_v`](unnoise.diffusion.objective.capped_v), predicts $x_0$ and caps $\mathrm{SNR} + 1$, which does not vanish in noise.

# %% [markdown]
# ## Exercises
#
# 1. Why is $L_T$ not part of the training?
# 2. The objective `bound` of unnoise trains on the bound itself. Which other objectives does `unnoise list objectives` show?
# 3. How many bits does a prediction need that is always "the mean of all faces"?
#
# ### Solutions

# %%
print("1. it contains nothing that is learned: we chose both of its distributions")
print("2.", ", ".join(registry.objective.names()))
mean = faces.mean(dim=0, keepdim=True)
dull = bound(
    lambda x, level: Prediction(mean.expand_as(x), (x - level.alpha.to(x) * mean) / level.sigma.to(x)),
    faces[:16],
    schedule.grid(1000),
)
print(f"3. {dull.terms[:, :-1].sum(dim=1).mean() * size:,.0f} an image in the steps: it pays for every pixel again")
