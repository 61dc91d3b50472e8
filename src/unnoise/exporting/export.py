"""`unnoise export`: write a run for other programs."""

import shutil
from dataclasses import fields
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from unnoise.checkpoint import RunLike, as_run, load
from unnoise.config import SampleConfig, SamplingOptions
from unnoise.errors import InputError
from unnoise.exporting.config import ExportConfig
from unnoise.files import check_new_folder, new_folder, replacing
from unnoise.progress import Say, mute
from unnoise.sampling import resolve_settings

MODEL, SCRIPT = "model.onnx", "sample.py"


def export(run: RunLike, *, say: Say = mute, **settings: Any) -> Path:
    """Write a run for another library; it draws the same images there.

    Args:
        run: The run.
        say: Called with a line about what was measured.
        settings: The fields of `ExportConfig`, such as `to="numpy"` or `precision="fp16"`.

    Returns:
        The new folder.

    Raises:
        InputError: The format cannot hold the run, or a library is missing.
    """
    opened = as_run(run)
    return export_run(ExportConfig(run=str(Path(opened)), **settings), say)


def export_run(config: ExportConfig, say: Say = mute) -> Path:
    """Write a run as the settings say; return the new folder."""
    run = load(config.run, "cpu")
    given = {f.name: getattr(config, f.name) for f in fields(SamplingOptions)}
    if config.to == "diffusers":
        if named := [name for name, value in given.items() if value is not None]:
            raise InputError(
                f"--{named[0].replace('_', '-')} is for --to onnx and numpy; a pipeline takes it in Python"
            )
        from unnoise.interop.diffusers_write import to_diffusers  # noqa: PLC0415  # an extra

        return to_diffusers(run, config.out)
    from unnoise.exporting.onnx_file import to_onnx  # noqa: PLC0415  # an extra

    drawing = resolve_settings(SampleConfig(config.run, **given), run)
    check_new_folder(config.out, run.folder)
    made = to_onnx(run, drawing, config.precision)
    folder = new_folder(config.out, run.folder, config.to)
    with replacing(folder / MODEL) as temporary:
        temporary.write_bytes(made.content)
    size = f"{len(made.content) / 2**20:.1f} MB"
    say(f"network   {size}, differs from PyTorch by {made.difference:.1g} at most, where its output is about 1")
    if config.to == "numpy":
        with as_file(files("unnoise.exporting") / "numpy_sampler.py") as script:
            shutil.copyfile(script, folder / SCRIPT)
        say(f"draw      python {folder / SCRIPT} -n 16 --seed 0 --out images")
    return folder
