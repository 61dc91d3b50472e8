"""How exactly does inverted DDIM take held-out images to noise and back? The error against the number of steps.

    python -m benchmarks.quality.inversion RUN HELD-OUT.npz [-n 64]

The script prints a table of the root mean square error over N images. Black is -1 and white is 1.
"""

import argparse
from pathlib import Path

import torch

import unnoise
from benchmarks.lib.judge import read_images
from unnoise.samplers.ddim import ddim, invert

STEPS, ITERATIONS = (10, 20, 50, 100, 200), (1, 3)


def main(path: str, held_out: str, n: int) -> None:
    """Print the table."""
    run = unnoise.load(path)
    images, labels = read_images(Path(held_out), list(run.card.classes))
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("held_out")
    parser.add_argument("-n", type=int, default=64, help="number of images")
    given = parser.parse_args()
    main(given.run, given.held_out, given.n)
