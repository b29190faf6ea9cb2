"""One command at a time in a folder; one that was killed does not keep others out."""

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
