"""A bar on a terminal for what a command does."""

import sys

from tqdm import tqdm


class Phases:
    """A bar on a terminal for one thing after another."""

    def __init__(self, unit: str = " images", *, silent: bool = False) -> None:
        self.bar, self.doing, self.silent = tqdm(unit=unit, disable=silent or not sys.stderr.isatty()), "", silent
        self.close = self.bar.close

    def begin(self, doing: str, total: int | None) -> None:
        if doing != self.doing:
            self.doing = doing
            self.bar.set_description(doing)
            self.bar.reset(total)

    def advance(self, doing: str, done: int, total: int) -> None:
        """So many more."""
        self.begin(doing, total)
        self.bar.update(done)

    def reached(self, doing: str, done: int, total: int | None) -> None:
        """So many in all."""
        self.begin(doing, total)
        self.bar.update(done - self.bar.n)

    def say(self, text: str) -> None:
        if not self.silent:
            self.bar.write(text, file=sys.stderr)
