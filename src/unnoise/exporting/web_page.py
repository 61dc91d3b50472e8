"""Write a run as a folder that draws in a browser: a page, the network, and the engine that computes it.

The engine is ONNX Runtime's build for the web, of its npm package. A page that is opened from a file may load scripts
and nothing else, so the network and the engine are scripts that hold base64 of gzip.
"""

import base64
import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from unnoise.cache_folder import cache_folder, checked_bytes, keep_bytes
from unnoise.card import Run
from unnoise.config import Sampling
from unnoise.errors import InputError
from unnoise.exporting.description import describe_drawing

PACKAGE = "onnxruntime-web@1.30.0"
FILES = {  # of the package: name in ENGINE, sha256
    "ort.wasm.bundle.min.mjs": ("code", "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"),
    "ort-wasm-simd-threaded.wasm": ("wasm", "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"),
}
NOTICE = b"// ONNX Runtime Web 1.30.0, Copyright (c) Microsoft Corporation, under the MIT License\n"
PAGE = ("index.html", "style.css", "draw.js", "page.js")
STEPS = (10, 20, 40)  # that the page offers, beside the run's own
NPM_SECONDS = 300


def page_files(run: Run, settings: Sampling, network: bytes) -> dict[str, bytes]:
    """Return the files of the page of a run by their names; `network` is its ONNX file."""
    engine = {name: pack(content) for name, content in open_engine().items()}
    model = {**describe_page(run, settings), "network": pack(network)}
    page = {name: (files("unnoise.exporting") / "web" / name).read_bytes() for name in PAGE}
    return {"engine.js": NOTICE + script("ENGINE", engine), "model.js": script("MODEL", model), **page}


def describe_page(run: Run, settings: Sampling) -> dict[str, Any]:
    """Return what the page says of a run, and how it draws with each number of steps that it offers."""
    others = [] if run.card.taught else [steps for steps in STEPS if steps <= run.model.schedule.T]
    counts = dict.fromkeys([settings.steps, *others])
    return {
        "about": f"trained on {run.card.training.get('images', 0):,} images",
        "guidable": bool(run.card.classes and run.card.training.get("config", {}).get("label_dropout")),
        "drawings": [describe_drawing(run, replace(settings, steps=steps)) for steps in counts],
    }


def script(name: str, value: dict[str, Any]) -> bytes:
    """Return a script that sets a constant."""
    return f"const {name} = {json.dumps(value)};\n".encode()


def pack(content: bytes) -> str:
    """Return bytes as base64 of gzip; the same bytes give the same text."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def open_engine() -> dict[str, bytes]:
    """Return the files of the engine by their names in ENGINE, from the cache or else from npm.

    Raises:
        InputError: npm is missing or cannot get the package, or a file is another one than this version has.
    """
    place = cache_folder() / PACKAGE.replace("@", "-")
    found = {name: checked_bytes(place / name) for name in FILES}
    if None in found.values():
        found = {**dict.fromkeys(FILES), **from_npm()}
    for name, content in found.items():
        if content is None or hashlib.sha256(content).hexdigest() != FILES[name][1]:
            raise InputError(f"{name} of {PACKAGE} is not the file that this unnoise knows; nothing was written")
        if checked_bytes(place / name) is None:
            keep_bytes(place / name, content)
    return {FILES[name][0]: content for name, content in found.items() if content is not None}


def from_npm() -> dict[str, bytes]:
    """Return the files of the engine from the package, which npm gets from where it is set up to."""
    if (npm := shutil.which("npm")) is None:
        raise InputError(f"--to web needs {PACKAGE}, which npm gets once: install npm (it comes with Node.js)")
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(  # noqa: S603  # fixed words
                [npm, "pack", PACKAGE, "--silent"], cwd=folder, check=True, capture_output=True, timeout=NPM_SECONDS
            )
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
                members = {name: archive.extractfile(f"package/dist/{name}") for name in FILES}
                return {name: member.read() for name, member in members.items() if member}
        except (subprocess.SubprocessError, OSError, StopIteration, KeyError, tarfile.TarError) as error:
            reason = getattr(error, "stderr", b"") or str(error).encode()
            raise InputError(f"npm cannot get {PACKAGE}: {reason.decode(errors='replace').strip():.200}") from error
