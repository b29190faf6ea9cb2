"""Search without gradients: Optuna's samplers over a FusionSpace. Needs the extra ``optuna``."""

from importlib.util import find_spec

from lightning_mmnas.errors import MissingExtraError

if find_spec("optuna") is None:
    raise MissingExtraError(
        "searching without gradients needs the package optuna, which is not installed; "
        "run: pip install 'lightning-mmnas[optuna]'"
    )
