"""Files that are cut short, or made to do harm: refused in a line, nothing of them run, and no memory filled."""

from __future__ import annotations

import io
import json
import pickle
import resource
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import lightning_mmnas
from lightning_mmnas import ColumnSpec, FusionSpace, Genotype, TableDataModule
from lightning_mmnas.commands.changes import read_manifest, read_record
from lightning_mmnas.commands.compare import read_settings
from lightning_mmnas.commands.lightning_cli import MMNASCLI, settings_of
from lightning_mmnas.data.cache import FeatureCache
from lightning_mmnas.data.columns.arrays import open_array
from lightning_mmnas.data.columns.images import decode_image
from lightning_mmnas.data.columns.texts import TextTokenizer
from lightning_mmnas.data.packages import file_in_package
from lightning_mmnas.data.stream.index import read_index, read_tensors
from lightning_mmnas.data.stream.samples import decode_file
from lightning_mmnas.data.table.reading import read_table
from lightning_mmnas.encoders.weights import read_weights
from lightning_mmnas.errors import MMNASError
from lightning_mmnas.modules.frozen import read_checkpoint
from lightning_mmnas.tabular.table import FusionTable
from tests.faults.fuzz import deadline
from tests.faults.record import Record, recorded

_MEMORY = 2 * 2**30
"""Bytes that refusing may take, libraries that are loaded on the way included."""
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
DEEP = "[" * 10**6

Case = tuple[str, Callable[[], Any]]


class _Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.sentinel,)


def hostile(model: Path) -> Record:
    """One case per file; `model` is a folder that a run has delivered, which is copied for each case."""
    with recorded("hostile files") as record, tempfile.TemporaryDirectory() as temporary:
        folder, sentinel = Path(temporary), Path(temporary) / "executed"
        makers = (_texts, _checkpoints, _arrays, _names, _models)
        for number, (name, case) in enumerate(pair for make in makers for pair in make(folder, sentinel, model)):
            try:
                with _bounded_memory(), deadline(60):
                    case()
            except MMNASError as error:
                if len(str(error).splitlines()) > 15 or len(str(error)) > 3000:
                    record.fail(f"{number} {name}: {len(str(error))} characters: {str(error)[:300]}")
                else:
                    record.refuse()
            except BaseException as error:  # MemoryError and SystemExit are faults, too
                record.fail(f"{number} {name}: {type(error).__name__}: {str(error)[:500]}")
            else:
                record.fail(f"{number} {name}: was read")
            if sentinel.exists():
                record.fail(f"{number} {name}: was executed")
                sentinel.unlink()
    return record


def _texts(folder: Path, sentinel: Path, model: Path) -> Iterator[Case]:
    """JSON and YAML: nesting, aliases, tags, sizes."""
    tag = f"!!python/object/apply:pathlib.Path.touch [{sentinel}]"
    texts = {
        "deep": DEEP,
        "deep objects": '{"a":' * 10**6,
        "rather deep": "[" * 900 + "]" * 900,
        "laughs": LAUGHS,
        "tag": f"draws: {tag}",
        "itself": "draws: &a {x: *a}",
        "digits": '{"draws": ' + "9" * 10**6 + "}",
    }
    for name, text in texts.items():
        path = folder / "config.yaml"
        yield name + " in a configuration", _with(path, text, lambda p: settings_of(["fit", "--config", str(p)]))
        yield name + " in comparison.yaml", _with(path, text, read_settings)
        yield name + " on the command line", partial(read_settings, folder / "none", ["--draws", text])
        yield name + " in a genotype", _with(folder / "genotype.json", text, Genotype.load)
        yield name + " in a manifest", _with(folder / "manifest.json", text, lambda p: read_manifest(p.parent))
        yield (
            name + " in a record",
            _with(folder / "search" / "done.json", text, lambda p: read_record(folder, "search")),
        )
        yield name + " in JSON lines", _with(folder / "table.jsonl", text + "\n", read_table)
        yield name + " in a JSON table", _with(folder / "table.json", text + "\n", read_table)
        for file in ("state.json", "dataset_dict.json"):
            yield name + f" in {file}", _with(folder / "datasets" / file, text, lambda p: read_table(p.parent))
        yield name + " in an index", partial(read_index, text.encode(), "index")
        yield name + " in a tokenizer", _with(folder / "tokenizer.json", text, lambda p: TextTokenizer(str(p), 64))
    space: dict[str, Any] = {"inputs": ["a", "b"], "cells": 1, "steps": 1}
    for field in ("cells", "steps", "cell_outputs", "step_outputs", "channels", "length"):
        yield (
            f"10^9 {field}",
            partial(FusionSpace, **{**space, field: 10**9}),
        )
        content = json.dumps({"schema_version": 1, "space": {**space, field: 10**15}, "cells": []})
        yield f"10^15 {field} in a genotype", _with(folder / "genotype.json", content, Genotype.load)
    yield "many steps counted", lambda: FusionSpace(inputs=("a", "b"), cells=200, steps=200).size()


