"""Trainings in processes of their own whose terminal or output goes away."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tiny import TINY, smooth
from unnoise.training.state import read_state

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="no terminals, no /dev/full")]
FLAGS = [f"--{name}={value}" for name, value in TINY.items()]
UNNOISE = [sys.executable, "-m", "unnoise"]


@pytest.fixture
def train(tmp_path, monkeypatch):
    """The command of a training in a folder of its own; the length is missing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNNOISE_CACHE", str(tmp_path / "cache"))
    np.save("data.npy", smooth(24, 8, seed=0))
    return [*UNNOISE, "train", "data.npy", "--out=run", *FLAGS]


OUTPUTS = {
    "full disk": ">/dev/full 2>/dev/full",
    "nobody reads": "2>&1 | head -1",
    "closed": ">&- 2>&- <&-",
    "nobody reads errors": "2>&1 >/dev/full | true",
}


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_a_training_ends_well_without_an_output(train, tmp_path, output):
    command = f"set -o pipefail; {' '.join(train)} --images 64 {output}"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert read_state(tmp_path / "run")[0]["finished"]


def start_on_a_terminal(command, *, ignore_hangup: bool) -> tuple[int, int]:
    """Start a command as the leader of a session on a terminal; return its id and our end of the terminal."""
    import pty

    process, ours = pty.fork()
    if process == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignore_hangup else signal.SIG_DFL)
        os.execv(command[0], command)
    return process, ours


@pytest.mark.parametrize("ignore_hangup", [False, True])
def test_a_window_that_is_closed(train, tmp_path, ignore_hangup):
    """SIGHUP saves; under nohup the training goes on to its end, though nothing can be written any more."""
    process, ours = start_on_a_terminal([*train, "--images", "4000"], ignore_hangup=ignore_hangup)
    shown = b""
    while b"images/s" not in shown.partition(b"training ")[2]:
        shown += os.read(ours, 4096)
    os.close(ours)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status == (0 if ignore_hangup else 128 + signal.SIGHUP)
    saved = read_state(tmp_path / "run")[0]
    assert saved["finished"] == ignore_hangup
    assert saved["parts"]["clock"]["seen"] > 0


@pytest.fixture
def launched(train, tmp_path):
    """A training in two processes of `torchrun` that has begun."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", *train[2:]]
    process = subprocess.Popen([*launch, "--images=1M"], start_new_session=True, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.1)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_processes_saves_though_the_launcher_repeats_it(launched, tmp_path, number):
    os.killpg(launched.pid, number)
    out, _ = launched.communicate(timeout=120)
    assert f"stopped by {number.name} after" in out
    assert read_state(tmp_path / "run")[0]["parts"]["clock"]["seen"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process that its parent died")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
def test_a_signal_that_ends_the_launcher_alone_leaves_no_training_behind(launched, tmp_path, number):
    """A scheduler sends SIGUSR1, which `torchrun` does not hand on: its processes save and end by themselves."""
    os.kill(launched.pid, number)
    out, _ = launched.communicate(timeout=120)  # the output is closed when the last process has ended
    assert "stopped by SIGTERM after" in out
    assert read_state(tmp_path / "run")[0]["parts"]["clock"]["seen"] > 0
