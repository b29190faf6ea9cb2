"""Lightning callbacks: what happens around the steps of a search."""

from lightning_mmnas.callbacks.alternation import ArchitectureAlternation
from lightning_mmnas.callbacks.caching import FeatureCaching
from lightning_mmnas.callbacks.last_checkpoint import LastCheckpoint
from lightning_mmnas.callbacks.resume import ExactResume
from lightning_mmnas.callbacks.selection import GenotypeSelection
from lightning_mmnas.callbacks.stability import GenotypeStability

__all__ = [
    "ArchitectureAlternation",
    "ExactResume",
    "FeatureCaching",
    "GenotypeSelection",
    "GenotypeStability",
    "LastCheckpoint",
]
