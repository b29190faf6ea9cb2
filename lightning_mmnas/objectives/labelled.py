"""The supervised objective of a fusion network: the loss of a classifier on its vectors."""

from collections.abc import Mapping

from torch import Tensor, nn

from lightning_mmnas.objectives.losses import classification_loss


class Labelled(nn.Module):
    """A network and its classifier.

    Args:
        network: Features by name -> (b, out_features).
        classifier: (b, out_features) -> logits (b, num_classes).
    """

    def __init__(self, network: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.classifier = classifier

    def logits(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by name -> (b, num_classes)."""
        logits: Tensor = self.classifier(self.network(features))
        return logits

    def forward(self, features: Mapping[str, Tensor], label: Tensor) -> Tensor:
        """Features by name and labels -> loss."""
        return classification_loss(self.logits(features), label)
