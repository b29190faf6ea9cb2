"""Lightning's ``sync_batchnorm`` where torch's own layer does not do: on a CPU, and for second derivatives."""

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import override

from lightning_mmnas.fusion.batch_norm import SynchronisedBatchNorm


class BatchNormSync(LayerSync):
    """Makes batch norms `SynchronisedBatchNorm`, and turns them back.

    Layers stay the same objects, with the same names and tensors.
    """

    def __init__(self) -> None:
        self._plain: dict[nn.Module, type[nn.Module]] = {}

    @override
    def apply(self, model: nn.Module) -> nn.Module:
        """Synchronises torch's own batch norms, and leaves those of other kinds that are frozen.

        Raises:
            MisconfigurationException: A batch norm of another kind is trained.
        """
        for name, part in model.named_modules():
            if type(part) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
                self._plain[part] = type(part)
                part.__class__ = SynchronisedBatchNorm
            elif isinstance(part, _BatchNorm) and part.training:
                raise MisconfigurationException(
                    f"sync_batchnorm=True cannot synchronise {name}, a {type(part).__name__}: on a CPU, and with"
                    " order=2, only torch's own batch norms can be; set sync_batchnorm=False, or use one of those"
                )
        return model

    @override
    def revert(self, model: nn.Module) -> nn.Module:
        """Makes them what they were."""
        for part, kind in self._plain.items():
            part.__class__ = kind
        self._plain = {}
        return model
