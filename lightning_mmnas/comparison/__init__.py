"""What a search gained: rivals, trained and scored as the found network is."""

from lightning_mmnas.comparison.comparison import Comparison
from lightning_mmnas.comparison.settings import ComparisonSettings

__all__ = ["Comparison", "ComparisonSettings"]
