"""What architectures cost: parameters, FLOPs and latency, counted or measured, and budgets."""

from lightning_mmnas.costs.budget import Budget
from lightning_mmnas.costs.measuring import Conditions, CostKind
from lightning_mmnas.costs.table import UNITS, CostTable

__all__ = ["UNITS", "Budget", "Conditions", "CostKind", "CostTable"]
