"""Draw images of classes by the pipeline in the folder of this script; DDPMPipeline itself takes no class.

python draw.py --label 0 -n 16 --out images
"""

import argparse
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image


def main() -> None:
    """Draw images into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", type=int, help="number of the class (default: every class in turn)")
    parser.add_argument("-n", type=int, default=16, help="number of images")
    parser.add_argument("--seed", type=int, default=0, help="seed of all noise")
    parser.add_argument("--steps", type=int, help="steps of DDPM (default: all levels)")
    parser.add_argument("--out", type=Path, default=Path("images"), help="folder for the images")
    given = parser.parse_args()
    here, generator = Path(__file__).parent, torch.Generator().manual_seed(given.seed)
    network = UNet2DModel.from_pretrained(here / "unet", local_files_only=True).eval()
    scheduler = DDPMScheduler.from_pretrained(here / "scheduler")
    classes, size = network.config.num_class_embeds, network.config.sample_size
    if given.label is not None and not 0 <= given.label < classes:
        parser.error(f"--label is from 0 to {classes - 1}, got {given.label}")
    labels = torch.arange(given.n) % classes if given.label is None else torch.full((given.n,), given.label)
    shape = (given.n, network.config.in_channels, *((size, size) if isinstance(size, int) else size))
    x = torch.randn(shape, generator=generator)
    scheduler.set_timesteps(given.steps or scheduler.config.num_train_timesteps)
    with torch.no_grad():
        for time in scheduler.timesteps:
            output = network(x, time, class_labels=labels).sample
            x = scheduler.step(output, time, x, generator=generator).prev_sample
    given.out.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(pixels.squeeze()).save(given.out / f"{i:06d}.png")
    print(f"{given.n} images in {given.out}")


if __name__ == "__main__":
    main()
