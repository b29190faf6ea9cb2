"""`MultimodalDataModule`, through `TensorDataModule`."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from matplotlib.figure import Figure
from torch import Tensor
from torch.optim import SGD
from torch.utils.data import DataLoader

from lightning_mmnas.data import ModalitySpec, TensorDataModule
from lightning_mmnas.data.spec import Vocabulary
from lightning_mmnas.errors import ConfigError, DataError


def split(n: int, first: int = 0, classes: int = 3) -> dict[str, Tensor]:
    """`index` tells which sample it is, so that parts can be compared."""
    index = torch.arange(first, first + n, dtype=torch.float32)
    return {
        "sensor": index.view(-1, 1, 1).expand(-1, 3, 8).contiguous(),
        "index": index.unsqueeze(1),
        "label": torch.arange(n) % classes,
    }


def make(n: int = 60, **arguments: Any) -> TensorDataModule:
    arguments = {"batch_size": 8, "groups": torch.arange(n) // 4, **arguments}
    return TensorDataModule(
        split(n),
        split(20, 1000),
        split(20, 2000),
        kinds={"sensor": "motion", "index": "features"},
        class_names=["a", "b", "c"],
        **arguments,
    )


def indices(loader: Any) -> list[int]:
    return [int(i) for batch in loader for i in batch["index"][:, 0]]


def test_answers_before_setup() -> None:
    data = make()
    assert data.modalities == {
        "sensor": ModalitySpec("motion", (3, 8)),
        "index": ModalitySpec("features", (1,)),
    }
    assert data.num_classes == 3
    assert data.task == "multiclass"
    assert data.class_names == ["a", "b", "c"]
    means = data.modality_means()
    assert means["index"].item() == 29.5
    assert means["sensor"].shape == (3, 8)
    chosen = make(modalities=["index"])
    assert list(chosen.modalities) == ["index"]
    assert list(chosen.modality_means()) == ["index"]


def test_stages_build_their_own_splits_only() -> None:
    data = make()
    data.setup("fit")
    data.setup("fit")
    assert isinstance(data.train_dataloader(), DataLoader)
    for access in (data.test_dataloader, data.predict_dataloader, lambda: data.tensors("test")):
        with pytest.raises(DataError, match=r"setup\('test'\) or setup\('predict'\) builds it"):
            access()
    data.setup("test")
    assert indices(data.test_dataloader()) == list(range(2000, 2020))
    assert indices(data.predict_dataloader()) == list(range(2000, 2020))
    fresh = make()
    fresh.setup("validate")
    assert indices(fresh.val_dataloader()) == list(range(1000, 1020))
    with pytest.raises(DataError, match=r"train split has not been built: setup\('fit'\)"):
        fresh.train_dataloader()


def test_training_order_changes_by_epoch_and_repeats_by_seed() -> None:
    data = make()
    data.setup("fit")
    loader = data.train_dataloader()
    first, second = indices(loader), indices(loader)
    assert sorted(first) == sorted(second) == list(range(60))
    assert first != second
    again = make()
    again.setup("fit")
    assert indices(again.train_dataloader()) == first
    other = make(seed=1)
    other.setup("fit")
    assert indices(other.train_dataloader()) != first


class Reader(LightningModule):
    """Notes which samples it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen: list[list[int]] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(batch["index"][:, 0].int().tolist())
        loss: Tensor = self.layer(batch["index"]).mean()
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None: ...

    def configure_optimizers(self) -> SGD:
        return SGD(self.parameters(), lr=0.0)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_resumed_run_reads_on_in_the_same_order(tmp_path: Path, workers: int) -> None:
    def fit(epochs: int, checkpoint: Path | None = None) -> tuple[Trainer, list[list[int]]]:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        reader = Reader()
        trainer.fit(reader, make(num_workers=workers), ckpt_path=checkpoint)
        return trainer, reader.seen

    _, unbroken = fit(3)
    broken_off, first = fit(1)
    broken_off.save_checkpoint(tmp_path / "last.ckpt")
    torch.rand(3)
    _, rest = fit(3, tmp_path / "last.ckpt")
    assert first + rest == unbroken


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_leaves_the_global_generator_alone(workers: int) -> None:
    data = make(num_workers=workers)
    data.setup("fit")
    before = torch.get_rng_state()
    assert sorted(indices(data.train_dataloader())) == list(range(60))
    indices(data.val_dataloader())
    assert torch.equal(before, torch.get_rng_state())


