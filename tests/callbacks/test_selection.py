"""The callback that keeps an architecture, on the search of a tiny data set."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn

from lightning_mmnas import FusionSearch, Genotype, GenotypeSelection, MotionEncoder, TensorDataModule
from lightning_mmnas.callbacks import selection
from lightning_mmnas.data import ModalitySpec
from lightning_mmnas.errors import GenotypeError, RunDirectoryError
from lightning_mmnas.modules import candidates as of_module
from lightning_mmnas.objectives.criteria import Criterion, DroppedViewsNTXent, Features, MakeViews
from lightning_mmnas.objectives.selection import candidates
from lightning_mmnas.views import ModalityDropout
from tests.callbacks.searchers import Searcher, loaders, trainer, values

# Frozen encoders are meant to be in eval mode.
pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode")

SENSORS = ("crisp", "noisy")


class Redrawn(nn.Module):
    """Another sample every time: nothing to recognise."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x)


def data_of(**arguments: Any) -> TensorDataModule:
    generator = torch.Generator().manual_seed(0)
    split = {name: torch.randn(32, 3, 16, generator=generator) for name in SENSORS}
    arguments = {"architecture_fraction": 0.5, "batch_size": 8, **arguments}
    return TensorDataModule(split, split, kinds=dict.fromkeys(SENSORS, "motion"), labels=False, **arguments)


def encoder(spec: ModalitySpec) -> MotionEncoder:
    return MotionEncoder(spec, channels=(4, 4))


def search_of(kind: type[FusionSearch] = FusionSearch, **arguments: Any) -> FusionSearch:
    torch.manual_seed(0)
    arguments = {"channels": 4, "length": 2, "projection_hidden": 8, "projection_out": 4, **arguments}
    module = kind(data_of().modalities, {"motion": encoder}, **arguments)
    for logits in module.architecture_parameters():
        logits.copy_(torch.randn_like(logits))
    return module


def run(root: Path, callback: GenotypeSelection, module: FusionSearch | None = None, **options: Any) -> Trainer:
    """Ends the fit of a search that has not trained anything."""
    settings = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 0, **options}
    fitted = trainer(root, callback, **settings)
    module = module or search_of()
    fitted.fit(module, datamodule=data_of())
    return fitted


class LastIsBest(Criterion):
    """Prefers the candidate that is scored last, and notes what it is given."""

    def __init__(self) -> None:
        self.prepared = 0
        self.scored: list[Tensor] = []

    def prepare(self, make_views: MakeViews) -> Features:
        self.prepared += 1
        views = make_views(0.5)
        assert len(views) == 2  # the 16 samples of the architecture's part in batches of 8
        return views[0][0]

    def score(self, project: Callable[[Features], Tensor], prepared: Any) -> float:
        projected = project(prepared)
        assert not projected.requires_grad
        assert torch.equal(project(prepared), projected)
        module: nn.Module = project.__self__  # type: ignore[attr-defined]
        assert not module.training
        self.scored.append(projected)
        return -float(len(self.scored))


def test_choice_is_written_with_its_picture_and_its_reasons(tmp_path: Path) -> None:
    output = tmp_path / "new" / "genotype.json"
    criterion, module = LastIsBest(), search_of()
    callback = GenotypeSelection(str(output), num_candidates=3, steps=2, criterion=criterion, seed=5)
    run(tmp_path, callback, module)
    assert criterion.prepared == 1
    assert len(criterion.scored) == 3

    wanted = [json.loads(genotype.to_json()) for genotype in candidates(module.supernet, 3, seed=5)][::-1]
    record = json.loads(output.with_name("genotype.selection.json").read_text())
    scores = record.pop("candidates")
    made = {"criterion": "LastIsBest", "steps": 2, "seed": 5, "architecture_steps": 0, "entropy": module.entropy()}
    assert record == made
    assert [entry["score"] for entry in scores] == [-3.0, -2.0, -1.0]
    assert [entry["genotype"] for entry in scores] == wanted
    kept = Genotype.load(output)
    assert kept == callback.genotype
    assert json.loads(kept.to_json()) == wanted[0]
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in output.parent.iterdir()) == [
        "genotype.json",
        "genotype.png",
        "genotype.selection.json",
        "genotype.weights.json",
    ]


