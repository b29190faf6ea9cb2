"""The last stage's model: a fine-tuned network and, beside it, a linear model on the encoders' features.

Each part alone is a rival of the other: where encoders are strong and labels few, a regularised linear model of their
features is hard to beat; where modalities have to meet first, the network is. How much each counts is chosen by samples
that it has not seen. The linear model is logistic regression for classes and ridge regression for targets.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.func import functional_call

from lightning_mmnas.data.spec import Task
from lightning_mmnas.fusion.compiling import uncompiled
from lightning_mmnas.fusion.readout import LateFeatures
from lightning_mmnas.objectives.linear import LinearModel
from lightning_mmnas.objectives.logistic import choose_logistic
from lightning_mmnas.objectives.losses import label_loss
from lightning_mmnas.objectives.ridge import choose_ridge

Features = Mapping[str, Tensor]


class LinearPath(nn.Module):
    """A linear model on the standardised pooled features of some levels; fitted by a solver, not by gradients.

    Args:
        pooled: Features by name -> (b, d).
        num_classes: Number of classes, or of targets.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, pooled: LateFeatures, num_classes: int) -> None:
        super().__init__()
        self.pooled = pooled
        width = pooled.out_features
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("weight", torch.zeros(width, num_classes))
        self.register_buffer("bias", torch.zeros(num_classes))

    def take(self, model: LinearModel) -> None:
        """Copies a fitted model."""
        for name in ("mean", "scale", "weight", "bias"):
            self.get_buffer(name).copy_(getattr(model, name))

    def forward(self, features: Features) -> Tensor:
        """Features by name -> logits (b, num_classes), in float32 whatever the precision."""
        x = self.pooled(features)
        with torch.autocast(x.device.type, enabled=False):
            standard = (x.float() - self.mean.float()) / self.scale.float()
            logits: Tensor = standard @ self.weight.float() + self.bias.float()
        return logits


@dataclass(frozen=True)
class Parts:
    """What the convex part of the last stage found.

    Attributes:
        linear: Linear model on the pooled features.
        probe: Linear model on the network's vectors.
        shares: Of the two, (2,); see `choose_shares`.
    """

    linear: LinearModel
    probe: LinearModel
    shares: Tensor


def choose_linear(
    task: Task | None, x: Tensor, labels: Tensor, num_classes: int, groups: Tensor | None = None, seed: int = 0
) -> LinearModel:
    """The regularised linear model of a task: logistic regression for classes, ridge regression for targets.

    Args:
        task: The task.
        x: Features, (n, d).
        labels: Classes (n,), 0 and 1 of shape (n, num_classes), or standardised targets (n, 1).
        num_classes: Number of classes, or of targets.
        groups: Group of each sample, (n,); None: none.
        seed: Seed of the folds that choose the strength.
    """
    if task == "regression":
        return choose_ridge(x, labels, groups, seed)
    return choose_logistic(x, labels, num_classes, groups, seed)


def fit_parts(
    linear: LinearModel,
    vectors: Tensor,
    labels: Tensor,
    num_classes: int,
    groups: Tensor | None = None,
    seed: int = 0,
    task: Task | None = None,
) -> Parts:
    """Fits a linear model on a network's vectors and chooses what it counts beside another one.

    Args:
        linear: Linear model on the pooled features of the same samples, by `choose_linear` with the same groups and
            seed: then both were held out from the same folds.
        vectors: What the network says of the labelled samples, (n, out_features).
        labels: See `choose_linear`.
        num_classes: Number of classes.
        groups: Group of each sample, (n,); None: none.
        seed: Seed of the folds.
        task: The task.
    """
    probe = choose_linear(task, vectors, labels, num_classes, groups, seed)
    if linear.held_out is None or probe.held_out is None:
        return Parts(linear, probe, torch.full((2,), 0.5))  # too few samples to hold any out
    return Parts(linear, probe, choose_shares([linear.held_out, probe.held_out], labels, task))


