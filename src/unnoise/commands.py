"""The commands: each takes its settings as they were given, and prints what it did.

What a command finds out is shown: if it cannot be printed, the command fails. News about files that a command wrote are
said: if they cannot be printed, nothing is lost.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from unnoise.config import (
    AppConfig,
    CacheConfig,
    CompareConfig,
    DataConfig,
    DoctorConfig,
    EditConfig,
    EvalConfig,
    InfoConfig,
    ListConfig,
    ReportConfig,
    SampleConfig,
    TuneConfig,
    VerifyConfig,
)
from unnoise.distillation.config import DistillConfig
from unnoise.exporting.config import ExportConfig
from unnoise.terminal import show, tell

if TYPE_CHECKING:
    from unnoise.progress import Progress


def train(given: dict[str, Any]) -> int:
    """Train; return 128 + n after signal n."""
    from unnoise.recipes import train_config
    from unnoise.training.signals import Interrupted
    from unnoise.training.train import train as train_run

    try:
        train_run(train_config(given.pop("recipe", None), given))
    except Interrupted as stopped:
        return 128 + stopped.signal
    return 0


def distill(given: dict[str, Any]) -> int:
    """Train a student of a run, and print the scores of both; return 128 + n after signal n."""
    from unnoise import distributed
    from unnoise.reporting.compare import compare_runs
    from unnoise.training.distill import distill_run, score_both
    from unnoise.training.signals import Interrupted

    config = DistillConfig(**given)
    try:
        folder = distill_run(config)
    except Interrupted as stopped:
        return 128 + stopped.signal
    if config.n:
        with progress_bar() as progress:
            score_both(config, folder, progress.update, progress.say)
        if distributed.is_main():
            show(compare_runs((config.run, str(folder))))
    return 0


def sample(given: dict[str, Any]) -> None:
    """Draw images into a folder."""
    from unnoise import distributed
    from unnoise.sampling import grid_path, sample_to_folder

    config = SampleConfig(**given)
    with progress_bar(" steps") as progress:
        folder = sample_to_folder(config, progress.update, progress.say)
    if distributed.is_main():
        tell(f"{config.n} images in {folder}, all of them in {grid_path(folder)}")


def edit(given: dict[str, Any]) -> None:
    """Edit an image into a folder of variants."""
    from unnoise.editing.edit import edit_to_folder

    config = EditConfig(**given)
    with progress_bar(" steps") as progress:
        folder, together = edit_to_folder(config, progress.update, progress.say)
    tell(f"{config.n} images in {folder}, all of them in {together}")


def data(given: dict[str, Any]) -> None:
    """Print facts about a dataset."""
    from unnoise.data.audit import audit_data, format_audit
    from unnoise.data.cache import open_data
    from unnoise.data.frames import read_as
    from unnoise.evaluation.mirrored import describe_mirrored, distinguished_share
    from unnoise.training.expected import expected_of_data

    config = DataConfig(**given)
    check_result_file(config.json)
    with progress_bar() as progress:
        given_data = read_as(config.data, config.frames, config.max_pixels, config.label_column)
        found = audit_data(given_data, progress.update)
        share = found["mirrored"] = distinguished_share(open_data(given_data))
    lines = [*format_audit(found), *describe_mirrored(share), *expected_of_data(found)]
    show_result(config.json, found, lines)


def cache(given: dict[str, Any]) -> None:
    """List the cache, or remove some parts."""
    from unnoise.data.cache_list import run_cache

    config = CacheConfig(**given)
    with progress_bar(" MB") as progress:
        lines = run_cache(config, progress.update)
    show(lines)


def evaluate(given: dict[str, Any]) -> int:
    """Print the scores of a run or of images; return 2 if some of them could not be measured."""
    from unnoise import distributed
    from unnoise.evaluation.evaluate import format_evaluation, run_evaluation

    config = EvalConfig(**given)
    distributed.from_main(lambda: check_result_file(config.json))
    with progress_bar() as progress:
        found = run_evaluation(config, progress.update, progress.say)
    if distributed.is_main():
        show_result(config.json, found, format_evaluation(found))
    return 2 if "failed" in found else 0


def doctor(given: dict[str, Any]) -> None:
    """Print the faults of a run or of images."""
    from unnoise.evaluation.doctor import run_doctor
    from unnoise.evaluation.doctor_text import format_doctor

    config = DoctorConfig(**given)
    check_result_file(config.json)
    with progress_bar() as progress:
        found = run_doctor(config, progress.update, progress.say)
    show_result(config.json, found, format_doctor(found["doctor"]))


def tune(given: dict[str, Any]) -> None:
    """Print the sampling settings that were tried."""
    from unnoise.evaluation.tune import tune as search_settings
    from unnoise.evaluation.tune_table import format_candidates

    config = TuneConfig(**given)
    check_result_file(config.json)
    with progress_bar() as progress:
        found = search_settings(config, progress.update, progress.say)
    show_result(config.json, found, format_candidates(found))


def report(given: dict[str, Any]) -> None:
    """Write the page about a run."""
    from unnoise.reporting.report import write_report

    config = ReportConfig(**given)
    tell(f"report    {write_report(config.run, config.out, tell)}")


def verify(given: dict[str, Any]) -> int:
    """Print which values of a run can be recomputed; return 1 if one differs."""
    from unnoise.verification.verify import format_checks, plain_checks, run_verification

    config = VerifyConfig(**given)
    check_result_file(config.json)
    with progress_bar() as progress:
        found = run_verification(config, report=progress.update, say=progress.say)
    show_result(config.json, plain_checks(found), format_checks(found))
    return 1 if found.differing else 0


def compare(given: dict[str, Any]) -> None:
    """Print runs side by side."""
    from unnoise.reporting.compare import compare_runs

    show(compare_runs(CompareConfig(**given).runs))


def app(given: dict[str, Any]) -> None:
    """Serve the app until it is stopped."""
    from unnoise.app.server import serve

    serve(AppConfig(**given))


def export(given: dict[str, Any]) -> None:
    """Write a run for another library."""
    from unnoise.exporting.export import export_run

    tell(f"written   {export_run(ExportConfig(**given), tell)}")


def info(given: dict[str, Any]) -> None:
    """Print the card of a run."""
    from unnoise.card import describe_run
    from unnoise.checkpoint import load

    show(describe_run(load(InfoConfig(**given).run, "cpu")))


def list_entries(given: dict[str, Any]) -> None:
    """Print every entry of a kind with its options and source."""
    from unnoise import recipes, registry

    kind = ListConfig(**given).kind
    if kind == "recipes":
        show(recipes.names())
        return
    name = {"data": "dataset", "features": "features", "times": "times"}.get(kind, kind.removesuffix("s"))
    for entry, options, source in getattr(registry, name).describe():
        show([f"{entry}{':' if options else ''}{options}", f"    {source}"])


@contextmanager
def progress_bar(unit: str = " images") -> Iterator["Progress"]:
    """Show a progress bar on the terminal of the main process."""
    from unnoise import distributed
    from unnoise.progress import Progress

    with closing(Progress(unit, silent=not distributed.is_main())) as progress:
        yield progress


def show_result(json: str | None, found: dict[str, Any], lines: Sequence[str]) -> None:
    """Write a result to the file of --json, if there is one, and print it in any case."""
    from unnoise.files import user_path, write_json

    try:
        if json:
            write_json(user_path(json), found)
    finally:
        show(lines)


def check_result_file(json: str | None) -> None:
    """Raise InputError, before the work, if the file of --json cannot be written."""
    from unnoise.files import check_writable, user_path

    if json:
        check_writable(user_path(json), "--json")
