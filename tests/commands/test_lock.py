"""One command at a time in a folder; one that was killed does not keep others out."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from lightning_mmnas.commands.claiming import Claim, claim
from lightning_mmnas.commands.lock import locked
from lightning_mmnas.errors import RunDirectoryError
from tests.commands.runs import stages_with

HOLD = """
import sys, time
from pathlib import Path
from lightning_mmnas.commands.lock import locked
with locked(Path(sys.argv[1]), print):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_second_run_is_refused_and_a_killed_one_is_followed(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    said: list[str] = []
    run = tmp_path / "run"
    mine = f"process {holder.pid} on {socket.gethostname()} (since "
    try:
        with (
            pytest.raises(RunDirectoryError, match=f"run is being written by {re.escape(mine)}.*; wait"),
            locked(run, said.append),
        ):
            raise AssertionError
        assert json.loads((run / ".lock.json").read_text())["process"] == holder.pid  # untouched
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with locked(run, said.append):
        assert json.loads((run / ".lock.json").read_text())["process"] == os.getpid()
    assert len(said) == 1
    assert said[0].startswith(mine)
    assert said[0].endswith(f"was at work in {run} and has ended without a word; going on from what it left")
    with locked(run, said.append):
        (run / "kept").touch()
    assert len(said) == 1  # given back
    assert [path.name for path in run.iterdir()] == ["kept"]


FORK = """
import os, sys, time
from pathlib import Path
from lightning_mmnas.commands.lock import locked
with locked(Path(sys.argv[1]), print):
    if os.fork() == 0:
        os.write(1, b"f")  # one byte each: two processes write to one pipe
        time.sleep(240)
        os._exit(0)
    os.write(1, b"l")
    time.sleep(60)
"""


def test_a_forked_worker_does_not_hold_the_lock_of_a_killed_run(tmp_path: Path) -> None:
    """A worker of a loader lives for some seconds after a SIGKILL of its parent."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORK, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        # Both have written: what a fork does of itself is done.
        assert sorted(process.stdout.read(2)) == sorted(b"fl")
        process.send_signal(signal.SIGKILL)
        process.wait()
        said: list[str] = []
        with locked(tmp_path / "run", said.append):
            assert f"process {process.pid} on" in said[0]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_that_knows_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    (tmp_path / ".lock").write_text("4242\nnode7\n")  # of a machine that has died
    said: list[str] = []
    with locked(tmp_path, said.append):
        assert said == [f"the disk of {tmp_path} knows no locks: nothing keeps a second run out of it"]
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError) as caught, locked(tmp_path / "new", said.append):
        raise KeyError
    assert caught.value.__context__ is None
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("number", [errno.EIO, errno.EBADF])
def test_a_lock_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(RunDirectoryError, match=f"cannot write .*{os.strerror(number)}"), locked(tmp_path, print):
        raise AssertionError


def test_a_lock_of_another_host_that_nobody_holds(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".lock.json").write_text('{"process": 1, "host": "node7", "since": "2020-01-01 00:00:00"}')
    said: list[str] = []
    with locked(tmp_path, said.append):
        claim(Claim("watch", tmp_path, 0), stages_with(), said.append)  # a folder with a lock alone is a new one
    assert "process 1 on node7 (since 2020-01-01 00:00:00) was at work" in said[0]
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json"}


@pytest.mark.parametrize("content", ["", "{", "[1]", "[" * 10**6])
def test_a_damaged_owner(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock.json").write_text(content)
    with locked(tmp_path, print), FileLock(tmp_path / "other.lock", timeout=0):
        pass
    with FileLock(tmp_path / ".lock", timeout=0):
        (tmp_path / ".lock.json").write_text(content)
        with pytest.raises(RunDirectoryError, match="being written by another process"), locked(tmp_path, print):
            raise AssertionError


def test_nothing_is_left_of_a_folder_in_which_nothing_was_written(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "a" / "b", print):
        raise KeyError
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(RunDirectoryError, match=r"cannot write .*choose another"), locked(folder, print):
            raise AssertionError
