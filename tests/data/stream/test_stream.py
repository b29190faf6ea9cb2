"""Shards hold what the table holds, and are read in an order of their own."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_mmnas.data.samples import LABEL
from lightning_mmnas.data.spec import Split
from lightning_mmnas.data.stream.sampler import ShardSampler
from lightning_mmnas.data.stream.samples import StreamedSamples
from lightning_mmnas.errors import ConfigError, DataError, RunDirectoryError
from tests.data.stream.make_shards import data_of, make_numbers, make_rows, shards_of, table_of

SPLITS: tuple[Split, ...] = ("train", "val", "test")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rows(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def shards(table: Path) -> Path:
    folder = table.parent / "shards"
    shards_of(table, folder)
    return folder


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_numbers(tmp_path_factory.mktemp("numbers"))


def streamed(samples: object) -> StreamedSamples:
    assert isinstance(samples, StreamedSamples)
    return samples


@pytest.mark.parametrize("files", ["encoded", "decoded"])
def test_every_sample_is_that_of_the_table(files: str, table: Path, tmp_path: Path) -> None:
    from lightning_mmnas.data.stream.writing import write_shards

    raw = table_of(table)
    written = write_shards(raw, tmp_path / "shards", files=files, shard_bytes=20_000)  # type: ignore[arg-type]
    assert written.forms["song"][0] == ("files" if files == "encoded" else "tensors")
    data = data_of(tmp_path / "shards")
    assert data.available_modalities == raw.available_modalities
    assert (data.class_names, data.task) == (raw.class_names, "multiclass")
    for split in SPLITS:
        data.build(split)
        there, wanted = streamed(data.source(split)), raw.source(split)
        assert len(there) == len(wanted)
        place = {there.id(index): index for index in range(len(there))}
        order = torch.tensor([place[raw.content.cell(row, "id")] for row in raw.rows[split]])
        found, expected = there.batch(order), wanted.batch(torch.arange(len(wanted)))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value), name
        assert there.groups is not None
        assert wanted.groups is not None
        assert torch.equal(there.groups[order], wanted.groups)
    assert (data.source("train").labels == -1).any()  # type: ignore[union-attr]
    for name, mean in raw.modality_means().items():
        assert torch.equal(data.modality_means()[name], mean)


def test_the_smaller_form_is_taken(shards: Path) -> None:
    modalities = data_of(shards).index.modalities
    assert modalities["song"].files is not None  # 16 bits a number instead of 32
    assert modalities["photo"].files is None  # 24 x 20 pixels, brought to 8 x 8


def test_litdata_reads_the_shards(shards: Path) -> None:
    from litdata import StreamingDataset
    from safetensors.torch import load

    data = data_of(shards)
    data.build("train")
    ours, theirs = data.source("train"), StreamingDataset(str(shards / "train"))
    assert len(theirs) == len(ours)
    for index in (0, len(ours) - 1):
        assert torch.equal(load(bytes(theirs[index]))["photo"], ours[index]["photo"])


def test_labels_and_label_budgets(shards: Path) -> None:
    data = data_of(shards, labels=True, labels_per_class=2)
    data.setup("fit")
    assert data.label_counts("train") == {"blackbird": 2, "cuckoo": 2, "heron": 2}
    for batch in data.train_dataloader():
        assert isinstance(batch, dict)
        assert batch[LABEL].min() >= 0
    assert LABEL not in data_of(shards).index.modalities
    plain = data_of(shards, modalities=["body"])
    plain.setup("fit")
    assert set(next(iter(plain.train_dataloader()))) == {"body"}


def test_groups_are_not_divided(shards: Path) -> None:
    data = data_of(shards, architecture_fraction=0.5, batch_size=2)
    data.setup("fit")
    groups = data.source("train").groups
    assert groups is not None
    loader = data.train_dataloader()
    first, second = (set(groups[loader.flattened[i].dataset.indices].tolist()) for i in (0, 1))  # type: ignore[union-attr]
    assert first
    assert second
    assert not first & second


def test_the_architecture_part_is_made_of_whole_shards(numbers: Path) -> None:
    data = data_of(numbers, architecture_fraction=0.25, batch_size=2)
    data.setup("fit")
    source = streamed(data.source("train"))
    assert len(source.shards.files) >= 20
    starts = torch.tensor(source.shards.starts[1:])
    parts = [loader.dataset.indices for loader in data.train_dataloader().flattened]  # type: ignore[union-attr]
    first, second = (set(torch.bucketize(part, starts, right=True).tolist()) for part in parts)
    assert not first & second
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(source)))
    assert len(parts[1]) == pytest.approx(0.25 * len(source), abs=2)


def samplers(numbers: Path, ranks: int, window: int = 4) -> list[ShardSampler]:
    data = data_of(numbers)
    data.setup("fit")
    part, starts = data.part("train"), streamed(data.source("train")).shards.starts
    return [ShardSampler(part, starts, 5, window, ranks, rank) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_read_all_samples_in_windows_of_shards(ranks: int, numbers: Path) -> None:
    found = [list(sampler) for sampler in samplers(numbers, ranks)]
    assert {len(one) for one in found} == {-(-120 // ranks)}
    every = [index for one in found for index in one]
    assert set(every) == set(range(120))
    assert len(every) - 120 < ranks  # the last rank begins anew where they do not divide
    assert all(len(set(one)) == len(one) for one in found)


def test_the_order_is_that_of_seed_epoch_and_pass(numbers: Path) -> None:
    first, second = samplers(numbers, 1)[0], samplers(numbers, 1)[0]
    state = torch.get_rng_state()
    orders = [list(first), list(first)]
    first.set_epoch(1)
    orders.append(list(first))
    assert torch.equal(torch.get_rng_state(), state)
    assert len({tuple(order) for order in orders}) == 3
    assert list(second) == orders[0]
    second.set_epoch(1)
    assert list(second) == orders[2]


def test_few_shards_are_at_hand_at_a_time(numbers: Path) -> None:
    window = 4
    sampler = samplers(numbers, 1, window)[0]
    data = data_of(numbers)
    data.setup("fit")
    starts = torch.tensor(streamed(data.source("train")).shards.starts[1:])
    shards = torch.bucketize(torch.tensor(list(sampler)), starts, right=True).tolist()
    last = {shard: place for place, shard in enumerate(shards)}
    for place in range(len(shards)):
        begun = {shard for shard in shards[: place + 1] if last[shard] > place}
        assert len(begun) <= window
    mixed = sum(a != b for a, b in pairwise(shards))
    assert mixed > len(starts)  # not one shard after another


@pytest.mark.parametrize("workers", [0, 2])
def test_the_order_is_that_of_any_number_of_workers(workers: int, numbers: Path) -> None:
    def rows(count: int) -> Tensor:
        data = data_of(numbers, num_workers=count)
        data.setup("fit")
        batches: Any = data.train_dataloader()
        return torch.cat([batch["north"] for batch in batches])

    assert torch.equal(rows(workers), rows(0))


def test_refusals(table: Path, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="exists; nothing was changed"):
        shards_of(table, shards)
    with pytest.raises(ConfigError, match="1,000 to"):
        shards_of(table, tmp_path / "new", shard_bytes=10)
    with pytest.raises(ConfigError, match="shuffle_shards must be at least 1, got 0"):
        data_of(shards, shuffle_shards=0)
    with pytest.raises(DataError, match="'smell' is not in"):
        data_of(shards, modalities=["smell"])
    assert not list(tmp_path.iterdir())


def test_a_rank_leaves_out_a_last_batch_of_one(shards: Path) -> None:
    data = data_of(shards, labels=True, batch_size=4)
    data.setup("fit")
    size = len(data.part("train"))
    for ranks in (1, 2, 3):
        data.trainer = SimpleNamespace(world_size=ranks, global_rank=ranks - 1, current_epoch=0)  # type: ignore[assignment]
        for batch_size in range(2, 9):
            data.batch_size = batch_size
            batches: Any = data.train_dataloader()
            sizes = [len(batch[LABEL]) for batch in batches]
            assert 1 not in sizes
            assert sum(sizes) >= -(-size // ranks) - 1
