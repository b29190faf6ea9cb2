"""Tests of several processes: forks of one that has all libraries loaded, since loading them takes many seconds."""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

_LIBRARIES = (
    "lightning.pytorch",
    "lightly.loss",
    "lightning_mmnas.commands.compare",
    "lightning_mmnas.commands.lightning_cli",
    "lightning_mmnas.data.stream",
    "lightning_mmnas.sampling.study",
)
_ROOT = Path(__file__).parents[1]
_SECONDS = 240


def context() -> ForkServerContext:
    """What starts processes that need not load any library; they have the environment of the first one."""
    multiprocessing.set_forkserver_preload(list(_LIBRARIES))
    return multiprocessing.get_context("forkserver")


def run_on_two_ranks(module: str, *args: Path | str) -> None:
    """Runs a module by two processes; see `run_on_ranks`."""
    run_on_ranks(2, module, *args)


def run_on_ranks(count: int, module: str, *args: Path | str) -> None:
    """Runs a module by several processes as torchrun would, and fails with what they said if they fail."""
    start_ranks(_run_module, (module, *map(str, args)), count)


def run_under_torchrun(count: int, module: str, *args: Path | str) -> None:
    """The same by torchrun itself."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m"]
    done = subprocess.run(
        [sys.executable, *launch, module, *map(str, args)],
        cwd=_ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def start_ranks(call: Callable[..., Any], args: tuple[Any, ...], count: int) -> None:
    """Has several processes call `call(rank, *args)` with torchrun's variables, and fails with what they said.

    Where one of them fails, the others are ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, str(rank)) for rank in range(count)]
        given, start = (count, _free_port(), call, args), context()
        ranks = [start.Process(target=_rank, args=(rank, str(said[rank]), *given)) for rank in range(count)]
        for process in ranks:
            process.start()
        _wait(ranks)
        texts = [f"rank {rank}: exit code {p.exitcode}\n{said[rank].read_text()}" for rank, p in enumerate(ranks)]
        assert all(process.exitcode == 0 for process in ranks), "\n".join(texts)


def run_forked(call: Callable[..., int | None], *args: Any) -> tuple[int | None, str]:
    """Has a process call something that returns an exit code.

    Returns:
        Its exit code, negative for a signal; and what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "said")
        process = context().Process(target=_call, args=(str(said), call, args))
        process.start()
        process.join(_SECONDS)
        process.kill()
        process.join()
        return process.exitcode, said.read_text()


def _wait(ranks: Sequence[BaseProcess]) -> None:
    end = time.monotonic() + _SECONDS
    while any(process.is_alive() for process in ranks):
        if time.monotonic() > end or any(process.exitcode for process in ranks):
            for process in ranks:
                process.kill()
        time.sleep(0.02)
    for process in ranks:
        process.join()


def _redirect(said: str) -> None:
    with Path(said).open("w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)


def _call(said: str, call: Callable[..., int | None], args: tuple[Any, ...]) -> None:
    _redirect(said)
    os.chdir(_ROOT)
    sys.exit(call(*args) or 0)


def _rank(rank: int, said: str, count: int, port: int, call: Callable[..., Any], args: tuple[Any, ...]) -> None:
    _redirect(said)
    os.environ |= {
        **{name: str(rank) for name in ("RANK", "LOCAL_RANK", "ROLE_RANK")},
        **{name: str(count) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "ROLE_WORLD_SIZE")},
        **{"GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": "1"},
        **{
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
            "CUDA_VISIBLE_DEVICES": "",
        },
    }
    torch.set_num_threads(1)
    os.chdir(_ROOT)
    try:
        call(rank, *args)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        raise


def _run_module(rank: int, module: str, *args: str) -> None:
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found
