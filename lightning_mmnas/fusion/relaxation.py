"""Relaxations: architecture logits -> mixture weights.

Every row of logits (the last axis) becomes one row of weights >= 0 that sum to 1. All of them work with both
pairings, and with partial channels (see `FusionSupernet`).

| class | paper | weights while training | decoded |
|-|-|-|-|
| `Softmax` | DARTS | softmax(logits / T) | the same |
| `GumbelHard` | GDAS | a one-hot sample of softmax(logits) | softmax(logits) |
| `Dirichlet` | DrNAS | a sample of Dirichlet(elu(logits) + 1) | its mean |
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WORD = 2**31 - 1


class Relaxation(nn.Module):
    """Base class: how logits become mixture weights, while training and without chance.

    Attributes:
        one_hot: Every row of weights has a single 1; the supernet then computes the chosen primitives only.
        annealed: Whether something follows the progress of training.
        progress: Buffer: the fraction of training done, in [0, 1]; what is annealed follows it. It is part of the
            state if there is something to anneal, so that a resumed search goes on where it stood.
    """

    one_hot = False
    progress: Tensor

    def __init__(self, annealed: bool = False) -> None:
        super().__init__()
        self.annealed = annealed
        self.register_buffer("progress", torch.zeros(()), persistent=annealed)

    def forward(self, logits: Tensor) -> Tensor:
        """Mixture weights of the same shape as the logits; every row sums to 1."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(logits)")

    def log_mean(self, logits: Tensor) -> Tensor:
        """Logarithm of `mean`, exact where weights are tiny; decoding and sampling go by it."""
        raise NotImplementedError(f"{type(self).__name__} must define log_mean(logits)")

    def mean(self, logits: Tensor) -> Tensor:
        """The mixture weights without chance, differentiable: what is logged and regularised."""
        return self.log_mean(logits).exp()

    def begin(self) -> None:
        """Called by the supernet at the start of every forward pass: random relaxations draw anew."""

    @torch.no_grad()
    def set_progress(self, fraction: float) -> None:
        """Tells the fraction of training done, in [0, 1]."""
        self.progress.fill_(fraction)


class Softmax(Relaxation):
    """softmax(logits / temperature) over the last axis (Liu et al., DARTS, ICLR 2019, arXiv 1806.09055, eq. 2).

    Args:
        temperature: Softmax temperature, unitless, > 0; small values sharpen the mixture.
        final_temperature: Temperature at the end of training, approached linearly; None: it stays. Not in the paper.

    Raises:
        ValueError: A temperature not above zero.
    """

    def __init__(self, temperature: float = 1.0, final_temperature: float | None = None) -> None:
        super().__init__(annealed=final_temperature is not None)
        _check_temperatures(temperature, final_temperature)
        self.temperature = temperature
        self.final_temperature = final_temperature

    def forward(self, logits: Tensor) -> Tensor:
        """Mixture weights of the same shape as the logits; every row sums to 1."""
        return torch.softmax(self._scaled(logits), dim=-1)

    def mean(self, logits: Tensor) -> Tensor:
        """The same: there is no chance in it."""
        weights: Tensor = self(logits)
        return weights

    def log_mean(self, logits: Tensor) -> Tensor:
        """Logarithm of the weights."""
        return torch.log_softmax(self._scaled(logits), dim=-1)

    def _scaled(self, logits: Tensor) -> Tensor:
        if self.temperature == 1 and self.final_temperature is None:
            return logits
        return logits / _annealed(self.temperature, self.final_temperature, self.progress, logits)


