"""The cost of architectures: parameters and FLOPs exactly, latency with a clock of our own, and its expectation."""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_mmnas import CostTable, FusionNetwork, FusionSpace, FusionSupernet, Genotype
from lightning_mmnas.costs.measuring import CostKind, count_flops, measure_costs, measure_latency
from lightning_mmnas.errors import CostError, GenotypeError
from lightning_mmnas.fusion.pairing import Pairing
from lightning_mmnas.fusion.primitives import Primitive
from lightning_mmnas.fusion.readout import ReadoutName
from lightning_mmnas.fusion.relaxation import Dirichlet, GumbelHard, Relaxation, Softmax

SHAPES = {"image/0": (3, 8, 8), "image/1": (5, 4, 4), "text/0": (6,)}


class Bilinear(Primitive):
    """A user's own primitive."""

    def __init__(self, channels: int, length: int, dropout: float = 0.0) -> None:
        super().__init__(channels, length, dropout)
        self.weight = nn.Parameter(torch.randn(channels, channels))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * (y @ self.weight)


BILINEAR = f"{Bilinear.__module__}.Bilinear"


def space_of(**changes: object) -> FusionSpace:
    settings: dict[str, object] = {"inputs": tuple(SHAPES), "cells": 2, "channels": 4, "length": 4}
    return FusionSpace(**{**settings, **changes})  # type: ignore[arg-type]


def supernet_of(space: FusionSpace, pairing: Pairing = "independent", scale: float = 1.0) -> FusionSupernet:
    supernet = FusionSupernet(space, SHAPES, pairing)
    generator = torch.Generator().manual_seed(0)
    for logits in supernet.architecture_parameters():
        logits.copy_(scale * torch.randn(logits.shape, generator=generator))
    return supernet


