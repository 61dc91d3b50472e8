"""List the results: write benchmarks/results/MANIFEST.json from the files and from git. Run it after adding a result.

    python -m benchmarks.lib.manifest

Each file has the script that made it, the date of the commit that added its content, the machine if the file names one,
and its SHA-256. The script is known by the folder: `results/levels` is made by `levels.py`, and SCRIPTS names the
others.
"""

import argparse
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from unnoise.files import write_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results"
MANIFEST = RESULTS / "MANIFEST.json"
SCRIPTS = dict.fromkeys(("ablation", "ablation-amx", "celeba-peers", "cifar10", "fashion-mnist"), "quality_per_minute")
SCRIPTS |= {"yardstick-slow": "yardstick"}  # on a CPU without AVX-512


def result_files() -> list[Path]:
    """Return the result files that git keeps, in order."""
    listed = git("ls-files", "--cached", "--others", "--exclude-standard", "-z", str(RESULTS)).split("\0")
    return sorted(path for path in (ROOT / name for name in listed if name) if path != MANIFEST and path.exists())


def script_of(path: Path) -> str:
    """Return the script that made a result, from the root of the repository."""
    stem = SCRIPTS.get(path.parent.name, path.parent.name)
    found = [*(ROOT / "benchmarks").glob(f"*/{stem}.py")]
    if len(found) != 1:
        raise SystemExit(f"no script belongs to {path}: name the folder like a script, or add it to SCRIPTS")
    return str(found[0].relative_to(ROOT))


def git(*arguments: str) -> str:
    """Return the output of a git command."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def date_added(path: Path) -> str | None:
    """Return the date of the commit that added this content, also under another name, or None if there is none yet."""
    content = git("hash-object", str(path)).strip()
    dates = git("log", f"--find-object={content}", "--format=%as").split()
    return dates[-1] if dates else None


def machine_of(path: Path) -> str | None:
    """Return processor, threads and GPU, as a result file names them, or None."""
    content: dict[str, Any] = json.loads(path.read_text())
    about = content.get("machine") or content
    if "processor" not in about:
        return None
    gpu = f", {about['gpu']}" if about.get("gpu") else ""
    return f"{about['processor']}, threads: {about['threads']}{gpu}"


def main() -> None:
    """Write the manifest."""
    entries = {
        str(path.relative_to(RESULTS)): {
            "script": script_of(path),
            "added": date_added(path),
            "machine": machine_of(path),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in result_files()
    }
    write_json(MANIFEST, entries)
    print(f"{len(entries)} results in {MANIFEST.relative_to(ROOT)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    main()