def _checkpoints(folder: Path, sentinel: Path, model: Path) -> Iterator[Case]:
    """Pickles that run something, and files cut short or changed."""
    good, path = folder / "good.ckpt", folder / "bad.ckpt"
    torch.save({"state_dict": {"a": torch.arange(1000.0)}, "epoch": 1, "pytorch-lightning_version": "2.6.0"}, good)
    whole = good.read_bytes()
    payload = _Payload(sentinel)
    pickles = {
        "pickle": pickle.dumps(payload),
        "pickle in state_dict": pickle.dumps({"state_dict": payload}),
        "torch file": _saved({"state_dict": {"a": payload}}),
        "torch file, old format": _saved({"state_dict": {"a": payload}}, zipped=False),
        "torch file, hyperparameters": _saved({"state_dict": {}, "hyper_parameters": {"lr": payload}}),
        "torch file, whole": _saved(payload),
        "torchscript": _zipped({"archive/data.pkl": pickle.dumps(payload), "archive/constants.pkl": b"\x80\x02)."}),
    }
    readers: dict[str, Callable[[Path], Any]] = {
        "checkpoint": lambda p: read_checkpoint(p, "test"),
        "weights": read_weights,
        "--ckpt_path": lambda p: MMNASCLI(
            ["fit", "--model=tests.commands.toys.ToyModule", "--data=tests.commands.toys.ToyData", f"--ckpt_path={p}"],
            trainer_defaults={"accelerator": "cpu", "logger": False, "default_root_dir": str(folder / "fit")},
        ),
    }
    cut = {f"cut at {size}": whole[:size] for size in (0, 1, 4, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1)}
    at = whole.index(np.arange(1000.0, dtype=np.float32).tobytes()) + 2000
    flipped = {"a bit flipped in the weights": whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :]}
    for kind, read in readers.items():
        for name, content in {**pickles, **cut, **flipped}.items():
            yield f"{name} as {kind}", _with(path, content, read)
    tensors = folder / "good.safetensors"
    save_file({"a": torch.arange(8.0)}, tensors)
    whole = tensors.read_bytes()
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4 * 10**15]}}).encode()
    damaged = {
        "pickle": pickle.dumps(payload),
        "cut": whole[:-1],
        "a header of 10^15 bytes": struct.pack("<Q", 10**15) + whole[8:],
        "10^15 numbers": struct.pack("<Q", len(header)) + header,
        "deep": struct.pack("<Q", len(DEEP)) + DEEP.encode(),
    }
    for name, content in damaged.items():
        yield f"safetensors, {name}", _with(folder / "bad.safetensors", content, read_weights)
        yield (
            f"safetensors of shards, {name}",
            _with(folder / "bad.safetensors", content, lambda p: read_tensors(p, "x")),
        )