def test_selection_depends_on_its_seed_alone_and_changes_nothing_else(tmp_path: Path) -> None:
    module = search_of()
    fitted = run(tmp_path, GenotypeSelection(str(tmp_path / "first.json"), num_candidates=2, steps=2), module)
    state, dropout = values(module), module.views.dropout
    texts = {}
    for name, seed in (("second", 0), ("other", 1)):
        torch.manual_seed(123)
        generator = torch.get_rng_state()
        callback = GenotypeSelection(str(tmp_path / f"{name}.json"), num_candidates=2, steps=2, seed=seed)
        callback.on_fit_end(fitted, module)
        assert torch.equal(torch.get_rng_state(), generator)
        texts[name] = (tmp_path / f"{name}.selection.json").read_text()
    assert texts["second"] == (tmp_path / "first.selection.json").read_text()
    first, other = (json.loads(texts[name])["candidates"][0]["score"] for name in ("second", "other"))
    assert first != other
    assert module.views.dropout is dropout
    assert values(module).keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in values(module).items())
    assert not any(p.grad is not None for p in module.supernet.architecture_parameters())


def test_one_candidate_is_written_without_any_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(selection, "train_candidates", never)
    module = search_of()
    callback = GenotypeSelection(str(tmp_path / "genotype.json"), num_candidates=1)
    run(tmp_path, callback, module)
    assert Genotype.load(tmp_path / "genotype.json") == module.supernet.decode()
    assert json.loads((tmp_path / "genotype.selection.json").read_text())["candidates"] == []


def one_cell(module: FusionSearch, sensor: str) -> Genotype:
    cells: Any = [{"inputs": (f"{sensor}/0", f"{sensor}/1"), "steps": [{"inputs": ("x", "y"), "primitive": "sum"}]}]
    return Genotype(space=module.space, cells=cells)


