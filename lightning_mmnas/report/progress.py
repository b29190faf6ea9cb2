"""How far something has come: a bar on a terminal, else lines with the time of day.

Whoever does something that takes long says so with `activity`; a `RunProgress` around it shows it. Without one, a bar
of its own appears on a terminal, and elsewhere nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column
from typing_extensions import Self

_REFRESH = 4  # drawings per second, by a thread: what is computed for long does not draw
_PAUSE = 30.0  # seconds between two lines of a stage where there is no terminal
_WIDE = 100  # columns of a terminal with room for metrics
_KNOWN = 5.0  # seconds after which there is an estimate

Workload = Callable[[int], Mapping[str, Sequence[float]]]
"""Work of the parts of every stage, in any unit, given the number of training samples."""


class Activity:
    """Something that is being done.

    Args:
        shown: Called whenever it has changed.
        what: What it is.
        total: Its size; None: unknown.
        unit: What is counted.
        part: Which part of its stage's work it is; None: none of those that an estimate counts.
    """

    def __init__(
        self, shown: Callable[[Activity], None], what: str, total: float | None, unit: str, part: int | None
    ) -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self.part = part
        self.done: float = 0
        self.note = ""
        self._shown = shown

    def advance(self, count: int = 1) -> None:
        """Adds to what is done."""
        self.update(self.done + count)

    def update(self, done: float | None = None, what: str | None = None, note: str | None = None) -> None:
        """Says how much is done, what is being done now, or what is known so far."""
        self.done = self.done if done is None else done
        self.what = self.what if what is None else what
        self.note = self.note if note is None else note
        self._shown(self)

    @property
    def share(self) -> float:
        """The share that is done, in [0, 1]; 0 where the size is unknown."""
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def count(self) -> str:
        """How much is done, with its unit."""
        return f"{self.done:,.0f}/{self.total:,.0f} {self.unit}" if self.total else ""


class RunProgress:
    """Shows the activities of a run of several stages, and about how long all of it will take.

    Args:
        console: Where to draw, if it is a terminal; otherwise lines are printed, about two a minute.
        stages: The stages' names in their order; none: activities are shown without a stage.
    """

    def __init__(self, console: Console, stages: Sequence[str] = ()) -> None:
        self.workload: Workload | None = None
        self.samples: int | None = None
        self._console = console
        self._stages = list(stages)
        self._stage = ""
        self._began = self._printed = 0.0
        self._seconds: dict[str, float] = {}
        self._activities: list[Activity] = []
        self._share = 0.0
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        """Begins to show."""
        self._token = _SHOWN.set(self)
        if self._console.is_terminal:
            wide = self._console.width >= _WIDE
            self._bar = Progress(
                SpinnerColumn(),
                _text("stage", style="bold"),
                _text("what"),
                BarColumn(bar_width=16 if wide else 6),
                _text("count"),
                _text("left"),
                *([_text("note", ratio=1)] if wide else []),
                console=self._console,
                transient=True,
                expand=wide,
                refresh_per_second=_REFRESH,
            )
            self._task = self._bar.add_task("", total=None, stage="", what="starting", count="", left="", note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves a clean line, whatever has happened."""
        _SHOWN.reset(self._token)
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str, **options: Any) -> None:
        """Prints a line, with the time of day where there is no terminal."""
        stamp = "" if self._console.is_terminal else time.strftime("%H:%M:%S ")
        self._console.print(f"{stamp}{text}", **{"highlight": False, "markup": False, "soft_wrap": True, **options})
        self._printed = time.monotonic()

    def finished(self, stage: str, seconds: float) -> None:
        """Says that a stage was done earlier, in so many seconds."""
        self._seconds[stage] = seconds

    def label(self, stage: str) -> str:
        """The stage with its number, such as ``search 2/5``."""
        return f"{stage} {self._stages.index(stage) + 1}/{len(self._stages)}" if stage in self._stages else stage

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage of the run; what is done within belongs to it."""
        self._stage, self._began, self._share = name, time.monotonic(), 0.0
        if not self._console.is_terminal:
            self.say(f"{self.label(name)} begins")
        with self.activity("starting"):
            yield
        self._seconds[name] = time.monotonic() - self._began
        self._stage = ""

    @contextmanager
    def activity(
        self, what: str, total: float | None = None, unit: str = "", part: int | None = None
    ) -> Iterator[Activity]:
        """Something that is being done; that around it is shown again afterwards."""
        activity = Activity(self._show, what, total, unit, part)
        self._activities.append(activity)
        self._restart()
        try:
            yield activity
        finally:
            self._activities.remove(activity)
            self._restart()

    def left(self) -> float | None:
        """Estimated seconds until the whole run is done; None: not known yet.

        What is left of this stage goes on at its own pace, the later stages at that of all that is done, each by its
        work.
        """
        work, elapsed = self._work(), time.monotonic() - self._began
        if elapsed < _KNOWN or not self._share or not work.get(self._stage):
            return None
        before = [name for name in self._seconds if name in work and name != self._stage]
        done = sum(work[name] for name in before) + work[self._stage] * self._share
        pace = (sum(self._seconds[name] for name in before) + elapsed) / done
        later = self._stages[self._stages.index(self._stage) + 1 :] if self._stage in self._stages else []
        rest = elapsed * (1 - self._share) / self._share
        return rest + pace * sum(work.get(name, 0.0) for name in later if name not in self._seconds)

    def _parts(self) -> Mapping[str, Sequence[float]]:
        return {} if self.samples is None or self.workload is None else self.workload(self.samples)

    def _work(self) -> dict[str, float]:
        return {name: sum(parts) for name, parts in self._parts().items()}

    def _restart(self) -> None:
        if self._bar is not None and self._activities:
            self._bar.reset(self._task, total=self._activities[-1].total)
        if self._activities:
            self._show(self._activities[-1])

    def _show(self, activity: Activity) -> None:
        if not self._activities or activity is not self._activities[-1]:
            return
        parts = self._parts().get(self._stage, ())
        whole = sum(parts, 0.0)
        if activity.part is not None and activity.part < len(parts) and whole:
            before = sum(parts[: activity.part], 0.0)
            self._share = (before + parts[activity.part] * activity.share) / whole
        stage, left = self.label(self._stage), _duration(self.left())
        if self._bar is not None:
            self._bar.update(
                self._task,
                what=activity.what,
                completed=activity.done,
                stage=stage,
                count=activity.count,
                left=left,
                note=activity.note,
            )
        elif not self._console.is_terminal and self._stage and time.monotonic() - self._printed > _PAUSE:
            self.say(f"{stage}  " + ", ".join(filter(None, [activity.what, activity.count, left, activity.note])))


_SHOWN: ContextVar[RunProgress | None] = ContextVar("shown", default=None)


@contextmanager
def activity(
    what: str, total: float | None = None, unit: str = "", part: int | None = None, shown: bool = True
) -> Iterator[Activity]:
    """Says that something is being done that takes a while; what it yields is told how far it has come.

    Args:
        what: What it is, in a few words.
        total: Its size; None: unknown.
        unit: What is counted.
        part: Which part of its stage's work it is; see `workload`. None: none.
        shown: False: it is not shown, such as by the other processes of several.
    """
    run = _SHOWN.get() if shown else None
    if run is not None:
        with run.activity(what, total, unit, part) as begun:
            yield begun
    elif shown and sys.stderr.isatty():
        with RunProgress(Console(stderr=True)) as alone, alone.activity(what, total, unit) as begun:
            yield begun
    else:
        yield Activity(lambda begun: None, what, total, unit, part)


def _text(field: str, style: str = "none", ratio: int | None = None) -> TextColumn:
    """A column of a bar; what is too long is cut."""
    column = Column(no_wrap=True, overflow="ellipsis", ratio=ratio)
    return TextColumn(f"{{task.fields[{field}]}}", style=style, markup=False, table_column=column)


def _duration(seconds: float | None) -> str:
    """Seconds as ``about 4 min left``."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"about {max(10 * round(seconds / 10), 10)} s left"
    if seconds < 5400:
        return f"about {seconds / 60:.0f} min left"
    return f"about {seconds / 3600:.1f} h left"
