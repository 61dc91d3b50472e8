"""The precision of a training, and the memory layout for it."""

import pytest
import torch

from unnoise import registry
from unnoise.training.precision import choose_precision, memory_layout

CPU = torch.device("cpu")


def test_fp16_is_for_cuda_only():
    assert choose_precision("fp16", CPU) == "fp32"
    assert choose_precision("fp16", torch.device("cuda")) == "fp16"
    assert choose_precision("fp32", CPU) == "fp32"


@pytest.mark.parametrize(
    ("instructions", "precision"),
    [
        ({"amx_bf16": True}, "bf16"),
        ({"avx512_bf16": True}, "bf16"),
        ({"avx512_f": True, "amx_tile": True}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_bf16_is_chosen_by_the_instructions_alone(monkeypatch, instructions, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert choose_precision("auto", CPU) == precision
    assert choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"


def test_the_choice_looks_at_no_clock(monkeypatch):
    """On a busy machine a measurement would choose otherwise; a resumed run keeps its own in any case."""
    monkeypatch.setattr("time.monotonic", lambda: pytest.fail("looked at the clock"))
    assert choose_precision("auto", CPU) in ("fp32", "bf16")


def test_channels_come_first_where_the_norm_of_channels_last_is_slow():
    cpu, cuda = CPU, torch.device("cuda")
    eight = registry.backbone.get("unet:widths=32-64,layers=1,groups=8")(1)
    found = [memory_layout(eight, place, kind) for place, kind in ((cpu, "bf16"), (cpu, "fp32"), (cuda, "bf16"))]
    assert found == [torch.contiguous_format, torch.channels_last, torch.channels_last]
    sixteens = registry.backbone.get("unet:widths=32-64,layers=1,groups=2")(1)
    assert memory_layout(sixteens, cpu, "bf16") == torch.channels_last
