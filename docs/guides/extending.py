# %% [markdown]
# # Extending unnoise
#
# A sampler, an objective, a schedule and a monitor are each one function or one class. In Python you pass your function
# where a spec string such as `"ddim:eta=0.5"` is allowed. If you also register it, its name works on the command line.
#
# ## A sampler
#
# A sampler is a generator. It gets a denoiser, noise, and decreasing levels. It yields a
# [`Step`](unnoise.samplers.base.Step) after each level. This one is [`ddim`](unnoise.samplers.ddim.ddim), but it keeps
# only a share of the predicted noise:

# %%
from functools import partial
from itertools import pairwise

import torch

import unnoise as un
from unnoise import registry
from unnoise.samplers.base import Step
from unnoise.training.monitors.monitor import Outcome


@registry.sampler.declare(order=1, evaluations=1)
def calmer(denoise, x, levels, *, keep: float = 0.95, randn_like=torch.randn_like):
    """Follow ddim, but keep only a share of the predicted noise."""
    for t, s in pairwise(levels):
        x0, eps, _ = denoise(x, t)
        x = s.alpha.to(x) * x0 + keep * s.sigma.to(x) * eps
        yield Step(x, x0, s)


# %% [markdown]
# `@registry.sampler.declare(order=1, evaluations=1)` registers the function under its own name and states its facts.
# Options are keyword-only parameters with a plain type (`keep: float`). The contract tests in `tests/samplers` run over
# all registered samplers, so a sampler that you add to unnoise is tested as soon as it is registered.
#
# ## An objective
#
# An objective gets the model and a noised batch ([`Noised`](unnoise.diffusion.objective.Noised)). It returns one loss
# per image, `[b]`.

# %%


def absolute(model, batch):
    """Return the mean absolute error of the predicted image."""
    predicted = model(batch.x_t, batch.t, batch.label)
    return (predicted.x0 - batch.x0).abs().mean(dim=(1, 2, 3))


# %% [markdown]
# ## A schedule
#
# A schedule is a function that returns a [`Schedule`](unnoise.diffusion.schedule.Schedule), a table of `alpha` and
# `sigma` over T levels.

# %%


@registry.schedule
def straight(*, T: int = 1000):
    """Let alpha fall linearly."""
    alpha = torch.linspace(0.999, 0.001, T, dtype=torch.float64)
    return un.schedules.Schedule(alpha, (1 - alpha**2).sqrt())


# %% [markdown]
# A target, a spacing, an optimizer and a backbone are added in the same way: `@registry.target`, `@registry.spacing`,
# `@registry.optimizer`, `@registry.backbone`. The [reference](../reference/registries.md) shows all entries and links
# to their source; a backbone has [its own page](network.md).
#
# ## A monitor
#
# A monitor looks at the model during the training. It says when it is due, and it returns rows for `metrics.jsonl` and
# messages to print. [`TimeBudget`](unnoise.training.monitors.monitor.TimeBudget) keeps a monitor within its share of
# the time. Previews, validation and KID are monitors too.

# %%


class Brightness:
    """Log the mean of some generated images, every 160 training images."""

    name = "brightness"

    def __init__(self):
        self.next = 160

    def due(self, clock):
        return clock.seen >= self.next

    def run(self, model, clock, stop):
        self.next = clock.seen + 160
        mean = float(un.sample(model, 8, steps=5).mean())
        return Outcome(rows=[{"images": clock.seen, "brightness": mean}], messages=[f"mean      {mean:.3f}"])


# %% [markdown]
# ## All of them in one training

# %%
run = un.train(
    "faces:count=200",
    size=16,
    images=320,
    batch=32,
    backbone="unet:widths=8-16,layers=1,groups=4,head=8",
    schedule="straight:T=500",
    objective=absolute,
    monitors=[Brightness()],
    warmup=0,
    steps=5,
)
print(run.card.schedule, run.card.training["config"]["objective"])
print(sum("brightness" in line for line in (run.folder / "metrics.jsonl").read_text().splitlines()), "rows")

two, three = (un.sample(run, 4, sampler=how) for how in (partial(calmer, keep=0.9), "calmer:keep=0.9"))
print("the function and its spec string draw the same images:", torch.equal(two, three))

# %% [markdown]
# ## Plugins
#
# A plugin is a module that registers something when it is imported. There are two ways to make the command line import
# it:
#
# - `unnoise train photos --plugin my_file.py` imports a file, in any command;
# - a package that you install announces its module in the entry-point group `unnoise.plugins`:
#
# ```toml
# [project.entry-points."unnoise.plugins"]
# my_plugin = "my_package.my_module"
# ```
#
# Then `unnoise list samplers` shows the new name, and spec strings may use it everywhere. If a name is unknown, the
# error mentions `--plugin`.
