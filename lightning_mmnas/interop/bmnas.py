"""BM-NAS's weights, logits, genotypes and learning-rate schedule, read into ours.

Written from the paper (Yin, Huang, Zhang, AAAI 2022, arXiv 2104.09379) and from numbers that its released code
produces. BM-NAS keeps tensors as (b, c, l); ours are (b, l, c), so its (c, l) LayerNorms are transposed, and its 1x1
convolutions on [x; y] become two matrices.
"""

import ast
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mmnas.errors import CheckpointError, GenotypeError
from lightning_mmnas.fusion.input_nodes import InputNode
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.fusion.pairing import TiedPairing
from lightning_mmnas.fusion.supernet import FusionSupernet
from lightning_mmnas.space.genotype import CellGenotype, FusionSpace, Genotype, StepGenotype

PRIMITIVES = {
    "Sum": "sum",
    "ScaleDotAttn": "attention",
    "LinearGLU": "linear_glu",
    "ConcatFC": "concat_fc",
}
"""BM-NAS's names of the primitives and ours."""

_CELL = re.compile(r"(?:^|.*\.)cell\._step_nodes\.(\d+)\.node_cell\.(.+)")
_STEP = re.compile(r"node_ops\.(\d+)\.(?:_ops\.(\d+)\.)?(.+)")
_TAIL = re.compile(r"(?:^|.*\.)cell\.ln\.(weight|bias)")


def convert_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames and reshapes the entries of a BM-NAS fusion state dict; linear, so it serves for gradients too.

    Args:
        state: Entries ``[…]cell._step_nodes.…`` and ``[…]cell.ln.…`` of a supernet or of a found network; any
            prefix is dropped, other entries are left out.

    Returns:
        Entries by the names of `FusionSupernet` or `FusionNetwork` with the ``"flatten"`` readout.

    Raises:
        CheckpointError: No entry of the fusion part, or an entry of an unknown name or number of axes in it.
    """
    converted: dict[str, Tensor] = {}
    for name, value in state.items():
        try:
            if tail := _TAIL.fullmatch(name):
                converted[f"readout.norm.{tail[1]}"] = value.t()
            elif cell := _CELL.fullmatch(name):
                _convert_cell_entry(f"cells.{cell[1]}", cell[2], name, value, converted)
        except (IndexError, RuntimeError):
            raise CheckpointError(f"entry {name!r} of a BM-NAS state dict has the shape {tuple(value.shape)}") from None
    if not converted:
        raise CheckpointError(
            "no BM-NAS fusion weights among the entries: expected names such as "
            f"'cell._step_nodes.0.node_cell.ln.weight', found {sorted(state)[:3]}"
        )
    return converted


def _convert_cell_entry(prefix: str, rest: str, name: str, value: Tensor, converted: dict[str, Tensor]) -> None:
    step = _STEP.fullmatch(rest)
    if step:
        prefix = f"{prefix}.steps.{step[1]}" + (f".{step[2]}" if step[2] is not None else "")
        rest = step[3]
    else:
        prefix = f"{prefix}.output"
    layer, _, entry = rest.rpartition(".")
    if layer == "ln" and entry in ("weight", "bias"):
        converted[f"{prefix}.norm.{entry}"] = value.t()
    elif layer == "bn":
        converted[f"{prefix}.{'norm' if step else 'batch_norm'}.{entry}"] = value
    elif layer == "conv" and entry == "weight":
        columns = value[..., 0]
        half = columns.shape[1] // 2
        converted[f"{prefix}.linear.weight_x"], converted[f"{prefix}.linear.weight_y"] = columns.tensor_split([half], 1)
    elif layer == "out_conv" and entry == "weight":
        converted[f"{prefix}.linear.weight"] = value[..., 0]
    elif layer in ("conv", "out_conv") and entry == "bias":
        converted[f"{prefix}.linear.bias"] = value
    else:
        raise CheckpointError(f"unknown entry {name!r} in a BM-NAS fusion state dict")


def load_state_dict(model: FusionSupernet | FusionNetwork, state: Mapping[str, Tensor]) -> None:
    """Loads the fusion part of a BM-NAS state dict; input nodes and heads are left as they are.

    Args:
        model: A tied supernet, or the network of a BM-NAS genotype, with the ``"flatten"`` readout.
        state: BM-NAS's state dict, of the supernet or of the found network respectively.

    Raises:
        CheckpointError: The weights are of another architecture.
    """
    converted = convert_state_dict(state)
    wanted = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if name.startswith(("cells.", "readout."))
    }
    given = {name: tuple(value.shape) for name, value in converted.items()}
    if wanted != given:
        wrong = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
        raise CheckpointError(
            f"BM-NAS weights of another architecture: {len(wrong)} entries differ, first {wrong[0]!r}: "
            f"the model has {wanted.get(wrong[0])}, the checkpoint {given.get(wrong[0])}"
        )
    model.load_state_dict(converted, strict=False)


@torch.no_grad()
def load_logits(supernet: FusionSupernet, logits: Mapping[str, Tensor]) -> None:
    """Loads BM-NAS's architecture logits into a tied supernet.

    Args:
        supernet: A supernet with ``pairing="tied"``.
        logits: ``alphas`` (sum over cells of n + i, 2), ``betas.i`` and ``gammas.i`` for every cell i.

    Raises:
        CheckpointError: Another pairing, or logits of another space.
    """
    if not isinstance(supernet.logits, TiedPairing):
        raise CheckpointError("BM-NAS's logits fit a supernet with pairing='tied' only")
    for name, parameter in convert_logits(supernet.space, logits).items():
        supernet.logits.get_parameter(name).copy_(parameter)


def convert_logits(space: FusionSpace, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Splits BM-NAS's logits (or their gradients) into the parameters of `TiedPairing`, by name.

    Raises:
        CheckpointError: Entries are missing or of another size.
    """
    n, cells, steps = len(space.inputs), space.cells, space.steps
    edges = [n + i for i in range(cells)]
    shapes = {"alphas": (sum(edges), 2)}
    for i in range(cells):
        shapes[f"betas.{i}"] = (sum(2 + t for t in range(steps)), 2)
        shapes[f"gammas.{i}"] = (steps, len(space.primitives))
    for name, shape in shapes.items():
        if name not in logits or tuple(logits[name].shape) != shape:
            found = tuple(logits[name].shape) if name in logits else "nothing"
            raise CheckpointError(f"BM-NAS logits of another space: {name} must have shape {shape}, found {found}")
    converted = {f"alpha.{i}": part for i, part in enumerate(torch.split(logits["alphas"], edges))}
    for i in range(cells):
        converted[f"beta.{i}"], converted[f"gamma.{i}"] = logits[f"betas.{i}"], logits[f"gammas.{i}"]
    return converted


