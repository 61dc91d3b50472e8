"""Does a trained run draw the same pictures in diffusers? From the exported folder, with the same noise.

    python benchmarks/bridge.py RUN [N]

prints the largest difference of any pixel, in [0, 1], over N pictures (16) by DDPMPipeline and by DDIMPipeline.
"""

import sys
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
    queue = iter(noise)
    return lambda *_, **__: next(queue)


def main(path: str, n: int = 16) -> None:
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
            print(f"{kind.__name__}: {n} pictures, {STEPS} steps, largest difference {apart:.2e}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
