"""Checkpoints that are there as a whole or not at all, whatever happens while they are written."""

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import Trainer
from typing_extensions import override

from lightning_mmnas.errors import RunDirectoryError


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the old one, then puts it in its place.

    (Lightning's own goes through the folder of temporary files, from which it is copied where that is another disk: a
    run that dies meanwhile has neither the old file nor the new one.)
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes a checkpoint.

        Raises:
            RunDirectoryError: It cannot be written; an older one is then left as it was.
        """
        if "://" in str(path):  # an object store shows whole files only
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        target = Path(path)
        # Under one name, so that killed runs do not leave one more each.
        temporary = target.with_name(f".{target.name}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content.getbuffer())
            os.replace(temporary, target)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise RunDirectoryError(
                f"cannot write the checkpoint {target}: {error.strerror or error}; make room or choose another folder, "
                "and the same command goes on"
            ) from error


def write_whole_checkpoints(trainer: Trainer) -> None:
    """Lets a trainer write its checkpoints by `WholeCheckpoints`, unless it has a way of its own."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = WholeCheckpoints()
