"""Random relaxations draw the same on two ranks, and the ranks stop together."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

from lightning_mmnas import ArchitectureAlternation, GenotypeSelection
from tests.callbacks.ddp_strategies import Drawing, samples, searching, selecting
from tests.callbacks.searchers import differences
from tests.modules.tiny import trainer_of
from tests.ranks import run_on_ranks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[2, 3])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What so many ranks have left."""
    found = tmp_path_factory.mktemp("ranks")
    run_on_ranks(request.param, "tests.callbacks.ddp_strategies", found)
    return found


def found_by_ranks(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("rank?.pt"))]


def test_two_ranks_make_one_search(folder: Path) -> None:
    first, second, *others = found_by_ranks(folder)
    if others:
        pytest.skip("these searches are made by two ranks only")
    for name in ("gumbel", "dirichlet"):
        assert first[name]["epochs"] == second[name]["epochs"] == 3
        # Two passes in each of two batches and three epochs, in each the weights of alpha and gamma of two cells.
        assert len(first[name]["given"]) == 2 * 2 * 3 * (2 * 3 + 2 * 4 + 2 * 5)
        assert torch.equal(first[name]["given"], second[name]["given"])
        assert not differences(first[name]["state"], second[name]["state"])
        record = json.loads((folder / f"{name}-rank0" / "genotype.weights.json").read_text())
        assert [entry["epoch"] for entry in record["epochs"]] == [0, 1, 2]
        assert not (folder / f"{name}-rank1").exists()
        assert int(first[name]["state"]["supernet.logits.relaxation.draws"]) == 12


def test_ranks_draw_apart_and_resume_exactly(folder: Path) -> None:
    ranks = [found["select"] for found in found_by_ranks(folder)]
    drawn = [found["unbroken"]["drawn"] for found in ranks]
    training = min(map(len, drawn)) // 2
    assert len({number for numbers in drawn for number in numbers}) == sum(map(len, drawn))  # all different
    for found, numbers in zip(ranks, drawn, strict=True):
        assert found["resumed"]["drawn"][:training] == numbers[-training:]
        unbroken, resumed = found["unbroken"]["state"], found["resumed"]["state"]  # batch-norm statistics too
        if len(ranks) == 2:
            assert not differences(unbroken, resumed)
        else:  # sums of three depend on their order, and Adam makes a part of a step of what is nearly zero
            torch.testing.assert_close(unbroken, resumed, rtol=1e-3, atol=1e-3)


def test_ranks_share_the_candidates_and_choose_as_one_process(folder: Path, tmp_path: Path) -> None:
    """However long one of them takes, and however many there are."""
    ranks = [found["select"]["resumed"] for found in found_by_ranks(folder)]
    drawing, selection = Drawing(), selecting(tmp_path, "genotype")
    module = searching(drawing)
    trainer = trainer_of(tmp_path, callbacks=[ArchitectureAlternation()], max_epochs=2, limit_train_batches=1)
    trainer.fit(module, samples())
    module.load_state_dict(ranks[0]["state"])
    selection.on_fit_end(trainer, module)
    one, several = (json.loads((root / "genotype.selection.json").read_text()) for root in (tmp_path, folder))
    assert [entry["genotype"] for entry in several["candidates"]] == [entry["genotype"] for entry in one["candidates"]]
    scores = [[entry["score"] for entry in record["candidates"]] for record in (several, one)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)  # groups of other sizes round otherwise
    assert len(scores[0]) == 4
    assert {found["genotype"] for found in ranks} == {str(selection.genotype)}


def test_processes_that_lightning_spawns_leave_the_genotype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_PORT", str(find_free_network_port()))  # set by the launcher
    selection = GenotypeSelection(str(tmp_path / "genotype.json"), num_candidates=1)
    trainer = trainer_of(tmp_path, callbacks=[selection], devices=2, strategy="ddp_spawn", limit_train_batches=1)
    module = searching(Drawing())
    assert selection.genotype is None
    trainer.fit(module, samples())
    assert selection.genotype == module.supernet.decode()