def load_reshape_layer(node: InputNode, state: Mapping[str, Tensor]) -> None:
    """Loads one of BM-NAS's reshape layers (entries ``conv.*`` and ``bn.*``) into an input node.

    Raises:
        CheckpointError: Entries are missing or of another size.
    """
    converted = {
        name.replace("conv.", "linear.").replace("bn.", "norm."): value[..., 0] if value.ndim == 3 else value
        for name, value in state.items()
    }
    try:
        node.load_state_dict(converted)
    except RuntimeError as error:
        raise CheckpointError(f"not the weights of this BM-NAS reshape layer: {error}") from None


def parse_genotype(
    text: str, inputs: Sequence[str], channels: int, length: int, primitives: Sequence[str] | None = None
) -> Genotype:
    """Reads a BM-NAS genotype from the text that its logs print; the text is parsed, never evaluated.

    Args:
        text: Holds ``Genotype(edges=[('skip', 1), …], concat=[…], steps=[StepGenotype(…), …])``.
        inputs: Our names of BM-NAS's input features, in its order.
        channels: c, which the text does not tell.
        length: l, which the text does not tell.
        primitives: Primitives of the space, by default BM-NAS's four.

    Raises:
        GenotypeError: No such text, or a genotype that does not fit the inputs.

    Examples:
        >>> text = "Genotype(edges=[('skip', 0), ('skip', 1)], concat=[2], steps=[StepGenotype("
        >>> text += "inner_edges=[('skip', 1), ('skip', 0)], inner_steps=['ScaleDotAttn'], inner_concat=[2])])"
        >>> parse_genotype(text, ["image", "text"], channels=192, length=16).cells[0].steps[0].inputs
        ('y', 'x')
    """
    try:
        fields = _literal(_find_call(text))
    except RecursionError:
        raise GenotypeError("BM-NAS genotype: nested too deeply to be one") from None
    try:
        return genotype_from_fields(fields, inputs, channels, length, primitives)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, GenotypeError):
            raise
        raise GenotypeError(f"BM-NAS genotype: missing or malformed part {error}") from None


