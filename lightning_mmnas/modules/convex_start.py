"""Before fine-tuning: one pass over the labelled samples, from which a mixture's convex parts are fitted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, cast

import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, IterableDataset, Subset

from lightning_mmnas.data.spec import Task
from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.fusion.compiling import uncompiled
from lightning_mmnas.modules.length import is_trial
from lightning_mmnas.modules.ranks import waiting_ranks
from lightning_mmnas.modules.transfer import BatchTransfer
from lightning_mmnas.objectives.mixture import LinearPath, Parts, choose_linear, fit_parts
from lightning_mmnas.report.progress import activity

Encode = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

_MOST = 20_000
"""Labelled samples that the linear models read; of more, so many are drawn."""

_STATISTICS = 2048
"""Samples from which the batch norms of a network that was never trained take their statistics."""
_BATCH = 64
"""Samples that are read at once where the loader's batches have no one size."""


def fit_convex_parts(
    trainer: Trainer,
    encode: Encode,
    network: nn.Module,
    linear: LinearPath,
    num_classes: int,
    pretrained: bool,
    task: Task | None = None,
    labels_of: Callable[[Mapping[str, Tensor]], Tensor] = itemgetter("label"),
) -> Parts:
    """Fits linear models on the encoders' features and on the network's vectors, as they are without views.

    Under DDP the ranks share the reading; the first one fits, the others take its numbers.

    Args:
        trainer: Its train loader's dataset gives the labelled samples, and their ``groups`` if it has any.
        encode: Raw samples -> features by name.
        network: Features by name -> (b, out_features). It is left in training mode.
        linear: Tells which features are pooled.
        num_classes: Number of classes.
        pretrained: Whether the network's batch norms have statistics; otherwise they are given some first.
        task: The task: logistic regression for classes, ridge regression for targets.
        labels_of: Labels of a batch, as the module knows them.

    Raises:
        ConfigError: The train loader's dataset cannot be read by index.
    """
    loader = trainer.train_dataloader
    if (
        not isinstance(loader, DataLoader)
        or isinstance(loader.dataset, IterableDataset)
        or not hasattr(loader.dataset, "__len__")
        or loader.batch_sampler is None  # its items are batches
    ):
        raise ConfigError(
            'mode "mixture" reads every labelled sample once before training, so it needs one DataLoader over a '
            'dataset of single samples with __getitem__ and __len__; set model.init_args.mode to "full"'
        )
    count = len(loader.dataset)
    batch_size = loader.batch_size or _BATCH
    most = 4 * batch_size if is_trial(trainer) else _MOST
    rows = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values
    transfer = BatchTransfer(trainer.lightning_module, trainer=trainer)
    rank, world = trainer.global_rank, trainer.world_size
    kind = "ridge" if task == "regression" else "logistic"
    rank_zero_info(f"{kind} regression on {len(rows)} labelled samples, then fine-tuning from there")

    def batches(chosen: Tensor) -> Iterator[tuple[Mapping[str, Tensor], Tensor]]:
        samples = DataLoader(
            Subset(loader.dataset, cast(list[int], chosen.tolist())),
            batch_size=batch_size,
            collate_fn=loader.collate_fn,
            num_workers=loader.num_workers,
        )
        for batch in samples:
            batch = transfer(batch)
            with transfer.context():
                features = encode(batch)
            yield features, labels_of(batch)

    with torch.no_grad(), uncompiled(network):  # a pass or two of each kind
        if not pretrained:
            several = (features for features, label in batches(rows[:_STATISTICS]) if len(label) > 1)
            update_bn(several, network)
        network.eval()
        read: list[tuple[Tensor, Tensor, Tensor]] = []
        for features, label in batches(rows[rank::world]):
            with transfer.context():
                vectors = network(features)
            read.append((linear.pooled(features).float().cpu(), vectors.float().cpu(), label.cpu()))
        network.train()
    pooled, vectors, labels = (torch.cat(parts) for parts in zip(*read, strict=True))
    with waiting_ranks() as ranks:
        pooled, vectors, labels = _in_order(ranks.gather((pooled, vectors, labels)))
        groups = groups_of(loader.dataset)
        groups = None if groups is None else groups[rows]

        def fit() -> Parts:
            with activity(f"{kind} regressions on {len(rows):,} labelled samples"):
                chosen = choose_linear(task, pooled, labels, num_classes, groups)
                return fit_parts(chosen, vectors, labels, num_classes, groups, task=task)

        return ranks.first(fit)


def groups_of(dataset: Any) -> Tensor | None:
    """Groups of a dataset's samples as numbers, (n,); None: it has none.

    Args:
        dataset: Of this package or one's own, with ``groups``: a tensor, an array or a list of numbers or names, one
            for each sample; or a `Subset` of such a one.

    Raises:
        DataError: They are something else.
    """
    if isinstance(dataset, Subset):
        whole = groups_of(dataset.dataset)
        return None if whole is None else whole[torch.as_tensor(dataset.indices, dtype=torch.long)]
    groups = getattr(dataset, "groups", None)
    if groups is None:
        return None
    values = np.asarray(groups)
    if values.shape != (len(dataset),):
        given = f"shape {values.shape}" if values.ndim else type(groups).__name__
        raise DataError(
            f"groups of {type(dataset).__name__} are one number or name for each of its {len(dataset)} samples, got "
            f"{given}"
        )
    return torch.from_numpy(np.unique(values, return_inverse=True)[1])


def _in_order(read: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """What all ranks have read, in the order of the samples, of which rank r has every n-th from r on."""
    joined = []
    for tensors in zip(*read, strict=True):
        whole = tensors[0].new_empty((sum(map(len, tensors)), *tensors[0].shape[1:]))
        for rank, tensor in enumerate(tensors):
            whole[rank :: len(read)] = tensor
        joined.append(whole)
    return joined
