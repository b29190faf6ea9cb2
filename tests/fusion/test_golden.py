"""Every golden file found is reproduced: nothing here knows a particular file.

A file holds the numbers of the released BM-NAS fusion supernet (see ``interop/bmnas.py``), in float64. Set
``MMNAS_GOLDEN_DIR`` to a folder of such files; by default ``../shared/golden`` beside the project.
"""

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mmnas import FusionNetwork, FusionSpace, FusionSupernet, Genotype
from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.input_nodes import Grid, InputNode
from lightning_mmnas.interop import bmnas

FOLDER = Path(os.environ.get("MMNAS_GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))
FILES = sorted(FOLDER.glob("*.npz"))
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}

pytestmark = pytest.mark.skipif(not FILES, reason=f"no golden files in {FOLDER}; set MMNAS_GOLDEN_DIR")


class Golden:
    """One file: its arrays, its JSON, and the space that it was made with."""

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        self.dtype = dtype
        with np.load(path, allow_pickle=False) as arrays:
            self.arrays = {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}
        self.meta: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))

    def tree(self, prefix: str) -> dict[str, Tensor]:
        """All arrays below a prefix, by the rest of their names, floating ones in the file's test type."""
        found = {n.removeprefix(prefix): v for n, v in self.arrays.items() if n.startswith(prefix)}
        return {n: v.to(self.dtype) if v.is_floating_point() else v for n, v in found.items()}

    @property
    def inputs(self) -> list[str]:
        return [f"m{j}/0" for j in range(self.meta["config"]["num_input_nodes"])]

    @property
    def space(self) -> FusionSpace:
        config = self.meta["config"]
        return FusionSpace(
            inputs=tuple(self.inputs),
            cells=config["steps"],
            steps=config["node_steps"],
            cell_outputs=config["multiplier"],
            step_outputs=config["node_multiplier"],
            channels=config["C"],
            length=config["L"],
            primitives=tuple(bmnas.PRIMITIVES[name] for name in self.meta["primitives"]["node_ops"]),
        )

    def features(self, prefix: str) -> dict[str, Tensor]:
        """Input states, (b, c, l) in the file and (b, l, c) here."""
        return {
            name: self.arrays[f"{prefix}input/{j}"].to(self.dtype).transpose(1, 2).contiguous().requires_grad_()
            for j, name in enumerate(self.inputs)
        }

    def supernet(self) -> FusionSupernet:
        supernet = FusionSupernet(self.space, pairing="tied", readout="flatten").to(self.dtype)
        bmnas.load_state_dict(supernet, self.tree("search/"))
        bmnas.load_logits(supernet, self.tree("arch/"))
        return supernet

    def genotype(self, fields: dict[str, Any]) -> Genotype:
        space = self.space
        return bmnas.genotype_from_fields(fields, self.inputs, space.channels, space.length, space.primitives)

    def network(self) -> FusionNetwork:
        network = FusionNetwork(self.genotype(self.meta["genotype"]), readout="flatten").to(self.dtype)
        bmnas.load_state_dict(network, self.tree("found/"))
        return network

    def close(self, ours: Tensor, golden: Tensor, what: str) -> None:
        torch.testing.assert_close(
            ours.detach().to(golden.dtype),
            golden,
            rtol=TOLERANCE[self.dtype],
            atol=TOLERANCE[self.dtype],
            msg=lambda text: f"{what}: {text}",
        )

    def close_all(self, ours: dict[str, Tensor], golden: dict[str, Tensor]) -> None:
        assert golden, "the golden file holds no such arrays"
        for name, value in golden.items():
            self.close(ours[name], value, name)


def parameters(kind: Callable[[Path], bool]) -> pytest.MarkDecorator:
    cases = [
        pytest.param(path, dtype, id=f"{path.stem}-{str(dtype).removeprefix('torch.')}")
        for path in FILES
        if kind(path)
        for dtype in (torch.float64, torch.float32)
    ]
    return pytest.mark.parametrize(("path", "dtype"), cases)


def array_names(path: Path) -> list[str]:
    with np.load(path, allow_pickle=False) as arrays:
        return list(arrays.files)


def is_fusion(path: Path) -> bool:
    return "arch/alphas" in array_names(path)


def is_reshape(path: Path) -> bool:
    return any(name.endswith("/state/conv.weight") for name in array_names(path))


def test_every_file_is_tested() -> None:
    assert all(is_fusion(path) or is_reshape(path) or "lr_schedule" in array_names(path) for path in FILES)


@parameters(is_fusion)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_supernet(path: Path, dtype: torch.dtype, mode: str) -> None:
    golden = Golden(path, dtype)
    supernet = golden.supernet().train(mode == "train")
    features = golden.features("")
    for logits in supernet.architecture_parameters():
        logits.requires_grad_()
    out = supernet(features)
    loss = out.square().mean()
    loss.backward()

    golden.close(out, golden.arrays[f"{mode}/out"].to(dtype), "out")
    golden.close(loss, golden.arrays[f"{mode}/loss"].to(dtype), "loss")
    for j, name in enumerate(golden.inputs):
        gradient = features[name].grad
        assert gradient is not None
        golden.close(gradient.transpose(1, 2), golden.tree(f"{mode}/grad/input/")[str(j)], f"input {j}")
    gradients = {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}
    arch = bmnas.convert_logits(golden.space, golden.tree(f"{mode}/grad/arch/"))
    golden.close_all(gradients, {f"logits.{name}": value for name, value in arch.items()})
    golden.close_all(gradients, bmnas.convert_state_dict(golden.tree(f"{mode}/grad/search/")))
    if mode == "train":
        buffers = bmnas.convert_state_dict(golden.tree("train/buffer_after/"))
        golden.close_all(dict(supernet.named_buffers()), buffers)


