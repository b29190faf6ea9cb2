"""SIGKILL at random moments of `mmnas run`, resumed until it ends: the results are those of one left alone."""

from __future__ import annotations

import random
import re
import shutil
import signal
import tempfile
from pathlib import Path

from tests.faults.record import Record, recorded
from tests.faults.runs import Whole, differences, start

_KILLS = 3
"""Of one run, before it is left alone."""


def kills(count: int, seed: int, whole: Whole) -> Record:
    """Kills of runs, a few of each; a case is a kill, and worked where the run that it befell ends as a whole one."""
    draw = random.Random(seed)
    with recorded("kill -9 of mmnas run") as record, tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "run"
        while record.cases < count:
            moments: list[str] = []
            for _ in range(min(_KILLS, count - record.cases)):
                moment = draw.uniform(0.02, 0.95) * whole.seconds
                child = start(whole.configs, output)
                if child.kill_after(moment) == -signal.SIGKILL:
                    moments.append(f"{moment:.1f} s of {whole.seconds:.1f} ({_stage(child.said)})")
            child = start(whole.configs, output)
            found = [child.said[-2000:]] if child.wait() else differences(output, whole.run)
            for moment_and_stage in moments:
                if found:
                    record.fail(f"killed at {', '.join(moments)}: {', '.join(found)}")
                else:
                    record.work()
                    record.moments.append(moment_and_stage)
            shutil.rmtree(output, ignore_errors=True)
    return record


def _stage(said: str) -> str:
    begun = re.findall(r"(\w+) \d/\d begins", said)
    return begun[-1] if begun else "before the first stage"
