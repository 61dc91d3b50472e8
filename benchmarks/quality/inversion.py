"""From held-out pictures to their noise by inverted DDIM and back: how far off, against the steps.

    python benchmarks/inversion.py RUN HELD-OUT.npz [N]

prints a table of the root mean square error over N pictures (64), in units where black is -1 and white 1.
"""

import sys
from pathlib import Path

import torch
from judge import pictures

import unnoise
from unnoise.samplers.ddim import ddim, invert

STEPS, ITERATIONS = (10, 20, 50, 100, 200), (1, 3)


def main(path: str, held_out: str, n: int = 64) -> None:
    run = unnoise.load(path)
    images, labels = pictures(Path(held_out), list(run.card.classes))
    x0 = images[:n].to(run.model.device)
    denoise = run.model.given(labels[:n])
    print("| steps | " + " | ".join(f"error, iterations={k}" for k in ITERATIONS) + " |")
    print("|---:|" + "---:|" * len(ITERATIONS))
    for steps in STEPS:
        levels, errors = run.model.schedule.grid(steps), []
        for iterations in ITERATIONS:
            with torch.inference_mode():
                *_, noise = invert(denoise, x0, levels, iterations=iterations)
                *_, back = ddim(denoise, noise.x, levels)
            errors.append(f"{float((back.x - x0).square().mean().sqrt()):.4f}")
        print(f"| {steps} | " + " | ".join(errors) + " |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))
