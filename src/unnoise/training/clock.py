"""The length of a training: wall time, images or epochs; progress runs from 0 to 1."""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from unnoise.config import LENGTHS, TrainConfig
from unnoise.errors import InputError
from unnoise.options import short_repr
from unnoise.training.few_images import later, safe_images

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
COUNTS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}
MAX_SECONDS, MAX_IMAGES = 3650 * 86400, 10**15
DEFAULT_BUDGET = "10m"


def parse_amount(text: str, units: Mapping[str, float], flag: str, examples: str, most: float = math.inf) -> float:
    """Read a positive number with a unit, such as 90s or 2M, of at most `most`."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([a-zA-Z]?)", str(text).strip())
    if not match or match[2].lower() not in units or float(match[1]) <= 0:
        raise InputError(f"{flag} takes a positive amount such as {examples}, got {short_repr(text)}")
    amount = float(match[1]) * units[match[2].lower()]
    if not amount <= most:
        raise InputError(f"{flag} takes at most {most:,.0f}, got {short_repr(text)}; write it such as {examples}")
    return amount


@dataclass
class Clock:
    """Count images and seconds of a training; time passes between `start` and `stop`, in one or several sittings.

    Args:
        seconds: The length in seconds, or None.
        images: The length in images, or None. If both are given, the training ends at what comes first.
    """

    seconds: float | None
    images: float | None
    seen: int = 0
    before: float = 0.0  # seconds of earlier sittings
    started: float | None = None
    agreed: float | None = None  # seconds; several processes go by the same
    ended: bool = False  # True if a monitor has ended the training before its length was over
    remembered = ("seen", "elapsed", "ended")

    @classmethod
    def from_config(cls, config: TrainConfig, count: int) -> "Clock":
        """Make a clock from --budget, --images or --epochs; `count` is the number of training images."""
        given = [name for name in LENGTHS if getattr(config, name) is not None]
        if len(given) > 1:
            raise InputError(f"give one length, not {' and '.join('--' + name for name in given)}")
        if config.epochs is not None:
            return cls(None, config.epochs * count)
        if config.images is not None:
            return cls(None, parse_amount(config.images, COUNTS, "--images", "50000, 500k or 2M", MAX_IMAGES))
        seconds = parse_amount(config.budget or DEFAULT_BUDGET, SECONDS, "--budget", "90s, 10m or 2h", MAX_SECONDS)
        return cls(seconds, None if config.allow_copies else safe_images(count, later(config)))

    def start(self) -> None:
        """Begin a sitting."""
        self.started = time.monotonic()

    def stop(self) -> None:
        """End the training; `elapsed` stays as it is."""
        self.before, self.started, self.agreed = self.elapsed, None, None

    @property
    def elapsed(self) -> float:
        """Return the seconds of all sittings."""
        return self.own_seconds if self.agreed is None else self.agreed

    @elapsed.setter
    def elapsed(self, seconds: float) -> None:
        self.before, self.started, self.agreed = seconds, None if self.started is None else time.monotonic(), None

    @property
    def own_seconds(self) -> float:
        """Return the seconds of all sittings by the clock of this process."""
        return self.before + (time.monotonic() - self.started if self.started is not None else 0.0)

    @property
    def position(self) -> dict[str, float]:
        """Return the images and seconds so far, as the files of a run say them."""
        return {"images": self.seen, "seconds": self.elapsed}

    @property
    def progress(self) -> float:
        """Return the share of the training that is done, 0 to 1."""
        return 1.0 if self.ended else self.share_done(self.seen, self.elapsed)

    def share_done(self, seen: int, elapsed: float) -> float:
        """Return the share, 0 to 1, that is done after a number of images and of seconds."""
        by_time = elapsed / self.seconds if self.seconds else 0.0
        by_images = seen / self.images if self.images else 0.0
        return min(max(by_time, by_images), 1.0)

    @property
    def left(self) -> float:
        """Return the seconds that are left at the pace so far."""
        return self.elapsed * (1 - self.progress) / max(self.progress, 1e-9)

    @property
    def pace(self) -> float:
        """Return the images per second so far."""
        return self.seen / max(self.elapsed, 1e-9)
