"""Terms of the architecture's loss that keep a search from collapsing; they see the logits alone.

All are averages over the rows of logits that leave a choice (those with one column leave none), so that a weight
means the same in spaces of any size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mmnas.fusion.pairing import PairingLogits


class Regularisation(nn.Module):
    """Base class: a loss term of all rows of logits, times a weight.

    Args:
        weight: Weight of the term, finite; negative weights turn its aim around.
        growing: The weight grows linearly with the fraction of training done, from 0; else it is constant.

    Raises:
        ValueError: A weight that is not finite.
    """

    def __init__(self, weight: float, growing: bool) -> None:
        super().__init__()
        if not math.isfinite(weight):
            raise ValueError(f"weight must be finite, not {weight}")
        self.weight = weight
        self.growing = growing

    def forward(self, logits: PairingLogits, progress: float) -> Tensor:
        """The weighted term, a scalar.

        Args:
            logits: The supernet's logits and relaxation; gradients reach the logits.
            progress: Fraction of training done, in [0, 1].
        """
        choices = [p for p in (*logits.alpha, *logits.beta, *logits.gamma) if p.shape[-1] > 1]
        if not choices:  # a space of one architecture
            return torch.zeros((), device=next(logits.parameters()).device)
        terms = torch.cat([self.term(rows, logits) for rows in choices])
        return terms.mean() * (self.weight * progress if self.growing else self.weight)

    def term(self, rows: Tensor, logits: PairingLogits) -> Tensor:
        """The term of every row, (rows, columns) -> (rows,)."""
        raise NotImplementedError(f"{type(self).__name__} must define term(rows, logits)")


class BetaDecay(Regularisation):
    """log sum exp of every row (Ye et al., beta-DARTS, CVPR 2022, arXiv 2203.01665): logits do not run away.

    Its gradient is the softmax of the row: the larger a logit, the more it is pulled down, so that values and
    variance of the mixture weights stay small while it is not yet clear what is good.

    Args:
        weight: Weight at the end of training (the paper's lambda), relative to the objective. The paper's
            values are for cross-entropy on its own spaces; ours is for losses of the order of 1.
        growing: From 0 linearly, as in the paper; else the weight is constant.

    Raises:
        ValueError: A weight that is not finite.
    """

    def __init__(self, weight: float = 1.0, growing: bool = True) -> None:
        super().__init__(weight, growing)

    def term(self, rows: Tensor, logits: PairingLogits) -> Tensor:
        """Log sum exp, (rows, columns) -> (rows,)."""
        return torch.logsumexp(rows, -1)


class EntropyRegularisation(Regularisation):
    """Entropy of every mixture, relative to the uniform one, in [0, 1] (Tian et al., DA2S, arXiv 2007.03154).

    With a positive weight mixtures become decided by the end of the search, so that the network that is built is
    close to the supernet; with a negative weight they are kept open. The mixtures are those without chance
    (`Relaxation.mean`). The paper's term is the plain entropy.

    Args:
        weight: Weight at the end of training, relative to the objective.
        growing: From 0 linearly; else the weight is constant.

    Raises:
        ValueError: A weight that is not finite.
    """

    def __init__(self, weight: float = 1.0, growing: bool = True) -> None:
        super().__init__(weight, growing)

    def term(self, rows: Tensor, logits: PairingLogits) -> Tensor:
        """Relative entropy, (rows, columns) -> (rows,)."""
        log_weights = logits.relaxation.log_mean(rows)
        return -(log_weights.exp() * log_weights).sum(-1) / math.log(rows.shape[-1])


class ConcentrationAnchor(Regularisation):
    """Squared distance of the concentrations elu(logits) + 1 from 1 (Chen et al., DrNAS, arXiv 2006.10355).

    For `Dirichlet`: concentrations near one keep the draws spread, and the search exploring; without it they may
    shrink, when a draw is nearly one-hot, or grow, when draws no longer differ.

    Args:
        weight: The paper's lambda, relative to the objective.
        growing: From 0 linearly with the fraction of training done; else constant, as in the paper.

    Raises:
        ValueError: A weight that is not finite.
    """

    def __init__(self, weight: float = 1e-3, growing: bool = False) -> None:
        super().__init__(weight, growing)

    def term(self, rows: Tensor, logits: PairingLogits) -> Tensor:
        """Sum of squares, (rows, columns) -> (rows,)."""
        return F.elu(rows).square().sum(-1)
