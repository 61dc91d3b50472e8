"""Check the results of `unnoise eval` and `unnoise doctor` in a run: each is measured again with its settings."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from unnoise.card import Run, make_card
from unnoise.checkpoint import load, weights_hash
from unnoise.config import DoctorConfig, EvalConfig, Sampling
from unnoise.device import made_with
from unnoise.errors import InputError
from unnoise.evaluation.doctor import measure_doctor
from unnoise.evaluation.evaluate import measure_evaluation, once
from unnoise.evaluation.image_sets import is_here
from unnoise.evaluation.judges import TUNED_BY
from unnoise.evaluation.paired import SUFFIX, Pairs, read_contributions
from unnoise.files import finite_json, parse_json
from unnoise.progress import Report, Say
from unnoise.run_folder import BEST, EVALUATIONS, own_file, own_files
from unnoise.verification.check import AGREES, DIFFERS, UNKNOWN, Check, Verdict, compare_values, try_to, unknown_checks
from unnoise.verification.records import compare_images, read_pixels

SHEET = "memorization.png"  # of the last audit
INPUTS = ("asked", "sampling", "made_with")  # what an evaluation was measured with, and no result
PLACES = ("of.name", "sheet")  # values that follow from the place of the run
OLDER = (
    "an older version stored it without its settings; measure again with unnoise eval, and remove the file if you like"
)
ANOTHER = "the values of single images are rounded otherwise on another machine"
BY_TIME = "the number of repetitions of --check followed from the time that one took"
NOT_CHECKED = "verify does not know this part of a result"


@dataclass(frozen=True)
class Stored:
    """A result of `unnoise eval` or `unnoise doctor` in a run folder."""

    name: str  # such as "evaluations/0001.json"
    result: dict[str, Any]

    def of(self, part: str) -> str:
        """Return the name of a part of the result."""
        return f"{self.name} {part}"

    @property
    def hashes(self) -> dict[str, str]:
        """Return the hashes of the weights that its parts name."""
        about = {name: part.get("of", part) for name, part in self.result.items() if isinstance(part, dict)}
        return {name: of["weights"] for name, of in about.items() if isinstance(of.get("weights"), str)}

    @property
    def chosen_by(self) -> dict[str, Any]:
        """Return what of the run was chosen by a KID, and by the KID of which network."""
        measured = self.result.get("scores")
        chosen = measured.get("chosen_by") if isinstance(measured, dict) else None
        return chosen if isinstance(chosen, dict) else {}


def evaluation_checks(run: Run, report: Report, say: Say) -> Iterator[Check]:
    """Yield checks of all results in a run folder, the oldest first."""
    files = [*own_files(run.folder, EVALUATIONS, "[0-9]*.json")]
    audits = [path for path in files if "memorization" in (read_result(path) or {})]
    for path in files:
        name, result = f"{EVALUATIONS}/{path.name}", read_result(path)
        if result is None:
            yield Check(name, "", DIFFERS, why="it is not JSON as unnoise eval writes it")
            continue
        stored, sheet = Stored(name, result), own_file(run.folder, SHEET) if path in audits[-1:] else None
        yield from try_to(name, result, partial(list_checks, run, stored, sheet, report, say))


def read_result(path: Path) -> dict[str, Any] | None:
    """Return a result, or None if the file is damaged."""
    try:
        result = parse_json(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return result if isinstance(result, dict) else None


def list_checks(run: Run, stored: Stored, sheet: Path | None, report: Report, say: Say) -> list[Check]:
    """Return the checks of one result; raise InputError if it cannot be measured again."""
    if not isinstance(stored.result.get("asked"), dict):
        raise InputError(OLDER)
    measured = run_of_weights(run, stored)
    if isinstance(measured, list):
        return measured
    config, measured = config_again(stored), as_it_was(measured, stored)
    say(f"{stored.name}: {getattr(config, 'metrics', 'doctor')} again")
    with TemporaryDirectory() as folder:
        pairs: Pairs = {}
        if isinstance(config, DoctorConfig):
            again = measure_doctor(config, measured, report, once(say))
        else:
            again = measure_evaluation(config, measured, Path(folder), report, once(say), pairs)
        checks = [*result_checks(stored, again, measured), *pair_checks(run, stored, pairs)]
        if sheet and (drawn := Path(folder, SHEET)).exists():
            exact = is_exact(stored, measured)
            checks.append(compare_images(SHEET, read_pixels(sheet), read_pixels(drawn), exact=exact))
    return checks


def run_of_weights(run: Run, stored: Stored) -> Run | list[Check]:
    """Return the run or its best weights, whichever was measured; or checks that say that the weights are gone.

    The weights of the end are often the best ones too; then the result says which file it was.
    """
    both = [own_file(run.folder, BEST), run.file]
    files = filter(None, both[::-1] if "weights" in stored.chosen_by else both)
    known = {weights_hash(opened): opened for opened in (load(file) for file in files)}  # the last one counts
    wanted = stored.hashes
    named = [known[digest] for digest in wanted.values() if digest in known]
    if named or not wanted:
        return named[0] if named else run
    parts = (stored.result[name].get("of", {}).get("trained_images") for name in wanted)
    of_the_end = run.card.training.get("images") in parts
    why = f"it is of the weights {next(iter(wanted.values()))[:16]}, which no file of the run holds"
    checks = [
        Check(stored.of(name), "weights", DIFFERS if of_the_end else UNKNOWN, digest, next(iter(known)), why)
        for name, digest in wanted.items()
    ]
    return [*checks, *unknown_checks(stored.name, stored.result, why)]


def config_again(stored: Stored) -> EvalConfig | DoctorConfig:
    """Return the settings of a result; raise InputError if they cannot be used here."""
    kind = DoctorConfig if stored.result.keys() - {*INPUTS} == {"doctor"} else EvalConfig
    asked, known = stored.result["asked"], {f.name for f in fields(kind)} - {"set", "json"}
    if unknown := asked.keys() - known:
        raise InputError(f"it has settings of another version: {', '.join(sorted(unknown)):.200}")
    config = kind(set="the run", **asked)
    for data in (config.data, getattr(config, "against", None)):
        if not (data is None or (isinstance(data, str) and is_here(data))):
            raise InputError(f"its images {data!r:.200} are not on this machine, or were named from another folder")
    drawn = [part.get("of", {}).get("precision") for part in stored.result.values() if isinstance(part, dict)]
    chosen = next((precision for precision in drawn if precision in ("fp32", "bf16")), config.precision)
    config = replace(config, precision=chosen)
    return replace(config, check=False) if isinstance(config, EvalConfig) else config


def as_it_was(run: Run, stored: Stored) -> Run:
    """Return a run with the sampling settings that it had when a result was stored: it may be tuned since."""
    sampling = stored.result.get("sampling")
    if not isinstance(sampling, dict):
        return run
    if unknown := sampling.keys() ^ {f.name for f in fields(Sampling)}:
        raise InputError(f"it has sampling settings of another version: {', '.join(sorted(unknown)):.200}")
    card = make_card({**vars(run.card), "sampling": Sampling(**sampling)}, run.file)
    if card.sampling == run.card.sampling:
        return replace(run, card=card)
    chosen = stored.chosen_by.get("sampling settings")
    training = {name: value for name, value in card.training.items() if name != TUNED_BY}
    return replace(run, card=replace(card, training={**training, **({TUNED_BY: chosen} if chosen else {})}))


def is_exact(stored: Stored, run: Run) -> bool:
    """Return True if this machine computes as the one that measured the result."""
    device = run.model.device
    return device.type == "cpu" and bool(stored.result.get("made_with") == made_with(device))


def result_checks(stored: Stored, again: dict[str, Any], run: Run) -> Iterator[Check]:
    """Yield checks of all values in a result against the same result measured again."""
    for part, value in stored.result.items():
        if part in INPUTS:
            continue
        if isinstance(value, dict) and "coverage" in value:
            yield from unknown_checks(stored.of(part), {"coverage": value["coverage"]}, BY_TIME)
            value = {key: inner for key, inner in value.items() if key != "coverage"}  # noqa: PLW2901
        if part not in again:
            yield from unknown_checks(stored.of(part), value, NOT_CHECKED)
            continue
        found = again[part]
        if isinstance(value, dict) and isinstance(value.get("of"), dict):
            found = renamed(found, run.name, str(value["of"].get("name")))
        yield from compare_values(stored.of(part), value, found, exact=is_exact(stored, run), free=PLACES)
    for part in again.keys() - stored.result.keys():
        yield Check(stored.of(part), "", DIFFERS, why="this part is left out")


def pair_checks(run: Run, stored: Stored, again: Pairs) -> Iterator[Check]:
    """Yield checks of what each image contributes to a KID, which lies next to the result and which compare reads."""
    place = own_file(run.folder, *Path(stored.name).with_suffix(SUFFIX).parts)
    if place is None or "scores" not in stored.result:
        return
    kept = read_contributions(place, stored.result["scores"]["of"])
    part = f"{EVALUATIONS}/{place.name}"
    if kept.keys() != again.keys():
        yield Check(part, "feature extractors", DIFFERS, ", ".join(kept), ", ".join(again))
        return
    for name, contributions in again.items():
        for what, values in contributions._asdict().items():
            one, other = getattr(kept[name], what).double(), values.double()
            alike = one.shape == other.shape and torch.allclose(one, other, rtol=1e-5, atol=1e-6)
            near = is_exact(stored, run) or one.shape != other.shape
            found: Verdict = AGREES if alike else DIFFERS if near else UNKNOWN
            yield Check(part, f"{name} {what}", found, why="" if alike else ANOTHER)


def renamed(value: Any, now: str, then: str) -> Any:
    """Return plain values in whose texts a run has the name that it had when the result was stored."""
    text = json.dumps(finite_json(value))
    return json.loads(text.replace(json.dumps(now)[1:-1], json.dumps(then)[1:-1]))
