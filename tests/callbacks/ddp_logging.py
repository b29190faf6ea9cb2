"""A logged search of two gloo processes, run by test_alternation_logging.py under torchrun."""

import sys
import warnings
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from lightning_mmnas.callbacks import ArchitectureAlternation
from tests.callbacks.searchers import Searcher, loaders, trainer


class Named(Searcher):
    """Gives its weights a name."""

    calls = 0

    def architecture_weights(self) -> dict[str, float]:
        self.calls += 1
        return {"alpha/first": float(self.net.alpha.softmax(0)[0])}


def main(root: Path) -> None:
    warnings.filterwarnings("error", message=".*sync_dist")
    module = Named()
    fitted = trainer(
        root, ArchitectureAlternation(lr=0.1), logger=CSVLogger(root, name="logs"), devices=2, strategy="ddp"
    )
    fitted.fit(module, loaders())
    assert module.calls == (fitted.max_epochs if fitted.is_global_zero else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
