"""The folder of the cache: private, whole, swept, and never written through a link."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from unnoise import cache_folder as folder
from unnoise.cache_folder import building, keep_bytes, kept_bytes, sweep
from unnoise.errors import InputError

CHILD = """
import sys, time
from pathlib import Path
from unnoise.cache_folder import building
with building(Path(sys.argv[1])) as work:
    (work / "images.bin").write_bytes(bytes(1000))
    print("here", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def child(tmp_path):
    """Start a process that holds a scratch folder in the cache."""
    process = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path / "cache"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"here\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def parts(tmp_path):
    return [*(tmp_path / "cache").glob(".building-*")]


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP"])
def test_what_a_killed_process_left_is_swept_and_not_before(child, tmp_path, name):
    assert sweep(tmp_path / "cache") == 0
    assert len(parts(tmp_path)) == 1
    child.send_signal(getattr(signal, name))
    child.wait()
    assert len(parts(tmp_path)) == 1
    assert sweep(tmp_path / "cache") == 1
    assert parts(tmp_path) == []


def test_parts_of_another_machine_or_version_are_swept_after_a_week(tmp_path, monkeypatch):
    old, other = tmp_path / "cache" / ".building-old", tmp_path / "cache" / ".building-other"
    for path in (old, other):
        path.mkdir(parents=True)
    (other / "owner").write_text("another machine")
    assert sweep(tmp_path / "cache") == 0
    monkeypatch.setattr(folder, "FORSAKEN", -1.0)
    assert sweep(tmp_path / "cache") == 2


def test_own_part_is_gone_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), building(tmp_path / "cache"):
        raise KeyboardInterrupt
    assert [*(tmp_path / "cache").iterdir()] == []


def modes(top):
    return {stat.S_IMODE(path.stat().st_mode) for path in (top, *top.rglob("*"))}


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
def test_a_new_cache_is_private_and_a_shared_one_stays_shared(tmp_path):
    before = os.umask(0o022)
    try:
        keep_bytes(tmp_path / "own" / "shards" / "x", b"1")
        (tmp_path / "shared").mkdir(mode=0o755)
        keep_bytes(tmp_path / "shared" / "shards" / "x", b"1")
    finally:
        os.umask(before)
    assert modes(tmp_path / "own") == {0o700, 0o600}
    assert modes(tmp_path / "shared") == {0o755, 0o644}


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
def test_the_default_cache_of_an_earlier_version_becomes_private(tmp_path, monkeypatch):
    monkeypatch.delenv("UNNOISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "unnoise").mkdir(mode=0o755)
    keep_bytes(folder.cache_folder() / "shards" / "x", b"1")
    assert modes(tmp_path / "unnoise") == {0o700, 0o600}


@pytest.mark.parametrize("damage", [lambda _: b"", lambda b: b[:-1], lambda b: b[:-1] + b"?", lambda b: b"?" + b[1:]])
def test_damaged_bytes_are_not_returned(tmp_path, damage):
    keep_bytes(place := tmp_path / "cache" / "shards" / "x", b"content")
    assert kept_bytes(place) == b"content"
    place.write_bytes(damage(place.read_bytes()))
    assert kept_bytes(place) is None


def test_no_link_is_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    keep_bytes(elsewhere / "shards" / "x", b"secret")
    (tmp_path / "cache" / "shards").mkdir(parents=True)
    place = tmp_path / "cache" / "shards" / "x"
    place.symlink_to(elsewhere / "shards" / "x")
    assert kept_bytes(place) is None
    keep_bytes(place, b"new")
    assert kept_bytes(place) == b"new"
    assert kept_bytes(elsewhere / "shards" / "x") == b"secret"
    (tmp_path / "cache" / "statistics").symlink_to(elsewhere)
    keep_bytes(tmp_path / "cache" / "statistics" / "y", b"new")
    assert [path.name for path in elsewhere.iterdir()] == ["shards"]
    assert kept_bytes(tmp_path / "cache" / "statistics" / "y") == b"new"


def test_a_pipe_in_the_cache_does_not_hang(tmp_path):
    keep_bytes(place := tmp_path / "cache" / "shards" / "x", b"content")
    place.unlink()
    os.mkfifo(place)
    assert kept_bytes(place) is None


def test_no_home_and_dangling_links_are_told(tmp_path, monkeypatch):
    def homeless(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("UNNOISE_CACHE", "~nobody-here/cache")
    with pytest.raises(InputError, match=r"UNNOISE_CACHE='~nobody-here/cache' names no folder"):
        folder.cache_folder()
    monkeypatch.delenv("UNNOISE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(InputError, match="set UNNOISE_CACHE to a folder"):
        folder.cache_folder()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="is a link to nothing"), building(tmp_path / "link"):
        pass