def flops(network: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> int:
    features = {name: torch.ones(1, *shape) for name, shape in shapes.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(features)
    return int(counter.get_total_flops())


SPACES = [
    space_of(primitives=("linear_glu", BILINEAR)),
    space_of(cells=2, cell_outputs=1, primitives=("zero", "concat_fc")),
    space_of(cells=1, steps=2, step_outputs=2, primitives=("sum", "linear_glu")),
    space_of(inputs=("text/0",), cells=1),
]


@pytest.mark.parametrize("readout", ["flatten", "pool", "branch", "neck"])
@pytest.mark.parametrize("space", SPACES)
def test_parameters_and_flops_are_those_of_the_network(space: FusionSpace, readout: ReadoutName) -> None:
    parameters, operations = (CostTable.measure(space, SHAPES, kind, readout) for kind in ("parameters", "flops"))
    for number, genotype in enumerate(space.enumerate()):
        network = FusionNetwork(genotype, SHAPES, readout)
        assert parameters.of(genotype) == sum(p.numel() for p in network.parameters())
        if number % 20 == 0:
            assert operations.of(genotype) == flops(network, SHAPES)


@pytest.mark.parametrize("kind", ["parameters", "flops"])
def test_features_that_need_no_input_nodes(kind: CostKind) -> None:
    space = space_of()
    shapes = dict.fromkeys(space.inputs, (4, 4))
    table = CostTable.measure(space, None, kind, "branch")
    assert set(table.inputs.values()) == {0.0}
    for genotype in itertools.islice(space.enumerate(), 0, None, 40):
        network = FusionNetwork(genotype, None, "branch")
        counted = {"parameters": sum(p.numel() for p in network.parameters()), "flops": flops(network, shapes)}
        assert table.of(genotype) == counted[kind]


def test_flops_in_closed_form() -> None:
    # (b, l, c_in) times (c_in, c), two operations per multiplication and addition; the bias is not counted.
    assert count_flops(nn.Linear(5, 4), (torch.ones(3, 7, 5),)) == 2 * 3 * 7 * 5 * 4
    assert count_flops(nn.LayerNorm(5), (torch.ones(3, 5),)) == 0


def clock(module: nn.Module, arguments: tuple[Any, ...]) -> float:
    """A clock that needs no time: the size of all that goes in and is held."""
    size = sum(a.numel() for a in arguments if isinstance(a, Tensor))
    return 1e-6 * (size + sum(p.numel() for p in module.parameters()))


def test_latency_is_asked_of_every_part_in_eval_mode_and_once_per_shape() -> None:
    asked: list[tuple[str, tuple[int, ...]]] = []

    def listening(module: nn.Module, arguments: tuple[Any, ...]) -> float:
        assert not module.training
        assert all(p.dtype == torch.float64 for p in module.parameters())
        first = arguments[0]
        asked.append((type(module).__name__, tuple((first["image/0"] if isinstance(first, dict) else first).shape)))
        return clock(module, arguments)

    space = space_of(inputs=(*SHAPES, "audio/0"), steps=2, cell_outputs=1)
    shapes = {**SHAPES, "audio/0": SHAPES["text/0"]}
    state = torch.get_rng_state()
    options: dict[str, Any] = {"batch_size": 3, "dtype": torch.float64, "measure": listening}
    table = CostTable.measure(space, shapes, "latency", threads=2, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert asked == [
        *(("InputNode", (3, *shape)) for shape in SHAPES.values()),
        *((name, (3, 4, 4)) for name in ("Sum", "Attention", "LinearGLU", "ConcatFC")),
        ("FusionNetwork", (3, *SHAPES["image/0"])),
    ]
    assert table.inputs["audio/0"] == table.inputs["text/0"] == pytest.approx(1e-6 * (3 * 6 + 6 * 4 + 4 + 8))
    assert table.primitives["sum"] == pytest.approx(1e-6 * 2 * 3 * 4 * 4)
    assert table.conditions is not None
    assert table.conditions.model_dump() == {
        "torch": torch.__version__,
        "device": "cpu",
        "dtype": "float64",
        "threads": 2,
        "batch_size": 3,
    }


def test_what_happens_between_the_parts_is_in_the_rest() -> None:
    seconds = {"InputNode": 3.0, "Sum": 1.0, "FusionNetwork": 50.0}

    def watch(module: nn.Module, _: tuple[Any, ...]) -> float:
        return seconds[type(module).__name__]

    space = space_of(primitives=("sum",), cells=1)
    table = CostTable.measure(space, SHAPES, "latency", measure=watch)
    assert table.fixed == 50 - 2 * 3 - 1
    seconds["FusionNetwork"] = 2.0  # an unlucky clock
    assert CostTable.measure(space, SHAPES, "latency", measure=watch).fixed == 0


def test_latency_of_architectures_is_in_the_order_of_the_clock() -> None:
    space = space_of(primitives=("sum", "concat_fc"))
    table = CostTable.measure(space, SHAPES, "latency", "pool", measure=clock)
    networks = [(table.of(genotype), FusionNetwork(genotype, SHAPES, "pool")) for genotype in space.enumerate()]
    dearest, cheapest = (way(networks, key=lambda pair: pair[0])[1] for way in (max, min))
    assert clock(dearest, ()) > clock(cheapest, ())


def test_the_real_clock_runs() -> None:
    assert 0 < measure_latency(nn.Linear(2, 2), (torch.ones(1, 2),), repeats=3, seconds=1e-4) < 1


def draws(table: CostTable, supernet: FusionSupernet) -> Iterator[tuple[float, float]]:
    """Probability and cost of every choice of pairs and primitives, one by one."""
    space, scores = supernet.space, supernet.logits.scores()
    factors: list[list[tuple[float, Any]]] = []
    for i in range(space.cells):
        pairs = scores.cells[i]
        weights = torch.tensor(list(pairs.values()), dtype=torch.float64).softmax(0).tolist()
        factors.append(
            [(w, {j for j in pair if j < len(space.inputs)}) for w, pair in zip(weights, pairs, strict=True)]
        )
    for i in range(space.cells):
        for row in torch.tensor(scores.variants[i], dtype=torch.float64).softmax(-1).tolist():
            prices = [table.primitives[name] for name, _ in supernet.logits.variants]
            factors.append(list(zip(row, prices, strict=True)))
    for choice in itertools.product(*factors):
        probability = torch.tensor([p for p, _ in choice], dtype=torch.float64).prod().item()
        named = set().union(*(value for _, value in choice if isinstance(value, set)))
        steps = sum(value for _, value in choice if not isinstance(value, set))
        yield probability, table.fixed + steps + sum(table.inputs[space.inputs[j]] for j in named)


@pytest.mark.parametrize("pairing", ["independent", "tied"])
@pytest.mark.parametrize(
    "space",
    [space_of(), space_of(cells=1, steps=2), space_of(inputs=("text/0",), cells=3, primitives=("sum", "concat_fc"))],
)
def test_expectation_is_the_mean_over_all_choices(space: FusionSpace, pairing: Pairing) -> None:
    table, supernet = CostTable.measure(space, SHAPES, "parameters"), supernet_of(space, pairing)
    pairs = list(draws(table, supernet))
    assert sum(p for p, _ in pairs) == pytest.approx(1)
    assert float(table.expected(supernet)) == pytest.approx(sum(p * cost for p, cost in pairs), rel=1e-12)


@pytest.mark.parametrize("pairing", ["independent", "tied"])
@pytest.mark.parametrize("space", SPACES)
def test_one_hot_expectation_is_the_cost(space: FusionSpace, pairing: Pairing) -> None:
    table, supernet = CostTable.measure(space, SHAPES, "parameters"), supernet_of(space, pairing)
    for genotype in itertools.islice(space.enumerate(), 0, None, 10):
        supernet.set_architecture(genotype)
        assert float(table.expected(supernet)) == table.of(genotype)


@pytest.mark.parametrize("relaxation", [Softmax(0.3), GumbelHard(), Dirichlet()])
def test_expectation_goes_by_the_weights_without_chance(relaxation: Relaxation) -> None:
    space = space_of()
    table, supernet = (
        CostTable.measure(space, SHAPES, "parameters"),
        FusionSupernet(space, SHAPES, relaxation=relaxation),
    )
    genotype = next(space.enumerate())
    assert float(table.relative(supernet)) == pytest.approx(1)
    for scale in (1.0, 2.0):
        for logits in supernet.architecture_parameters():
            logits.copy_(scale * torch.linspace(-1, 1, logits.numel()).view_as(logits))
        expected = sum(p * cost for p, cost in draws(table, supernet))
        assert float(table.expected(supernet)) == float(table.expected(supernet)) == pytest.approx(expected, rel=1e-12)
    supernet.set_architecture(genotype)
    assert float(table.expected(supernet)) == table.of(genotype)


@pytest.mark.parametrize("pairing", ["independent", "tied"])
def test_gradient_of_the_expectation(pairing: Pairing) -> None:
    space = space_of(steps=2)
    table, supernet = CostTable.measure(space, SHAPES, "parameters"), supernet_of(space, pairing).double()
    assert float(table.relative(FusionSupernet(space, SHAPES, pairing))) == pytest.approx(1)
    logits = supernet.architecture_parameters()
    for parameter in logits:
        parameter.requires_grad_()
    gradients = torch.autograd.grad(table.relative(supernet), logits, allow_unused=True)
    for group, costs in ((supernet.logits.alpha, True), (supernet.logits.beta, False), (supernet.logits.gamma, True)):
        for parameter in group:
            found = gradients[next(k for k, p in enumerate(logits) if p is parameter)]
            assert (found is not None and bool((found != 0).all())) == costs
    for parameter, gradient in zip(logits, gradients, strict=True):
        flat = parameter.data.view(-1)
        for k in range(len(flat)):
            values = []
            for step in (1e-5, -1e-5):
                flat[k] += step
                values.append(float(table.relative(supernet).detach()))
                flat[k] -= step
            numeric = (values[0] - values[1]) / 2e-5
            assert numeric == pytest.approx(0.0 if gradient is None else float(gradient.view(-1)[k]), abs=1e-8)


@pytest.mark.parametrize(("pairing", "coverage"), [("independent", False), ("tied", False), ("independent", True)])
def test_cost_alone_leads_to_the_cheapest(pairing: Pairing, coverage: bool) -> None:
    inputs = ("image/0", "image/1", "text/0", "text/1")
    space = space_of(inputs=inputs, cells=1)
    table = CostTable(
        kind="parameters",
        space=space,
        readout="pool",
        inputs=dict(zip(inputs, (10, 20, 50, 70), strict=True)),
        primitives={"sum": 5, "attention": 3, "linear_glu": 40, "concat_fc": 20},
        fixed=7,
    )
    supernet = FusionSupernet(space, None, pairing)
    logits = supernet.architecture_parameters()
    for parameter in logits:
        parameter.requires_grad_()
    optimizer = torch.optim.Adam(logits, lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        table.relative(supernet).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    legal = [g for g in space.enumerate() if not coverage or len(g.modalities_read()) == 2]
    found = supernet.decode(coverage=coverage)
    assert table.of(found) == min(map(table.of, legal)) == (70 if coverage else 40)
    assert not coverage or float(table.expected(supernet).detach()) < 0.6 * sum(map(table.of, legal)) / len(legal)


def test_what_costs_nothing_is_relative_to_nothing() -> None:
    space = space_of(primitives=("sum",))
    table = CostTable.measure(space, None, "parameters")
    assert float(table.relative(FusionSupernet(space, None))) == 0


def test_file_holds_the_table(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    for table in (
        CostTable.measure(space_of(), SHAPES, "flops"),
        CostTable.measure(space_of(), SHAPES, "latency", measure=clock, threads=1),
    ):
        table.save(path)
        assert CostTable.load(path) == table
        assert json.loads(path.read_text())["kind"] == table.kind


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "watts"}, r"costs.json: kind: .*'watts' was given"),
        ({"inputs": {"text/0": 1}}, r"inputs: costs of \['text/0'\] given, but the space has \['image/0', 'image/1'"),
        ({"fixed": -1}, "fixed: .*greater than or equal to 0, but -1 was given"),
        ({"speed": 1}, "speed: unknown key"),
    ],
)
def test_files_that_are_no_table_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    table = CostTable.measure(space_of(), SHAPES, "parameters")
    path.write_text(json.dumps({**json.loads(table.model_dump_json()), **change}))
    with pytest.raises(CostError, match=message):
        CostTable.load(path)


def test_missing_file_and_no_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CostError, match=r"none.json: cannot be read: No such file.*written by CostTable.save"):
        CostTable.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(CostError, match=r"bad.json: .*JSON"):
        CostTable.load(tmp_path / "bad.json")


def test_other_spaces_are_refused() -> None:
    table = CostTable.measure(space_of(), SHAPES, "parameters")
    other: Genotype = next(space_of(channels=8).enumerate())
    with pytest.raises(GenotypeError, match="channels differ: 8 in the genotype, 4 expected"):
        table.of(other)
    with pytest.raises(CostError, match=r"another space than the supernet; measure it for supernet.space"):
        table.expected(FusionSupernet(space_of(channels=8), SHAPES))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "energy"}, "cost 'energy' is unknown; accepted: 'parameters', 'flops', 'latency'"),
        ({"batch_size": 0}, "at least 1, got 0 and 1"),
        ({"feature_shapes": {"image/0": (3, 8, 8)}}, r"inputs \['image/1', 'text/0'\] .* no shape; given .*image/0"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    arguments = {"feature_shapes": SHAPES, "kind": "latency", "threads": 1, **options}
    with pytest.raises(CostError, match=message):
        measure_costs(space_of(), **arguments)
