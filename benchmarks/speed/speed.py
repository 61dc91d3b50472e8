"""How fast are a training step and a sampling step of one network, in unnoise and in diffusers, with equal weights?

    python -m benchmarks.speed.speed OUT [--network unet] [--batch 64] [--repetitions 5] [--compile]
                                         [--precisions fp32 bf16]

NETWORK is a spec of the U-Net that diffusers' UNet2DModel can be too; `unet` is the notebook's. Each network is timed
in each precision, with channels first and last, eager and (with --compile, which takes minutes) compiled. Repetitions
are taken in turn, since machines are noisy, and the fastest counts. The last column of the table is the share of the
best matrix product or convolution that was measured in the same run and precision. PyTorch's profiler tells where the
time of the best setting of unnoise goes. "All else free" is the ratio if only convolutions and products took time: no
code around them could be better. It runs on a GPU if there is one (not run). Writes OUT/speed.json and OUT/speed.md.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.lib.machine import device, machine
from unnoise import registry
from unnoise.backbones.unet import UNet
from unnoise.card import Card
from unnoise.device import synchronize
from unnoise.interop.diffusers_write import convert_unet
from unnoise.training.optimizers import adamw

SHAPE = (3, 32, 32)
SIDES = ("diffusers", "unnoise")
KINDS = {
    "convolution": "convolution",
    "norm": "norm",
    "silu": "silu",
    "matrix product": "mm attention linear",
    "copy, cast, cat": "copy cat",
    "optimizer": "foreach addcdiv addcmul sqrt lerp",
}


def make_networks(spec: str) -> dict[str, nn.Module]:
    """Return both networks, with the same weights."""
    torch.manual_seed(0)
    ours = registry.backbone.get(spec)(SHAPE[0])
    for p in ours.parameters():
        nn.init.normal_(p, std=0.02)  # the last layers start at zero: nothing would be compared
    theirs = convert_unet(ours, registry.backbone.settings(spec), Card(spec, "linear", "eps", SHAPE, "RGB"))
    return {"unnoise": ours, "diffusers": theirs}


def output_of(network: nn.Module, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return the output of either network."""
    out = network(x, t)
    return out if isinstance(out, torch.Tensor) else out.sample


def autocast(precision: str) -> torch.autocast:
    """Return a context in which networks are computed in this precision."""
    return torch.autocast(device(), torch.bfloat16, enabled=precision == "bf16")


