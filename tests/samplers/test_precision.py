"""The precision of sampling follows from the device."""

import pytest
import torch

from unnoise.samplers.precision import choose_precision, describe_precision


@pytest.mark.parametrize(
    ("capabilities", "precision", "said"),
    [
        ({"amx_bf16": True, "avx512_bf16": True, "avx2": True}, "bf16", "precision bf16 (cpu with AMX)"),
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16", "precision bf16 (cpu with AVX512-BF16)"),
        ({"avx2": True, "avx512": True, "avx512_vnni": True}, "fp32", "precision fp32 (cpu)"),
        ({}, "fp32", "precision fp32 (cpu)"),
    ],
)
def test_the_precision_of_a_cpu_follows_from_its_instructions(monkeypatch, capabilities, precision, said):
    """No clock is read, so a busy machine decides the same."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr("time.monotonic", lambda: pytest.fail("a clock was read"))
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == precision
    assert describe_precision(precision, cpu) == said
    for requested in ("fp32", "bf16"):
        assert choose_precision(requested, cpu) == requested


@pytest.mark.parametrize(("kind", "native", "precision"), [("cuda", True, "bf16"), ("cuda", False, "fp32")])
def test_the_precision_of_a_gpu_follows_from_its_hardware(monkeypatch, kind, native, precision):
    """A GPU that emulates bf16, and MPS, sample in fp32."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert choose_precision("auto", torch.device(kind)) == precision
    assert choose_precision("auto", torch.device("mps")) == "fp32"
