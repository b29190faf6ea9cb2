"""Random relaxations draw the same on two ranks, and the ranks stop together."""

import json
from pathlib import Path

import pytest
import torch

from tests.callbacks.searchers import differences
from tests.ranks import run_on_two_ranks

pytestmark = pytest.mark.slow


def test_two_ranks_make_one_search(tmp_path: Path) -> None:
    run_on_two_ranks("tests.callbacks.ddp_strategies", tmp_path)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    for name in ("gumbel", "dirichlet"):
        assert first[name]["epochs"] == second[name]["epochs"] == 3
        # Two passes in each of two batches and three epochs, in each the weights of alpha and gamma of two cells.
        assert len(first[name]["given"]) == 2 * 2 * 3 * (2 * 3 + 2 * 4 + 2 * 5)
        assert torch.equal(first[name]["given"], second[name]["given"])
        assert not differences(first[name]["state"], second[name]["state"])
        record = json.loads((tmp_path / f"{name}-rank0" / "genotype.weights.json").read_text())
        assert [entry["epoch"] for entry in record["epochs"]] == [0, 1, 2]
        assert not (tmp_path / f"{name}-rank1").exists()
        assert int(first[name]["state"]["supernet.logits.relaxation.draws"]) == 12
