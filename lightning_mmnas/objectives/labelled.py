"""The supervised objective of a fusion network: the loss of a linear head on its vectors."""

from collections.abc import Mapping

from torch import Tensor, nn

from lightning_mmnas.objectives.losses import LabelLoss, classification_loss
from lightning_mmnas.objectives.mixture import Mixture


class Labelled(nn.Module):
    """A network and its classifier.

    Args:
        network: Features by name -> (b, out_features).
        classifier: (b, out_features) -> logits (b, num_classes), or standardised targets (b, 1).
        dropout: Probability of dropping a value of the network's vector in training, in [0, 1).
        mixture: What the two are joined with where nothing is trained; None: nothing.
        loss: Of logits and labels; see `label_loss`.
    """

    def __init__(
        self,
        network: nn.Module,
        classifier: nn.Module,
        dropout: float = 0.0,
        mixture: Mixture | None = None,
        loss: LabelLoss = classification_loss,
    ) -> None:
        super().__init__()
        self.network = network
        self.classifier = classifier
        self.dropout = nn.Dropout(dropout)
        self.mixture = mixture
        self.loss = loss

    def logits(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by name -> (b, num_classes)."""
        if self.mixture is not None and not self.training:
            mixed: Tensor = self.mixture(self.network, self.classifier, features)
            return mixed
        logits: Tensor = self.classifier(self.dropout(self.network(features)))
        return logits

    def forward(self, features: Mapping[str, Tensor], label: Tensor) -> Tensor:
        """Features by name and labels -> loss."""
        return self.loss(self.logits(features), label)
