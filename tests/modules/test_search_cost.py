"""The cost term of a search: its value, its pull, its place in the checkpoint, its being one on all ranks."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_mmnas import ArchitectureAlternation, CostTable, FusionNetwork, FusionSearch
from lightning_mmnas.costs import measuring
from lightning_mmnas.errors import ConfigError
from tests.modules.tiny import ENCODERS, data_of, modalities, split_of, trainer_of
from tests.ranks import run_on_two_ranks

SMALL: dict[str, Any] = {"channels": 4, "length": 2, "projection_hidden": 8, "projection_out": 4}


def search_of(**changes: Any) -> FusionSearch:
    torch.manual_seed(0)
    return FusionSearch(modalities(), ENCODERS, **{**SMALL, **changes})


def fit(folder: Path, module: FusionSearch, alternation: ArchitectureAlternation | None = None, **changes: Any) -> Any:
    callback = alternation or ArchitectureAlternation(lr=0.1)
    trainer = trainer_of(folder, callbacks=[callback], **changes)
    trainer.fit(module, data_of(architecture_fraction=0.5))
    return trainer


@pytest.mark.parametrize("pairing", ["independent", "tied"])
def test_a_heavy_weight_leads_to_the_cheapest(pairing: Any, tmp_path: Path) -> None:
    module = search_of(cost="parameters", cost_weight=1e4, cells=1, pairing=pairing)
    trainer = fit(tmp_path, module, ArchitectureAlternation(lr=0.3, weight_decay=0.0), max_epochs=6)
    table = module.cost.table
    assert table is not None
    everything = [table.of(genotype) for genotype in module.space.enumerate()]
    assert table.of(module.supernet.decode(coverage=False)) == min(everything) < max(everything)
    logged = float(trainer.callback_metrics["arch/cost"])
    assert logged == pytest.approx(float(table.expected(module.supernet)), rel=1e-6)
    assert logged < float(table.expected(search_of(cells=1, pairing=pairing).supernet))


def test_term_is_in_the_loss_of_the_architecture_alone(tmp_path: Path) -> None:
    module = search_of(cost="flops", cost_weight=0.7)
    fit(tmp_path, module, max_epochs=1, limit_train_batches=1)
    for logits in module.architecture_parameters():
        logits.copy_(torch.randn_like(logits))
    batch = {name: value for name, value in split_of(8, 3).items() if name != "label"}
    module.eval()
    losses = []
    for step in (module.weight_step_loss, module.architecture_step):
        torch.manual_seed(5)
        losses.append(float(step(batch).detach()))
    assert module.cost.table is not None
    relative = float(module.cost.table.relative(module.supernet))
    assert abs(relative - 1) > 0.01
    assert losses[1] - losses[0] == pytest.approx(0.7 * relative, rel=1e-4)


def test_table_is_of_the_network_that_comes_next(tmp_path: Path) -> None:
    module = search_of(cost="parameters", cost_readout="neck")
    fit(tmp_path, module, limit_train_batches=1)
    genotype = module.supernet.decode()
    network = FusionNetwork(genotype, module.encoders.feature_shapes, "neck")
    assert module.cost.table is not None
    assert module.cost.table.of(genotype) == sum(p.numel() for p in network.parameters())


def test_without_a_cost_nothing_changes(tmp_path: Path) -> None:
    module = search_of()
    trainer = fit(tmp_path, module, limit_train_batches=1)
    assert module.cost.table is None
    assert "arch/cost" not in trainer.callback_metrics
    trainer.save_checkpoint(tmp_path / "search.ckpt")
    assert "costs" not in torch.load(tmp_path / "search.ckpt", weights_only=True)


def test_resumed_search_keeps_the_latency_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1, 1000))
    monkeypatch.setattr(measuring, "measure_latency", lambda *_, **__: float(next(ticks)))
    first = search_of(cost="latency", cost_weight=0.1)
    trainer = fit(tmp_path, first, limit_train_batches=1)
    trainer.save_checkpoint(tmp_path / "search.ckpt")
    resumed = search_of(cost="latency", cost_weight=0.1)
    again = trainer_of(tmp_path, callbacks=[ArchitectureAlternation(lr=0.1)], max_epochs=2, limit_train_batches=1)
    again.fit(resumed, data_of(architecture_fraction=0.5), ckpt_path=str(tmp_path / "search.ckpt"))
    assert first.cost.table is not None
    assert resumed.cost.table == first.cost.table
    other = search_of(cost="parameters")  # what the checkpoint holds is no answer to this
    other.on_load_checkpoint(torch.load(tmp_path / "search.ckpt", weights_only=True))
    assert other.cost.table is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cost_weight": 0.5}, r"cost_weight=0.5 weighs nothing; set cost to 'parameters', 'flops' or 'latency'"),
        ({"cost": "flops", "cost_weight": -1.0}, "must be >= 0 and finite, got -1.0"),
        ({"cost": "flops", "cost_weight": float("nan")}, "must be >= 0 and finite, got nan"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search_of(**arguments)


def test_architecture_step_before_training_is_refused() -> None:
    module = search_of(cost="flops", cost_weight=0.5)
    with pytest.raises(ConfigError, match=r"known when training starts; call FusionSearch.on_fit_start"):
        module.architecture_step({name: value for name, value in split_of(4, 0).items() if name != "label"})


@pytest.mark.slow
def test_all_ranks_have_the_latency_of_rank_0(tmp_path: Path) -> None:
    run_on_two_ranks("tests.modules.test_search_cost", tmp_path)
    tables = [CostTable.load(tmp_path / f"rank{rank}.json") for rank in range(2)]
    assert tables[0] == tables[1]
    assert set(tables[0].primitives.values()) == {1.0}  # measured by rank 0
    logits = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*logits, strict=True))
    assert any(bool(a.any()) for a in logits[0])


def _search_on_two_ranks(folder: Path) -> None:
    """Every rank has another clock."""
    rank = int(os.environ["RANK"])

    def clock(module: nn.Module, *_: Any) -> float:
        return 1.0 + rank

    measuring.measure_latency = clock  # type: ignore[assignment]
    module = search_of(cost="latency", cost_weight=1.0)
    fit(folder, module, strategy="ddp", devices=2)
    assert module.cost.table is not None
    module.cost.table.save(folder / f"rank{rank}.json")
    torch.save([p.detach() for p in module.architecture_parameters()], folder / f"rank{rank}.pt")


if __name__ == "__main__":
    _search_on_two_ranks(Path(sys.argv[1]))
