"""A few hundred random changes of each kind of file; `python -m tests.faults --full` makes 10,000."""

from collections.abc import Callable

import pytest

from tests.faults import fuzz
from tests.faults.record import Record, require


@pytest.mark.slow
@pytest.mark.parametrize(("family", "count"), [(fuzz.genotypes, 300), (fuzz.tables, 300), (fuzz.configs, 150)])
def test_every_case_is_read_or_refused(family: Callable[[int, int], Record], count: int) -> None:
    record = family(count, 1)
    require(record, count)
    assert record.refused > count / 4  # the changes are felt
    assert record.worked > 0  # and what is left of the file can still be right
