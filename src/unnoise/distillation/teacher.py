"""The teacher of a distillation: a run, drawn as its own sampling settings say."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from unnoise import registry
from unnoise.card import Run
from unnoise.checkpoint import weights_hash
from unnoise.diffusion.model import Denoiser
from unnoise.diffusion.objective import Noised
from unnoise.diffusion.schedule import Levels, Schedule
from unnoise.errors import InputError
from unnoise.options import Spec
from unnoise.samplers.draw import make_denoiser
from unnoise.types import Labels


@dataclass(frozen=True, eq=False)
class Teacher:
    """A run that teaches.

    Args:
        run: The run; its network is in the precision of the training.
        method: The distillation, such as `progressive:calls=32`.
        name: The name of its folder or file.
    """

    run: Run
    method: Spec
    name: str

    @cached_property
    def about(self) -> dict[str, Any]:
        """Return what the card of a student says of its teacher: its name, and the sha256 of its weights."""
        return {"name": self.name, "weights": weights_hash(self.run)}

    @property
    def schedule(self) -> Schedule:
        """Return the noise schedule, which the student shares."""
        return self.run.model.schedule

    @property
    def visited(self) -> Levels | None:
        """Return the only levels that the teacher knows, if it is a student itself."""
        taught = self.run.card.taught
        return self.schedule.grid(*taught) if taught else None

    def denoiser(self, label: Labels | None) -> Denoiser:
        """Return the denoiser of images of these classes [b], guided and clipped as the run's own settings say."""
        return make_denoiser(self.run.model, self.run.card.sampling, label, None)

    def correct(self, batch: Noised) -> Noised:
        """Return a batch with the targets of the distillation in place of the data."""
        corrected: Noised = registry.distillation.get(self.method)(self, batch)
        return corrected


def check_teacher(run: Run, steps: int) -> None:
    """Raise InputError if a run cannot teach a student of `steps` steps."""
    card = run.card
    if card.target == "eps":
        raise InputError(
            f"{run.name} predicts the noise, which says nothing of the image where there is noise alone: a student "
            f"needs a run of --target x0 or v"
        )
    fewer = [count for count in range(1, card.taught[0]) if card.taught[0] % count == 0] if card.taught else []
    if card.taught and steps not in fewer:
        allowed = f"its own student may take {' or '.join(map(str, fewer))}" if fewer else "fewer are not possible"
        raise InputError(f"{run.name} is a student of {card.taught[0]} steps: {allowed}, got {steps}")
