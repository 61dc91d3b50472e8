"""Do images that were drawn for a class show it? Accuracy of a classifier, and KID, at guidance 1, 2 and 4.

    python -m benchmarks.quality.guidance RUN TRAIN.npz HELD-OUT.npz OUT [-n 2000]

The script draws N images at each guidance, every class in turn, and writes OUT/guidance.json and a grid for each.
"""

import argparse
import json
from pathlib import Path

import torch

import unnoise
from benchmarks.lib.judge import accuracy, judge_features, open_judge, read_images
from unnoise.evaluation.metrics import kid
from unnoise.images import grid

SETTINGS = ({"guidance": 1.0}, {"guidance": 2.0}, {"guidance": 4.0}, {"guidance": 4.0, "guidance_interval": "0.3-3"})


def main(arguments: argparse.Namespace) -> None:
    """Draw and score at each guidance."""
    run, folder, n, rows = unnoise.load(arguments.run), Path(arguments.out), arguments.n, []
    folder.mkdir(parents=True, exist_ok=True)
    names = list(run.card.classes)
    images, labels = read_images(Path(arguments.train), names)
    real, real_labels = read_images(Path(arguments.held_out), names)
    judge = open_judge(folder / "judge.safetensors", images, labels, str(run.model.device))
    known, on_real = judge_features(judge, real), accuracy(judge, real, real_labels)
    print(f"judge: {on_real:.1%} of the held-out images")
    for how in SETTINGS:
        drawn = unnoise.sample(run, n, batch=250, **how).cpu()
        score, correct = kid(judge_features(judge, drawn), known), accuracy(judge, drawn, torch.arange(n) % len(names))
        rows.append({**how, "accuracy": correct, "kid": score.value, "interval": score.interval})
        print(rows[-1])
        grid(drawn[:100], run.card.mode).save(folder / f"guidance-{len(rows)}.png")
    (folder / "guidance.json").write_text(json.dumps({"n": n, "judge": on_real, "rows": rows}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "train", "held_out", "out"):
        parser.add_argument(name)
    parser.add_argument("-n", type=int, default=2000, help="number of images")
    main(parser.parse_args())
