"""Ranks that do not wait for each other for ever; that they end together is tested with real signals."""

from pathlib import Path

import pytest

from tests.ranks import run_on_two_ranks


@pytest.mark.slow
def test_a_rank_without_a_validation_batch_is_refused(tmp_path: Path) -> None:
    run_on_two_ranks("tests.callbacks.ddp_empty_validation", tmp_path)


@pytest.mark.slow
def test_a_progress_bar_of_one_rank_keeps_no_other_waiting(tmp_path: Path) -> None:
    """As with `mmnas fit --trainer.devices 2` at the prompt, where Lightning shows a bar."""
    run_on_two_ranks("tests.callbacks.ddp_progress_bar", tmp_path)


@pytest.mark.slow
def test_an_error_of_one_rank_ends_the_other(tmp_path: Path) -> None:
    run_on_two_ranks("tests.callbacks.ddp_exception", tmp_path)


@pytest.mark.slow
def test_ranks_that_part_are_told(tmp_path: Path) -> None:
    """Fewer batches on one of them, or a `should_stop` of its own: the other one would wait for ever."""
    run_on_two_ranks("tests.callbacks.ddp_apart", tmp_path, "main")


@pytest.mark.slow
def test_an_epoch_is_left_by_all_ranks_or_none(tmp_path: Path) -> None:
    """-1 of the module's `on_train_batch_start` on one of them: the other one would wait in its weight step."""
    run_on_two_ranks("tests.callbacks.ddp_apart", tmp_path, "skip")
