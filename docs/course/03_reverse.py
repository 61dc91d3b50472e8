# %% [markdown]
# # 3. The way back
#
# Generation goes the other way: from pure noise, step by step, to an image. If $x_0$ were known, each step back would be
# known too. By Bayes' rule, and because $x_t$ depends only on $x_{t-1}$,
#
# $$ q(x_{t-1} \mid x_t, x_0) \propto q(x_t \mid x_{t-1})\, q(x_{t-1} \mid x_0), $$
#
# a product of two Gaussians in $x_{t-1}$, which is again a Gaussian. Its precision is the sum of their precisions. Its mean
# is the mean of their means, weighted by their precisions. Written out (Ho et al. 2020, eq. 7):
#
# $$ \tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0
#  + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t, \qquad
# \tilde\beta_t = \beta_t\,\frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}. $$
#
# The argument does not need neighbouring levels, so unnoise computes it between any two levels:
# [`posterior_mean`](unnoise.diffusion.process.posterior_mean) and
# [`posterior_variance`](unnoise.diffusion.process.posterior_variance). This one fact replaces the "respacing" of
# other libraries.

# %%
import torch

import unnoise
from unnoise import registry
from unnoise.diffusion.process import posterior_mean, posterior_variance, q_sample
from unnoise.images import to_float

torch.manual_seed(0)
data = unnoise.open_data("faces:count=200", size="32")
faces = to_float(torch.from_numpy(data.read(range(200))))
schedule = registry.schedule.get("linear")()

x0, t, s = faces[:1], schedule.level(500), schedule.level(499)
x_t = q_sample(x0, torch.randn_like(x0), t)
mean, variance = posterior_mean(x0, x_t, t, s), posterior_variance(t, s)

beta, bar, before = schedule.betas[500], schedule.alphas_cumprod[500], schedule.alphas_cumprod[499]
by_hand = before.sqrt() * beta / (1 - bar) * x0 + (1 - beta).sqrt() * (1 - before) / (1 - bar) * x_t
print(f"largest difference of the means {(mean - by_hand).abs().max():.1e}")
print(f"variance {variance:.6f} = {beta * (1 - before) / (1 - bar):.6f}")

# %% [markdown]
# ## The missing part
#
# In generation, $x_0$ is unknown. So a network looks at $x_t$ and $t$ and predicts it. The network may predict the image or
# the noise in it. From $x_t = \alpha_t x_0 + \sigma_t \epsilon$, one gives the other:
#
# $$ \hat x_0 = \frac{x_t - \sigma_t\,\epsilon_\theta(x_t, t)}{\alpha_t}. $$
#
# unnoise writes the output of the network as $a\,x_0 + b\,\epsilon$ (a [target](unnoise.diffusion.target.eps)). One 2 x 2
# inverse gives both $x_0$ and $\epsilon$ back, [`decode`](unnoise.diffusion.target.decode).

# %%
from unnoise.diffusion.target import decode, encode

eps = torch.randn_like(x0)
x_t = q_sample(x0, eps, t)
for name in registry.target.names():
    target = registry.target.get(name)
    clean, noise = decode(encode(x0, eps, t, target), x_t, t, target)
    print(f"{name:5} a, b = {[round(float(c), 3) for c in target(t)]}, x0 off by {(clean - x0).abs().max():.1e}")

# %% [markdown]
# ## The best possible prediction
#
# For a finite set of equally likely images, the best prediction in the sense of least squares has a formula. It is the mean
# of all images, each weighted by how well it explains $x_t$. So no network is needed to see what a perfect network would do.

# %%
from unnoise.diffusion.model import Prediction


def perfect(x_t, level):
    """E[x0 | x_t] of `faces`."""
    apart = (x_t[:, None] - level.alpha.to(x_t) * faces).square().sum(dim=(2, 3, 4))
    weight = torch.softmax(-apart / (2 * level.sigma.to(x_t) ** 2), dim=1)
    x0 = torch.einsum("bn,nchw->bchw", weight, faces)
    return Prediction(x0, (x_t - level.alpha.to(x_t) * x0) / level.sigma.to(x_t))


times = (100, 500, 700, 800, 900, 999)
noisy = [q_sample(faces[3:4], eps, schedule.level(t)) for t in times]
unnoise.show(torch.cat(noisy), [f"t = {t}" for t in times])
unnoise.show(torch.cat([perfect(x, schedule.level(t)).x0 for x, t in zip(noisy, times, strict=True)]))

# %% [markdown]
# (unnoise has this function as [`ideal`](unnoise.diffusion.ideal.ideal), and later chapters use it; Karras et al. 2022,
# [arXiv:2206.00364](https://arxiv.org/abs/2206.00364), eq. 57.)
#
# If there is little noise, the prediction is the image. If there is only noise, the prediction is the mean of all faces,
# which is a blur. This is why sampling does not jump from pure noise to $\hat x_0$: it goes step by step, and predicts again
# after each step.
#
# ## Exercises
#
# 1. Put $x_0 = (x_t - \sigma_t \epsilon)/\alpha_t$ into $\tilde\mu_t$ and show that
#    $\tilde\mu_t = \frac{1}{\sqrt{\alpha_t}}\left(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon\right)$
#    (the $\alpha_t = 1 - \beta_t$ of the paper). Check it with numbers.
# 2. What is $\tilde\beta_1$, the variance of the last step? Why?
#
# ### Solutions

# %%
t, s = schedule.level(500), schedule.level(499)
beta = schedule.betas[500]
x_t = q_sample(x0, eps, t)
short = (x_t - beta / t.sigma * eps) / (1 - beta).sqrt()
print(f"1. off by {(posterior_mean(x0, x_t, t, s) - short).abs().max():.1e}")
print("2.", float(posterior_variance(schedule.level(0), unnoise.diffusion.level.CLEAN)), "because x0 itself is known")
