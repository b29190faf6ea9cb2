"""Architecture logits and what they mix: which inputs a cell and a step read, and which primitive a step applies.

Two parametrisations of the same space. In `TiedPairing` (the released BM-NAS code) one weighted sum is fed as both
inputs while searching. In `IndependentPairing` both inputs have their own logits, so that what is searched is what
is built.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from lightning_mmnas.fusion.decoding import Scores
from lightning_mmnas.fusion.relaxation import Relaxation, Softmax
from lightning_mmnas.space.genotype import FusionSpace, Genotype, StepGenotype
from lightning_mmnas.space.primitive_names import is_symmetric

Pairing = Literal["tied", "independent"]

_ONE_HOT = 1e4
"""A logit so large that it and its negative give weights of exactly 1 and 0 in every floating-point type."""


def _logits(*shape: int) -> nn.Parameter:
    """Zero logits that only `ArchitectureAlternation` ever turns on."""
    return nn.Parameter(torch.zeros(*shape), requires_grad=False)


class PairingLogits(nn.Module):
    """What both parametrisations share: three lists of logits and the way they become mixture weights.

    Args:
        space: The search space.
        variants: (primitive, swapped), what a step can be, in the order of gamma's columns.
        relaxation: Logits to mixture weights; by default `Softmax`.
    """

    def __init__(self, space: FusionSpace, variants: list[tuple[str, bool]], relaxation: Relaxation | None) -> None:
        super().__init__()
        self.space = space
        self.variants = variants
        self.relaxation = relaxation or Softmax()
        self.alpha, self.beta = nn.ParameterList(), nn.ParameterList()
        self.gamma = nn.ParameterList(_logits(space.steps, len(variants)) for _ in range(space.cells))

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Logits stay in float32 where weights are converted to less (``bf16-true``): small steps would vanish."""
        before = [(logit, logit.data) for logit in self.parameters()]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for logit, values in before:
            if torch.finfo(logit.dtype).bits < 32:
                logit.data = values.to(logit.device, torch.promote_types(values.dtype, torch.float32))
        return self

    def cell_weights(self, i: int) -> Tensor:
        """Weights of (input nodes, earlier cells) in x and y of cell i, shape (2, n + i); one row if x is y."""
        raise NotImplementedError

    def step_weights(self, i: int, t: int) -> Tensor | None:
        """Weights of (x, y, earlier steps) in both inputs of step t of cell i, (2, 2 + t); None: exactly x and y."""
        raise NotImplementedError

    def step_logits(self, i: int, t: int) -> Tensor:
        """Logits of the inputs of step t of cell i, as `beta` holds them."""
        raise NotImplementedError

    def primitive_weights(self, i: int) -> Tensor:
        """Weights of the variants in cell i, shape (steps, variants)."""
        weights: Tensor = self.relaxation(self.gamma[i])
        return weights

    def scores(self) -> Scores:
        """Log-weights of every choice that decoding has, in float64."""
        raise NotImplementedError

    def read_probabilities(self, i: int) -> Tensor:
        """Probability that cell i reads each candidate, (n + i,), of pairs drawn as decoding scores them.

        Differentiable, in float64 where the device has it; sums to 2, or to 1 where there is one candidate only.
        """
        raise NotImplementedError

    def primitive_probabilities(self, i: int) -> Tensor:
        """Probability of each variant in cell i, (steps, variants), as decoding scores them; differentiable."""
        return self._log_weights(self.gamma[i]).exp()

    def set(self, genotype: Genotype) -> None:
        """Makes the logits one-hot at the genotype."""
        raise NotImplementedError

    def undecided(self) -> "PairingLogits":
        """The same parametrisation before any search: all logits zero."""
        return build_pairing("tied" if isinstance(self, TiedPairing) else "independent", self.space, None)

    def variant_of(self, step: StepGenotype) -> int:
        """Index of the variant that a genotype's step is."""
        swapped = self._later_first(step) and (step.primitive, True) in self.variants
        return self.variants.index((step.primitive, swapped))

    def is_turned(self, step: StepGenotype) -> bool:
        """Whether a step of a symmetric primitive is written with the later input first, its variant the other way."""
        return is_symmetric(step.primitive) and self._later_first(step)

    def _later_first(self, step: StepGenotype) -> bool:
        states = self.space.step_candidates(self.space.steps)
        return states.index(step.inputs[0]) > states.index(step.inputs[1])

    def _log_weights(self, logits: Tensor) -> Tensor:
        """Log-weights without chance, differentiable; in float64 except on Apple's devices, which have none."""
        return self.relaxation.log_mean(logits if logits.device.type == "mps" else logits.double())

    def _gamma_scores(self) -> list[list[list[float]]]:
        return [self._log_weights(gamma.detach().cpu()).tolist() for gamma in self.gamma]