@pytest.mark.parametrize("order", [SENSORS, SENSORS[::-1]])
def test_network_that_recognises_samples_is_chosen(
    order: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = search_of(cells=1, augmentations={"crisp": nn.Identity(), "noisy": Redrawn()}, modality_dropout=0.0)
    found = [one_cell(module, sensor) for sensor in order]
    monkeypatch.setattr(selection, "candidates", lambda *_: found)
    criterion = DroppedViewsNTXent(modality_dropout=0.0)
    callback = GenotypeSelection(str(tmp_path / "genotype.json"), steps=6, criterion=criterion)
    run(tmp_path, callback, module)
    assert callback.genotype is not None
    assert callback.genotype.modalities_read() == {"crisp"}
    scores = [entry["score"] for entry in json.loads((tmp_path / "genotype.selection.json").read_text())["candidates"]]
    assert scores[0] < scores[1] - 0.3


def test_candidates_train_without_modality_dropout_and_are_scored_with_that_of_the_criterion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[float] = []

    class Noted(ModalityDropout):
        def forward(self, views: Any, means: Any) -> dict[str, Tensor]:
            used.append(self.p)
            return super().forward(views, means)

    monkeypatch.setattr(of_module, "ModalityDropout", Noted)
    module = search_of()
    fitted = run(tmp_path, GenotypeSelection(str(tmp_path / "first.json"), num_candidates=1), module)
    seen: list[set[float]] = []
    module.views.register_forward_pre_hook(lambda _, inputs: seen.append(set(inputs[0]["crisp"].flatten().tolist())))
    criterion = DroppedViewsNTXent()
    output = str(tmp_path / "genotype.json")
    GenotypeSelection(output, num_candidates=2, steps=3, criterion=criterion).on_fit_end(fitted, module)
    # Two views of each of 3 batches, then of each of the 2 that were held out.
    assert used == [0.0] * 6 + [0.5] * 4
    data = data_of()
    data.setup("fit")
    parts = data.train_dataloader()
    assert isinstance(parts, CombinedLoader)
    weights, architecture = (
        {value for batch in parts.iterables[name] for value in batch["crisp"].flatten().tolist()}
        for name in ("weights", "architecture")
    )
    assert set().union(*seen[:3]) == weights
    assert set().union(*seen[3:]) == architecture
    assert not weights & architecture


@pytest.mark.parametrize(("coverage", "read"), [(True, {"crisp", "noisy"}), (False, {"noisy"})])
def test_coverage_can_be_switched_off(coverage: bool, read: set[str], tmp_path: Path) -> None:
    module = search_of(cells=1)
    alpha = module.supernet.logits.alpha[0]
    alpha.data.zero_()
    alpha.data[0, 2] = alpha.data[1, 2] = 30.0  # x = noisy/0, y = noisy/1
    callback = GenotypeSelection(str(tmp_path / "genotype.json"), num_candidates=1, coverage=coverage)
    run(tmp_path, callback, module)
    assert callback.genotype is not None
    assert callback.genotype.modalities_read() == read


def test_fast_dev_run_trains_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    monkeypatch.setattr(selection, "train_candidates", lambda networks, views, _: trained.append(len(list(views))))
    run(tmp_path, GenotypeSelection(str(tmp_path / "genotype.json"), num_candidates=2), fast_dev_run=True)
    assert trained == [1]
    assert json.loads((tmp_path / "genotype.selection.json").read_text())["steps"] == 1


@pytest.mark.parametrize(
    ("failing", "error"),
    [(".json", GenotypeError), (".png", RunDirectoryError), (".selection.json", RunDirectoryError)],
)
def test_files_are_written_whole_or_not_at_all(
    failing: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = search_of()
    fitted = run(tmp_path, GenotypeSelection(str(tmp_path / "genotype.json"), num_candidates=1), module)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for logits in module.architecture_parameters():
        logits.neg_()
    replace = os.replace

    def fail(source: Any, target: Any) -> None:
        if Path(target).name == f"genotype{failing}":
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error, match=r"genotype.*No space left"):
        GenotypeSelection(str(tmp_path / "genotype.json"), num_candidates=1, seed=1).on_fit_end(fitted, module)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert after.keys() == before.keys()  # no temporary file is left either
    assert after[f"genotype{failing}"] == before[f"genotype{failing}"]


def test_loaders_without_a_data_module(tmp_path: Path) -> None:
    data = data_of()
    data.setup("fit")
    module = search_of()
    callback = GenotypeSelection(str(tmp_path / "genotype.json"), num_candidates=2, steps=2, criterion=LastIsBest())
    parts = data.train_dataloader()
    assert isinstance(parts, CombinedLoader)
    trainer(tmp_path, callback, max_epochs=1, limit_val_batches=0).fit(module, parts, data.val_dataloader())
    assert callback.genotype == candidates(module.supernet, 2, seed=0)[1]


class PlainBatches(FusionSearch):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)


def test_batches_without_parts_are_refused(tmp_path: Path) -> None:
    callback = GenotypeSelection(str(tmp_path / "genotype.json"))
    fitted = trainer(tmp_path, callback, max_epochs=1, limit_val_batches=0)
    with pytest.raises(MisconfigurationException, match=r"'weights' and 'architecture'; set .*architecture_fraction"):
        fitted.fit(search_of(PlainBatches), datamodule=data_of(architecture_fraction=None))


def test_other_modules_are_refused(tmp_path: Path) -> None:
    fitted = trainer(tmp_path, GenotypeSelection(str(tmp_path / "genotype.json")))
    with pytest.raises(MisconfigurationException, match="works on FusionSearch, not on Searcher; remove the callback"):
        fitted.fit(Searcher(), loaders())


@pytest.mark.parametrize(("count", "steps"), [(0, 5), (3, 0)])
def test_arguments_are_checked(count: int, steps: int) -> None:
    with pytest.raises(MisconfigurationException, match=f"at least 1, got {count} and {steps}"):
        GenotypeSelection("genotype.json", num_candidates=count, steps=steps)


def test_published_rule_is_written_as_it_decodes(tmp_path: Path) -> None:
    module = search_of(pairing="tied")
    callback = GenotypeSelection(str(tmp_path / "genotype.json"), rule="bmnas")
    run(tmp_path, callback, module)
    assert callback.genotype is not None
    assert callback.genotype.compatibility == "bmnas"
    assert callback.genotype == module.supernet.decode("bmnas")


