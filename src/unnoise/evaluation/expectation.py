"""The KID that a training expects, as its card keeps it, and whether the KID of its images is in that range."""

from collections.abc import Mapping
from dataclasses import fields
from typing import NamedTuple

from unnoise.card import Run, are_numbers
from unnoise.config import EvalConfig, Sampling
from unnoise.evaluation.features import FIRST

EXPECTED = "expected_kid"  # in the training facts of a card


class Expected(NamedTuple):
    """A KID, and the ends of the range that holds for four of five sets of images; `images` are those to be seen."""

    kid: float
    low: float
    high: float
    images: float

    def __str__(self) -> str:
        return f"{thousandths(self.low)} to {thousandths(self.high)} in four of five sets of images"

    def compared(self, kid: float) -> str:
        """Say whether a KID is in the range."""
        where = "better" if kid < self.low else "worse" if kid > self.high else "as expected"
        return f"KID x 1000 of {self}, after {self.images:,.0f} images: {where}"


def thousandths(kid: float) -> str:
    """Return a KID times 1000 as text, with two digits that count."""
    return f"{float(f'{1000 * kid:.2g}'):.0f}"


def expected_of(run: Run | None, config: EvalConfig) -> Expected | None:
    """Return what the card of a run expects; None if these settings measure another KID than the expected one."""
    found = run.card.training.get(EXPECTED) if run else None
    if run is None or not isinstance(found, Mapping) or not are_numbers(*map(found.get, Expected._fields)):
        return None
    drawn = run.card.sampling == Sampling() and all(getattr(config, part.name) is None for part in fields(Sampling))
    compared = config.data is None and config.against is None and config.features == FIRST
    return Expected(*(found[part] for part in Expected._fields)) if drawn and compared else None