class TiedPairing(PairingLogits):
    """BM-NAS's logits: every edge has its own softmax over (none, skip), and x is y while searching.

    alpha[i]: (n + i, 2), the edges of cell i from the n input nodes and the i earlier cells.
    beta[i]: (sum over t of 2 + t, 2), the edges inside cell i, step by step.
    gamma[i]: (steps, primitives).

    Args:
        space: The search space.
        relaxation: Logits to mixture weights.
    """

    def __init__(self, space: FusionSpace, relaxation: Relaxation | None = None) -> None:
        # Swapping u and u changes nothing, so each primitive is one variant.
        super().__init__(space, [(name, False) for name in space.primitives], relaxation)
        n, steps = len(space.inputs), space.steps
        self.alpha = nn.ParameterList(_logits(n + i, 2) for i in range(space.cells))
        self.beta = nn.ParameterList(_logits(sum(2 + t for t in range(steps)), 2) for _ in range(space.cells))

    def cell_weights(self, i: int) -> Tensor:
        """Weights of (input nodes, earlier cells) in the one input of cell i, shape (1, n + i)."""
        weights: Tensor = self.relaxation(self.alpha[i])
        return weights[:, 1][None]

    def step_weights(self, i: int, t: int) -> Tensor | None:
        """Weights of (x, y, earlier steps) in the one input of step t of cell i, shape (1, 2 + t)."""
        weights: Tensor = self.relaxation(self.step_logits(i, t))
        return weights[:, 1][None]

    def step_logits(self, i: int, t: int) -> Tensor:
        """Logits of the edges into step t of cell i, (2 + t, 2)."""
        offset = sum(2 + earlier for earlier in range(t))
        rows: Tensor = self.beta[i][offset : offset + 2 + t]
        return rows

    @torch.no_grad()
    def scores(self) -> Scores:
        """Log-weights of every choice that decoding has, in float64: an edge pair scores the product of its edges."""

        def pairs(logits: Tensor) -> dict[tuple[int, int], float]:
            log_skip = self._log_weights(logits.cpu())[:, 1].tolist()
            count = len(log_skip)
            if count == 1:
                return {(0, 0): 2 * log_skip[0]}
            return {(j, k): log_skip[j] + log_skip[k] for j in range(count) for k in range(j + 1, count)}

        cells, steps = range(self.space.cells), range(self.space.steps)
        return Scores(
            cells=[pairs(self.alpha[i]) for i in cells],
            steps=[[pairs(self.step_logits(i, t)) for t in steps] for i in cells],
            variants=self._gamma_scores(),
        )

    def read_probabilities(self, i: int) -> Tensor:
        """Probability that cell i reads each candidate, (n + i,); see `PairingLogits`."""
        skip = self._log_weights(self.alpha[i])[:, 1]
        if len(skip) == 1:
            return torch.ones_like(skip)
        pairs = _legal(skip[:-1, None] + skip[1:])
        return _shift(torch.stack([pairs.sum(1), pairs.sum(0)])).sum(0)

    @torch.no_grad()
    def edge_weights(self) -> tuple[list[list[float]], list[list[list[float]]], list[list[list[float]]]]:
        """Mixture weights in float64 as the published decoding compares them.

        Returns:
            Per cell, the skip weight of each edge; per cell and step, the skip weight of each edge; per cell and
            step, the weight of each primitive.
        """

        def weights(logits: Tensor) -> Tensor:
            return self.relaxation.mean(logits.cpu().double())

        cells, steps = range(self.space.cells), range(self.space.steps)
        return (
            [weights(self.alpha[i])[:, 1].tolist() for i in cells],
            [[weights(self.step_logits(i, t))[:, 1].tolist() for t in steps] for i in cells],
            [weights(self.gamma[i]).tolist() for i in cells],
        )

    @torch.no_grad()
    def set(self, genotype: Genotype) -> None:
        """Sets the logits so that decoding returns the genotype; the supernet still feeds one sum as x and y."""
        chosen = _indices(self.space, genotype)
        for i, (pair, steps) in enumerate(chosen):
            for edges in (self.alpha[i], self.beta[i]):
                edges.copy_(torch.tensor([_ONE_HOT, -_ONE_HOT]))
            self.gamma[i].fill_(-_ONE_HOT)
            for j in pair:
                self.alpha[i][j] = torch.tensor([-_ONE_HOT, _ONE_HOT])
            for t, (inputs, primitive) in enumerate(steps):
                for j in inputs:
                    self.step_logits(i, t)[j] = torch.tensor([-_ONE_HOT, _ONE_HOT])
                self.gamma[i][t, self.variants.index((primitive, False))] = _ONE_HOT


