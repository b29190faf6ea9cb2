"""What a family of faults has found: counts, and every case that went wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Record:
    """Counts of one family.

    Attributes:
        family: Its name.
        cases: Faults that were injected.
        refused: Cases that ended in one of the package's own errors, or in one line and exit code 2.
        worked: Cases that gave the right result all the same, such as a run that was resumed and equals a whole one.
        failures: What went wrong, one text per case.
        moments: When and where faults struck, if they did so at random.
        seconds: How long it took.
    """

    family: str
    cases: int = 0
    refused: int = 0
    worked: int = 0
    failures: list[str] = field(default_factory=list)
    moments: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def refuse(self) -> None:
        """Counts a case that was refused."""
        self.cases += 1
        self.refused += 1

    def work(self) -> None:
        """Counts a case that worked."""
        self.cases += 1
        self.worked += 1

    def fail(self, what: str) -> None:
        """Counts a case that went wrong."""
        self.cases += 1
        self.failures.append(what)


@contextmanager
def recorded(family: str) -> Iterator[Record]:
    """A record, with the time that its block takes."""
    record, start = Record(family), time.monotonic()
    yield record
    record.seconds = round(time.monotonic() - start, 1)


def require(record: Record, cases: int) -> None:
    """Fails a test unless all of so many cases ended as they should."""
    assert not record.failures, "\n".join(record.failures[:10])
    assert record.cases == record.refused + record.worked == cases
