"""Draw grids from fixed noise while a model trains, and warn if something is plainly wrong with the images."""

from pathlib import Path

from unnoise.config import Sampling
from unnoise.diffusion.model import Diffusion
from unnoise.training.clock import Clock
from unnoise.training.monitors.drawing import affordable, draw_images, save_grid
from unnoise.training.monitors.monitor import Outcome, TimeBudget
from unnoise.training.signals import Stop
from unnoise.types import Images

PREVIEW = Sampling(steps=10, spacing="karras")
PREVIEW_SHARE = 0.05  # of the time
CALLS_A_STEP = 3  # an evaluation of the network costs about a third of a training step


class PreviewMonitor:
    """Draw `samples/IMAGES.png` from the same noise each time.

    Args:
        folder: where the grids go.
        mode: mode of the written images.
        usual: share of the data's own values that lie at the ends of their range.
        how: the sampling settings.
    """

    name, remembered = "previews", ("count", "budget")

    def __init__(self, folder: Path, mode: str, usual: float, how: Sampling = PREVIEW) -> None:
        self.folder, self.mode, self.usual, self.how = folder, mode, usual, how
        self.count, self.budget = 0, TimeBudget(PREVIEW_SHARE)

    def due(self, clock: Clock) -> bool:
        """Return True if the budget gives a turn and the pace is known, by which the grid gets its size."""
        return clock.pace > 0 and clock.progress < 1 and self.budget.due(clock)

    def run(self, model: Diffusion, clock: Clock, stop: Stop) -> Outcome:
        """Write a grid; its size is what the first one could be within its share."""
        settings = self.how.within(model.schedule.T)
        evaluations = CALLS_A_STEP * clock.pace * PREVIEW_SHARE * clock.elapsed
        self.count = self.count or min(16, affordable(evaluations, settings.steps))
        with self.budget.spending(clock):
            images = draw_images(model, self.count, settings, stop)
        if images is None:
            return Outcome()
        save_grid(images, self.folder / f"{clock.seen:09d}.png", self.mode)
        return Outcome(messages=[f"warning: {text}" for text in plain_faults(images, self.usual)])


def plain_faults(images: Images, usual: float = 0.0) -> list[str]:
    """Name what is plainly wrong with generated images; `usual` is the saturation of the data."""
    if not images.isfinite().all():
        return ["the preview holds values that are not finite (NaN); the weights are damaged"]
    warnings = []
    if images.std() < 0.02:
        warnings.append(f"the preview is almost one colour (std {images.std():.3f}); the model has learned nothing yet")
    if (share := saturation(images)) > 0.9 > usual:
        warnings.append(f"{share:.0%} of the preview is at the ends of its range; try a lower --lr")
    return warnings


def saturation(images: Images) -> float:
    """Return the share of the values that lie at the ends of the range."""
    return float(images.abs().ge(1).float().mean())
