"""The model that a run has left, looked at: predictions, errors, vectors, what a modality is worth, what it costs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from matplotlib.figure import Figure
from torch import Tensor

from lightning_mmnas.callbacks.progress import quiet
from lightning_mmnas.commands.compare import read_features
from lightning_mmnas.commands.deliver import delivered_weights
from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.costs.measuring import count_flops, count_parameters, measure_latency
from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.samples import Samples
from lightning_mmnas.data.spec import unscaled
from lightning_mmnas.data.targets import standardised
from lightning_mmnas.errors import ConfigError, MMNASError, RunDirectoryError
from lightning_mmnas.files import write_bytes
from lightning_mmnas.fusion.compact import compact
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.modules.finetune import FineTuning
from lightning_mmnas.modules.frozen import read_checkpoint
from lightning_mmnas.modules.metrics import build_metrics, build_tuned_metrics, main_metric
from lightning_mmnas.modules.transfer import BatchTransfer
from lightning_mmnas.parsing import read_yaml
from lightning_mmnas.report import measures
from lightning_mmnas.report.data_summary import plot_views
from lightning_mmnas.space.genotype import Genotype

_SAMPLES = 2000
"""Samples of the test split that are looked at."""
_CHUNK = 128
_ERRORS = 6
_DRAWN = 3
"""Samples that are drawn with their views."""


@dataclass
class _Model:
    """The fine-tuned model and the test samples that are shown to it."""

    module: FineTuning
    data: MultimodalDataModule
    raw: Samples
    places: Tensor
    features: dict[str, Tensor]
    labels: Tensor
    groups: Tensor | None

    @torch.no_grad()
    def encode(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features of raw samples or of stored features, as small as the network needs them."""
        return _encode(self.module, batch)

    @torch.no_grad()
    def probabilities(self, features: dict[str, Tensor]) -> Tensor:
        """Class probabilities of all samples, on the CPU; of a regression targets in their own unit, (n, 1)."""
        parts = [self.module.predict_step(part, 0) for part in _chunks(features)]
        found = torch.cat(parts).cpu()
        return found if self.module.task == "regression" else found.float()

    def score(self, probabilities: Tensor) -> dict[str, float]:
        """The metrics of the fine-tuning; multi-label F1 with the tuned thresholds too."""
        module = self.module
        classes = probabilities.shape[1]
        if module.task == "regression":
            predicted = standardised(probabilities.flatten(), module.target_scale or (0.0, 1.0))
            metrics = build_metrics(module.task, classes, target_scale=module.target_scale)
            return {name: float(value) for name, value in metrics(predicted, self.labels).items()}
        found = dict(build_metrics(module.task, classes, module.built_with["threshold"])(probabilities, self.labels))
        if module.task == "multilabel":
            decisions = (probabilities > module.get_buffer("thresholds").cpu()).float()
            found |= build_tuned_metrics(classes)(decisions, self.labels)
        return {name: float(value) for name, value in found.items()}