def training_step(network: nn.Module, precision: str, x: torch.Tensor, t: torch.Tensor) -> Callable[[], object]:
    """Return a training step, by the AdamW of each side: diffusers' script takes PyTorch's as it is."""
    ours = isinstance(getattr(network, "_orig_mod", network), UNet)
    optimizer = adamw(network, 1e-4, 0.01) if ours else torch.optim.AdamW(network.parameters(), 1e-4)

    def step() -> None:
        with autocast(precision):
            loss = F.mse_loss(output_of(network, x, t).float(), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def sampling_step(network: nn.Module, precision: str, x: torch.Tensor, t: torch.Tensor) -> Callable[[], object]:
    """Return a call of the network without gradients."""

    def step() -> torch.Tensor:
        with torch.inference_mode(), autocast(precision):
            return output_of(network, x, t)

    return step


def time_in_turn(works: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Return the seconds of each function in its fastest turn."""
    best = dict.fromkeys(works, float("inf"))
    for turn in range(repetitions + 1):
        for name, work in works.items():
            begun = synchronize()
            work()
            if turn:  # the first is slower
                best[name] = min(best[name], synchronize() - begun)
    return best


def profile(step: Callable[[], object], repetitions: int) -> dict[str, float]:
    """Return the share of a step's time that each kind of operation takes."""
    step()
    with torch.profiler.profile() as found:  # on all devices
        for _ in range(repetitions):
            step()
    taken = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for event in found.key_averages():
        if event.device_type != torch.autograd.DeviceType.CPU:
            continue  # the time of a kernel is counted by its operation
        names = (kind for kind, words in KINDS.items() if any(word in event.key for word in words.split()))
        taken[next(names, "the rest")] += (
            event.self_cpu_time_total if device() == "cpu" else event.self_device_time_total
        )
    return {kind: time / sum(taken.values()) for kind, time in taken.items()}


def peaks(repetitions: int) -> dict[str, float]:
    """Return the operations per second of the best matrix product or convolution, by precision."""
    found = {}
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, x, w = torch.randn(2048, 2048).to(kind), torch.randn(64, 256, 16, 16).to(kind), torch.randn(256, 256, 3, 3)
        x, w = x.to(memory_format=torch.channels_last), w.to(kind).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            works = {"product": lambda a=a: a @ a, "convolution": lambda x=x, w=w: F.conv2d(x, w, padding=1)}
            seconds = time_in_turn(works, repetitions)
        work = {"product": 2 * 2048**3, "convolution": 2 * 64 * 256 * 256 * 9 * 16 * 16}
        found[precision] = max(work[name] / seconds[name] for name in work)
    return found


def make_steps(arguments: argparse.Namespace, kind: str, x: torch.Tensor, t: torch.Tensor) -> dict[str, Any]:
    """Return the steps to time, by the names of their settings."""
    steps, make = {}, training_step if kind == "training" else sampling_step
    for name, precision, last, compiled in itertools.product(
        SIDES[::-1], arguments.precisions, (False, True), (False, True) if arguments.compile else (False,)
    ):
        order = torch.channels_last if last else torch.contiguous_format
        network = make_networks(arguments.network)[name].to(memory_format=order)
        network.train(kind == "training")
        key = f"{name}, {precision}{', channels last' if last else ''}{', compiled' if compiled else ''}"
        run = torch.compile(network) if compiled else network
        steps[key] = make(run, precision, x.to(memory_format=order), t)
    return steps


def compare_outputs(spec: str, x: torch.Tensor, t: torch.Tensor) -> tuple[float, float]:
    """Return the largest difference of the outputs, in standard deviations, and the operations of a forward pass."""
    made = make_networks(spec)
    with torch.inference_mode():
        theirs = output_of(made["diffusers"], x, t)
        apart = float((output_of(made["unnoise"], x, t) - theirs).abs().max() / theirs.std())
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        output_of(made["unnoise"], x, t)
    return apart, counter.get_total_flops()


def time_all(arguments: argparse.Namespace, x: torch.Tensor, t: torch.Tensor) -> tuple[list[dict], dict[str, dict]]:
    """Return a row for each setting of training and sampling, and the profile of the best one of unnoise."""
    rows, profiles = [], {}
    for kind in ("training", "sampling"):
        steps = make_steps(arguments, kind, x, t)
        for name, seconds in time_in_turn(steps, arguments.repetitions).items():
            rows.append({"kind": kind, "name": name, "images_per_second": len(x) / seconds})
            print(f"{kind:9} {name:45} {len(x) / seconds:8.1f} images/s", flush=True)
        best = fastest(rows, kind)
        profiles[kind] = profile(steps[best["unnoise"]["name"]], arguments.repetitions)
        print(*(f"  {what}: {part:.0%}" for what, part in profiles[kind].items()), sep="\n", flush=True)
    return rows, profiles


def main(arguments: argparse.Namespace) -> None:
    """Time everything, and write the results."""
    folder, batch = Path(arguments.out), arguments.batch
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_default_device(device())
    x, t = torch.randn(batch, *SHAPE), torch.arange(batch) * 10.0
    apart, forward = compare_outputs(arguments.network, x, t)
    before = peaks(arguments.repetitions)
    rows, profiles = time_all(arguments, x, t)
    after = peaks(arguments.repetitions)  # a machine that is shared may have been slow before
    peak = {precision: max(found, after[precision]) for precision, found in before.items()}
    for row in rows:
        operations = forward * (3 if row["kind"] == "training" else 1)
        reached = operations * row["images_per_second"] / batch
        row["share"] = reached / peak["bf16" if "bf16" in row["name"] else "fp32"]
    about = {"network": arguments.network, "batch": batch, "outputs_apart": apart, "peak": peak}
    about |= machine("diffusers")
    (folder / "speed.json").write_text(json.dumps(about | {"rows": rows, "profiles": profiles}, indent=1))
    (folder / "speed.md").write_text(text := format_ratios(rows, profiles))
    print(text, f"outputs differ by {apart:.1e} of their deviation", sep="\n")


def fastest(rows: list[dict], kind: str) -> dict[str, dict]:
    """Return the best setting of each side."""
    mine = {name: [row for row in rows if row["kind"] == kind and row["name"].startswith(name)] for name in SIDES}
    return {name: max(mine[name], key=lambda row: row["images_per_second"]) for name in SIDES}


def format_ratios(rows: list[dict], profiles: dict[str, dict[str, float]]) -> str:
    """Return a Markdown table of the best settings."""
    head = "| step | best of diffusers | images/s | best of unnoise | images/s | ratio | all else free | of the peak |"
    lines = [head, "|---|---|---:|---|---:|---:|---:|---:|"]
    for kind, parts in profiles.items():
        best = fastest(rows, kind)
        cells = [kind]
        for row in best.values():
            cells += [row["name"].partition(", ")[2], f"{row['images_per_second']:.1f}"]
        ratio = best["unnoise"]["images_per_second"] / best["diffusers"]["images_per_second"]
        bound = ratio / (parts["convolution"] + parts["matrix product"])
        cells += [f"{ratio:.2f}", f"{bound:.2f}", f"{best['unnoise']['share']:.0%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder for the results")
    parser.add_argument("--network", default="unet")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    main(parser.parse_args())
