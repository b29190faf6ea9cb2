"""Local weights: what is loaded, and what is refused."""

import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lightning_mmnas.encoders.weights import load_weights, renamed_by_order
from lightning_mmnas.errors import CheckpointError


@pytest.mark.parametrize("wrapped", [None, "state_dict", "model"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_loads_what_was_saved(tmp_path: Path, suffix: str, wrapped: str | None) -> None:
    saved, loaded = nn.Linear(3, 2), nn.Linear(3, 2)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(saved.state_dict(), path)
    else:
        torch.save({wrapped: saved.state_dict()} if wrapped else saved.state_dict(), path)
    load_weights(loaded, path)
    assert torch.equal(saved.weight, loaded.weight)


def test_parts_may_be_left_out(tmp_path: Path) -> None:
    body = nn.ModuleDict({"body": nn.Linear(3, 2), "head": nn.Linear(2, 5)})
    torch.save({**body.state_dict(), "head.weight": torch.zeros(9, 2), "head.more": torch.zeros(1)}, tmp_path / "w.pt")
    head = body.state_dict()["head.weight"].clone()
    load_weights(body, tmp_path / "w.pt", ignore=("head.",))
    assert torch.equal(head, body.state_dict()["head.weight"])
    with pytest.raises(CheckpointError, match=r"2 entries differ, first 'head.more': the encoder has nothing"):
        load_weights(body, tmp_path / "w.pt")


class Trap:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("sprung"),))


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Trap()}, "trap.pt")
    Path("plain.pt").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match=f"cannot read weights '{name}' safely"):
            load_weights(nn.Linear(3, 2), name)
    assert not Path("sprung").exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"hello"])
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load_weights(nn.Linear(3, 2), tmp_path / name)


def test_missing_files_and_other_content(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no file of weights"):
        load_weights(nn.Linear(3, 2), tmp_path / "none.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({1: torch.zeros(2)}, tmp_path / "numbers.pt")
    for name in ("list.pt", "numbers.pt"):
        with pytest.raises(CheckpointError, match=f"{name}' holds no state dict"):
            load_weights(nn.Linear(3, 2), tmp_path / name)
    with pytest.raises(CheckpointError, match="there is no file of weights"):
        load_weights(nn.Linear(3, 2), tmp_path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_random_damage_is_named_or_leaves_the_shapes(tmp_path: Path, suffix: str) -> None:
    path, draw, refused = tmp_path / f"w{suffix}", random.Random(suffix), 0
    state = nn.Linear(3, 2).state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    for _ in range(200):
        content = bytearray(whole[: draw.randrange(len(whole))] if draw.random() < 0.5 else whole)
        for _ in range(draw.randrange(4) if content else 0):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            load_weights(nn.Linear(3, 2), path)
        except CheckpointError as error:
            refused += path.name in str(error)
    assert refused >= 50


def test_entries_of_other_names_are_taken_in_order_only_if_all_fit() -> None:
    body = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    names = [(name, tuple(value.shape)) for name, value in body.state_dict().items()]
    foreign = {f"_block.{name.replace('0', 'fc')}": value for name, value in body.state_dict().items()}
    renamed = renamed_by_order(foreign, names)
    assert list(renamed) == [name for name, _ in names]
    assert all(torch.equal(value, body.state_dict()[name]) for name, value in renamed.items())
    swapped = dict(sorted(foreign.items(), key=lambda entry: entry[0], reverse=True))
    shorter = dict(list(foreign.items())[:-1])
    for other in (swapped, shorter, {**foreign, "_block.fc.weight": torch.zeros(2, 4)}):
        assert renamed_by_order(other, names) == other


def test_weights_in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "package_of_weights" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    saved, loaded = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save(saved.state_dict(), folder / "linear-1a2b.pth")
    load_weights(loaded, "package:package_of_weights")
    assert torch.equal(saved.weight, loaded.weight)
    with pytest.raises(CheckpointError, match="'package:package_of_weights' are of another architecture"):
        load_weights(nn.Linear(4, 2), "package:package_of_weights")
