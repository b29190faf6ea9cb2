"""Data and the configuration of a search stage so small that a trial takes milliseconds."""

from typing import Any

import torch

from lightning_mmnas import TensorDataModule

SENSORS = ("crisp", "noisy")

CONFIG = """
trainer: {accelerator: cpu, logger: false, enable_checkpointing: false, max_epochs: 1,
  callbacks: [{class_path: FeatureCaching, init_args: {folder: "${run_dir}/features", views: 3, enabled: false}},
    {class_path: GenotypeSelection, init_args: {output: "${run_dir}/genotype.json", steps: 2}}]}
model:
  class_path: FusionSearch
  init_args: {encoders: {motion: {class_path: MotionEncoder, init_args: {channels: [4]}}}, channels: 4, length: 2,
    projection_hidden: 8, projection_out: 4, primitives: [sum, concat_fc]}
data: {class_path: tests.sampling.toys.TinyData}
"""


class TinyData(TensorDataModule):
    """Two sensors, of which the second is noise."""

    def __init__(self, size: int = 32, architecture_fraction: float | None = 0.5, labels: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)
        split = {name: torch.randn(size, 3, 16, generator=generator) for name in SENSORS}
        split["label"] = torch.arange(size) % 2
        kinds: dict[str, Any] = dict.fromkeys(SENSORS, "motion")
        super().__init__(
            split, split, kinds=kinds, labels=labels, batch_size=8, architecture_fraction=architecture_fraction
        )