def test_supervised_search_selects_by_the_loss_of_labels(tmp_path: Path) -> None:
    """The class is the sign of one sensor's mean: candidates that are blind to it have the higher loss."""
    generator = torch.Generator().manual_seed(0)

    def split(size: int) -> dict[str, Tensor]:
        label = torch.arange(size) % 2
        crisp = torch.randn(size, 3, 16, generator=generator) + (4.0 * label - 2)[:, None, None]
        return {"crisp": crisp, "noisy": torch.randn(size, 3, 16, generator=generator), "label": label}

    data = TensorDataModule(
        split(64),
        split(32),
        kinds=dict.fromkeys(SENSORS, "motion"),
        labels=True,
        architecture_fraction=0.5,
        batch_size=16,
    )
    torch.manual_seed(0)
    module = FusionSearch(
        data.modalities, {"motion": encoder}, channels=4, length=2, cells=1, supervised=True, num_classes=2
    )
    callback = GenotypeSelection(
        str(tmp_path / "g.json"), num_candidates=10, steps=30, coverage=False, criterion=LastIsBest()
    )
    short = trainer(tmp_path, callback, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    with pytest.warns(UserWarning, match="Nothing has trained the architecture logits"):
        short.fit(module, datamodule=data)
    record = json.loads((tmp_path / "g.selection.json").read_text())
    assert record["criterion"] == "labels"
    scores = {Genotype.model_validate(entry["genotype"]): entry["score"] for entry in record["candidates"]}
    seeing = [score for genotype, score in scores.items() if "crisp" in genotype.modalities_read()]
    blind = [score for genotype, score in scores.items() if "crisp" not in genotype.modalities_read()]
    assert blind
    assert min(seeing) < 0.5 < min(blind)
    assert sum(seeing) / len(seeing) < sum(blind) / len(blind)
    assert callback.genotype == next(iter(scores))


def test_weights_of_all_choices_are_kept_epoch_by_epoch(tmp_path: Path) -> None:
    module = search_of()
    run(tmp_path, GenotypeSelection(str(tmp_path / "genotype.json"), num_candidates=1), module, max_epochs=2)
    content = json.loads((tmp_path / "genotype.weights.json").read_text())
    assert [entry["epoch"] for entry in content["epochs"]] == [0, 1]
    expected = module.supernet.probabilities()["gamma/0"][0].tolist()
    assert content["epochs"][1]["weights"]["cell0 step0"] == pytest.approx(expected, abs=1e-5)


def test_a_resumed_search_goes_on_with_its_record_of_weights(tmp_path: Path) -> None:
    output = tmp_path / "genotype.json"
    options = {"limit_train_batches": 1, "limit_val_batches": 0}
    for epochs, last in ((1, None), (3, tmp_path / "last.ckpt")):
        fitted = trainer(tmp_path, GenotypeSelection(str(output), num_candidates=1), max_epochs=epochs, **options)
        fitted.fit(search_of(), datamodule=data_of(), ckpt_path=last)
        fitted.save_checkpoint(tmp_path / "last.ckpt")
    content = json.loads((tmp_path / "genotype.weights.json").read_text())
    assert [entry["epoch"] for entry in content["epochs"]] == [0, 1, 2]


class FirstDiverged(LastIsBest):
    """The favourite's score is not a number, as after a training that diverged."""

    def score(self, project: Callable[[Features], Tensor], prepared: Any) -> float:
        score = super().score(project, prepared)
        return float("nan") if len(self.scored) == 1 else score


def test_what_diverged_is_never_chosen(tmp_path: Path) -> None:
    module, output = search_of(), tmp_path / "genotype.json"
    run(tmp_path, GenotypeSelection(str(output), num_candidates=3, steps=1, criterion=FirstDiverged()), module)
    favourite, *others = candidates(module.supernet, 3, seed=0)
    assert Genotype.load(output) == others[-1]
    record = json.loads(output.with_name("genotype.selection.json").read_text())
    assert Genotype.model_validate(record["candidates"][-1]["genotype"]) == favourite
