"""Write the network of a run as an ONNX file that says how to draw, and compare it with PyTorch."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unnoise.card import Run
from unnoise.config import Sampling
from unnoise.errors import InputError
from unnoise.exporting.description import describe_drawing
from unnoise.options import plain
from unnoise.types import Images, Labels, Output, PerImage

try:
    import onnx
    import onnxruntime
    import onnxscript  # noqa: F401  # torch.onnx needs it
    from onnxruntime.transformers.float16 import convert_float_to_float16
except ImportError:
    raise InputError("the export to ONNX needs more libraries: pip install 'unnoise[onnx]'") from None

OPSET = 20  # version of the operators
ALLOWED = {"fp32": 1e-4, "fp16": 2e-2}  # largest difference from PyTorch, where the output is about 1
CHECKED = 3  # images that are compared; the file was traced with another number


class OneOutput(nn.Module):
    """Call a network without the variance that it may have learned."""

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.channels = network, channels

    def forward(self, x: Images, time: PerImage, label: Labels | None = None) -> Output:
        output: Tensor = self.network(x, time, label)
        return output[:, : self.channels]


class File(NamedTuple):
    """Hold an ONNX file, and its largest difference from PyTorch, where the output is about 1."""

    content: bytes
    difference: float


def to_onnx(run: Run, settings: Sampling, precision: str = "fp32") -> File:
    """Return the network of a run as one ONNX file.

    The inputs are x [b, c, h, w], time [b] and, if there are classes, label [b] (int64; -1 is no class); the output is
    [b, c, h, w] in the units of the target. The metadata have `unnoise`, which says how to draw
    (`describe_drawing`), and `unnoise.card`, both as JSON. Inputs and output are float32 with either precision.

    Raises:
        InputError: The sampler cannot be exported, or the file differs too much from PyTorch.
    """
    drawing = describe_drawing(run, settings)
    network = OneOutput(run.model.backbone, run.card.shape[0]).eval()
    model = traced(network, example(run, 2))
    if precision == "fp16":
        model = convert_float_to_float16(model, keep_io_types=True)
    about = {"unnoise": json.dumps(drawing), "unnoise.card": json.dumps(plain(run.card))}
    onnx.helper.set_model_props(model, about)
    content: bytes = model.SerializeToString()
    difference = largest_difference(content, network, run, drawing)
    if not difference <= ALLOWED[precision]:
        raise InputError(
            f"the ONNX file of {run.name} differs from PyTorch by {difference:.1g}, and {ALLOWED[precision]:g} is "
            f"allowed in {precision}; nothing was written"
        )
    return File(content, difference)


def example(run: Run, n: int) -> tuple[Tensor, ...]:
    """Return inputs of the network for n images; some have no class, if the network knows that."""
    generator, classes = torch.Generator().manual_seed(n), len(run.card.classes)
    x = torch.randn(n, *run.card.shape, generator=generator)
    time = torch.linspace(0, run.model.schedule.T - 1, n)
    return (x, time, torch.arange(n) % (classes + 1) - 1) if classes else (x, time)


def traced(network: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """Return the network as an ONNX model for any number of images."""
    names = ("x", "time", "label")[: len(inputs)]
    batch = torch.export.Dim("batch", min=1)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            inputs,
            input_names=names,
            output_names=("output",),
            dynamic_shapes=tuple({0: batch} for _ in names),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise InputError("torch.onnx gave no program")
    return program.model_proto


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's own warnings from the terminal: what they may mean is measured afterwards."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def largest_difference(content: bytes, network: nn.Module, run: Run, drawing: dict[str, Any]) -> float:
    """Return the largest difference from PyTorch over all levels that are visited, where the output is about 1."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    x, _, *label = example(run, CHECKED)
    worst = 0.0
    for step in drawing["steps"]:
        time = torch.full((CHECKED,), step["time"])
        inputs = (x, time, *label)
        with torch.no_grad():
            expected = network(*inputs)
        feed = {name: value.numpy() for name, value in zip(("x", "time", "label"), inputs, strict=False)}
        found = torch.from_numpy(session.run(None, feed)[0])
        worst = max(worst, float((found - expected).abs().max() / expected.abs().max().clamp(min=1)))
    return worst