def _arrays(folder: Path, sentinel: Path, model: Path) -> Iterator[Case]:
    """Arrays, pictures and tables whose headers promise more than there is memory, or that hold objects."""
    vectors = ColumnSpec(kind="features", columns=["x"], files=True, length=4)
    headers = {
        "10^15 numbers": "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }",
        "10^10 numbers": "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000,), }",
        "10^30 numbers": "{'descr': '<f4', 'fortran_order': False, 'shape': (10**30,), }".replace(
            "10**30", "1" + "0" * 30
        ),
        "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-4,), }",
        "a call": f"__import__('pathlib').Path({str(sentinel)!r}).touch()",
        "deep": "(" * 9000,
    }
    objects = io.BytesIO()
    np.save(objects, np.array([_Payload(sentinel)], dtype=object), allow_pickle=True)
    contents = {name: _npy(header) for name, header in headers.items()} | {"objects": objects.getvalue()}
    for name, content in contents.items():
        yield f"npy, {name}", _with(folder / "a.npy", content, open_array)
        yield f"npy in a shard, {name}", partial(decode_file, ".npy", content, vectors)
        yield f"npy of a cache, {name}", _with(folder / "shard-00000.npy", content, _read_cache)
    side = struct.pack(">II", 10**5, 10**5)
    png = (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", side + b"\x08\x02\0\0\0") + _chunk(b"IDAT", zlib.compress(bytes(10**6)))
    )
    yield "PNG of 10^5 x 10^5", _with(folder / "a.png", png + _chunk(b"IEND", b""), lambda p: decode_image(p, (8, 8)))
    bmp = (
        b"BM"
        + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 10**5, 10**5, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    yield "BMP of 10^5 x 10^5", _with(folder / "a.bmp", bmp + bytes(46), lambda p: decode_image(p, (8, 8)))
    parquet = b"PAR1" + b"\x15\x04" * 50 + struct.pack("<I", 2**31 - 1) + b"PAR1"
    yield "Parquet with a footer of 2^31", _with(folder / "a.parquet", parquet, read_table)
    yield "Parquet as a table of a space", _with(folder / "a.parquet", parquet, FusionTable.load)


def _names(folder: Path, sentinel: Path, model: Path) -> Iterator[Case]:
    """Names that lead elsewhere."""
    for name in ("../../x", "/x", "a/../../x", "..", "a\\b", "a\0b", "", "label", "a.b"):
        spec = ColumnSpec(kind="features", columns=["x"])
        yield f"modality {name!r}", partial(TableDataModule, str(folder / "none.csv"), {name: spec})
        index = {"kind": "features", "shape": [1], "dtype": "float32"}
        stream: dict[str, Any] = {
            "modalities": {name: index},
            "class_names": [],
            "task": None,
            "splits": {},
            "made_by": {},
        }
        yield f"modality {name!r} of shards", partial(read_index, json.dumps(stream).encode(), "index")
    entries: tuple[Any, ...] = ("../x", "/etc/passwd", "..", "", 7, None, {}, ["a"], "a\0b")
    for entry in entries:
        saved, parts = folder / "saved", folder / "parts"
        state = json.dumps({"_data_files": [{"filename": entry}]})
        yield f"file {entry!r} of datasets", _with(saved / "state.json", state, lambda p: read_table(p.parent))
        split = json.dumps({"splits": [entry]})
        yield f"split {entry!r} of datasets", _with(parts / "dataset_dict.json", split, lambda p: read_table(p.parent))
    for name in ("../x", "os", "os.path", "numpy/../..", "numpy/../../../../etc", "/etc", "", "no_such_package"):
        yield f"package:{name}", partial(file_in_package, f"package:{name}", "passwd")


def _models(folder: Path, sentinel: Path, model: Path) -> Iterator[Case]:
    """Folders of models that ask for other files, classes and sizes."""
    card = {**json.loads((model / "model.json").read_text()), "digest": None}  # that what is changed is looked at
    some = next(iter(card["encoders"]))
    touch = {"class_path": "pathlib.Path.touch", "arguments": {}}
    ours = "lightning_mmnas.commands.mmnas.main"
    run = {"class_path": ours, "arguments": {"args": ["fit", "--config", str(sentinel)]}}
    write = {"class_path": "lightning_mmnas.files.write_text", "arguments": {"text": "x"}}

    def changed(change: Callable[[dict[str, Any]], None]) -> Callable[[], Any]:
        def case() -> Any:
            content = json.loads(json.dumps(card))
            change(content)
            return _load(folder, model, {"model.json": json.dumps(content).encode()})

        return case

    def renamed(name: str, content: dict[str, Any]) -> None:
        for part in ("modalities", "encoders"):
            content[part] = {name if key == some else key: value for key, value in content[part].items()}

    def with_file(file: str, content: dict[str, Any]) -> None:
        content["encoders"][some].update(files={"weights": file})

    for name in ("../../x", "/etc/x", "a.b", "", "\0"):
        yield f"model, modality {name!r}", changed(partial(renamed, name))
    for file in ("../../x", "/etc/passwd", "..", "none"):
        yield f"model, file {file}", changed(partial(with_file, file))
    yield "model, class of another package", changed(lambda c: c["encoders"].update({some: touch}))
    yield (
        "model, function of ours",
        changed(lambda c: c["encoders"].update({some: run})),
    )
    yield "model, function that writes", changed(lambda c: c["encoders"].update({some: write}))
    yield "model, module of ours", changed(lambda c: c["encoders"][some].update(class_path="lightning_mmnas.errors"))
    yield "model, nothing named", changed(lambda c: c["encoders"][some].update(class_path="lightning_mmnas."))
    yield (
        "model, network of ours that is none",
        changed(lambda c: c["network"].update(part={"class_path": ours, "arguments": {}})),
    )
    yield "model, primitive", changed(lambda c: c["network"]["genotype"]["space"]["primitives"].append("pathlib.Path"))
    yield "model, genotype", changed(lambda c: c["network"]["genotype"].update(cells=5))
    yield "model, no genotype", changed(lambda c: c["network"].update(genotype=None))
    yield "model, 10^12 channels", changed(lambda c: c["network"]["genotype"]["space"].update(channels=10**12))
    yield "model, 10^9 numbers", changed(lambda c: c["modalities"][some].update(shape=[10**15]))
    yield "model, negative size", changed(lambda c: c["modalities"][some].update(shape=[-1]))
    yield "model, type", changed(lambda c: c["modalities"][some].update(dtype="load"))
    yield "model, format", changed(lambda c: c.update(format=10**9))
    yield "model, arguments", changed(lambda c: c["encoders"][some]["arguments"].update(x=1))
    yield (
        "model, size of an argument",
        changed(lambda c: c["encoders"][some]["arguments"].update(width=10**12, widths=[10**12])),
    )
    for name in ("model.json", "model.safetensors", "tokenizers/note.json"):
        whole = (model / name).read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) * 2 // 3] ^= 64
        contents = {"cut": whole[: len(whole) // 2], "empty": b"", "deep": DEEP.encode(), "flipped": bytes(flipped)}
        for kind, content in contents.items():
            yield f"model, {name} {kind}", partial(_load, folder, model, {name: content})


def _with(path: Path, content: str | bytes, read: Callable[[Path], Any]) -> Callable[[], Any]:
    def case() -> Any:
        if path.parent.name == "datasets":
            shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read(path)

    return case


def _load(folder: Path, model: Path, files: dict[str, bytes]) -> Any:
    copy = folder / "model"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(model, copy)
    for name, content in files.items():
        (copy / name).write_bytes(content)
    return lightning_mmnas.load(copy)


def _read_cache(path: Path) -> Any:
    cache = FeatureCache(path.parent, 1, {"a/0": (4,)}, 1, {}, batch_size=1)
    cache.folder.joinpath("manifest.json").write_text(json.dumps({"facts": cache.facts}))
    return cache.read(torch.tensor([0]), torch.tensor([[0]]))


def _saved(value: Any, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _zipped(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return content.getvalue()


def _npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + bytes(64)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """Lets this process have no more than so many bytes on top of what it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