@parameters(is_fusion)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_network(path: Path, dtype: torch.dtype, mode: str) -> None:
    golden = Golden(path, dtype)
    network = golden.network().train(mode == "train")
    features = golden.features("")
    out = network(features)
    out.square().mean().backward()

    golden.close(out, golden.arrays[f"found_{mode}/out"].to(dtype), "out")
    for j, name in enumerate(golden.inputs):
        gradient = features[name].grad
        ours = torch.zeros_like(features[name]) if gradient is None else gradient  # an input that is not read
        golden.close(ours.transpose(1, 2), golden.tree(f"found_{mode}/grad/input/")[str(j)], f"input {j}")
    after = golden.tree("found_train/buffer_after/")
    if mode == "train" and after:
        golden.close_all(dict(network.named_buffers()), bmnas.convert_state_dict(after))


@parameters(is_fusion)
def test_architecture_steps(path: Path, dtype: torch.dtype) -> None:
    golden = Golden(path, dtype)
    supernet = golden.supernet().train()
    logits = supernet.architecture_parameters()
    optimizer = torch.optim.Adam(logits, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    batches = sorted({name.split("/")[0] for name in golden.arrays if re.match(r"val\d+/", name)})
    for step, batch in enumerate(batches, start=1):
        for p in logits:
            p.requires_grad_()
        loss = supernet(golden.features(f"{batch}/")).square().mean()
        for p, gradient in zip(logits, torch.autograd.grad(loss, logits), strict=True):
            p.grad = gradient
        optimizer.step()
        after = bmnas.convert_logits(golden.space, golden.tree(f"arch_after_step{step}/"))
        golden.close_all(dict(supernet.logits.named_parameters()), after)
    buffers = bmnas.convert_state_dict(golden.tree(f"arch_after_step{len(batches)}/buffer/"))
    golden.close_all(dict(supernet.named_buffers()), buffers)


@parameters(is_fusion)
def test_decode_cases(path: Path, dtype: torch.dtype) -> None:
    golden = Golden(path, dtype)
    supernet = golden.supernet()
    assert golden.meta["decode_cases"]
    for number, case in enumerate(golden.meta["decode_cases"]):
        logits = {name: torch.tensor(value, dtype=dtype) for name, value in case["arch"].items()}
        bmnas.load_logits(supernet, logits)
        if case["genotype"] is None:  # the published rule finds no pair
            with pytest.raises(GenotypeError):
                supernet.decode(rule="bmnas")
            continue
        found, wanted = supernet.decode(rule="bmnas"), golden.genotype(case["genotype"])
        assert found.model_dump() == wanted.model_dump(), f"decode case {number}"
    bmnas.load_logits(supernet, golden.tree("arch/"))
    assert supernet.decode("bmnas").model_dump() == golden.genotype(golden.meta["genotype"]).model_dump()


@parameters(is_fusion)
def test_parameter_counts(path: Path, dtype: torch.dtype) -> None:
    golden = Golden(path, dtype)
    supernet = golden.supernet()
    count = sum(p.numel() for p in supernet.parameters() if p.requires_grad)
    assert count == golden.meta["num_supernet_params"]
    assert sum(p.numel() for p in golden.network().parameters()) == golden.meta["num_found_params"]


@parameters(is_reshape)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_reshape_layers(path: Path, dtype: torch.dtype, mode: str) -> None:
    golden = Golden(path, dtype)
    layers = sorted({name.rsplit("/state/", 1)[0] for name in golden.arrays if "/state/" in name})
    for layer in layers:
        wanted = golden.arrays[f"{layer}/{mode}/out"].to(dtype)  # (b, c, l)
        _, channels, length = wanted.shape
        feature = golden.arrays[f"{layer}/input"].to(dtype)
        grid: Grid = "square" if layer.startswith("mmimdb") else "line"
        node = InputNode(feature.shape[1], channels, length, pool="max", grid=grid)
        bmnas.load_reshape_layer(node.to(dtype), golden.tree(f"{layer}/state/"))
        golden.close(node.train(mode == "train")(feature).transpose(1, 2), wanted, layer)


@parameters(lambda path: "lr_schedule" in array_names(path))
def test_learning_rate_schedule(path: Path, dtype: torch.dtype) -> None:
    golden = Golden(path, dtype)
    described = golden.meta["arrays"]["lr_schedule"]["desc"]
    settings = {k: float(v) for k, v in re.findall(r"(\w+)\s*=\s*([\d.e+-]+\d|\d)", described)}
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = bmnas.CosineRestarts(
        optimizer,
        eta_max=settings["eta_max"],
        eta_min=settings["eta_min"],
        period=int(settings["Ti"]),
        factor=int(settings["Tm"]),
        batches_per_epoch=int(settings["epoch"]),
    )
    for wanted in golden.arrays["lr_schedule"].tolist():
        optimizer.step()
        schedule.step()
        assert math.isclose(schedule.get_last_lr()[0], wanted, rel_tol=1e-12)
