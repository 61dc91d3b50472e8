"""`unnoise verify` and `unnoise.verify`: check every value that a run states, and count what agrees."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from unnoise.card import Run
from unnoise.checkpoint import RunLike, as_run
from unnoise.config import TrainConfig, VerifyConfig
from unnoise.data.dataset import Dataset
from unnoise.errors import InputError
from unnoise.progress import Progress, Report, Say, mute, silent
from unnoise.run_folder import EVALUATIONS, METRICS, MODEL, own_file, reading_records
from unnoise.verification import page, records, scores, weights
from unnoise.verification.check import AGREES, DIFFERS, ELSEWHERE, ROUNDED, UNKNOWN, Check, Verdict, try_to

MOST_TOLD = 30  # values that differ, in the table
COLUMNS: dict[Verdict, int] = {AGREES: 7, ROUNDED: 9, DIFFERS: 8, UNKNOWN: 9}  # widths in the table
LEFT_OUT = "--quick leaves it out: it needs the data, or images that are drawn"
SLOW = (weights.HELD_OUT, weights.KID, weights.GRID, EVALUATIONS)


@dataclass(frozen=True)
class Verification:
    """All checks of a run; `str` gives the table."""

    checks: tuple[Check, ...]

    @property
    def differing(self) -> tuple[Check, ...]:
        """Return the checks of values that differ."""
        return tuple(check for check in self.checks if check.verdict == DIFFERS)

    def __str__(self) -> str:
        return "\n".join(format_checks(self))


def verify(run: RunLike, *, quick: bool = False) -> Verification:
    """Recompute every value that a run, its card, its evaluations and its report state.

    Args:
        run: A run folder. Nothing is written into it.
        quick: Leave out what needs the data or drawn images.

    Returns:
        All checks; `differing` has the values that differ.

    Raises:
        InputError: There is no run folder, or its records hold what no training writes.
    """
    return run_verification(VerifyConfig(run="", quick=quick), as_run(run))


def run_verification(
    config: VerifyConfig, run: Run | None = None, report: Report = silent, say: Say = mute
) -> Verification:
    """Check a run, part by part."""
    opened = as_run(config.run) if run is None else run
    if opened.path is None or opened.file.name != MODEL or own_file(opened.folder, METRICS) is None:
        raise InputError(f"{opened.name} is no run folder: verify needs its {METRICS} beside the model")
    with reading_records(opened.folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Verification(tuple(check_all(opened, report, say, quick=config.quick)))


def check_all(run: Run, report: Report, say: Say, *, quick: bool) -> Iterator[Check]:
    """Yield all checks of a run; what needs the network comes after what needs only files."""
    settings = opened_or_why(partial(records.training_config, run))
    data: tuple[Dataset, Dataset] | str = LEFT_OUT
    if isinstance(settings, str):
        data = settings
    elif not quick:
        data = opened_or_why(partial(open_data_quietly, settings))
    config, trained = (None if isinstance(settings, str) else settings), None
    if isinstance(data, str) or config is None:
        yield from records.card_without_data(run, data)
    else:
        trained = len(data[0])
        yield from records.data_checks(run, config, *data)
    count = trained or run.card.data.get("count")
    yield from records.config_checks(run)
    yield from records.log_checks(run, config, count)
    yield from try_to("loss.png", {"pixels": ""}, lambda: [*records.loss_plot_check(run)])
    yield from page.page_checks(run)
    if quick:
        yield from (Check(part, "", UNKNOWN, why=LEFT_OUT) for part in SLOW)
        return
    yield from training_checks(run, config, data, report, say)
    yield from scores.evaluation_checks(run, report, say)


def training_checks(
    run: Run, config: TrainConfig | None, data: tuple[Dataset, Dataset] | str, report: Report, say: Say
) -> Iterator[Check]:
    """Yield checks of what the training measured and drew."""
    if isinstance(data, str) or config is None:
        yield from (Check(part, "", UNKNOWN, why=str(data)) for part in SLOW[:3])
        return
    if data[0].fingerprint != run.card.data.get("fingerprint"):
        why = f"the data {config.data} is not what the card names"
        yield from (Check(part, "", UNKNOWN, why=why) for part in SLOW[:3])
        return
    trained = weights.Trained(config, *data, *weights.how_computed(run, config))
    works: dict[str, Callable[[], Iterator[Check]]] = {
        weights.HELD_OUT: partial(weights.held_out_checks, run, trained, say),
        weights.KID: partial(weights.kid_checks, run, trained, report, say),
        weights.GRID: partial(weights.grid_checks, run, trained, say),
    }
    for part, work in works.items():
        yield from try_to(part, {"": ""}, lambda work=work: [*work()])  # type: ignore[misc]


def open_data_quietly(config: TrainConfig) -> tuple[Dataset, Dataset]:
    """Open the data of a training without its progress bar."""
    with closing(Progress(silent=True)) as progress:
        return records.training_data(config, progress)


def opened_or_why(work: Callable[[], Any]) -> Any:
    """Return what `work` returns, or why it cannot."""
    try:
        return work()
    except (InputError, OSError) as error:
        return str(error)


# Text


def format_checks(result: Verification) -> list[str]:
    """Return the lines that `unnoise verify` prints: a row for each part, then each value that differs."""
    parts = dict[str, Counter[Verdict]]()
    for check in result.checks:
        parts.setdefault(check.part, Counter())[check.verdict] += 1
    width = max(map(len, parts), default=0)
    lines = [f"{'part':{width}}  {'agree':>7}{'rounded':>9}{'differ':>8}{'unknown':>9}"]
    for part, counts in parts.items():
        row = "".join(f"{counts[kind] or '':>{size}}" for kind, size in COLUMNS.items())
        lines.append(f"{part:{width}}  {row}".rstrip())
    lines += [f"cannot be recomputed: {text}" for text in reasons(result.checks)]
    differing = result.differing
    lines += [f"differs: {describe(check)}" for check in differing[:MOST_TOLD]]
    if more := len(differing) - MOST_TOLD:
        lines += [f"differs: {more} more, which --json FILE lists"] if more > 0 else []
    total = Counter(check.verdict for check in result.checks)
    if total[ROUNDED]:
        lines.append(f"rounded: {ELSEWHERE}")
    return [*lines, summary(total)]


def reasons(checks: Sequence[Check]) -> Iterator[str]:
    """Yield a text for each reason why values cannot be recomputed, with their number and places."""
    found = dict[str, Counter[str]]()
    for check in checks:
        if check.verdict == UNKNOWN:
            found.setdefault(check.why, Counter())[check.part] += 1
    for why, parts in found.items():
        yield f"{', '.join(f'{part} ({count})' for part, count in parts.items())}: {why}"


def describe(check: Check) -> str:
    """Return a value that differs, in one line."""
    place = " ".join(filter(None, (check.part, check.what)))
    known = not (check.stated is None and check.recomputed is None)
    values = f"{shown(check.stated)}, recomputed {shown(check.recomputed)}" if known else ""
    return f"{place}: {'; '.join(filter(None, (values, check.why)))}"


def shown(value: Any) -> str:
    """Return a value as text of moderate length."""
    text = "nothing" if value is None else f"{value!r}" if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def summary(total: Counter[Verdict]) -> str:
    """Return the line at the end."""
    rounded = f" ({total[ROUNDED]} of them within rounding)" if total[ROUNDED] else ""
    return (
        f"{total[AGREES] + total[ROUNDED]:,} values agree{rounded}, {total[DIFFERS]:,} differ, "
        f"{total[UNKNOWN]:,} cannot be recomputed"
    )


def plain_checks(result: Verification) -> dict[str, Any]:
    """Return all checks as plain values, for --json."""
    return {"checks": [asdict(check) for check in result.checks]}
