"""A prediction by two gloo processes, run by test_predictions.py under torchrun."""

import sys
from pathlib import Path

from lightning_mmnas.callbacks.predictions import PredictionFile
from tests.delivery.tiny import trained
from tests.modules.tiny import trainer_of


def main(root: Path, table: Path) -> None:
    module, data = trained(root, table, batch_size=2)
    callback = PredictionFile(str(root / "predictions.csv"))
    trainer_of(root, callbacks=[callback], devices=2, strategy="ddp").predict(module, datamodule=data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