class IndependentPairing(PairingLogits):
    """Separate logits for both inputs: x chooses among all candidates but the last, y among all but the first.

    As published, x is the earlier of the two candidates of a cell (it carries the residual), so the two rows of
    logits cover exactly the legal pairs. A primitive whose inputs are not interchangeable stands twice among a
    step's variants, once in each order.

    alpha[i]: (2, n + i - 1), rows x and y ((2, 1) where there is one candidate only).
    beta[i (steps - 1) + t - 1]: (2, 1 + t), rows first and second input of step t >= 1; step 0 always reads x and y.
    gamma[i]: (steps, variants).

    Args:
        space: The search space.
        relaxation: Logits to mixture weights.
    """

    def __init__(self, space: FusionSpace, relaxation: Relaxation | None = None) -> None:
        variants = [
            (name, swapped)
            for name in space.primitives
            for swapped in ((False,) if is_symmetric(name) else (False, True))
        ]
        super().__init__(space, variants, relaxation)
        n, steps = len(space.inputs), space.steps
        self.alpha = nn.ParameterList(_logits(2, max(n + i - 1, 1)) for i in range(space.cells))
        self.beta = nn.ParameterList(_logits(2, 1 + t) for _ in range(space.cells) for t in range(1, steps))

    def cell_weights(self, i: int) -> Tensor:
        """Weights of (input nodes, earlier cells) in x and in y of cell i, shape (2, n + i)."""
        weights: Tensor = self.relaxation(self.alpha[i])
        return weights if len(self.space.inputs) + i == 1 else _shift(weights)

    def step_weights(self, i: int, t: int) -> Tensor | None:
        """Weights of (x, y, earlier steps) in both inputs of step t of cell i, (2, 2 + t); None: exactly x and y."""
        if t == 0:
            return None
        return _shift(self.relaxation(self.step_logits(i, t)))

    def step_logits(self, i: int, t: int) -> Tensor:
        """Logits of both inputs of step t >= 1 of cell i, (2, 1 + t)."""
        logits: Tensor = self.beta[i * (self.space.steps - 1) + t - 1]
        return logits

    @torch.no_grad()
    def scores(self) -> Scores:
        """Log-weights of every choice that decoding has, in float64: a pair scores the product of its two weights."""

        def pairs(logits: Tensor) -> dict[tuple[int, int], float]:
            x, y = self._log_weights(logits.cpu()).tolist()
            return {(j, k + 1): x[j] + y[k] for j in range(len(x)) for k in range(j, len(y))}

        def cell_pairs(i: int) -> dict[tuple[int, int], float]:
            if len(self.space.inputs) + i == 1:
                return {(0, 0): 0.0}
            return pairs(self.alpha[i])

        cells, steps = range(self.space.cells), range(self.space.steps)
        return Scores(
            cells=[cell_pairs(i) for i in cells],
            steps=[[pairs(self.step_logits(i, t)) if t else {(0, 1): 0.0} for t in steps] for i in cells],
            variants=self._gamma_scores(),
        )

    def read_probabilities(self, i: int) -> Tensor:
        """Probability that cell i reads each candidate, (n + i,); see `PairingLogits`."""
        x, y = self._log_weights(self.alpha[i])
        if len(self.space.inputs) + i == 1:
            return torch.ones_like(x)
        pairs = _legal(x[:, None] + y)
        return _shift(torch.stack([pairs.sum(1), pairs.sum(0)])).sum(0)

    @torch.no_grad()
    def set(self, genotype: Genotype) -> None:
        """Sets one-hot logits: the supernet then computes exactly what the network of the genotype computes."""
        for i, (pair, steps) in enumerate(_indices(self.space, genotype)):
            _one_hot_pair(self.alpha[i], pair)
            self.gamma[i].fill_(-_ONE_HOT)
            for t, (inputs, _) in enumerate(steps):
                if t:
                    _one_hot_pair(self.step_logits(i, t), (min(inputs), max(inputs)))
                self.gamma[i][t, self.variant_of(genotype.cells[i].steps[t])] = _ONE_HOT


