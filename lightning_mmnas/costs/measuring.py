"""What the parts of fusion networks cost: counted, or measured on the device at hand."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_mmnas.errors import CostError
from lightning_mmnas.fusion.decoding import decode
from lightning_mmnas.fusion.input_nodes import Grid, InputNode, Pool
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.fusion.pairing import IndependentPairing
from lightning_mmnas.fusion.primitives import build_primitive
from lightning_mmnas.fusion.readout import ReadoutName
from lightning_mmnas.space.genotype import FusionSpace
from lightning_mmnas.space.value import Value

Measure = Callable[[nn.Module, tuple[Any, ...]], float]
"""(module, its arguments) -> cost of one call."""


CostKind = Literal["parameters", "flops", "latency"]


class Conditions(Value):
    """Under which a latency was measured; no names of machines or devices.

    Attributes:
        torch: Version of torch.
        device: Type of the device, such as "cpu" or "cuda".
        dtype: Of weights and features, such as "float32".
        threads: Threads of an operator on the CPU.
        batch_size: Samples that went through the network together.
    """

    torch: str
    device: str
    dtype: str
    threads: int
    batch_size: int


def count_parameters(module: nn.Module, arguments: tuple[Any, ...] = ()) -> float:
    """Numbers in the parameters of a module; buffers do not count."""
    return float(sum(parameter.numel() for parameter in module.parameters()))


def count_flops(module: nn.Module, arguments: tuple[Any, ...]) -> float:
    """Floating-point operations of one call, two per multiplication and addition.

    By ``torch.utils.flop_counter``, which knows matrix products and convolutions only: normalisation, pooling,
    activations and sums count as nothing.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*arguments)
    return float(counter.get_total_flops())


def measure_latency(
    module: nn.Module, arguments: tuple[Any, ...], threads: int = 1, repeats: int = 9, seconds: float = 0.03
) -> float:
    """Seconds of one call without gradients: the median of several repeats.

    By ``torch.utils.benchmark``, which warms up before each repeat and waits for the accelerator.

    Args:
        module: What is called, in eval mode.
        arguments: Its arguments, on its device.
        threads: Threads of an operator on the CPU.
        repeats: Number of repeats.
        seconds: About how long a repeat takes; its calls are averaged.
    """
    from torch.utils.benchmark import Timer  # looks for a compiler and for CUDA, and may warn

    timer = Timer("module(*arguments)", globals={"module": module, "arguments": arguments}, num_threads=threads)
    with torch.inference_mode():
        calls = max(1, int(seconds / timer.timeit(5).mean))
        return float(median(timer.timeit(calls).mean for _ in range(repeats)))


def measure_costs(
    space: FusionSpace,
    feature_shapes: Mapping[str, Sequence[int]] | None,
    kind: CostKind,
    readout: ReadoutName = "branch",
    pool: Pool = "max",
    grid: Grid = "auto",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 1,
    threads: int | None = None,
    measure: Measure | None = None,
) -> dict[str, Any]:
    """Counts or measures every part once, in eval mode; equal input nodes share one measurement.

    The fixed rest is what one whole network costs beyond its parts, so that for latency it takes in what happens
    between the parts. The global random generator is left as it is.

    Args:
        space: The space whose networks are asked about.
        feature_shapes: Shape of each feature without the batch axis, (c_in, *rest), by name; None: features are
            (b, l, c) already and there are no input nodes.
        kind: ``"parameters"``, ``"flops"`` or ``"latency"``.
        readout: Readout of the networks.
        pool: See `InputNode`.
        grid: See `InputNode`.
        device: Where latency is measured.
        dtype: Of weights and features, for latency.
        batch_size: Samples in a batch, for latency; parameters have none, and FLOPs are per sample.
        threads: Threads of an operator on the CPU, for latency; None: torch's present number.
        measure: What takes the place of the kind's own way of measuring.

    Returns:
        The fields of a `CostTable`.

    Raises:
        CostError: An unknown kind, or a batch size or thread count below 1.
        GenotypeError: An input without a shape, or an unknown primitive.
    """
    threads = torch.get_num_threads() if threads is None else threads
    if kind not in ("parameters", "flops", "latency"):
        raise CostError(f"cost {kind!r} is unknown; accepted: 'parameters', 'flops', 'latency'")
    if batch_size < 1 or threads < 1:
        raise CostError(f"batch_size and threads must be at least 1, got {batch_size} and {threads}")
    timed = kind == "latency"
    b = batch_size if timed else 1
    place: dict[str, Any] = {"device": device, "dtype": dtype} if timed else {}
    ways: dict[str, Measure] = {
        "parameters": count_parameters,
        "flops": count_flops,
        "latency": lambda module, arguments: measure_latency(module, arguments, threads),
    }
    way = measure or ways[kind]

    def cost(module: nn.Module, *arguments: Any) -> float:
        return way(module.eval().to(**place) if timed else module.eval(), arguments)

    def rand(*shape: int) -> Tensor:
        return torch.rand(b, *shape).to(**place)

    c, l = space.channels, space.length  # noqa: E741
    missing = [name for name in space.inputs if feature_shapes is not None and name not in feature_shapes]
    if missing:
        raise CostError(f"inputs {missing} of the space have no shape; given are {sorted(feature_shapes or {})}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        x, y = rand(l, c), rand(l, c)
        inputs = dict.fromkeys(space.inputs, 0.0)
        if feature_shapes is not None:
            shapes = {name: tuple(feature_shapes[name]) for name in space.inputs}
            found = {
                shape: cost(InputNode(shape[0], c, l, 0.0, pool, grid), rand(*shape))
                for shape in dict.fromkeys(shapes.values())
            }
            inputs = {name: found[shape] for name, shape in shapes.items()}
        primitives = {name: cost(build_primitive(name, c, l, 0.0), x, y) for name in space.primitives}
        logits = IndependentPairing(space)
        some = decode(logits.scores(), space, logits.variants, coverage=False)
        features = {name: rand(*(feature_shapes[name] if feature_shapes else (l, c))) for name in space.inputs}
        whole = cost(FusionNetwork(some, feature_shapes, readout, 0.0, pool, grid), features)
        named = {name for cell in some.cells for name in cell.inputs}
        steps = [primitives[step.primitive] for cell in some.cells for step in cell.steps]
        fixed = max(0.0, whole - sum(inputs[name] for name in space.inputs if name in named) - sum(steps))
    conditions = Conditions(
        torch=torch.__version__,
        device=torch.device(device).type,
        dtype=str(dtype).removeprefix("torch."),
        threads=threads,
        batch_size=batch_size,
    )
    return {
        "kind": kind,
        "space": space,
        "readout": readout,
        "inputs": inputs,
        "primitives": primitives,
        "fixed": fixed,
        "conditions": conditions if timed else None,
    }