def genotype_from_fields(
    fields: Mapping[str, Any],
    inputs: Sequence[str],
    channels: int,
    length: int,
    primitives: Sequence[str] | None = None,
) -> Genotype:
    """Builds our genotype from BM-NAS's fields ``edges``, ``concat`` and ``steps`` given as plain values.

    Raises:
        GenotypeError: A primitive is unknown, an index is out of range, or outputs are not the last ones.
    """
    n, steps = len(inputs), fields["steps"]
    names = [*inputs, *(f"cell{i}" for i in range(len(steps)))]
    inner_steps = len(steps[0]["inner_steps"])
    states = ["x", "y", *(f"step{t}" for t in range(inner_steps))]
    concat, inner_concat = list(fields["concat"]), list(steps[0]["inner_concat"])
    _require_last(concat, len(names), "concat")
    _require_count(fields["edges"], 2 * len(steps), "edges")
    space = FusionSpace(
        inputs=tuple(inputs),
        cells=len(steps),
        steps=inner_steps,
        cell_outputs=len(concat),
        step_outputs=len(inner_concat),
        channels=channels,
        length=length,
        primitives=tuple(primitives or PRIMITIVES.values()),
    )
    cells = []
    for i, step in enumerate(steps):
        _require_last(list(step["inner_concat"]), len(states), f"steps[{i}].inner_concat")
        _require_count(step["inner_edges"], 2 * len(step["inner_steps"]), f"steps[{i}].inner_edges")
        edges = [index for _, index in fields["edges"][2 * i : 2 * i + 2]]
        inner = [index for _, index in step["inner_edges"]]
        for index, accepted in [(e, n + i) for e in edges] + [(e, len(states)) for e in inner]:
            if not 0 <= index < accepted:
                raise GenotypeError(
                    f"BM-NAS genotype, steps[{i}]: index {index} is out of range, {accepted} states exist "
                    f"({n} inputs were named)"
                )
        unknown = [name for name in step["inner_steps"] if name not in PRIMITIVES]
        if unknown:
            raise GenotypeError(f"BM-NAS genotype: primitives {unknown} are not in {sorted(PRIMITIVES)}")
        cells.append(
            CellGenotype(
                inputs=(names[edges[0]], names[edges[1]]),
                steps=tuple(
                    StepGenotype(inputs=(states[inner[2 * t]], states[inner[2 * t + 1]]), primitive=PRIMITIVES[name])
                    for t, name in enumerate(step["inner_steps"])
                ),
            )
        )
    genotype = Genotype(space=space, cells=tuple(cells), compatibility="bmnas")
    space.validate(genotype)
    return genotype


class CosineRestarts(torch.optim.lr_scheduler.LRScheduler):
    """BM-NAS's learning-rate schedule: cosine with restarts, stepped once per batch.

    Differs from torch's ``CosineAnnealingWarmRestarts``: the restart happens when the minimum was reached, and that
    step still has the minimum.

    Args:
        optimizer: The optimiser; all its groups get the same rate.
        eta_max: Largest learning rate, > eta_min.
        eta_min: Smallest learning rate, >= 0.
        period: Length of the first period, epochs; T_i.
        factor: Each period is this many times longer than the one before; T_m.
        batches_per_epoch: Steps of one epoch.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        eta_max: float = 1e-3,
        eta_min: float = 1e-6,
        period: int = 1,
        factor: int = 2,
        batches_per_epoch: int = 1,
    ) -> None:
        self.eta_max, self.eta_min = eta_max, eta_min
        self.period, self.factor = period, factor
        self.batches_per_epoch = batches_per_epoch
        self.iteration = -1  # the constructor of the base class takes one step, before the first batch
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The rate of the next step, for every group."""
        now = max(self.iteration, 0) / self.batches_per_epoch
        rate = self.eta_min + (self.eta_max - self.eta_min) * (1 + math.cos(math.pi * now / self.period)) / 2
        self.iteration += 1
        if self.iteration > 0 and rate <= self.eta_min + 1e-10:
            self.period *= self.factor
            self.iteration = 0
        return [rate] * len(self.optimizer.param_groups)


def _require_last(indices: list[int], total: int, place: str) -> None:
    if not indices or indices != list(range(total - len(indices), total)):
        raise GenotypeError(
            f"BM-NAS genotype, {place}: {indices} are not the last of {total} states; "
            "check that all input features were named"
        )


def _require_count(edges: Sequence[Any], count: int, place: str) -> None:
    if len(edges) != count:
        raise GenotypeError(f"BM-NAS genotype, {place}: {len(edges)} given, but there must be two per step, {count}")


def _find_call(text: str) -> ast.Call:
    """The first ``Genotype(…)`` of the text that parses."""
    for match in re.finditer(r"\bGenotype\(", text):
        depth = 0
        for end in range(match.end() - 1, len(text)):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            if depth == 0:
                break
        try:
            call = ast.parse(" ".join(text[match.start() : end + 1].split()), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if isinstance(call, ast.Call):
            return call
    raise GenotypeError("no BM-NAS genotype found: the text must hold 'Genotype(edges=[…], concat=[…], steps=[…])'")


def _literal(node: ast.expr) -> Any:
    """The value of a literal, where a call with keywords is a dict and ``range(a, b)`` a list."""
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "range" and not node.keywords:
            numbers = [_literal(argument) for argument in node.args]
            if len(numbers) in (1, 2) and all(isinstance(x, int) and 0 <= x < 10_000 for x in numbers):
                return list(range(*numbers))
        elif name.endswith("Genotype") and not node.args and all(k.arg for k in node.keywords):
            return {str(k.arg): _literal(k.value) for k in node.keywords}
    elif isinstance(node, ast.List | ast.Tuple):
        return [_literal(element) for element in node.elts]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str | int):
        return node.value
    raise GenotypeError(f"BM-NAS genotype: {ast.unparse(node)[:60]!r} is not a plain value")


__all__ = [
    "PRIMITIVES",
    "CosineRestarts",
    "convert_logits",
    "convert_state_dict",
    "genotype_from_fields",
    "load_logits",
    "load_reshape_layer",
    "load_state_dict",
    "parse_genotype",
]