def build_pairing(pairing: Pairing, space: FusionSpace, relaxation: Relaxation | None) -> PairingLogits:
    """Builds the architecture logits of a space.

    Raises:
        ValueError: ``pairing`` is neither ``"tied"`` nor ``"independent"``.
    """
    if pairing == "tied":
        return TiedPairing(space, relaxation)
    if pairing == "independent":
        return IndependentPairing(space, relaxation)
    raise ValueError(f"pairing must be 'tied' or 'independent', not {pairing!r}")


def may_read(rows: int, row: int, count: int) -> slice:
    """Which of ``count`` candidates row 0 (x) or 1 (y) of ``rows`` rows of weights may read; other weights are 0."""
    return slice(0, count) if rows == 1 or count == 1 else slice(row, count - 1 + row)


def _legal(scores: Tensor) -> Tensor:
    """Scores of x = candidate j, y = candidate k + 1, (m - 1, m - 1) -> probabilities of the pairs with x before y."""
    scores = scores.masked_fill(torch.ones_like(scores).tril(-1).bool(), -torch.inf)
    return scores.flatten().softmax(0).view_as(scores)


def _shift(weights: Tensor) -> Tensor:
    """Rows x (all candidates but the last) and y (all but the first), (2, m - 1) -> (2, m)."""
    return torch.stack([F.pad(weights[0], (0, 1)), F.pad(weights[1], (1, 0))])


def _one_hot_pair(logits: Tensor, pair: tuple[int, int]) -> None:
    logits.fill_(-_ONE_HOT)
    logits[0, pair[0]] = _ONE_HOT
    logits[1, max(pair[1] - 1, 0)] = _ONE_HOT


def _indices(space: FusionSpace, genotype: Genotype) -> list[tuple[tuple[int, int], list[tuple[tuple[int, int], str]]]]:
    """The genotype's choices as candidate indices: per cell its pair, and per step its inputs and primitive."""
    genotype.require_space(space)
    states = space.step_candidates(space.steps)
    chosen = []
    for i, cell in enumerate(genotype.cells):
        x, y = (space.candidates(i).index(name) for name in cell.inputs)
        steps = [((states.index(step.inputs[0]), states.index(step.inputs[1])), step.primitive) for step in cell.steps]
        chosen.append(((x, y), steps))
    return chosen
