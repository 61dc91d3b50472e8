"""Do pictures drawn for a class show it? Accuracy of a classifier, and KID, at guidance 1, 2 and 4.

    python benchmarks/guidance.py RUN TRAIN.npz HELD-OUT.npz OUT [N]

draws N pictures (2000) at each, every class in turn, and writes OUT/guidance.json and a grid at each.
"""

import json
import sys
from pathlib import Path

import torch
from judge import accuracy, features, kept, kid, pictures

import unnoise
from unnoise.images import grid

SETTINGS = ({"guidance": 1.0}, {"guidance": 2.0}, {"guidance": 4.0}, {"guidance": 4.0, "guidance_interval": "0.3-3"})


def main(path: str, train_file: str, held_out: str, out: str, n: int = 2000) -> None:
    run, folder, rows = unnoise.load(path), Path(out), []
    folder.mkdir(parents=True, exist_ok=True)
    names = list(run.card.classes)
    images, labels = pictures(Path(train_file), names)
    real, real_labels = pictures(Path(held_out), names)
    judge = kept(folder / "judge.safetensors", images, labels, str(run.model.device))
    known, on_real = features(judge, real), accuracy(judge, real, real_labels)
    print(f"judge: {on_real:.1%} of the held-out pictures")
    for how in SETTINGS:
        drawn = unnoise.sample(run, n, batch=250, **how).cpu()
        value, error = kid(features(judge, drawn), known)
        rows.append(
            {**how, "accuracy": accuracy(judge, drawn, torch.arange(n) % len(names)), "kid": value, "error": error}
        )
        print(rows[-1])
        grid(drawn[:100], run.card.mode).save(folder / f"guidance-{len(rows)}.png")
    (folder / "guidance.json").write_text(json.dumps({"n": n, "judge": on_real, "rows": rows}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:5], *map(int, sys.argv[5:6]))
