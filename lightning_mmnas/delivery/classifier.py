"""The classifier or regressor that is delivered: raw samples to logits, with fixed weights and no trainer."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_mmnas.errors import ModelError
from lightning_mmnas.fusion.readout import LateFeatures, out_features
from lightning_mmnas.modules.finetune import FineTuning
from lightning_mmnas.modules.frozen import FrozenEncoders
from lightning_mmnas.modules.pretrain import FusionPretraining
from lightning_mmnas.objectives.mixture import LinearPath


class FusionClassifier(nn.Module):
    """Frozen encoders, fusion network, classifier, and where there is one the linear path beside it.

    The logits are ``shares[0] * linear(features) + shares[1] * classifier(network(features))``: what `FineTuning` says
    in eval mode. Network and classifier can be trained further.

    Args:
        encoders: Raw samples -> features by name.
        network: Features by name -> (b, out_features).
        num_classes: Number of classes, or of targets; logits then are standardised targets. 0: there were no labels.
        linear: Whether there is a linear path; without, the shares are 0 and 1.
        thresholds: Whether labels are decided by thresholds, multi-label data.
    """

    shares: Tensor
    thresholds: Tensor | None

    def __init__(
        self, encoders: FrozenEncoders, network: nn.Module, num_classes: int, linear: bool, thresholds: bool
    ) -> None:
        super().__init__()
        self.encoders = encoders
        self.network = network
        self.classifier = nn.Linear(out_features(network), num_classes) if num_classes else None
        shapes = encoders.feature_shapes
        self.linear = LinearPath(LateFeatures(list(shapes), shapes), num_classes) if linear else None
        self.register_buffer("shares", torch.tensor([0.0, 1.0]))
        self.register_buffer("thresholds", torch.full((num_classes,), 0.5) if thresholds else None)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Raw samples by modality -> logits (b, num_classes)."""
        return self.logits(self.encoders(batch))

    def logits(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by name -> logits (b, num_classes).

        Raises:
            ModelError: There were no labels.
        """
        if self.classifier is None:
            raise ModelError("the model was trained without labels: it embeds samples, and predicts nothing of them")
        logits: Tensor = self.classifier(self.network(features))
        if self.linear is None:
            return logits
        linear, own = self.shares.unbind()
        mixed: Tensor = linear * self.linear(features) + own * logits
        return mixed


@torch.no_grad()
def classifier_of(module: FineTuning | FusionPretraining) -> FusionClassifier:
    """The classifier that a stage has trained, on the CPU and in eval mode; the stage is left as it is.

    Of a network that was pretrained only, encoders and network.
    """
    if isinstance(module, FusionPretraining):
        parts = copy.deepcopy(module.encoders), copy.deepcopy(module.network)
        return FusionClassifier(*parts, 0, linear=False, thresholds=False).cpu().eval()
    several = module.task == "multilabel"
    mixture = module.mixture
    network, head = copy.deepcopy(module.network), copy.deepcopy(module.classifier)
    if mixture is not None:
        network.load_state_dict(mixture.between("network", module.network))
        head.load_state_dict(mixture.between("classifier", module.classifier))
    found = FusionClassifier(copy.deepcopy(module.encoders), network, head.out_features, mixture is not None, several)
    found.classifier = head
    if mixture is not None:
        found.linear = copy.deepcopy(mixture.linear)
        found.shares.copy_(mixture.shares)
    if found.thresholds is not None:
        found.thresholds.copy_(module.get_buffer("thresholds"))
    found.network.requires_grad_(True)  # a linear probe's is frozen
    return found.cpu().eval()
