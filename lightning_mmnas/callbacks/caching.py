"""Runs frozen encoders once per sample and view, before a stage; the stage then reads features."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console
from torch import Tensor, nn
from typing_extensions import override

from lightning_mmnas.callbacks.lightning_private import leave_out_of_averages
from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.cache import (
    CachedSamples,
    FeatureCache,
    OnChange,
    StoredType,
    data_digest,
    megabytes,
    require_space,
)
from lightning_mmnas.data.samples import LABEL, Batch, Samples, TensorSamples
from lightning_mmnas.data.spec import Split
from lightning_mmnas.errors import CacheError
from lightning_mmnas.fusion.compact import compact, compact_shapes
from lightning_mmnas.fusion.input_nodes import Grid, Pool
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.modules import fingerprint
from lightning_mmnas.modules.finetune import FineTuning
from lightning_mmnas.modules.length import is_trial
from lightning_mmnas.modules.pretrain import FusionPretraining
from lightning_mmnas.modules.ranks import WaitingRanks, waiting_ranks
from lightning_mmnas.modules.search import FusionSearch
from lightning_mmnas.modules.transfer import BatchTransfer, spare_stored
from lightning_mmnas.report.progress import activity
from lightning_mmnas.views import TwoViews

CacheableModule = FusionSearch | FusionPretraining | FineTuning
Receive = Callable[[Batch], Batch]


@dataclass
class _Job:
    """One cache to be checked and filled: of which samples, whether as views, of which split if of any."""

    cache: FeatureCache
    samples: Samples
    augmented: bool
    split: Split | None


class FeatureCaching(Callback):
    """Lets a stage with frozen encoders read their features from a cache, which is built first where it is missing.

    Stored are, of every training sample, K augmented views and the sample as it is, pooled to what input nodes and
    readouts need; a training step draws two different ones of the K. Other splits are stored as they are, with views
    where the stage needs some. The test split is read for test and prediction only. Under DDP the ranks share the
    work. Stages with the same encoders, data, views and input nodes share the folder. Under ``fast_dev_run`` nothing is
    stored or read: its few batches are encoded in their steps.

    Args:
        folder: Where features are stored.
        views: K, at least 2.
        dtype: ``"float16"`` takes half the space of ``"float32"``.
        on_change: What to do where data, augmentations, encoders or code are not those that the features were made
            from: ``"refuse"``, or ``"rebuild"`` the cache.
        seed: Seed of the stored views.
        batch_size: Samples that are encoded at once while the cache is built.
        enabled: False: raw samples are read and encoded in every step, as without the callback.

    Raises:
        MisconfigurationException: An argument is out of range, or the stage has nothing to cache.
        CacheError: The features in the folder were made from something else, or its disk is too small.
    """

    def __init__(
        self,
        folder: str,
        views: int = 8,
        dtype: StoredType = "float16",
        on_change: OnChange = "refuse",
        seed: int = 0,
        batch_size: int = 32,
        enabled: bool = True,
    ) -> None:
        super().__init__()
        if views < 2 or batch_size < 1:
            raise MisconfigurationException(
                f"views must be at least 2 and batch_size at least 1, got {views} and {batch_size}"
            )
        if dtype not in ("float16", "float32") or on_change not in ("refuse", "rebuild"):
            raise MisconfigurationException(
                f"dtype {dtype!r} must be 'float16' or 'float32', on_change {on_change!r} 'refuse' or 'rebuild'"
            )
        self.folder = Path(folder)
        self.views = views
        self.dtype: StoredType = dtype
        self.on_change: OnChange = on_change
        self.seed = seed
        self.batch_size = batch_size
        self.enabled = enabled
        self._active = enabled
        self._encoders = ""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._active = self.enabled and not is_trial(trainer)
        if not self.enabled:
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, MultimodalDataModule):
            raise MisconfigurationException(
                "FeatureCaching reads the data of a MultimodalDataModule; give the trainer one, or remove the callback"
            )
        if not self._active:
            _cacheable(pl_module)
            return
        if getattr(trainer, "overfit_batches", 0):
            raise MisconfigurationException(
                "overfit_batches reads its batches without the stored views of FeatureCaching; set the callback's "
                "enabled to false, or leave overfit_batches out"
            )
        others: dict[str, list[Split]] = {"validate": ["val"], "test": ["test"], "predict": ["test"]}
        chosen = others.get(str(getattr(stage, "value", stage)), self.splits(trainer, data))
        with waiting_ranks() as ranks:
            self.prepare(pl_module, data, chosen, trainer.strategy.root_device, ranks)
        self._encoders = _weights(_cacheable(pl_module).encoders, trainer.precision_plugin)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_encoders(pl_module)
        encoders = _cacheable(pl_module).encoders
        leave_out_of_averages(trainer, [*encoders.parameters(), *encoders.buffers()])

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.training and not trainer.sanity_checking:
            self._check_encoders(pl_module)

    @override
    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_encoders(pl_module)

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_encoders(pl_module)

    def splits(self, trainer: Trainer, data: MultimodalDataModule) -> list[Split]:
        """The splits that fitting reads: validation only where it is validated on, or searched on."""
        validates = bool(trainer.limit_val_batches) or data.architecture_split == "val"
        return ["train", "val"] if validates else ["train"]

    def prepare(
        self,
        module: LightningModule,
        data: MultimodalDataModule,
        splits: list[Split],
        device: torch.device | None = None,
        ranks: WaitingRanks | None = None,
    ) -> None:
        """Builds or checks the features of some splits, which have been set up, and lets the data module read them.

        Args:
            module: The stage.
            data: Its data.
            splits: Which splits.
            device: Where the encoders run, in their own type: features do not depend on the trainer's precision.
            ranks: Those that share the work; None: this process does all of it.
        """
        stage = _cacheable(module)
        device, ranks = device or torch.device("cpu"), ranks or WaitingRanks(None)
        first = ranks.rank == 0
        means = data.modality_means() if "train" in splits and not isinstance(stage, FineTuning) else {}
        raw = {split: _raw(data.source(split)) for split in splits}
        jobs = self._jobs(stage, data, raw, means)
        for job in jobs.values():
            job.cache.check(self.on_change)
        ranks.barrier()
        if first:
            for job in jobs.values():
                job.cache.claim()
        ranks.barrier()
        found = ranks.gather({name: job.cache.missing(ranks.rank, ranks.count) for name, job in jobs.items()})
        todo = {name: sorted(number for part in found for number in part[name]) for name in jobs}
        needed = sum(jobs[name].cache.bytes_of(shards) for name, shards in todo.items())
        if needed:
            if first:
                total = sum(jobs[name].cache.encodings(shards) for name, shards in todo.items())
                Console(stderr=True).print(
                    f"feature cache in {self.folder}: {megabytes(needed)} to be written "
                    f"({total:,} encodings, {self.dtype})",
                    highlight=False,
                    soft_wrap=True,
                )
            require_space(self.folder, needed)
        ranks.barrier()
        own = {name: shards[ranks.rank :: ranks.count] for name, shards in todo.items()}
        self._build(stage, data, jobs, own, device, first)
        ranks.barrier()
        self._attach(stage, data, jobs, splits)

    def _jobs(
        self, stage: CacheableModule, data: MultimodalDataModule, raw: dict[Split, Samples], means: dict[str, Tensor]
    ) -> dict[str, _Job]:
        """The caches that the stage needs, by the folder's name."""
        modalities = data.modalities
        length, pool, grid = _pooling(stage)
        shapes = compact_shapes(stage.encoders.feature_shapes, length, grid)
        encoders = stage.encoders.encoders
        common = {
            "encoder architecture": json.dumps({n: fingerprint.architecture(e) for n, e in encoders.items()}),
            "encoder weights": json.dumps({n: fingerprint.weights(e) for n, e in encoders.items()}),
            "pooling": f"length {length}, pool {pool}, grid {grid}",
            "versions": f"lightning-mmnas {version('lightning-mmnas')}, torch {torch.__version__}",
        }
        jobs: dict[str, _Job] = {}

        def add(
            name: str, samples: Samples, digest: str, views: int, dtype: StoredType, split: Split | None = None
        ) -> None:
            facts = {"data": digest, **common}
            if split is not None and (hooks := BatchTransfer(stage, data).code()):
                facts["batch transfer hooks"] = hooks
            if views > 1:
                assert stage.views is not None
                facts["augmentations"] = _augmentations(stage.views)
            seed = self.seed if views > 1 else 0
            cache = FeatureCache(self.folder / name, len(samples), shapes, views, facts, dtype, seed, self.batch_size)
            jobs[name] = _Job(cache, samples, views > 1, split)

        for split, samples in raw.items():
            digest = data_digest(samples, modalities)
            add(f"{split}/plain", samples, digest, 1, self.dtype, split)
            if _drawn(stage, split):
                add(f"{split}/views", samples, digest, self.views, self.dtype, split)
        if means:
            # One sample: what modality dropout puts in the place of a modality. In full precision, as the views' means.
            values = {
                name: (mean.long() if modalities[name].kind == "text" else mean.float())[None]
                for name, mean in means.items()
            }
            average = TensorSamples(values)
            add("train/means", average, data_digest(average, modalities), 1, "float32")
        return jobs

    def _build(
        self,
        stage: CacheableModule,
        data: MultimodalDataModule,
        jobs: dict[str, _Job],
        shards: dict[str, list[int]],
        device: torch.device,
        first: bool,
    ) -> None:
        names = list(data.modalities)
        count = sum(job.cache.encodings(shards[name]) for name, job in jobs.items())
        if not count:
            return
        pooling = _pooling(stage)
        with _on(stage, device), activity("feature cache", count, "encodings", shown=first) as shown:
            for name, job in jobs.items():
                augmented, received = job.augmented, _receiver(stage, data, job, device)

                def encode(
                    batch: Batch, augmented: bool = augmented, received: Receive = received
                ) -> dict[str, Tensor]:
                    inputs = {key: value for key, value in received(batch).items() if key in names}
                    if augmented:
                        assert stage.views is not None
                        inputs = stage.views.augmented(inputs)
                    return compact(stage.encoders(inputs), *pooling)

                labelled = job.split is not None and LABEL in data.part(job.split).keys
                keys = [*names, LABEL] if labelled and BatchTransfer(stage, data).hooks else names
                job.cache.build(job.samples, keys, encode, shards[name], device, shown.advance)

    def _attach(
        self, stage: CacheableModule, data: MultimodalDataModule, jobs: dict[str, _Job], splits: list[Split]
    ) -> None:
        for split in splits:
            plain, views = jobs[f"{split}/plain"], jobs.get(f"{split}/views")
            samples = CachedSamples(plain.samples, plain.cache, views.cache if views else None)
            stored = views.cache.views if views else 0
            data.attach(split, samples, stored, _drawn(stage, split))
        for owner in (data, stage):
            spare_stored(owner)
        if "train/means" in jobs:
            assert stage.views is not None
            stage.views.take_feature_means(feature_means(jobs["train/means"].cache))

    def _check_encoders(self, module: LightningModule) -> None:
        """A checkpoint that was loaded after the cache was checked may have brought other encoders."""
        if self._active and self._encoders != fingerprint.weights(_cacheable(module).encoders):
            raise CacheError(
                f"the features in {self.folder} are not those of the encoders in the checkpoint; give another folder, "
                "or model.init_args.encoder_weights of the run that the checkpoint is from"
            )


