"""How fast do engines draw the same images? One run, by PyTorch, ONNX Runtime and OpenVINO, in turns.

    python -m benchmarks.speed.engines RUN OUT [-n 64] [--turns 5] [--threads 2]

Every engine draws N images of the same seeds by the settings of the run. The engines take turns, since a shared machine
is faster at one time than at another. The script writes OUT/engines.json and prints a table: the median of the
seconds, the factor to PyTorch in fp32, and the largest difference of an image from it, in units of 1/255. It needs
`pip install "unnoise[onnx]" openvino`; what is not installed is left out.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from benchmarks.lib.machine import machine
from unnoise import Run, load
from unnoise.diffusion.model import Diffusion
from unnoise.exporting.onnx_file import to_onnx
from unnoise.files import write_json
from unnoise.images import to_uint8
from unnoise.samplers.draw import draw
from unnoise.samplers.precision import Precision

try:
    from openvino import Core
except ImportError:
    Core = None

Network = Callable[..., np.ndarray]  # (x, time) -> output
HEAD = ("engine", "seconds", "times as fast as fp32", "largest difference, 1/255")


class ByEngine(nn.Module):
    """Call a network of another engine in place of PyTorch's."""

    def __init__(self, call: Network) -> None:
        super().__init__()
        self.call, self.place = call, nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, time: torch.Tensor, _: torch.Tensor | None = None) -> torch.Tensor:
        return torch.from_numpy(self.call(x.numpy(), time.numpy()))


def with_network(run: Run, network: nn.Module) -> Diffusion:
    """Return the model of a run with another network."""
    old = run.model
    return Diffusion(network, old.schedule, old.target, old.shape, old.classes).requires_grad_(False)


def engines(run: Run, threads: int) -> dict[str, Callable[[range], torch.Tensor]]:
    """Return a function from seeds to images for each engine that is installed."""
    found = {
        "PyTorch, fp32": partial(drawn, run.model, run, "fp32"),
        "PyTorch, bf16": partial(drawn, run.model, run, "bf16"),
    }
    compiled = torch.compile(run.model.backbone)
    found["PyTorch, fp32, compiled"] = partial(drawn, with_network(run, compiled), run, "fp32")
    content = {precision: to_onnx(run, run.card.sampling, precision).content for precision in ("fp32", "fp16")}
    for precision, file in content.items():
        network = onnx_runtime(file, threads)
        found[f"ONNX Runtime, {precision}"] = partial(drawn, with_network(run, ByEngine(network)), run, "fp32")
    if Core is not None:
        for precision in ("f32", "bf16"):
            network = openvino(content["fp32"], threads, precision)
            found[f"OpenVINO, {precision}"] = partial(drawn, with_network(run, ByEngine(network)), run, "fp32")
    return found


def onnx_runtime(content: bytes, threads: int) -> Network:
    """Return a network that ONNX Runtime computes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda x, time: session.run(None, {"x": x, "time": time})[0]


def openvino(content: bytes, threads: int, precision: str) -> Network:
    """Return a network that OpenVINO computes."""
    core = Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(content), "CPU", settings)
    return lambda x, time: compiled({"x": x, "time": time})[0]


def drawn(model: Diffusion, run: Run, precision: Precision, seeds: range) -> torch.Tensor:
    """Return the pixels of the images of these seeds."""
    *_, last = draw(model, seeds, replace(run.card.sampling), precision=precision)
    return to_uint8(last.x)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    run, seeds = load(given.run, "cpu"), range(given.n)
    all_engines = engines(run, given.threads)
    images = {name: make(seeds) for name, make in all_engines.items()}  # the first time is slower
    seconds: dict[str, list[float]] = {name: [] for name in all_engines}
    for _ in range(given.turns):
        for name, make in all_engines.items():
            begun = time.monotonic()
            make(seeds)
            seconds[name].append(time.monotonic() - begun)
    first = next(iter(all_engines))
    rows: list[dict[str, Any]] = [
        {
            "engine": name,
            "seconds": seconds[name],
            "median": statistics.median(seconds[name]),
            "difference": int((images[name].int() - images[first].int()).abs().max()),
        }
        for name in all_engines
    ]
    given.out.mkdir(parents=True, exist_ok=True)
    about = {"run": Path(given.run).name, "network": run.card.backbone, "n": given.n, "threads": given.threads}
    write_json(given.out / "engines.json", {**about, "rows": rows, "machine": machine("unnoise")})
    print("| " + " | ".join(HEAD) + " |", "|---|---:|---:|---:|", sep="\n")
    for row in rows:
        factor = rows[0]["median"] / row["median"]
        print(f"| {row['engine']} | {row['median']:.2f} | {factor:.2f} | {row['difference']} |")


if __name__ == "__main__":
    main()
