"""Batches of a user's own loaders: each trains, or is told in a line that names what to change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_mmnas import EncoderPretraining, FineTuning, FusionSearch, FusionSpace
from lightning_mmnas.commands.messages import explain
from lightning_mmnas.errors import DataError
from lightning_mmnas.modules.base import size
from tests.modules.tiny import ENCODERS, modalities, split_of, trainer_of

SPLIT = split_of(16, 0)
ROWS = [{name: value[row] for name, value in SPLIT.items()} for row in range(16)]
SPACE = FusionSpace(inputs=("left/0", "left/1", "right/0", "right/1"), channels=4, length=2)

Change = Callable[[dict[str, Any]], Any]


def changed(**changes: Callable[[Tensor], Any]) -> Change:
    return lambda batch: {**batch, **{name: change(batch[name]) for name, change in changes.items()}}


def train(stage: str, change: Change, folder: Path, mode: Any = "full") -> dict[str, Tensor]:
    torch.manual_seed(0)
    module: EncoderPretraining | FineTuning
    if stage == "encoders":
        module = EncoderPretraining(modalities(), ENCODERS, projection_hidden=8, projection_out=4)
    else:
        genotype = SPACE.sample(torch.Generator().manual_seed(0))
        module = FineTuning(modalities(), ENCODERS, 2, "multiclass", genotype=genotype, mode=mode, augment=False)

    def collate(rows: list[dict[str, Tensor]]) -> Any:
        return change({name: torch.stack([row[name] for row in rows]) for name in rows[0]})

    loader: DataLoader[Any] = DataLoader(ROWS, batch_size=8, collate_fn=collate)  # type: ignore[arg-type]
    trainer_of(folder, num_sanity_val_steps=0).fit(module, loader, loader)
    return {name: value.clone() for name, value in module.state_dict().items()}


INPUTS: dict[str, tuple[Change, str]] = {
    "array": (changed(left=lambda x: x.numpy()), "modality 'left' of the batch is ndarray, not a tensor"),
    "integers": (changed(left=lambda x: x.long()), r"'left' of the batch is torch.int64, and .* by .float\(\)"),
    "sizes": (changed(right=lambda x: x[:-1]), r"different numbers of samples: {'left': 8, 'right': 7}"),
    "empty": (lambda batch: {name: value[:0] for name, value in batch.items()}, "a batch has no samples"),
    "tuple": (lambda batch: tuple(batch.values()), "a batch is a dict of tensors by modality, got a tuple"),
}


@pytest.mark.parametrize("stage", ["encoders", "finetune"])
@pytest.mark.parametrize("case", INPUTS)
def test_batches_that_are_refused(stage: str, case: str, tmp_path: Path) -> None:
    change, message = INPUTS[case]
    with pytest.raises(DataError, match=message):
        train(stage, change, tmp_path)


@pytest.mark.parametrize("mode", ["full", "mixture"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(label=lambda x: x.float()), r"one whole number for each sample, \(b,\), got torch.float32"),
        (changed(label=lambda x: x[:, None]), r"one whole number .*, got torch.int64 of shape \(8, 1\)"),
        (changed(label=lambda x: x + 1), "a label is 2, and the 2 classes are 0 to 1"),
        (changed(label=lambda x: x - 1), "a label is -1, and the 2 classes are 0 to 1"),
        (changed(label=lambda x: x.tolist()), "the labels of a batch are a tensor, got a list"),
        (changed(label=Tensor.to_sparse), r"are a sparse tensor; give .to_dense\(\) of it"),
    ],
)
def test_labels_that_are_refused(mode: str, change: Change, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        train("finetune", change, tmp_path, mode)


def test_meta_tensors_are_told_by_the_command_line(tmp_path: Path) -> None:
    """Lightning moves the batch, and fails, before a stage sees it."""
    for change in (changed(left=lambda x: x.to("meta")), changed(label=lambda x: x.to("meta"))):
        with pytest.raises(NotImplementedError) as raised:
            train("finetune", change, tmp_path)
        assert str(explain(raised.value)).startswith("a batch holds a meta tensor, which has no values; let the data")


@pytest.mark.parametrize("task", ["multiclass", None])
def test_labels_of_a_supervised_search(task: Any) -> None:
    module = FusionSearch(modalities(), ENCODERS, channels=4, length=2, supervised=True, num_classes=2, task=task)
    assert module.loss(SPLIT).isfinite()
    for label, message in ((SPLIT["label"] + 1, "a label is 2"), (SPLIT["label"].float(), "one whole number")):
        with pytest.raises(DataError, match=message):
            module.loss({**SPLIT, "label": label})


def test_a_batch_of_one_sample(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a training batch has one sample, .* drop_last=True"):
        train("finetune", lambda batch: {name: value[:1] for name, value in batch.items()}, tmp_path)


@pytest.mark.parametrize("mode", ["full", "mixture"])
def test_float64_trains_as_float32(mode: str, tmp_path: Path) -> None:
    plain = train("finetune", lambda batch: batch, tmp_path, mode)
    double = train("finetune", changed(left=Tensor.double, right=Tensor.double), tmp_path, mode)
    assert all(torch.equal(plain[name], double[name]) for name in plain)


@pytest.mark.parametrize("extra", [None, 3, torch.tensor(3), torch.ones(2), {"ids": [1, 2, 3]}])
def test_what_stands_before_the_modalities_is_not_counted(extra: Any, tmp_path: Path) -> None:
    """A dict beside them was the number of samples, by which the means of an epoch are weighted."""
    assert size({"extra": extra, **SPLIT}) == 16
    train("encoders", lambda batch: {"extra": extra, **batch}, tmp_path)


@pytest.mark.parametrize("stage", ["encoders", "finetune"])
@pytest.mark.parametrize("mode", ["full", "mixture"])
def test_batches_of_a_search(stage: str, mode: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"has the two parts of a search, .* set data.init_args.architecture_fraction to"
    ):
        train(stage, lambda batch: {"weights": batch, "architecture": batch}, tmp_path, mode)
