"""Random changes to genotypes, tables and configurations: each is read, or refused by an error of the package's own."""

from __future__ import annotations

import json
import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml

from lightning_mmnas import FusionSpace, Genotype
from lightning_mmnas.commands.compare import read_settings
from lightning_mmnas.commands.lightning_cli import settings_of
from lightning_mmnas.commands.stages import Stage, find_configs
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.data.table.reading import read_table
from lightning_mmnas.errors import MMNASError
from tests.faults.mutations import mutated_bytes, mutated_value
from tests.faults.record import Record, recorded

_SECONDS = 60
"""A case may take; far more than any needs."""
_WHOLE = 25
"""Of so many configurations one goes through the whole command line, which takes a hundred times as long."""


def genotypes(count: int, seed: int = 0) -> Record:
    """Genotypes as JSON, from which spaces and networks of any size may be asked."""
    space = FusionSpace(inputs=("image/0", "image/1", "text"), cells=2, steps=2, step_outputs=1)
    valid = [space.sample(torch.Generator().manual_seed(number)) for number in range(8)]

    def read(path: Path) -> None:
        genotype = Genotype.load(path)
        assert Genotype.from_json(genotype.to_json()) == genotype == genotype.canonical()
        genotype.describe()
        try:
            genotype.space.size()
        except MMNASError:
            genotype.space.raw_size()

    with recorded("fuzz: genotype JSON") as record, tempfile.TemporaryDirectory() as folder:
        for case in _cases(count, seed):
            text = case.choice(valid).to_json(indent=case.choice((None, 2)))
            if case.random() < 0.5:
                content = mutated_bytes(text.encode(), case)
            else:
                content = json.dumps(mutated_value(json.loads(text), case)).encode()
            _try(record, Path(folder) / "genotype.json", content, read)
    return record


def tables(count: int, seed: int = 0) -> Record:
    """Tables as CSV, read as a data set: numbers, texts, labels, groups and splits."""
    columns = {
        "numbers": ColumnSpec(kind="features", columns=["a", "b"]),
        "one": ColumnSpec(kind="features", columns=["s"]),
        "note": ColumnSpec(kind="text", columns=["note"], length=4),
    }
    text = "a,b,s,note,label,person,split\n" + "".join(
        f'{i},{i / 7:.3f},{-i}e2,"a ""{"good" if i % 2 else "bad"}"" day, {i}",{"yn"[i % 2]},p{i // 4},'
        f"{('train', 'train', 'train', 'val', 'test')[i // 4]}\n"
        for i in range(20)
    )

    def read(path: Path) -> None:
        read_table(path)
        data = TableDataModule(str(path), columns, label="label", group="person", split="split", batch_size=4)
        data.prepare_data()
        data.setup("fit")
        for batch in data.val_dataloader():
            assert all(torch.isfinite(value).all() for value in batch.values() if value.is_floating_point())

    with recorded("fuzz: table CSV") as record, tempfile.TemporaryDirectory() as folder:
        for case in _cases(count, seed):
            _try(record, Path(folder) / "table.csv", mutated_bytes(text.encode(), case), read)
    return record


def configs(count: int, seed: int = 0) -> Record:
    """Configurations as YAML: of stages, and of the comparison."""
    watch = find_configs("watch")
    stage = {name: yaml.safe_load((watch / name).read_text()) for name in ("common.yaml", "search.yaml")}
    settings = {"labels_per_class": [5, "all"], "draws": 2, "random_architectures": 1, "steps": 10, "batch_size": 8}

    def read_stage(path: Path) -> None:
        Stage("search", path).digest(0)

    def read_whole(path: Path) -> None:
        settings_of(["fit", "--config", str(watch / "common.yaml"), "--config", str(path)])

    with recorded("fuzz: config YAML") as record, tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(_cases(count, seed)):
            name = case.choice(("search.yaml", "common.yaml", "comparison.yaml"))
            read: Callable[[Path], Any] = read_settings if name == "comparison.yaml" else read_stage
            if number % _WHOLE == 0:
                name, read = "search.yaml", read_whole
            value = settings if name == "comparison.yaml" else stage[name]
            if case.random() < 0.5:
                content = mutated_bytes(yaml.safe_dump(value, sort_keys=False).encode(), case)
            else:
                dumped = yaml.safe_dump(mutated_value(value, case), sort_keys=False, allow_unicode=True)
                content = dumped.encode("utf-8", "surrogatepass")
            _try(record, Path(folder) / name, content, read)
    return record


def _cases(count: int, seed: int) -> Iterator[random.Random]:
    """A source of randomness for each case, so that a case can be made again by itself."""
    return (random.Random(f"{seed} {number}") for number in range(count))


def _try(record: Record, path: Path, content: bytes, read: Callable[[Path], Any]) -> None:
    path.write_bytes(content)
    try:
        with deadline(_SECONDS):
            read(path)
    except MMNASError as error:
        if str(error).strip():
            record.refuse()
        else:
            record.fail(f"case {record.cases}: {type(error).__name__} says nothing")
    except Exception as error:  # what a fault looks like
        record.fail(f"case {record.cases}: {type(error).__name__}: {str(error)[:300]}\n  {content[:2000]!r}")
    else:
        record.work()


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
