"""Model files."""

import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from unnoise import cli
from unnoise.card import Card
from unnoise.checkpoint import build_model, load, write_model


def test_a_model_file_of_any_header_length_is_no_pickle(tmp_path):
    """The first byte of safetensors is its header's length modulo 256; a pickle starts with 0x80."""
    card = Card("unet:widths=8,groups=4,head=4", "linear", "eps", (1, 8, 8), "L")
    weights, starts = build_model(card).backbone.state_dict(), set()
    for extra in range(0, 256, 8):
        path = tmp_path / f"{extra}.safetensors"
        write_model(path, weights, replace(card, data={"name": "x" * extra}))
        starts.add(path.read_bytes()[0])
        assert load(path, "cpu").card.data["name"] == "x" * extra
    assert 0x80 in starts


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_weights_that_are_no_numbers_are_refused_instead_of_drawing_black(value, tmp_path, capsys):
    card = Card("unet:widths=8,groups=4,head=4", "linear", "eps", (1, 8, 8), "L")
    weights = build_model(card).backbone.state_dict()
    weights["conv_out.bias"] = torch.full_like(weights["conv_out.bias"], value)
    write_model(tmp_path / "bad.safetensors", weights, card)
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    given = {"sample": [], "edit": [str(tmp_path / "image.png")], "eval": [str(tmp_path)], "tune": []}
    for command, more in given.items():
        assert cli.main([command, str(tmp_path / "bad.safetensors"), *more]) == 2
        assert "the weights conv_out.bias are not finite (NaN or infinity)" in capsys.readouterr().err
