# %% [markdown]
# # Your own network
#
# A backbone takes a noisy image `[b, c, h, w]`, its time `[b]` and a class `[b]` or None. It returns a tensor of the
# image's shape. It knows nothing of schedules or targets.
#
# ## Train it
#
# Give the network itself as `backbone`. unnoise trains a copy, so your object keeps its weights.

# %%
import sys
from pathlib import Path

import unnoise as un

Path("mynet.py").write_text('''
"""A plugin: a network of three convolutions."""

from torch import nn
from torch.nn import functional as F

from unnoise import registry


@registry.backbone
class MyNet(nn.Module):
    """Predict the target by three convolutions that also see the time."""

    def __init__(self, channels, classes=0, outputs=None, *, width: int = 16):
        super().__init__()
        self.time = nn.Linear(1, width)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, outputs or channels, 3, padding=1)

    def forward(self, x, time, label=None):
        h = self.first(x) + self.time(time[:, None] / 1000)[:, :, None, None]
        return self.last(F.silu(self.middle(F.silu(h))))
''')
sys.path.insert(0, ".")
from mynet import MyNet

run = un.train("faces:count=200", size=16, images=320, batch=32, backbone=MyNet(3, width=8), out="runs/mine")
print(run)

# %% [markdown]
# `channels` is 1 for gray and 3 for RGB. `classes` is the number of classes. `outputs` is twice the channels for an
# objective that learns the variance. Options follow the star and have a type: they become options of a spec string, so
# `"mynet:width=8"` means the same as the object above.
#
# ## Save it, open it again
#
# The model file stores the name and the options of the network, and no code. So the file opens wherever the class is
# known: it is registered, its module is imported, or you pass it, as in `un.load("mine.safetensors", backbone=MyNet)`.

# %%
opened = un.load(run)
print(opened.card.backbone)
un.save("mine.safetensors", opened.model)
un.show(un.sample("mine.safetensors", 4, steps=5))

# %% [markdown]
# ## On the command line
#
# `@registry.backbone` above the class gives the network a name. `--plugin` imports the file, so every command knows this
# name. A run stores the name of the plugin; if it is missing, the error says which one to add. unnoise never imports a
# plugin because a stranger's run names it.
#
# ```sh
# unnoise train photos --plugin mynet.py --backbone mynet:width=32
# unnoise sample runs/photos-1 --plugin mynet.py
# ```
#
# The page [extending unnoise](extending.md) shows how an installed package becomes a plugin without the flag.

# %%
from unnoise import cli

assert cli.main(["sample", "runs/mine", "--plugin", "mynet.py", "-n", "4", "--steps", "5", "--out", "drawn"]) == 0
print(sorted(path.name for path in Path("drawn").glob("*.png")))
