"""LightningModules of the four stages."""

from lightning_mmnas.modules.finetune import FineTuning
from lightning_mmnas.modules.pretrain import FusionPretraining
from lightning_mmnas.modules.pretrain_encoders import EncoderPretraining
from lightning_mmnas.modules.search import FusionSearch

__all__ = ["EncoderPretraining", "FineTuning", "FusionPretraining", "FusionSearch"]
