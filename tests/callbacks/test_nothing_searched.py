"""A search without an architecture step is refused before it trains, or said to be none."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from lightning_mmnas import ArchitectureAlternation, GenotypeSelection
from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.errors import ConfigError
from tests.callbacks.searchers import Searcher, loaders, trainer
from tests.callbacks.test_selection import data_of, search_of


@pytest.mark.parametrize(
    ("alternation", "options", "message"),
    [
        ({"warmup_epochs": 2}, {}, r"warmup_epochs=2 .* leaves no epoch of max_epochs=2 .* raise trainer.max_epochs"),
        ({}, {"max_epochs": 0}, "leaves no epoch of max_epochs=0"),
        ({"warmup_epochs": 5}, {"max_steps": 100}, r"warmup_epochs=5 .* leaves no epoch of max_epochs=2"),
        (  # 6 weight steps; multiples of 4 are 0 and 4, which is in the warm-up
            {"warmup_epochs": 1, "every_n_steps": 9},
            {},
            "has 6 weight steps, and the first architecture step would come after 9: lower every_n_steps=9",
        ),
    ],
)
def test_refused_before_training(
    alternation: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    module = Searcher()
    with pytest.raises(MisconfigurationException, match=message):
        trainer(tmp_path, ArchitectureAlternation(lr=0.1, **alternation), **options).fit(module, loaders())
    assert not module.losses


class Stop(Callback):
    """As early stopping does."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        trainer.should_stop = True


def test_warned_where_something_else_ends_the_training(tmp_path: Path) -> None:
    limited = trainer(tmp_path, ArchitectureAlternation(warmup_epochs=1), max_steps=3)
    with (
        pytest.warns(UserWarning, match=r"3 weight steps, .* would come after 3: nothing will be searched; raise"),
        pytest.warns(UserWarning, match="ended after 3 weight steps without one architecture step"),
    ):
        limited.fit(Searcher(), loaders())
    for callbacks, options in (([Stop()], {}), ([], {"max_epochs": -1, "max_time": timedelta(microseconds=1)})):
        ended = trainer(tmp_path, ArchitectureAlternation(warmup_epochs=1), *callbacks, **options)
        with pytest.warns(UserWarning, match="without one architecture step, so that nothing was searched"):
            ended.fit(Searcher(), loaders())
    for none in ({"limit_train_batches": 0}, {"max_steps": 0}):
        ended = trainer(tmp_path, ArchitectureAlternation(), **none)
        with pytest.warns(UserWarning, match="ended after 0 weight steps without one architecture step"):
            ended.fit(search_of(), datamodule=data_of())


def test_results_say_how_much_was_searched(tmp_path: Path) -> None:
    found = []
    for warmup, lr in ((0, 0.5), (1, 1e-6)):
        output = tmp_path / f"{warmup}.json"
        module, alternation = search_of(), ArchitectureAlternation(lr=lr, warmup_epochs=warmup)
        for logits in module.architecture_parameters():
            logits.zero_()
        selection = GenotypeSelection(str(output), num_candidates=1)
        trainer(tmp_path, alternation, selection, limit_val_batches=0).fit(module, datamodule=data_of())
        assert alternation.steps == 4 - 2 * warmup  # two batches in each of two epochs
        found.append(json.loads(output.with_suffix(".selection.json").read_text()))
        assert found[-1]["entropy"] == module.entropy()
    assert [record["architecture_steps"] for record in found] == [4, 2]
    assert found[0]["entropy"] < 0.9 < 0.999 < found[1]["entropy"]


def test_selection_without_an_alternation(tmp_path: Path) -> None:
    module = search_of()
    for logits in module.architecture_parameters():
        logits.zero_()
    selection = GenotypeSelection(str(tmp_path / "genotype.json"), num_candidates=1)
    with pytest.warns(UserWarning, match="Nothing has trained the architecture logits: add ArchitectureAlternation"):
        trainer(tmp_path, selection, limit_val_batches=0).fit(module, datamodule=data_of())


def test_a_trial_has_no_warm_up(tmp_path: Path) -> None:
    alternation, module = ArchitectureAlternation(warmup_epochs=3), Searcher()
    trainer(tmp_path, alternation, fast_dev_run=True).fit(module, loaders())
    assert alternation.steps == len(module.losses) == 1


def test_refused_at_the_command_line_before_data_are_read(tmp_path: Path) -> None:
    arguments = ["fit", "--config=configs/watch/common.yaml", "--config=configs/watch/search.yaml"]
    with pytest.raises(ConfigError, match=r"warmup_epochs=3 .* leaves no epoch of max_epochs=3 for the search itself"):
        MMNASCLI([*arguments, f"--run_dir={tmp_path}", "--trainer.max_epochs=3"])
    assert not list(tmp_path.iterdir())


def test_a_search_without_an_alternation(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="No ArchitectureAlternation is among the trainer's callbacks"):
        trainer(tmp_path, Callback(), max_epochs=1, limit_val_batches=0).fit(search_of(), datamodule=data_of())
