"""`unnoise export`: write a run for other programs."""

from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from unnoise.card import Run
from unnoise.checkpoint import RunLike, load, path_of
from unnoise.config import SampleConfig, Sampling, SamplingOptions
from unnoise.errors import InputError
from unnoise.exporting.config import ExportConfig
from unnoise.exporting.web_page import page_files
from unnoise.files import check_new_folder, new_folder, replacing
from unnoise.progress import Say, mute
from unnoise.sampling import resolve_settings

MODEL, SCRIPT = "model.onnx", "sample.py"
USE = {  # how a folder is used
    "numpy": "draw      python {}/sample.py -n 16 --seed 0 --out images",
    "web": "open      {}/index.html in a browser, or put the folder on a server of files",
}


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
    return export_run(ExportConfig(run=path_of(run), **settings), say)


def export_run(config: ExportConfig, say: Say = mute) -> Path:
    """Write a run as the settings say; return the new folder."""
    run = load(config.run, "cpu")
    given = {f.name: getattr(config, f.name) for f in fields(SamplingOptions)}
    if config.to == "diffusers":
        named = [name for name, value in given.items() if value is not None]
        if config.precision != ExportConfig.precision:
            named.append("precision")
        if named:
            raise InputError(
                f"--{named[0].replace('_', '-')} is for --to onnx, numpy and web; a pipeline takes it in Python"
            )
        from unnoise.interop.diffusers_write import to_diffusers  # noqa: PLC0415  # an extra

        return to_diffusers(run, config.out)
    from unnoise.exporting.onnx_file import to_onnx  # noqa: PLC0415  # an extra

    drawing = resolve_settings(SampleConfig(config.run, **given), run)
    check_new_folder(config.out, run.folder)
    made = to_onnx(run, drawing, config.precision)
    contents = folder_files(config.to, run, drawing, made.content)
    folder = new_folder(config.out, run.folder, config.to)
    for name, content in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)
    size = f"{sum(map(len, contents.values())) / 2**20:.1f} MB"
    say(f"size      {size}; differs from PyTorch by {made.difference:.1g} at most, where the output is about 1")
    if config.to in USE:
        say(USE[config.to].format(folder))
    return folder


def folder_files(to: str, run: Run, drawing: Sampling, network: bytes) -> dict[str, bytes]:
    """Return the files of a format by their names; `network` is the ONNX file."""
    if to == "web":
        return page_files(run, drawing, network)
    script = {SCRIPT: (files("unnoise.exporting") / "numpy_sampler.py").read_bytes()} if to == "numpy" else {}
    return {MODEL: network, **script}
