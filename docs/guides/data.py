# %% [markdown]
# # Your own data
#
# Everything that takes a folder of images also takes images that are already in Python: `train`, `open_data`,
# `evaluate`. The content is fingerprinted, so a run knows its data and resumes only on the same images.
#
# | what | form |
# |---|---|
# | a path or a name | folder, zip, tar, npy, npz, IDX, parquet, shards, an address, a built-in dataset |
# | NumPy array or tensor | `[n, h, w]`, `[n, h, w, c]` or `[n, c, h, w]`; uint8, uint16, or floats in [0, 1] or [-1, 1] |
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