def inspect_run(run_dir: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Loads the model of a run and its data, and measures what the report shows of them.

    Args:
        run_dir: Folder of a finished run; pictures of samples are written to ``pictures/`` in it.

    Returns:
        The findings and None; or None and why the model could not be looked at, in a sentence.
    """
    if not (run_dir / "finetune").is_dir():
        return None, "The run ended after pretraining, without labels: there are no predictions to look at."
    try:
        with isolate_rng(), quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = _build(run_dir)
            torch.manual_seed(0)
            return _inspect(model, run_dir), None
    except (MMNASError, OSError) as error:
        reason = " ".join(str(error).split())
        return None, f"The model of this run was not looked at: {reason}"


def _inspect(model: _Model, run_dir: Path) -> dict[str, Any]:
    module, data = model.module, model.data
    pictures = run_dir / "pictures"
    probabilities = model.probabilities(model.features)
    scores = model.score(probabilities)
    several = module.task == "multilabel"
    found: dict[str, Any] = {
        "task": module.task,
        "classes": list(data.class_names),
        "modalities": {name: {"kind": s.kind, "shape": list(s.shape)} for name, s in data.modalities.items()},
        "features": {name: list(shape) for name, shape in module.encoders.feature_shapes.items()},
        "samples": {"shown": len(model.places), "test": len(data.part("test"))},
        "scores": scores,
        "metric": main_metric(module.task),
    }
    if several:
        decisions = (probabilities > module.get_buffer("thresholds").cpu()).float()
        found["labels"] = measures.label_scores(decisions, model.labels, data.class_names)
        errors = measures.worst_labels(probabilities, model.labels, _ERRORS)
    elif module.task == "regression":
        predicted, true = probabilities.flatten(), unscaled(model.labels, module.target_scale).flatten()
        found["scatter"] = {"true": true.tolist(), "predicted": predicted.tolist()}
        errors = measures.largest_errors(predicted, true, _ERRORS)
    else:
        found["confusion"] = measures.confusion(probabilities, model.labels)
        errors = measures.confident_errors(probabilities, model.labels, _ERRORS)
    for number, error in enumerate(errors):
        sample = {name: values[0] for name, values in model.raw.batch(model.places[error["index"]][None]).items()}
        error["picture"] = f"error-{number + 1}.png"
        write_bytes(pictures / error["picture"], _png(data.plot(sample)))
    found["errors"] = errors
    found["missing"] = _missing(model, scores, found["metric"])
    found["embeddings"] = _embeddings(model, run_dir)
    found["costs"] = _costs(model)
    if module.views is not None and (drawn := min(_DRAWN, len(data.source("train")))):
        write_bytes(pictures / "samples.png", _png(plot_views(data, module.views, "train", drawn)))
        found["samples_picture"] = "samples.png"
    return found


def _build(run_dir: Path) -> _Model:
    """The fine-tuning stage as its own saved configuration says, with the weights that it ended with.

    Raises:
        RunDirectoryError: The stage is a class of the user's own, or its data have no labels.
    """
    config = _moved(run_dir, "finetune")
    cli = MMNASCLI(config, run=False, save_config_callback=None)
    module, data = cli.model, cli.datamodule
    if not isinstance(module, FineTuning) or not isinstance(data, MultimodalDataModule):
        raise RunDirectoryError(
            f"its last stage is {type(module).__name__} on {type(data).__name__}, and only FineTuning on a "
            "MultimodalDataModule is known"
        )
    data.use_all_labels()
    module.trainer = cli.trainer  # whose precision and hooks count
    data.setup("fit")
    data.setup("test")
    raw, part = data.source("test"), data.part("test")
    if part.labels is None:
        raise RunDirectoryError("its data have no labels")
    device = cli.trainer.strategy.root_device
    read_features(cli, ["test"], device)
    weights = read_checkpoint(delivered_weights(run_dir / "finetune"), "the fine-tuned model")
    module.on_load_checkpoint(weights)
    module.load_state_dict(weights["state_dict"])
    module = module.to(device).eval()
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(part), generator=generator)[:_SAMPLES].sort().values
    found: dict[str, list[Tensor]] = {}
    transfer = BatchTransfer(module, data, split="test")
    for start in range(0, len(chosen), _CHUNK):
        batch = part.__getitems__(chosen[start : start + _CHUNK].tolist())
        for name, value in _encode(module, transfer(batch)).items():
            found.setdefault(name, []).append(value)
    features = {name: torch.cat(values) for name, values in found.items()}
    places = part.indices[chosen]
    groups = None if part.groups is None else part.groups[chosen].cpu()
    return _Model(module, data, raw, places, features, module.labels({"label": part.labels[chosen].cpu()}), groups)


def _encode(module: FineTuning, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    features: dict[str, Tensor] = module.encoders(batch)
    if not isinstance(module.network, FusionNetwork):
        return features
    genotype, hparams = module.network.genotype, module.built_with
    assert isinstance(genotype, Genotype)
    return compact(features, genotype.space.length, hparams["pool"], hparams["grid"])


def _moved(run_dir: Path, stage: str) -> dict[str, Any]:
    """The saved configuration of a stage, with the place where the run lies now in all its paths.

    Raises:
        RunDirectoryError: There is none, or it is damaged.
    """
    path = run_dir / stage / "config.yaml"
    try:
        content = read_yaml(path)
        before = str(content["run_dir"])
    except (ConfigError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"cannot read {path}: {' '.join(str(error).split())}") from None

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replaced(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [replaced(entry) for entry in value]
        for start in (before, "${run_dir}"):  # configurations of earlier versions name the place
            if isinstance(value, str) and (value == start or value.startswith(f"{start}/")):
                return str(run_dir) + value[len(start) :]
        return value

    found = {key: replaced(value) for key, value in content.items() if key not in ("ckpt_path", "weights_only")}
    found["trainer"]["logger"] = False
    return found


@torch.no_grad()
def _missing(model: _Model, scores: dict[str, float], metric: str) -> dict[str, Any]:
    """The score with every modality replaced by its training-set mean, a text by padding."""
    names = list(model.data.modalities)
    if len(names) < 2:
        return {"metric": metric, "all": scores[metric], "without": {}}
    means = model.data.modality_means()
    device = next(model.module.parameters()).device
    without = {}
    for name in names:
        nothing = {other: model.raw.batch(model.places[:1])[other].to(device) for other in names}
        nothing[name] = means[name][None].to(device)
        features = dict(model.features)
        for key, value in model.encode(nothing).items():
            if key.rpartition("/")[0] == name:
                features[key] = value.expand_as(features[key])
        without[name] = model.score(model.probabilities(features))[metric]
    return {"metric": metric, "all": scores[metric], "without": without}


@torch.no_grad()
def _embeddings(model: _Model, run_dir: Path) -> dict[str, Any]:
    """The vectors of the network before and after pretraining, in two dimensions each."""
    module = model.module
    if not isinstance(module.network, FusionNetwork):
        return {}
    hparams = module.built_with
    genotype = module.network.genotype
    assert isinstance(genotype, Genotype)
    options = {name: hparams[name] for name in ("readout", "dropout", "pool", "grid")}
    fresh = FusionNetwork(genotype, module.encoders.feature_shapes, **options).to(module.device).eval()
    vectors = {"before": torch.cat([fresh(part) for part in _chunks(model.features)]).cpu()}
    path = run_dir / "pretrain" / "checkpoints" / "last.ckpt"
    state = read_checkpoint(path, "the pretrained network")["state_dict"]
    wanted = {key: state[f"network.{key}"] for key in fresh.state_dict() if f"network.{key}" in state}
    if wanted.keys() == fresh.state_dict().keys():
        fresh.load_state_dict(wanted)
        vectors["after"] = torch.cat([fresh(part) for part in _chunks(model.features)]).cpu()
    regression = module.task == "regression"
    targets = unscaled(model.labels, module.target_scale).flatten()
    found: dict[str, Any] = {"method": "PCA", "labels": [] if regression else _first_labels(model.labels)}
    found |= {"targets": targets.tolist()} if regression else {}
    found["groups"] = model.groups is not None and bool((model.groups != model.groups[0]).any())
    for name, value in vectors.items():
        points, share = measures.two_dimensions(value)
        found[name] = {"points": points, "variance": share, "neighbour": None}
        if regression:
            found[name]["correlation"] = measures.neighbour_correlation(value, targets, model.groups)
        elif len(value) > 1:
            found[name]["neighbour"] = measures.neighbour_accuracy(value, model.labels, model.groups)
    return found


def _first_labels(labels: Tensor) -> list[int]:
    """The class of every sample; of multi-label data the most frequent of its labels, -1 where it has none."""
    if labels.ndim == 1:
        return [int(label) for label in labels.tolist()]
    ranked = (labels > 0) * (labels > 0).sum(0)
    return [int(k) if top > 0 else -1 for top, k in zip(*(t.tolist() for t in ranked.max(1)), strict=True)]


@torch.no_grad()
def _costs(model: _Model) -> dict[str, Any]:
    """Parameters, operations and seconds of one sample through each part."""
    module = model.module
    device = next(module.parameters()).device
    sample = model.raw.batch(model.places[:1])
    moved = BatchTransfer(module, model.data, split="test")(sample)
    raw = {name: moved[name] for name in model.data.modalities}
    features = module.encoders(raw)
    rows = [
        {
            "part": name,
            "parameters": count_parameters(part),
            "flops": count_flops(part, (argument,)),
            "seconds": measure_latency(part, (argument,), repeats=5),
        }
        for name, part, argument in (("encoders", module.encoders, raw), ("network", module.network, features))
    ]
    rows.append(
        {
            "part": "whole model",
            "parameters": count_parameters(module),
            "flops": count_flops(module, (raw,)),
            "seconds": measure_latency(module, (raw,), repeats=5),
        }
    )
    return {"parts": rows, "device": device.type, "threads": 1, "batch_size": 1}


def _chunks(features: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    count = len(next(iter(features.values())))
    for start in range(0, count, _CHUNK):
        yield {name: value[start : start + _CHUNK] for name, value in features.items()}


def _png(figure: Figure) -> bytes:
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    return picture.getvalue()
