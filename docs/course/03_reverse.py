# %% [markdown]
# # 3. The way back
#
# Generating means going the other way: from pure noise, step by step, to a picture. If $x_0$ were known, each step back
# would be known too. By Bayes' rule, and since $x_t$ depends on nothing but $x_{t-1}$,
#
# $$ q(x_{t-1} \mid x_t, x_0) \propto q(x_t \mid x_{t-1})\, q(x_{t-1} \mid x_0), $$
#
# a product of two Gaussians in $x_{t-1}$: again a Gaussian. Its precision is the sum of their precisions, its mean the
# mean of theirs weighted by these; written out (Ho et al. 2020, eq. 7):
#
# $$ \tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,x_0
#  + \frac{\sqrt{\alpha_t}\,(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t, \qquad
# \tilde\beta_t = \beta_t\,\frac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}. $$
#
# Nothing in the argument needs neighbouring levels, so unnoise has it between any two:
# [`posterior_mean`](unnoise.diffusion.process.posterior_mean) and
# [`posterior_variance`](unnoise.diffusion.process.posterior_variance). That one fact replaces all "respacing" of other
# libraries.

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
# ## What is missing
#
# When we generate, $x_0$ is what we are after. So a network looks at $x_t$ and $t$ and guesses. It may guess the
# picture, or the noise in it: by $x_t = \alpha_t x_0 + \sigma_t \epsilon$ one gives the other,
#
# $$ \hat x_0 = \frac{x_t - \sigma_t\,\epsilon_\theta(x_t, t)}{\alpha_t}. $$
#
# unnoise writes what a network is asked for as $a\,x_0 + b\,\epsilon$ (a [target](unnoise.diffusion.target.eps)) and gets
# both back from it by one 2 x 2 inverse, [`decode`](unnoise.diffusion.target.decode).

# %%
from unnoise.diffusion.target import decode, encode

eps = torch.randn_like(x0)
x_t = q_sample(x0, eps, t)
for name in registry.target.names():
    target = registry.target.get(name)
    clean, noise = decode(encode(x0, eps, t, target), x_t, t, target)
    print(f"{name:5} a, b = {[round(float(c), 3) for c in target(t)]}, x0 off by {(clean - x0).abs().max():.1e}")

# %% [markdown]
# ## The best guess there is
#
# For a finite set of pictures, each as likely, the best guess in the sense of least squares can be written down: the mean
# of all of them, weighted by how well each explains $x_t$. No network is needed to see what a perfect one would do.

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
# (This is [`ideal`](unnoise.diffusion.ideal.ideal) of unnoise, which later chapters use; Karras et al. 2022,
# [arXiv:2206.00364](https://arxiv.org/abs/2206.00364), eq. 57.)
#
# Where there is little noise the guess is the picture. Where there is nothing but noise it is the mean of all faces: the
# best one can say, and a blur. That is why one does not jump to $\hat x_0$ from pure noise but goes step by step, and
# guesses again after each.
#
# ## Exercises
#
# 1. Put $x_0 = (x_t - \sigma_t \epsilon)/\alpha_t$ into $\tilde\mu_t$ and show that
#    $\tilde\mu_t = \frac{1}{\sqrt{\alpha_t}}\left(x_t - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon\right)$
#    (the $\alpha_t = 1 - \beta_t$ of the paper). Check it with numbers.
# 2. What is $\tilde\beta_1$, the variance of the last step? Why must it be so?
#
# ### Solutions

# %%
t, s = schedule.level(500), schedule.level(499)
beta = schedule.betas[500]
x_t = q_sample(x0, eps, t)
short = (x_t - beta / t.sigma * eps) / (1 - beta).sqrt()
print(f"1. off by {(posterior_mean(x0, x_t, t, s) - short).abs().max():.1e}")
print("2.", float(posterior_variance(schedule.level(0), unnoise.diffusion.level.CLEAN)), "since x0 itself is known")
