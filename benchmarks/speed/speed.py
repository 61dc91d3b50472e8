"""A training step and a sampling step of one network, ours and diffusers', with the same weights.

    python benchmarks/speed.py OUT [--network unet] [--batch 64] [--repetitions 5] [--compile] [--precisions fp32 bf16]

NETWORK is a spec of our U-Net that UNet2DModel can be, too; `unet` is the notebook's. Each is timed in each precision,
with channels first and last, eager and (on request, it takes minutes) compiled; repetitions are taken in turn, since
machines are noisy, and the fastest counts. The share of the machine is of the best matrix product or convolution
measured in the same run and precision, at its start or end. Where the time of our best setting goes is told by
PyTorch's profiler; its convolutions and products alone, all else free, give the ratio that no code around them could
pass. On a GPU where there is one (not run). Writes OUT/speed.json and OUT/speed.md.
"""

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import torch
from machine import device, machine
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

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


def networks(spec: str) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    ours = registry.backbone.get(spec)(SHAPE[0])
    for p in ours.parameters():
        nn.init.normal_(p, std=0.02)  # the last layers start at zero: nothing would be compared
    theirs = convert_unet(ours, registry.backbone.settings(spec), Card(spec, "linear", "eps", SHAPE, "RGB"))
    return {"unnoise": ours, "diffusers": theirs}


def output(network: nn.Module, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    out = network(x, t)
    return out if isinstance(out, torch.Tensor) else out.sample


def autocast(precision: str) -> torch.autocast:
    return torch.autocast(device(), torch.bfloat16, enabled=precision == "bf16")


def training(network: nn.Module, precision: str, x: torch.Tensor, t: torch.Tensor) -> Callable[[], object]:
    """Each by its own AdamW: diffusers' script takes PyTorch's as it is."""
    ours = isinstance(getattr(network, "_orig_mod", network), UNet)
    optimizer = adamw(network, 1e-4, 0.01) if ours else torch.optim.AdamW(network.parameters(), 1e-4)

    def step() -> None:
        with autocast(precision):
            loss = F.mse_loss(output(network, x, t).float(), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def sampling(network: nn.Module, precision: str, x: torch.Tensor, t: torch.Tensor) -> Callable[[], object]:
    def step() -> torch.Tensor:
        with torch.inference_mode(), autocast(precision):
            return output(network, x, t)

    return step


def timed(works: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Seconds of each, the fastest of so many turns."""
    best = dict.fromkeys(works, float("inf"))
    for turn in range(repetitions + 1):
        for name, work in works.items():
            begun = synchronize()
            work()
            if turn:  # the first is slower
                best[name] = min(best[name], synchronize() - begun)
    return best


def profile(step: Callable[[], object], repetitions: int) -> dict[str, float]:
    """The share of a step's time that each kind of operation takes."""
    step()
    with torch.profiler.profile() as found:  # of all there is
        for _ in range(repetitions):
            step()
    taken = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for event in found.key_averages():
        if event.device_type != torch.autograd.DeviceType.CPU:
            continue  # a kernel, whose time its operation has too
        names = (kind for kind, words in KINDS.items() if any(word in event.key for word in words.split()))
        taken[next(names, "the rest")] += (
            event.self_cpu_time_total if device() == "cpu" else event.self_device_time_total
        )
    return {kind: time / sum(taken.values()) for kind, time in taken.items()}


def peaks(repetitions: int) -> dict[str, float]:
    """Operations a second of the best matrix product or convolution in each precision."""
    found = {}
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, x, w = torch.randn(2048, 2048).to(kind), torch.randn(64, 256, 16, 16).to(kind), torch.randn(256, 256, 3, 3)
        x, w = x.to(memory_format=torch.channels_last), w.to(kind).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            works = {"product": lambda a=a: a @ a, "convolution": lambda x=x, w=w: F.conv2d(x, w, padding=1)}
            seconds = timed(works, repetitions)
        work = {"product": 2 * 2048**3, "convolution": 2 * 64 * 256 * 256 * 9 * 16 * 16}
        found[precision] = max(work[name] / seconds[name] for name in work)
    return found


def main(arguments: argparse.Namespace) -> None:
    folder, batch = Path(arguments.out), arguments.batch
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_default_device(device())
    x, t = torch.randn(batch, *SHAPE), torch.arange(batch) * 10.0
    made = networks(arguments.network)
    with torch.inference_mode():
        theirs = output(made["diffusers"], x, t)
        apart = float((output(made["unnoise"], x, t) - theirs).abs().max() / theirs.std())
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        output(made["unnoise"], x, t)
    operations = {"sampling": counter.get_total_flops(), "training": 3 * counter.get_total_flops()}
    peak, rows, profiles = peaks(arguments.repetitions), [], {}
    for kind, make in (("training", training), ("sampling", sampling)):
        works = {}
        for name, precision, last, compiled in itertools.product(
            made, arguments.precisions, (False, True), (False, True) if arguments.compile else (False,)
        ):
            order = torch.channels_last if last else torch.contiguous_format
            network = networks(arguments.network)[name].to(memory_format=order)
            network.train(kind == "training")
            placed = x.to(memory_format=order)
            run = torch.compile(network) if compiled else network
            key = f"{name}, {precision}{', channels last' if last else ''}{', compiled' if compiled else ''}"
            works[key] = make(run, precision, placed, t)
        for name, seconds in timed(works, arguments.repetitions).items():
            rows.append({"kind": kind, "name": name, "images_per_second": batch / seconds})
            print(f"{kind:9} {name:45} {batch / seconds:8.1f} images/s", flush=True)
        best = fastest(rows, kind)
        profiles[kind] = profile(works[best["unnoise"]["name"]], arguments.repetitions)
        print(*(f"  {what}: {part:.0%}" for what, part in profiles[kind].items()), sep="\n", flush=True)
    again = peaks(arguments.repetitions)  # a machine that is shared may have been slow before
    peak = {precision: max(found, again[precision]) for precision, found in peak.items()}
    for row in rows:
        reached = operations[row["kind"]] * row["images_per_second"] / batch
        row["share"] = reached / peak["bf16" if "bf16" in row["name"] else "fp32"]
    about = {"network": arguments.network, "batch": batch, "outputs_apart": apart, "peak": peak}
    about |= machine("diffusers")
    (folder / "speed.json").write_text(json.dumps(about | {"rows": rows, "profiles": profiles}, indent=1))
    (folder / "speed.md").write_text(text := table(rows, profiles))
    print(text, f"outputs differ by {apart:.1e} of their deviation", sep="\n")


def fastest(rows: list[dict], kind: str) -> dict[str, dict]:
    """The best setting of each side."""
    mine = {name: [row for row in rows if row["kind"] == kind and row["name"].startswith(name)] for name in SIDES}
    return {name: max(mine[name], key=lambda row: row["images_per_second"]) for name in SIDES}


def table(rows: list[dict], profiles: dict[str, dict[str, float]]) -> str:
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
    parser.add_argument("out")
    parser.add_argument("--network", default="unet")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    main(parser.parse_args())