def _receiver(stage: CacheableModule, data: MultimodalDataModule, job: _Job, device: torch.device) -> Receive:
    """What happens to a batch on its way to the stage; samples that belong to no split are only moved."""
    transfer = BatchTransfer(stage, data, split=job.split or "train")
    if job.split is None or not transfer.hooks:
        return lambda batch: {key: value.to(device) for key, value in batch.items()}
    searched = data.architecture_fraction is not None or data.architecture_split is not None
    part = "weights" if searched and job.split == "train" else None
    # A copy: a hook may work in place, and the batch is encoded once per view.
    return lambda batch: transfer({key: value.clone() for key, value in batch.items()}, part)


def _weights(encoders: nn.Module, precision: Any) -> str:
    """Hash of the weights as they will be: the trainer is yet to bring them to its precision."""
    changes = precision.convert_input(torch.zeros(())).dtype != torch.float32
    return fingerprint.weights(precision.convert_module(deepcopy(encoders)) if changes else encoders)


def feature_means(cache: FeatureCache) -> dict[str, Tensor]:
    """What the encoders make of the training-set means, by feature, each of the feature's shape."""
    stored = cache.read(torch.zeros(1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long))
    return {name: value[0, 0] for name, value in stored.items()}


def _cacheable(module: LightningModule) -> CacheableModule:
    if not isinstance(module, FusionSearch | FusionPretraining | FineTuning):
        raise MisconfigurationException(
            f"FeatureCaching needs a stage with frozen encoders (FusionSearch, FusionPretraining or FineTuning), not "
            f"{type(module).__name__}; remove the callback"
        )
    _pooling(module)
    if not isinstance(module, FineTuning) and module.fusion.cross_modal_weight > 0:
        raise MisconfigurationException(
            "the cross-modal term averages whole features, which a cache does not hold: set "
            "model.init_args.cross_modal_weight to 0, or remove FeatureCaching"
        )
    return module


