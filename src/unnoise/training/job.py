"""One training: the trainer, its data, and what is written about it; saved and restored together."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from unnoise import distributed
from unnoise.card import Card
from unnoise.checkpoint import read_model, write_model
from unnoise.config import TrainConfig
from unnoise.data.dataset import Dataset
from unnoise.device import made_with
from unnoise.distillation.teacher import Teacher
from unnoise.errors import InputError
from unnoise.evaluation.expectation import EXPECTED, Expected
from unnoise.evaluation.judges import USED_BY_TRAINING
from unnoise.files import replacing
from unnoise.options import plain
from unnoise.progress import Progress
from unnoise.run_folder import BEST, CONFIG, MODEL, STATE, WITHOUT_COPIES, own_file
from unnoise.training.checks import pretrained_networks
from unnoise.training.clock import Clock
from unnoise.training.log import Log
from unnoise.training.monitors.monitor import Monitor, Outcome
from unnoise.training.plan import Plan
from unnoise.training.references import References
from unnoise.training.state import FORMAT, Part, State, read_state, recall, remember, write_state
from unnoise.training.trainer import Trainer


@dataclass
class Job:
    """Hold what a training consists of; `asked` are the settings before the backbone was chosen."""

    asked: TrainConfig
    trainer: Trainer
    dataset: Dataset
    card: Card
    plan: Plan
    folder: Path
    log: Log
    progress: Progress
    references: References | None = None
    monitors: Sequence[Monitor] = field(default_factory=list)
    expected: Expected | None = None
    finished: bool = False  # True at the end of the length, when everything is measured
    kept: int | None = None  # images that the weights of the run have seen, if a monitor has ended the training
    teacher: Teacher | None = None  # of a distillation
    skipping: int = 0  # steps in a row, the last ones, that were skipped because they were not finite

    @property
    def clock(self) -> Clock:
        return self.trainer.clock

    @property
    def parts(self) -> dict[str, Part]:
        """Return what changes beside the tensors, by the name under which it is saved."""
        return {"trainer": self.trainer, "clock": self.clock, "times": self.trainer.times, "log": self.log}

    @property
    def saved_monitors(self) -> dict[str, Part]:
        """Return the monitors that remember something, by name."""
        return {monitor.name: monitor for monitor in self.monitors if isinstance(monitor, Part)}

    @property
    def state(self) -> State:
        """Return all that a run needs to resume as if it had never stopped."""
        return {
            "format": FORMAT,
            "config": plain(self.asked),
            "fingerprint": self.card.data["fingerprint"],
            "data": {"name": self.dataset.name, "count": len(self.dataset)},
            "threads": torch.get_num_threads(),
            "backbone": self.card.backbone,
            "precision": self.trainer.precision.name,
            "finished": self.finished,
            **self.trainer.state,
            "parts": {name: remember(part) for name, part in self.parts.items()},
            "monitors": {name: remember(monitor) for name, monitor in self.saved_monitors.items()},
        }

    def save(self) -> None:
        """Write the last row of the log, the settings, the model, and then the state, which says that all is there.

        The very first state is written first: from then on the folder can be resumed at any moment.
        """
        if not (self.folder / STATE).exists():
            write_state(self.folder, self.state)
        self.log.write(self.clock)
        with replacing(self.folder / CONFIG) as temporary:
            temporary.write_text(yaml.safe_dump(plain(self.trainer.config), sort_keys=False), encoding="utf-8")
        self.save_model(MODEL)
        write_state(self.folder, self.state)

    def save_model(self, name: str) -> None:
        """Write the averaged weights with everything that the run says of itself."""
        training: dict[str, Any] = {
            **self.clock.position,
            "config": plain(self.trainer.config),
            "loss": self.log.curve(),
            "made_with": made_with(self.trainer.model.device),
        }
        if self.kept is not None:
            training["weights_of_images"] = self.kept
        if self.teacher:
            training["distilled"] = self.teacher.about
        if used := pretrained_networks(self.trainer.config.objective):
            training[USED_BY_TRAINING] = used
        whole = self.clock.progress >= 1 and not self.clock.ended
        if self.expected and whole:  # a training that was cut short is not what was measured
            training[EXPECTED] = self.expected._asdict()
        write_model(self.folder / name, self.trainer.ema.network.state_dict(), replace(self.card, training=training))

    def record(self, outcome: Outcome) -> None:
        """Log and print what a monitor has found, and keep the averaged weights if it asks for that."""
        for row in outcome.rows:
            self.log.add(row)
        for message in outcome.messages:
            self.progress.say(message)
        if outcome.best:
            self.save_best()
        if outcome.keep:
            self.save_model(WITHOUT_COPIES)

    def save_best(self) -> None:
        """Keep the averaged weights beside the last ones, and a state that names them."""
        self.save_model(BEST)
        self.save()

    def take_kept(self) -> str:
        """Replace the averaged weights by the last ones that drew no copies, if there are any; return what was done."""
        if (kept := own_file(self.folder, WITHOUT_COPIES)) is None:
            return "with copies, since every look before found some"
        card, weights = read_model(kept)
        self.trainer.ema.network.load_state_dict(weights)
        self.kept = card.training["images"]
        return f"with the weights of {self.kept:,} images, which draw no copies"

    def try_to_save(self) -> float:
        """Save while training, and return the seconds it took; an error is a warning, since it may work later."""
        begun = time.monotonic()
        try:
            if distributed.is_main():
                self.save()
        except (InputError, OSError) as error:
            self.progress.say(f"warning: not saved, and tried again soon: {error}")
        return time.monotonic() - begun

    def restore(self, saved: State) -> None:
        """Take back a state; raise InputError if it is of another run."""
        try:
            self.trainer.load_state(saved)
            for name, part in self.parts.items():
                recall(part, saved["parts"][name])
            for name, monitor in self.saved_monitors.items():
                recall(monitor, saved["monitors"].get(name, {}))
            self.finished = saved["finished"]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise InputError(
                f"the state in {self.folder} does not fit this run ({error!r:.200}); --fresh starts over"
            ) from error

    def roll_back(self) -> None:
        """Restore the last state at half the learning rate; the time that was spent stays spent."""
        trainer, clock = self.trainer, self.clock
        caution, elapsed, skipped = trainer.caution / 2, clock.elapsed, trainer.skipped
        saved, _ = read_state(self.folder)
        self.restore(saved)
        trainer.caution, clock.elapsed, trainer.skipped = caution, elapsed, skipped
        distributed.barrier()  # until every process has read it
