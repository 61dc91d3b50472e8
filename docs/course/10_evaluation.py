# %% [markdown]
# # 10. How good is it?
#
# A loss says how well the noise is predicted, not how good the images are. So we compare two sets: images that the model
# draws, and real images that it has not seen. A feature extractor (a network for images) describes each image by numbers. The **kernel distance** (KID; Binkowski et al.
# 2018, [arXiv:1801.01401](https://arxiv.org/abs/1801.01401)) compares the means, the spreads and the skews of these numbers.
# For two sets from the same distribution it is 0 on average, at any size of the sets ([`kid`](unnoise.evaluation.metrics.kid)). The
# **Frechet distance** (FID) is not: for few images it is too large. unnoise prints both with an interval, and the score of
# real images against real images.
#
# To see what a score means, damage real images in a known way and look at how the score changes.

# %%
import torch

import unnoise
from unnoise import registry
from unnoise.diffusion.process import q_sample
from unnoise.evaluation import metrics
from unnoise.evaluation.measure import measure_pixels
from unnoise.images import to_float, to_uint8

torch.manual_seed(0)
data = unnoise.open_data("faces:count=600", size="32")
faces = to_float(torch.from_numpy(data.read(range(600))))
extractor = registry.features.get("efficientnet")()
real = measure_pixels(to_uint8(faces[:300]), extractor)
schedule = registry.schedule.get("cosine")()

others = faces[300:]
for name, spoiled in {
    "others, unchanged": others,
    "a little noise": q_sample(others, torch.randn_like(others), schedule.level(30)),
    "more noise": q_sample(others, torch.randn_like(others), schedule.level(100)),
    "half of them copies of one": torch.cat([others[:150], others[:1].expand(150, -1, -1, -1)]),
}.items():
    made = measure_pixels(to_uint8(spoiled), extractor)
    score = metrics.kid(made.kept, real.kept)
    low, high = score.interval  # of 95 %
    print(f"{name:27} KID x 1000: {1000 * score.value:6.0f} ({1000 * low:.0f} to {1000 * high:.0f})")

# %% [markdown]
# The images that are scored and the images that they are compared with must not be the same. `unnoise eval RUN` compares
# with held-out images if there are 500 or more: real ones that the run has not seen. It also prints the scores against training
# images. A model that copies its training images is nearer to them than other real images are. Here is the score of a set
# against itself: it is below 0, and says nothing.

# %%
print(f"against itself: {1000 * metrics.kid(real.kept, real.kept).value:.0f}")

# %% [markdown]
# [What a score says](../concepts/evaluation.md) has figures for each kind of damage. `unnoise eval RUN` scores a run.
#
# The other question is whether the images are new. `unnoise eval RUN --metrics memorization` finds the nearest training image
# of each image, and reports how many are nearer than new images are.
#
# ## Exercises
#
# 1. How does the interval shrink with the number of images? Score 75 and 300 of `others`.
# 2. Mirror all images. Should the score change? Does it?
#
# ### Solutions

# %%
for count in (75, 300):
    low, high = metrics.kid(measure_pixels(to_uint8(others[:count]), extractor).kept, real.kept).interval
    print(f"1. {count}: {1000 * low:.0f} to {1000 * high:.0f}")
low, high = metrics.kid(measure_pixels(to_uint8(others.flip(-1)), extractor).kept, real.kept).interval
print(f"2. mirrored: {1000 * low:.0f} to {1000 * high:.0f}: 300 images show no difference")
