"""The diffusion transformer against the figures of its paper and the formulas of its parts."""

import math

import pytest
import torch
from torch.testing import assert_close

from unnoise import registry
from unnoise.backbones.dit import positions
from unnoise.errors import InputError

TINY = "dit:width=16,depth=2,heads=2,patch=2"


@pytest.mark.parametrize(("name", "millions"), [("dit_s", 33), ("dit_b", 130), ("dit_l", 458), ("dit_xl", 675)])
def test_sizes_are_those_of_the_paper(name, millions):
    """Table 1, on 4 channels with a learned variance and 1000 classes; its fixed positions are not counted here."""
    with torch.device("meta"):
        net = registry.backbone.get(name)(4, 1000, 8)
    count = sum(p.numel() for p in net.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)
    if name == "dit_xl":
        assert count + 256 * 1152 == 675_129_632  # the released checkpoint, which holds its 256 positions


def test_it_starts_at_zero_and_silent():
    net = registry.backbone.get(TINY)(3, 2)
    x = torch.randn(2, 3, 8, 8)
    assert net(x, torch.tensor([0.0, 9.0]), torch.tensor([0, 1])).abs().max() == 0
    tokens, emb = torch.randn(2, 4, 16), torch.randn(2, 16)
    assert torch.equal(net.blocks[0](tokens, emb), tokens)


def test_positions_are_waves_of_the_column_then_of_the_row():
    table = positions(2, 3, 8).unflatten(0, (2, 3))
    for row, column in [(0, 0), (1, 2), (0, 1)]:
        expected = []
        for place in (column, row):
            expected += [math.sin(place), math.sin(place / 100), math.cos(place), math.cos(place / 100)]
        assert_close(table[row, column], torch.tensor(expected))


@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (5, 16)])
@pytest.mark.parametrize("patch", [1, 2, 4])
def test_any_size_and_patch(shape, patch):
    net = registry.backbone.get(f"dit:width=16,depth=1,heads=2,patch={patch}")(1)
    for p in net.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    out = net(torch.randn(2, 1, *shape), torch.zeros(2))
    assert out.shape == (2, 1, *shape)
    assert out.isfinite().all()


@pytest.mark.parametrize("spec", ["dit:width=18,heads=2", "dit:width=16,heads=3", "dit:depth=0", "dit:patch=0"])
def test_bad_options_are_refused(spec):
    with pytest.raises(InputError, match="dit: width"):
        registry.backbone.get(spec)(3)