def _pooling(module: CacheableModule) -> tuple[int, Pool, Grid]:
    if isinstance(module, FusionSearch):
        length = module.space.length
    elif isinstance(module.network, FusionNetwork):
        length = module.network.genotype.space.length
    else:
        raise MisconfigurationException(
            f"FeatureCaching stores what the network of a genotype needs, and {type(module.network).__name__} may need "
            "more; give model.init_args.genotype in place of fusion, or remove the callback"
        )
    return length, module.built_with["pool"], module.built_with["grid"]


def _drawn(module: CacheableModule, split: Split) -> int:
    """Views of a sample that the stage takes from a batch of a split; 0: it takes samples as they are."""
    if isinstance(module, FineTuning):
        return int(split == "train" and module.views is not None)
    return 0 if isinstance(module, FusionSearch) and module.classifier is not None else 2


def _augmentations(views: TwoViews) -> str:
    return json.dumps({name: fingerprint.architecture(part) for name, part in views.by_modality().items()})


def _raw(samples: Samples) -> Samples:
    return samples.raw if isinstance(samples, CachedSamples) else samples


@contextmanager
def _on(module: LightningModule, device: torch.device) -> Iterator[None]:
    """Has a module on a device for a while."""
    before = module.device
    module.to(device)
    try:
        yield
    finally:
        module.to(before)
