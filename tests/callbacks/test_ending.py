"""Ranks that do not wait for each other for ever; that they end together is tested with real signals."""

from pathlib import Path

import pytest

from tests.ranks import run_on_two_ranks


@pytest.mark.slow
def test_a_rank_without_a_validation_batch_is_refused(tmp_path: Path) -> None:
    run_on_two_ranks("tests.callbacks.ddp_empty_validation", tmp_path)
