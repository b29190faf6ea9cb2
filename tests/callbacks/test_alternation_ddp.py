"""Two gloo processes make the same search as one process on the joined batches."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.callbacks.ddp_searches import CASES, search
from tests.callbacks.searchers import differences
from tests.ranks import run_under_torchrun

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    root = tmp_path_factory.mktemp("ddp")
    run_under_torchrun(2, "tests.callbacks.ddp_searches", root)
    return [torch.load(root / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_ranks_are_equal_and_equal_one_process(case: str, ranks: list[dict[str, Any]], tmp_path: Path) -> None:
    assert not differences(ranks[0][case], ranks[1][case])
    for name, value in search(tmp_path, case, world_size=1).items():
        torch.testing.assert_close(ranks[0][case][name], value, rtol=1e-10, atol=1e-12, msg=name)


def test_drift_is_noticed_on_every_rank(ranks: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(ranks):
        assert f"logits of rank {rank} differ" in found["drift"]
        assert f"ranks [{1 - rank}] after 3 architecture steps" in found["drift"]


def test_resumed_search_is_bit_identical_on_every_rank(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        unbroken, *resumed = found["resume"]
        assert len(resumed) == 8
        assert [differences(unbroken, other) for other in resumed] == [[]] * 8