def choose_shares(parts: Sequence[Tensor], labels: Tensor, task: Task | None = None) -> Tensor:
    """The non-negative factors of several models' logits whose sum has the least loss: stacked regression.

    For targets the loss is the squared error.

    With n samples the loss is n times the mean loss plus the squared distance from equal shares, so that a few samples
    alone do not decide. Source: Wolpert, Neural Networks 5 (1992); non-negative: Breiman, Machine Learning 24 (1996).

    Args:
        parts: Logits of samples that the model has not seen in training, each (n, num_classes); samples with NaN do
            not count.
        labels: See `choose_linear`.
        task: The task.

    Returns:
        One factor per model, (m,).
    """
    logits = torch.stack([part.double().cpu() for part in parts])  # (m, n, k)
    known = ~logits.isnan().any(2).any(0)
    logits, labels = logits[:, known], labels.cpu()[known]
    several = labels.shape[1] if labels.ndim > 1 else 1  # the mean over labels would count each as a part of a sample
    equal = torch.full((len(parts),), 1 / len(parts), dtype=torch.double)
    criterion = label_loss(task)

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        shares = torch.from_numpy(values).requires_grad_()
        loss = criterion(torch.einsum("m,mnk->nk", shares, logits), labels) * several
        loss = loss + (shares - equal).square().sum() / len(labels)
        (gradient,) = torch.autograd.grad(loss, shares)
        return loss.item(), gradient.numpy()

    with torch.enable_grad():
        found = minimize(objective, equal.numpy(), jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(parts))
    return torch.from_numpy(found.x).float()


class Mixture(nn.Module):
    """What joins a network with a linear model, and its fine-tuned weights with those it started from.

    The logits are ``shares[0] * linear + shares[1] * classifier(network)``. Network and classifier are those that lie
    on the way from the start, which is the pretrained network under a linear model of its vectors, to the fine-tuned
    ones (WiSE-FT; Wortsman et al., CVPR 2022): more accurate than either, above all where labels are few.

    Args:
        network: Features by name -> (b, out_features), as it is before fine-tuning. It is copied, not kept.
        classifier: Linear layer from these vectors to classes. Likewise.
        linear: What it is joined with.
        interpolation: How far from the start to the fine-tuned weights, in [0, 1]; alpha of WiSE-FT.
    """

    interpolation: Tensor
    shares: Tensor
    fitted: Tensor

    def __init__(
        self, network: nn.Module, classifier: nn.Linear, linear: LinearPath, interpolation: float = 0.5
    ) -> None:
        super().__init__()
        self.linear = linear
        first = {"network": copy.deepcopy(network), "classifier": copy.deepcopy(classifier)}
        self.start = nn.ModuleDict(first).requires_grad_(False)  # its weights are read, it is never called
        self.register_buffer("interpolation", torch.tensor(float(interpolation)))
        self.register_buffer("shares", torch.tensor([0.0, 1.0]))
        self.register_buffer("fitted", torch.zeros(()))  # 1 then; a bool could not be averaged

    @torch.no_grad()
    def begin(self, network: nn.Module, classifier: nn.Linear, parts: Parts) -> None:
        """Puts the convex optimum where fine-tuning starts: into the classifier, the linear path and the shares."""
        self.linear.take(parts.linear)
        weight = parts.probe.weight / parts.probe.scale.unsqueeze(1)  # of vectors that are not standardised
        classifier.weight.copy_(weight.T)
        classifier.bias.copy_(parts.probe.bias - parts.probe.mean @ weight)
        self.start["network"].load_state_dict(network.state_dict())
        self.start["classifier"].load_state_dict(classifier.state_dict())
        self.shares.copy_(parts.shares)
        self.fitted.fill_(1.0)

    def forward(self, network: nn.Module, classifier: nn.Module, features: Features) -> Tensor:
        """Logits (b, num_classes) of samples, for evaluation; network and classifier as fine-tuned so far."""
        with uncompiled(network):  # whose weights are others
            vector = functional_call(network, self.between("network", network), (features,))
        logits: Tensor = functional_call(classifier, self.between("classifier", classifier), (vector,))
        linear, own = self.shares.unbind()
        mixed: Tensor = linear * self.linear(features) + own * logits
        return mixed

    def between(self, name: str, now: nn.Module) -> dict[str, Tensor]:
        """Weights and buffers on the way from the start to those of now; `name` is "network" or "classifier"."""
        first = self.start[name].state_dict()
        return {
            key: torch.lerp(first[key], value, self.interpolation.to(value)) if value.is_floating_point() else value
            for key, value in now.state_dict().items()
        }
