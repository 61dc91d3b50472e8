"""Model files."""

from dataclasses import replace

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
