"""What can be searched: a space of fusion architectures, and its points, the genotypes."""

from lightning_mmnas.space.genotype import CellGenotype, FusionSpace, Genotype, StepGenotype
from lightning_mmnas.space.primitive_names import ASYMMETRIC_PRIMITIVES, SYMMETRIC_PRIMITIVES, is_symmetric

__all__ = [
    "ASYMMETRIC_PRIMITIVES",
    "SYMMETRIC_PRIMITIVES",
    "CellGenotype",
    "FusionSpace",
    "Genotype",
    "StepGenotype",
    "is_symmetric",
]
