"""FusionSearch with every strategy: progress, the architecture's loss, exact resume, the command line."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import seed_everything
from torch import Tensor

from lightning_mmnas import ArchitectureAlternation, BetaDecay, ConcentrationAnchor, EntropyRegularisation, FusionSearch
from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.commands.shared import config_options
from lightning_mmnas.commands.stages import find_configs
from lightning_mmnas.fusion.relaxation import Dirichlet, GumbelHard, Softmax
from tests.callbacks.searchers import differences
from tests.callbacks.test_alternation_resume import SaveAlways
from tests.modules.tiny import ENCODERS, data_of, modalities, split_of, trainer_of
from tests.test_configs import small_data

SMALL: dict[str, Any] = {"channels": 4, "length": 2, "projection_hidden": 8, "projection_out": 4}
STRATEGIES: dict[str, Callable[[], dict[str, Any]]] = {
    "annealed": lambda: {"relaxation": Softmax(2.0, 0.5), "regularisation": [BetaDecay()]},
    "gumbel": lambda: {"relaxation": GumbelHard()},
    "dirichlet": lambda: {"relaxation": Dirichlet(), "regularisation": [ConcentrationAnchor()]},
    "partial channels": lambda: {"partial_channels": 2, "pairing": "tied"},
}


def search_of(name: str) -> FusionSearch:
    seed_everything(0, verbose=False)
    return FusionSearch(modalities(), ENCODERS, **SMALL, **STRATEGIES[name]())


def test_progress_is_the_fraction_of_weight_steps(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []

    class Noted(FusionSearch):
        def architecture_step(self, batch: Any) -> Tensor:
            loss = super().architecture_step(batch)
            told.append(("architecture", float(self.supernet.logits.relaxation.progress)))
            return loss

        def weight_step_loss(self, batch: Any) -> Tensor:
            loss = super().weight_step_loss(batch)
            told.append(("weights", float(self.supernet.logits.relaxation.progress)))
            return loss

    search = Noted(modalities(), ENCODERS, **SMALL)
    run = trainer_of(tmp_path, callbacks=[ArchitectureAlternation()], max_epochs=2)
    run.fit(search, data_of(architecture_fraction=0.5))
    assert told == [(kind, step / 4) for step in range(4) for kind in ("architecture", "weights")]
    assert search.progress() == 0.75


def test_regularisation_is_part_of_the_architecture_s_loss_alone() -> None:
    losses: dict[float, list[Tensor]] = {}
    batch = {name: value for name, value in split_of(8, 0).items() if name != "label"}
    for weight in (0.0, 2.0):
        seed_everything(0, verbose=False)
        search = FusionSearch(modalities(), ENCODERS, **SMALL, regularisation=[BetaDecay(weight, growing=False)])
        for parameter in search.architecture_parameters():
            parameter.fill_(1.0)
            parameter.requires_grad_(True)
        torch.manual_seed(1)
        loss = search.architecture_step(batch)
        gradient = torch.autograd.grad(loss, search.supernet.logits.gamma[0])[0]
        torch.manual_seed(1)
        losses[weight] = [loss, gradient.sum(), search.weight_step_loss(batch)]
    logits = search.supernet.logits
    rows = [len(row) for p in (*logits.alpha, *logits.gamma) for row in p]
    term = sum(1 + torch.tensor(float(columns)).log() for columns in rows) / len(rows)
    torch.testing.assert_close(losses[2.0][0] - losses[0.0][0], 2 * term)
    # the softmax of a row sums to one
    torch.testing.assert_close(losses[2.0][1] - losses[0.0][1], torch.tensor(2.0 * len(logits.gamma[0]) / len(rows)))
    torch.testing.assert_close(losses[2.0][2], losses[0.0][2])


def fit(folder: Path, search: FusionSearch, *callbacks: Any, checkpoint: Path | None = None, **options: Any) -> Any:
    seed_everything(1 if checkpoint is None else 50, verbose=False)
    alternation = ArchitectureAlternation(lr=0.1, **options)
    run = trainer_of(folder, callbacks=[alternation, *callbacks], max_epochs=2, enable_checkpointing=bool(callbacks))
    run.fit(search, data_of(architecture_fraction=0.5), ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return {name: value.clone() for name, value in search.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_resumed_searches_end_bit_identical(name: str, tmp_path: Path) -> None:
    save = SaveAlways(tmp_path)
    expected = fit(tmp_path, search_of(name), save)
    assert any(value.any() for key, value in expected.items() if ".gamma." in key)
    for path in save.paths[1:4]:
        assert differences(fit(tmp_path, search_of(name), checkpoint=path), expected) == []
    if name in ("gumbel", "dirichlet"):
        assert expected["supernet.logits.relaxation.draws"].item() == 8  # two steps in each of four batches


@pytest.mark.parametrize("name", STRATEGIES)
def test_second_order(name: str, tmp_path: Path) -> None:
    """Its two losses see copies of the buffers: what they draw, the weight step draws again."""
    state = fit(tmp_path, search_of(name), order=2)
    assert all(value.isfinite().all() for value in state.values())
    assert any(value.any() for key, value in state.items() if ".gamma." in key)
    if name in ("gumbel", "dirichlet"):
        assert state["supernet.logits.relaxation.draws"].item() == 4


@pytest.mark.slow
def test_strategies_by_the_command_line(tmp_path: Path) -> None:
    folder = find_configs("table")
    shutil.copy(folder / "common.yaml", tmp_path)
    config = yaml.safe_load((folder / "search.yaml").read_text())
    del config["trainer"]["callbacks+"]
    config["trainer"]["callbacks"] = [  # in place of those of the common file
        {"class_path": "ArchitectureAlternation", "init_args": {"lr": 0.1}},
        {"class_path": "GenotypeStability", "init_args": {"patience": 2}},
        {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "${run_dir}", "filename": "search"}},
    ]
    config["model"]["init_args"] |= {
        "encoder_weights": None,
        "partial_channels": 4,
        "relaxation": {"class_path": "GumbelHard", "init_args": {"temperature": 5, "seed": "${seed_everything}"}},
        "regularisation": [
            {"class_path": "BetaDecay", "init_args": {"weight": 0.5}},
            {"class_path": "EntropyRegularisation"},
        ],
    }
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(config))
    options = [option for option in small_data("table", tmp_path / "data") if option.startswith("--data")]
    run_dir = ["--run_dir", str(tmp_path / "run"), "--seed_everything=3"]
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
    cli = MMNASCLI(["fit", *config_options(path), *run_dir, *short, *options])
    relaxation = cli.model.supernet.logits.relaxation
    assert isinstance(relaxation, GumbelHard)
    assert (relaxation.temperature, relaxation.final_temperature, relaxation.seed) == (5, 0.1, 3)
    assert int(relaxation.draws) == 4
    assert cli.model.supernet.partial_channels == 4
    assert [(type(term), term.weight) for term in cli.model.regularisation] == [
        (BetaDecay, 0.5),
        (EntropyRegularisation, 1.0),
    ]
    checkpoint = torch.load(tmp_path / "run" / "search.ckpt", weights_only=True)
    assert int(checkpoint["state_dict"]["supernet.logits.relaxation.draws"]) == 4
    checkpoint = ["--ckpt_path", str(tmp_path / "run/search.ckpt")]
    MMNASCLI(["validate", *config_options(path), *run_dir, *options, *checkpoint])
