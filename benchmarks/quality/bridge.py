"""Does a run draw the same images in diffusers, from its exported folder and with the same noise?

    python -m benchmarks.quality.bridge RUN [-n 16]

The script prints the largest difference of any pixel, in [0, 1], by DDPMPipeline and by DDIMPipeline.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from unittest.mock import patch

import torch
from diffusers import DDIMPipeline, DDPMPipeline

import unnoise
from unnoise import registry
from unnoise.diffusion.model import clip_x0
from unnoise.interop.diffusers_write import to_diffusers

STEPS = 50
PIPELINES = {"ddpm": (DDPMPipeline, {}), "ddim": (DDIMPipeline, {"use_clipped_model_output": True})}
HOMES = ("pipelines.ddim.pipeline_ddim", "pipelines.ddpm.pipeline_ddpm", "schedulers.scheduling_ddpm")


def replay(noise: Sequence[torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return a function that returns the next noise at each call."""
    queue = iter(noise)
    return lambda *_, **__: next(queue)


def main(path: str, n: int) -> None:
    """Draw by both libraries and compare."""
    run = unnoise.load(path, "cpu")
    with tempfile.TemporaryDirectory() as scratch:
        folder = to_diffusers(run, f"{scratch}/pipeline")
        for name, (kind, options) in PIPELINES.items():
            noise = torch.randn(STEPS + 1, n, *run.model.shape, generator=torch.Generator().manual_seed(0))
            source, levels = replay(noise), run.model.schedule.grid(STEPS)
            with torch.inference_mode():
                *_, last = registry.sampler.get(name)(clip_x0(run.model), source(), levels, randn_like=source)
            pipeline, source = kind.from_pretrained(folder), replay(noise)
            patches = [patch(f"diffusers.{home}.randn_tensor", source) for home in HOMES]
            for one in patches:
                one.start()
            theirs = pipeline(batch_size=n, num_inference_steps=STEPS, output_type="np", **options).images
            for one in patches:
                one.stop()
            ours = (last.x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
            apart = (torch.from_numpy(theirs).reshape(ours.shape) - ours).abs().max()
            print(f"{kind.__name__}: {n} images, {STEPS} steps, largest difference {apart:.2e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("-n", type=int, default=16, help="number of images")
    given = parser.parse_args()
    main(given.run, given.n)
