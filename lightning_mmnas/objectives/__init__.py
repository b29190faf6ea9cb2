"""What is trained for: losses, label-free criteria, regularisation, networks trained on the same batches."""

from lightning_mmnas.objectives.criteria import Criterion
from lightning_mmnas.objectives.losses import CrossModalInfoNCE, classification_loss, nt_xent

__all__ = ["Criterion", "CrossModalInfoNCE", "classification_loss", "nt_xent"]
