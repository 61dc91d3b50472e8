# %% [markdown]
# # Your own data
#
# Everything that takes a folder of images also takes images that are already in Python: `train`, `open_data`,
# `evaluate`. The content is fingerprinted, so a run knows its data and resumes only on the same images.
#
# | what | form |
# |---|---|
# | a path or a name | folder, zip, tar, npy, npz, IDX, parquet, shards, an address, a built-in dataset |
# | NumPy array or tensor | `[n, h, w]`, `[n, h, w, c]` or `[n, c, h, w]`; whole numbers, floats or bool; see Numbers |
# | PyTorch dataset | has a length; `dataset[i]` is an image or `(image, label)` |
# | Hugging Face dataset | a column of images, and perhaps a column of labels |
# | list | paths of image files, PIL images or arrays, or pairs of these with a label |
#
# Here are some images to begin with, as an array:

# %%
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import TensorDataset

import unnoise as un

array = un.open_data("faces:count=200", size=16).read(range(200)).transpose(0, 2, 3, 1)
print(array.shape, array.dtype)

# %% [markdown]
# ## Arrays and tensors
#
# [`open_data`](unnoise.open_data) returns a dataset. It resizes if you give a size. `data[i]` is an image in [-1, 1] and
# its label.

# %%
data = un.open_data(array)
image, label = data[0]
print(len(data), data.shape, image.dtype, label)

tensor = torch.from_numpy(array).permute(0, 3, 1, 2) / 255
print(un.open_data(tensor, size=8).shape)

# %% [markdown]
# ## Numbers
#
# Pixels of 8 bits are 0 to 255. Other numbers do not say which one is black and which one is white, so the images of a set
# decide together; a note tells it, and the run keeps it.
#
# | numbers | black and white |
# |---|---|
# | uint16 and other whole numbers | 0, and the first of 255, 1023, 4095, 16383, 65535 that holds the largest number |
# | larger whole numbers | 0, and the largest number, or 2^32 - 1 if a quarter of this range is used |
# | signed numbers | the smallest and the largest number, if some are below zero |
# | floats | 0 and 1, -1 and 1, 0 and 255, or 0 and 65535; otherwise the smallest and the largest number |
#
# A set may mix types: each type has its own span. An image with a number that is not finite is skipped by name. 16-bit PNG
# that unnoise writes always span the whole range; they say so in a text, and are read accordingly.

# %%
twelve_bits = array[..., 0].astype("uint16") * 4095 // 255
print(un.open_data(twelve_bits).notes)

# %% [markdown]
# ## PyTorch datasets and labels
#
# Labels that are whole numbers become classes.

# %%
labelled = TensorDataset(tensor, torch.arange(200) % 2)
print(un.open_data(labelled).classes)

# %% [markdown]
# ## Lists of images and paths

# %%
opened = [Image.fromarray(row) for row in array[:20]]
for number, one in enumerate(opened):
    one.save(f"{number}.png")
print(len(un.open_data(opened)), len(un.open_data(sorted(Path().glob("*.png")))))

# %% [markdown]
# ## Hugging Face datasets
#
# A dataset of the library `datasets` works in the same way. Columns of the types `Image` and `ClassLabel` are found:
#
# ```python
# from datasets import load_dataset
#
# run = un.train(load_dataset("OWNER/NAME", split="train"), classes=True)
# ```
#
# ## Training
#
# `train` takes the same objects. Its settings are the flags of `unnoise train`.

# %%
run = un.train(array, images=320, batch=32, backbone="unet:widths=8-16,layers=1,groups=4,head=8", held_out=20)
un.show(un.sample(run, 4, steps=5))
