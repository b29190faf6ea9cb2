"""The callback that keeps an architecture, where the search knows what architectures cost."""

import json
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_mmnas import CostTable, FusionSearch, Genotype, GenotypeSelection
from lightning_mmnas.costs.budget import Budget
from lightning_mmnas.errors import CostError
from lightning_mmnas.objectives.selection import candidates
from tests.callbacks.test_selection import LastIsBest, run, search_of

# Frozen encoders are meant to be in eval mode.
pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode")


def table_of(module: FusionSearch) -> CostTable:
    return CostTable.measure(module.space, module.encoders.feature_shapes, "parameters")


def budget_for(module: FusionSearch) -> float:
    """The cheapest of what would be candidates without a budget."""
    return min(table_of(module).of(genotype) for genotype in candidates(module.supernet, 3, seed=0))


def test_choice_keeps_to_the_budget_and_the_numbers_are_written(tmp_path: Path) -> None:
    module = search_of(cost="parameters")
    limit, output = budget_for(module), tmp_path / "genotype.json"
    callback = GenotypeSelection(str(output), num_candidates=3, steps=2, criterion=LastIsBest(), max_cost=limit)
    run(tmp_path, callback, module)
    table = module.cost.table
    assert table == table_of(module)
    wanted = candidates(module.supernet, 3, seed=0, budget=Budget(table, limit))[::-1]
    record = json.loads(output.with_name("genotype.selection.json").read_text())
    assert [entry["genotype"] for entry in record["candidates"]] == [json.loads(g.to_json()) for g in wanted]
    assert [entry["cost"] for entry in record["candidates"]] == [table.of(genotype) for genotype in wanted]
    assert max(entry["cost"] for entry in record["candidates"]) <= limit
    assert record["cost"] == {"kind": "parameters", "chosen": table.of(Genotype.load(output)), "max_cost": limit}
    assert output.with_name("genotype.pareto.png").read_bytes().startswith(b"\x89PNG")


def test_decoding_alone_keeps_to_the_budget(tmp_path: Path) -> None:
    module = search_of(cost="flops")
    table = CostTable.measure(module.space, module.encoders.feature_shapes, "flops")
    limit = table.of(module.supernet.decode()) - 1
    output = tmp_path / "genotype.json"
    run(tmp_path, GenotypeSelection(str(output), num_candidates=1, max_cost=limit), module)
    assert table.of(Genotype.load(output)) <= limit
    record = json.loads(output.with_name("genotype.selection.json").read_text())
    assert record["cost"]["max_cost"] == limit
    assert record["candidates"] == []
    assert not output.with_name("genotype.pareto.png").exists()


def test_cost_without_a_budget_is_written_too(tmp_path: Path) -> None:
    module, output = search_of(cost="parameters"), tmp_path / "genotype.json"
    run(tmp_path, GenotypeSelection(str(output), num_candidates=2, steps=1, criterion=LastIsBest()), module)
    record = json.loads(output.with_name("genotype.selection.json").read_text())
    assert record["cost"]["max_cost"] is None
    assert record["cost"]["chosen"] == record["candidates"][0]["cost"]
    assert output.with_name("genotype.pareto.png").exists()


def test_impossible_budget_ends_before_the_search(tmp_path: Path) -> None:
    module = search_of(cost="parameters", primitives=("sum", "attention"))
    covering = [g for g in module.space.enumerate() if len(g.modalities_read()) == 2]
    apart = [g for g in covering if g.cells[0].inputs != g.cells[1].inputs]
    cheapest = min(table_of(module).of(genotype) for genotype in apart)
    before = module.global_step
    callback = GenotypeSelection(str(tmp_path / "genotype.json"), max_cost=cheapest - 1)
    with pytest.raises(CostError, match=f"that reads 2 modalities costs {cheapest:.0f} parameters; raise the budget"):
        run(tmp_path, callback, module)
    assert module.global_step == before == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"max_cost": 5.0, "rule": "bmnas"}, "rule='bmnas' knows no budget; leave max_cost out")],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        GenotypeSelection("genotype.json", **arguments)


def test_budget_of_nothing_is_refused(tmp_path: Path) -> None:
    callback = GenotypeSelection(str(tmp_path / "genotype.json"), max_cost=5.0)
    with pytest.raises(MisconfigurationException, match=r"max_cost=5.0 of what\? set model.init_args.cost"):
        run(tmp_path, callback)