def test_unlabelled_batches_have_no_label_and_one_size() -> None:
    data = make(labels=False)
    data.setup("fit")
    data.setup("test")
    sizes = []
    loader = data.train_dataloader()
    assert isinstance(loader, DataLoader)
    for batch in loader:
        assert set(batch) == {"sensor", "index"}
        sizes.append(len(batch["index"]))
    assert sizes == [8] * 7  # 60 samples: the last 4 are dropped
    for other in (data.val_dataloader(), data.test_dataloader()):
        assert all("label" not in batch for batch in other)
        assert len(indices(other)) == 20
    assert "label" not in data.tensors("train")
    with pytest.raises(DataError, match="no labels to count"):
        data.label_counts("train")


def test_labelled_training_keeps_the_last_batch_unless_it_is_one_sample() -> None:
    for n, batches in ((60, 8), (57, 7), (58, 8)):
        data = make(n)
        data.setup("fit")
        assert len(data.train_dataloader()) == batches
    small = make(batch_size=500)
    small.setup("fit")
    assert len(indices(small.train_dataloader())) == 60


def test_too_few_samples_for_a_batch_is_said() -> None:
    data = make(batch_size=61, labels=False)
    data.setup("fit")
    with pytest.raises(DataError, match=r"60 sample\(s\), fewer than batch_size=61"):
        data.train_dataloader()
    few = make(labels_per_class=1)
    few.setup("fit")
    few.trainer = SimpleNamespace(world_size=3, global_rank=0)  # type: ignore[assignment]
    with pytest.raises(DataError, match=r"1 sample\(s\) for each of 3 ranks, fewer than the 2 of a step; give more"):
        few.train_dataloader()


