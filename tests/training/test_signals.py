"""Signals save a training and end it; a signal that is ignored stays ignored."""

import os
import signal
import time
from contextlib import nullcontext

import pytest

from tiny import TINY, At, train_folder
from unnoise import cli, commands
from unnoise.training import signals
from unnoise.training import train as training
from unnoise.training.signals import AGAIN, ASKING, Interrupted, Stop, Stopped, raise_on_signals, stop_signals
from unnoise.training.state import read_state

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has neither SIGHUP nor SIGUSR1")
SETTINGS = {**TINY, "images": "40", "held_out": 0}


def send(number):
    os.kill(os.getpid(), number)


def kill_at(steps, *numbers):
    return [At(steps, lambda _: [send(number) for number in numbers])]


def images_seen(run):
    return read_state(run)[0]["parts"]["clock"]["seen"]


def test_the_signals_of_closed_windows_and_schedulers_are_among_those_caught():
    if os.name == "posix":
        assert {"SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"} == {number.name for number in ASKING}
    assert signal.SIGINT in ASKING


@pytest.mark.parametrize("number", ASKING)
def test_every_signal_is_only_noted_while_a_training_steps(number):
    before = signal.getsignal(number)
    with stop_signals() as stop:
        send(number)
        assert stop.signal == number
        send(number)  # a closed window sends SIGHUP twice, and torchrun repeats a signal
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("launched", [False, True])
def test_the_second_ctrl_c_ends_at_once_unless_a_launcher_repeats_it(monkeypatch, launched):
    """However late a busy `torchrun` repeats the signal, its processes save."""
    if launched:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    stop = Stop()
    stop(signal.SIGINT, None)
    monkeypatch.setattr(signals, "AGAIN", 0.0)
    time.sleep(0.01)
    with nullcontext() if launched else pytest.raises(Stopped):
        stop(signal.SIGINT, None)


@posix
def test_a_closed_window_saves_the_training(gray, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Interrupted, match="SIGHUP"):
        train_folder(gray, out=out, monitors=kill_at(3, signal.SIGHUP, signal.SIGHUP), **SETTINGS)
    assert images_seen(out) == 20  # batches of 8, 8 and 4


@posix
def test_nohup_is_respected(monkeypatch):
    """A signal that is ignored, as nohup and background jobs of scripts are started, stays ignored."""
    for number in (signal.SIGHUP, signal.SIGINT):
        before = signal.signal(number, signal.SIG_IGN)
        try:
            with raise_on_signals(), stop_signals() as stop:
                send(number)
                assert stop.signal is None
            assert signal.getsignal(number) is signal.SIG_IGN
        finally:
            signal.signal(number, before)


@posix
def test_a_handler_of_the_users_own_program_is_kept():
    taken = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: taken.append(number))
    try:
        with stop_signals() as stop:
            send(signal.SIGUSR1)
        assert taken == [signal.SIGUSR1]
        assert stop.signal is None
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_only_a_second_ctrl_c_that_is_clearly_a_second_one_ends_at_once(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    stop = Stop()
    stop(signal.SIGTERM, None)
    now += AGAIN + 1
    stop(signal.SIGTERM, None)
    stop(signal.SIGINT, None)
    now += AGAIN / 2
    stop(signal.SIGINT, None)
    now += AGAIN
    with pytest.raises(Stopped, match="SIGINT"):
        stop(signal.SIGINT, None)
    assert stop.signal == signal.SIGTERM


def test_windows_has_fewer_signals(monkeypatch):
    monkeypatch.setattr(signals, "ASKING", [signal.SIGINT, signal.SIGTERM])
    with stop_signals() as stop:
        send(signal.SIGTERM)
    assert stop.signal == signal.SIGTERM


def test_a_signal_after_the_last_save_changes_nothing(gray, tmp_path, monkeypatch):
    """Everything was done and saved: the status says so, and the same command has nothing left to do."""

    def conclude(job, interrupted, conclude=training.conclude):
        send(signal.SIGTERM)
        conclude(job, interrupted)

    def finish(job, stop, finish=training.finish):
        finish(job, stop)
        send(signal.SIGTERM)

    monkeypatch.setattr(training, "conclude", conclude)
    monkeypatch.setattr(training, "finish", finish)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    command = ["train", str(gray), "--out", str(tmp_path / "run"), *flags]
    assert cli.main(command) == 0
    assert cli.main(command) == 0


@pytest.mark.parametrize("number", ASKING)
def test_any_other_work_ends_in_one_line(number, monkeypatch, capsys):
    ended = []

    def work(given):
        try:
            send(number)
            time.sleep(1)
        finally:
            send(number)  # the repetition does not disturb the cleaning up
            ended.append(True)

    monkeypatch.setattr(commands, "info", work)
    before = signal.getsignal(number)
    assert cli.main(["info", "run"]) == 128 + number
    assert capsys.readouterr().err == f"unnoise: stopped by {signal.Signals(number).name}\n"
    assert ended == [True]
    assert signal.getsignal(number) is before
