"""Does `unnoise doctor` name what is wrong with a training? Trainings get wrong images or wrong settings.

    python -m benchmarks.quality.doctor_trainings NAME DATA RUN OUT

RUN was trained on DATA. It goes on with images that have a fault, until it has seen 6,000 of them; or a training of its
own has a wrong setting; or RUN draws with one. 400 images of each are judged. OUT/NAME-trainings.json is written after
each. A fault is named right if it is the first finding, apart from the rest of KID, which every short training has.
`python -m benchmarks.quality.doctor table OUT` prints the table.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.quality.doctor import Plant, plain_row, shift, stretch, verdict
from unnoise.data.cache import open_data
from unnoise.evaluation.damage import blur, noise
from unnoise.evaluation.spectrum import to_pixels
from unnoise.files import write_json

IMAGES = 20_000  # of DATA that get a fault
JUDGED = ["-n", "400", "--reference", "2000"]


def stripes(x: torch.Tensor) -> torch.Tensor:
    """Return images with stripes of single pixels on them."""
    return to_pixels(x + 16 * (1 - 2 * (torch.arange(x.shape[-1]) % 2)))


# name -> (finding that is right, what the images get)
WRONG_IMAGES: dict[str, tuple[str, Plant]] = {
    "images of 60 % contrast": ("contrast", lambda x: stretch(x, 0.6)),
    "images with noise of 8 %": ("grain", lambda x: noise(x, 0.08)),
    "images with a blur of 0.8 px": ("haze", lambda x: blur(x, 0.8)),
    "images with stripes of 16 steps": ("grid", stripes),
    "images with red by 40 steps": ("tint", lambda x: shift(x, slice(0, 1), 40)),
}
GOES_ON = "--images 6000 --held-out 1000 --lr 0.0003 --warmup 500 --ema-halflife 1000 --no-classes"
FEW = "--images 25000 --held-out 0 --lr 0.0003 --warmup 500 --ema-halflife 2000 --no-classes"
# name -> settings of a training whose only fault is that the network is bad
WRONG_SETTINGS = {
    "3,000 images seen": "--images 3000 --held-out 2000",
    "learning rate of 0.1, no clipping": "--images 12000 --held-out 2000 --lr 0.1 --max-grad-norm 0",
}


def unnoise(*given: str) -> None:
    """Run a command of unnoise."""
    subprocess.run([sys.executable, "-m", "unnoise", *given], check=True)


def train(run: Path, data: str, settings: str) -> Path:
    """Train a run, if it is not there yet."""
    if not (run / "samples" / "final.png").exists():
        unnoise("train", data, "--out", str(run), *settings.split())
    return run


def main(arguments: argparse.Namespace) -> None:
    """Train, judge and write what is not in the result yet."""
    out, data = Path(arguments.out), arguments.data
    runs = out / "runs" / arguments.name
    runs.mkdir(parents=True, exist_ok=True)
    dataset = open_data(data)
    chosen = np.sort(dataset.chosen(min(IMAGES, len(dataset)), 0))
    pixels, labels = torch.from_numpy(dataset.read(chosen)), torch.as_tensor(dataset.labels(chosen))
    half = labels < len(dataset.classes) // 2
    wrong = {
        name: (right, make(pixels), GOES_ON)
        for name, (right, make) in WRONG_IMAGES.items()
        if right != "tint" or pixels.shape[1] == 3
    }
    wrong |= {
        "images of half of the classes": ("modes", pixels[half], GOES_ON),
        "50 images": ("copies", pixels[:50], FEW),
    }
    place = out / f"{arguments.name}-trainings.json"
    rows = json.loads(place.read_text("utf-8")) if place.exists() else {}

    def judge(case: str, right: str, run: Path, *settings: str) -> None:
        if case in rows:
            return
        unnoise("doctor", str(run), "--data", data, "--json", str(runs / "found.json"), *JUDGED, *settings)
        found = json.loads((runs / "found.json").read_text("utf-8"))["doctor"]
        rows[case] = {"right": right, **plain_row(found)}
        write_json(place, rows)
        print(f"{arguments.name:16}{case:36}{verdict(rows[case])}", flush=True)

    for case, (right, some, settings) in wrong.items():
        np.savez(images := runs / f"{case}.npz", images=some.permute(0, 2, 3, 1).numpy())
        judge(case, right, train(runs / case, str(images), f"{settings} --init {arguments.run}"))
    for case, settings in WRONG_SETTINGS.items():
        judge(case, "training", train(runs / case, data, settings))
    judge("drawn with 4 steps", "steps", Path(arguments.run), "--steps", "4")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for argument in ("name", "data", "run", "out"):
        parser.add_argument(argument)
    main(parser.parse_args())