class RandomRelaxation(Relaxation):
    """Base of the relaxations that draw: the same numbers on every rank, device and after a resumption.

    In training mode every forward pass of the supernet draws anew, so weight steps and architecture steps each have
    draws of their own; within one pass every row of logits has its own, shared by the whole batch (both views are one
    batch). The cross-modal term makes further passes, hence draws. Draws depend on ``seed`` and on the counter of
    passes only, never on the global generator, and leave that as it is. The counter is a buffer, thus in checkpoints.
    The exact second order sees copies of all buffers: its two losses and the weight step that follows share one draw.

    In eval mode nothing is drawn and the counter stands still.

    Args:
        annealed: Whether something follows the progress of training.
        seed: Seed of the draws, >= 0.

    Attributes:
        draws: Buffer: the number of forward passes that have drawn.

    Raises:
        ValueError: A negative seed.
    """

    draws: Tensor

    def __init__(self, annealed: bool, seed: int) -> None:
        super().__init__(annealed)
        if seed < 0:
            raise ValueError(f"seed must be >= 0, not {seed}")
        self.seed = seed
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        self._pass = 0  # the counter as a number, read once per pass
        self._calls = 0  # of this pass

    def begin(self) -> None:
        """Counts a forward pass, unless in eval mode."""
        if self.training:
            self.draws.add_(1)
            self._pass, self._calls = int(self.draws), 0

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Within it the global CPU generator is ours; afterwards it is as if nothing had happened."""
        key = (self.seed * _WORD + self._pass) * 1009 + self._calls
        self._calls += 1
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key % 2**63)
            yield


class GumbelHard(RandomRelaxation):
    """A one-hot sample per row, straight-through (Dong & Yang, GDAS, CVPR 2019, arXiv 1910.04465, section 3).

    With Gumbel noise o, the sample is the one-hot vector at argmax(logits + o), and so is drawn from
    softmax(logits). Its gradient is that of softmax((log softmax(logits) + o) / temperature).

    One path is trained per step: the supernet computes the sampled primitives only, and only their gradient goes back
    to the logits, as in the paper. Inputs of cells and steps, which are there anyway, all contribute to the gradient:
    that is the straight-through gradient in full. (The paper samples primitives only, and searches no inputs.)

    In eval mode the sample is replaced by argmax(logits), the favoured choice of every row. Primitives that were not
    sampled have no gradient in that step; with several ranks use ``strategy: ddp_find_unused_parameters_true``. With
    tied pairing every edge is drawn by itself, and a cell or step that draws none of its edges reads zeros.

    Args:
        temperature: At the start of training, unitless, > 0; the paper's value.
        final_temperature: At its end, approached linearly, the paper's value; None: the temperature stays.
        seed: Seed of the draws, >= 0.

    Raises:
        ValueError: A temperature not above zero, or a negative seed.
    """

    one_hot = True

    def __init__(self, temperature: float = 10.0, final_temperature: float | None = 0.1, seed: int = 0) -> None:
        super().__init__(final_temperature is not None, seed)
        _check_temperatures(temperature, final_temperature)
        self.temperature = temperature
        self.final_temperature = final_temperature

    def forward(self, logits: Tensor) -> Tensor:
        """One-hot rows of the same shape as the logits."""
        scores = torch.log_softmax(logits, -1)
        if self.training:
            with self._drawing():
                noise = -torch.empty(logits.shape, dtype=torch.float64).exponential_().log()
            scores = scores + noise.to(logits)
        tau = _annealed(self.temperature, self.final_temperature, self.progress, logits)
        soft = torch.softmax(scores / tau, -1)
        hard = F.one_hot(scores.argmax(-1), logits.shape[-1]).to(logits)
        return hard + (soft - soft.detach())  # exactly hard; the gradient of soft

    def log_mean(self, logits: Tensor) -> Tensor:
        """Log-probabilities of the samples, whatever the temperature."""
        return torch.log_softmax(logits, -1)


class Dirichlet(RandomRelaxation):
    """Weights drawn from Dirichlet(elu(logits) + 1) (Chen et al., DrNAS, ICLR 2021, arXiv 2006.10355, section 3).

    The gradient with respect to the concentrations is the pathwise one of ``torch.distributions`` (implicit
    reparametrisation). Logits of zero are the uniform distribution over the simplex; the paper's penalty that keeps
    concentrations near one is `ConcentrationAnchor`. In eval mode, in decoding and in logs the weights are the mean,
    the concentrations divided by their sum. The paper's progressive pruning of operations is not part of this.

    Args:
        seed: Seed of the draws, >= 0.

    Raises:
        ValueError: A negative seed.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(False, seed)

    def forward(self, logits: Tensor) -> Tensor:
        """Random weights of the same shape as the logits; every row sums to 1."""
        if not self.training:
            return self.mean(logits)
        # On the CPU, where draws are the same for every accelerator; far below any logit that training can reach,
        # concentrations are kept above 0.
        concentration = self.concentration(logits).cpu().double().clamp_min(1e-30)
        with self._drawing():
            weights: Tensor = torch.distributions.Dirichlet(concentration, validate_args=False).rsample()
        return weights.to(logits)

    def concentration(self, logits: Tensor) -> Tensor:
        """elu(logits) + 1, > 0."""
        return F.elu(logits) + 1

    def log_mean(self, logits: Tensor) -> Tensor:
        """Logarithm of concentrations divided by their sum."""
        # log(elu(x) + 1) = x below zero, log(1 + x) above
        return torch.log_softmax(torch.where(logits > 0, torch.log1p(logits.clamp_min(0)), logits), -1)


def _check_temperatures(temperature: float, final_temperature: float | None) -> None:
    for name, value in (("temperature", temperature), ("final_temperature", final_temperature)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be > 0, not {value}")


def _annealed(start: float, end: float | None, progress: Tensor, like: Tensor) -> float | Tensor:
    """The value on the straight line from start to end; a tensor of the other's type where it moves."""
    return start if end is None else start + (end - start) * progress.to(like)