@pytest.mark.parametrize("labels", [True, False])
def test_architecture_fraction(labels: bool) -> None:
    data = make(architecture_fraction=0.5, labels=labels, batch_size=4)
    data.setup("fit")
    loader = data.train_dataloader()
    assert isinstance(loader, CombinedLoader)
    batches: list[Any] = [batch for batch, _, _ in loader]
    assert all(set(batch) == {"weights", "architecture"} for batch in batches)
    seen = {
        key: {int(i) for batch in batches for i in batch[key]["index"][:, 0]} for key in ("weights", "architecture")
    }
    assert not seen["weights"] & seen["architecture"]
    assert seen["weights"] | seen["architecture"] == set(range(60))
    groups = {key: {i // 4 for i in values} for key, values in seen.items()}
    assert not groups["weights"] & groups["architecture"]  # no recording in both
    assert ("label" in batches[0]["architecture"]) is labels


def test_shorter_half_comes_again_in_another_order() -> None:
    data = make(architecture_fraction=0.1, labels=False, batch_size=4)
    data.setup("fit")
    loader = data.train_dataloader()
    assert isinstance(loader, CombinedLoader)
    parts: list[Any] = [batch for batch, _, _ in loader]
    batches = [part["architecture"]["index"][:, 0].tolist() for part in parts]
    assert len(batches) > 6
    assert {i for batch in batches for i in batch} <= set(range(60))
    assert len({tuple(batch) for batch in batches}) > 2


def test_architecture_split_val() -> None:
    data = make(architecture_split="val", labels=False)
    data.setup("fit")
    loader = data.train_dataloader()
    assert isinstance(loader, CombinedLoader)
    for batch, _, _ in loader:
        assert batch["weights"]["index"].max() < 1000
        assert batch["architecture"]["index"].min() >= 1000


def test_label_budget_limits_train_only() -> None:
    data = make(labels_per_class=5)
    data.setup("fit")
    assert data.label_counts("train") == {"a": 5, "b": 5, "c": 5}
    assert data.label_counts("val") == {"a": 7, "b": 7, "c": 6}
    drawn = data.tensors("train")["index"]
    assert drawn.shape == (15, 1)
    assert sorted(indices(data.train_dataloader())) == drawn[:, 0].int().tolist()
    other = make(labels_per_class=5, label_seed=1)
    other.setup("fit")
    assert not torch.equal(other.tensors("train")["index"], drawn)
    greedy = make(labels_per_class=21)
    with pytest.raises(DataError, match="class 'a' has 20 training samples, fewer than"):
        greedy.setup("fit")


def test_tensors_are_whole_splits_in_order() -> None:
    data = make(modalities=["index"])
    data.setup("fit")
    tensors = data.tensors("val")
    assert set(tensors) == {"index", "label"}
    assert tensors["index"][:, 0].tolist() == list(range(1000, 1020))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 2, got 0"),
        ({"num_workers": -1}, "num_workers must be an integer of at least 0, got -1"),
        ({"labels_per_class": 0}, "labels_per_class must be an integer of at least 1, got 0"),
        ({"label_seed": -1}, "label_seed must be an integer of at least 0"),
        ({"seed": 1.5}, "seed must be an integer of at least 0, got 1.5"),
        ({"labels": False, "labels_per_class": 5}, "labels_per_class=5 needs labels=True"),
        ({"architecture_fraction": 1.0}, "between 0 and 1, both excluded, got 1.0"),
        ({"architecture_split": "test"}, r"architecture_split must be one of \['val'\], got 'test'"),
        ({"architecture_split": "val", "architecture_fraction": 0.5}, "exclude each other"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        (["snsor"], r"'snsor' is not in \['sensor', 'index'\]; check data.init_args.modalities"),
        ([], "must name one or more of"),
        (["index", "index"], "each once"),
    ],
)
def test_bad_modalities(modalities: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(modalities=modalities)


def test_unknown_kind() -> None:
    with pytest.raises(DataError, match="kind 'smell' is not in"):
        ModalitySpec("smell", (3,))  # type: ignore[arg-type]


def bare(train: dict[str, Tensor], **arguments: Any) -> TensorDataModule:
    return TensorDataModule(train, train, kinds={"x": "features"}, **arguments)


def test_empty_one_class_and_unlabelled_data() -> None:
    one_class = bare({"x": torch.zeros(4, 1), "label": torch.zeros(4, dtype=torch.long)})
    with pytest.raises(DataError, match=r"samples of \['0'\] only; nothing to learn"):
        one_class.setup("fit")
    empty = bare({"x": torch.zeros(0, 1)}, labels=False)
    with pytest.raises(DataError, match="the train split is empty"):
        empty.setup("fit")
    with pytest.raises(DataError, match="the train split is empty"):
        bare({"x": torch.zeros(0, 1), "label": torch.zeros(0, dtype=torch.long)})
    unlabelled = bare({"x": torch.zeros(4, 1)})
    assert unlabelled.task is None
    assert unlabelled.num_classes is None
    with pytest.raises(DataError, match=r"have no labels; set data.init_args.labels to false"):
        unlabelled.setup("fit")
    unlabelled.labels = False
    unlabelled.setup("fit")
    with pytest.raises(DataError, match="there is no test split"):
        unlabelled.setup("test")


def test_multilabel() -> None:
    labels = torch.tensor([[1, 0], [1, 1], [0, 0]])
    data = bare({"x": torch.zeros(3, 1), "label": labels}, class_names=["a", "b"])
    data.setup("fit")
    assert data.task == "multilabel"
    assert data.num_classes == 2
    assert data.label_counts("train") == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("val", "arguments", "message"),
    [
        ({"y": torch.zeros(2, 1)}, {}, r"val has the modalities \['y'\], kinds those of \['x'\]"),
        ({"x": torch.zeros(2, 1)}, {}, "only one of the splits train and val has labels"),
        (
            {"x": torch.zeros(2, 5), "label": torch.zeros(2)},
            {},
            r"samples of shape \(5,\) in val, but \(1,\) in train",
        ),
        (None, {"class_names": ["a"]}, "class_names has 1 names, the labels need 2"),
    ],
)
def test_tensors_that_do_not_fit(val: dict[str, Tensor] | None, arguments: dict[str, Any], message: str) -> None:
    train = {"x": torch.zeros(2, 1), "label": torch.arange(2)}
    with pytest.raises(DataError, match=message):
        TensorDataModule(train, val or train, kinds={"x": "features"}, **arguments)
    train = {"x": torch.zeros(2, 1), "label": torch.zeros(2)}
    with pytest.raises(DataError, match=r"labels must be of type int64, got torch.float32"):
        bare(train)


def test_plot_draws_a_panel_per_modality(tmp_path: Path) -> None:
    pixels = torch.rand(2, 3, 4, 4)
    train = {"sensor": torch.randn(2, 3, 8), "pixels": pixels, "label": torch.arange(2)}
    data = TensorDataModule(train, train, kinds={"sensor": "motion", "pixels": "image"})
    data.setup("fit")
    figure = data.plot({key: value[1] for key, value in data.tensors("train").items()})
    assert isinstance(figure, Figure)
    assert [axes.get_title("left") for axes in figure.axes] == ["sensor", "pixels"]
    assert len(figure.axes[0].lines) == 3
    assert figure.get_suptitle() == "1"
    figure.savefig(tmp_path / "sample.png")


def test_unlabelled_samples_serve_the_stages_without_labels_only() -> None:
    data = {**split(12), "label": torch.tensor([-1, 0, 1] * 4)}
    kinds: dict[str, Any] = {"sensor": "motion", "index": "features"}
    labelled = TensorDataModule(data, split(8, 100), kinds=kinds, batch_size=4)
    labelled.setup("fit")
    assert labelled.label_counts("train") == {"0": 4, "1": 4}
    assert sorted(indices(labelled.train_dataloader())) == [1, 2, 4, 5, 7, 8, 10, 11]
    unlabelled = TensorDataModule(data, split(8, 100), kinds=kinds, batch_size=4, labels=False)
    unlabelled.setup("fit")
    assert sorted(indices(unlabelled.train_dataloader())) == list(range(12))


def test_texts_and_pixels_in_memory() -> None:
    train = {
        "text": torch.randint(3, 20, (4, 6)),
        "pixels": torch.full((4, 1, 2, 2), 51, dtype=torch.uint8),
        "label": torch.arange(4) % 2,
    }
    kinds: dict[str, Any] = {"text": "text", "pixels": "image"}
    vocabulary = Vocabulary(size=20, pad=2, mask=0)
    data = TensorDataModule(train, train, kinds=kinds, vocabularies={"text": vocabulary})
    assert data.modalities["text"] == ModalitySpec("text", (6,), torch.long, vocabulary)
    means = data.modality_means()
    assert means["text"].tolist() == [2] * 6
    assert means["pixels"].flatten().tolist() == pytest.approx([0.2] * 4)
    with pytest.raises(DataError, match="'text' needs a vocabulary"):
        TensorDataModule(train, train, kinds=kinds)


def test_reserved_ids_must_be_in_the_vocabulary() -> None:
    with pytest.raises(DataError, match="cannot hold the reserved ids"):
        Vocabulary(size=3, special=(3,))
