"""A delivered model as a file that runs without this package: torch.export or ONNX, checked before it is kept."""

import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lightning_mmnas.data.spec import ModalitySpec, TargetScale
from lightning_mmnas.delivery.classifier import FusionClassifier
from lightning_mmnas.delivery.model import DeliveredModel
from lightning_mmnas.errors import ConfigError, GenotypeError, MissingExtraError, ModelError
from lightning_mmnas.files import replacing, write_json

Format = Literal["torch_export", "onnx"]
Output = Literal["classifier", "embedding"]
Input = Literal["samples", "features"]

SUFFIXES: dict[str, str] = {"torch_export": ".pt2", "onnx": ".onnx"}
_TOLERANCE = 1e-5
_SIZES = (1, 5)
"""Batch sizes that the file is checked with; it is made with three samples."""


def description_of(path: Path) -> Path:
    """The `.json` file beside an exported one; with its whole name, since `model.json` may be that of the model."""
    return path.with_name(f"{path.name}.json")


class ExportModule(nn.Module):
    """A delivered model with one positional argument per input, as export formats want it.

    Args:
        classifier: The model.
        task: Decides between softmax, sigmoid and a target in its own unit.
        names: Of the inputs: modalities, or features.
        output: ``"classifier"``: probabilities, or targets; ``"embedding"``: the fusion network's vector.
        inputs: ``"samples"``: with the encoders; ``"features"``: what they give comes in.
        target_scale: Mean and standard deviation of a regression's targets.
    """

    def __init__(
        self,
        classifier: FusionClassifier,
        task: str | None,
        names: list[str],
        output: Output,
        inputs: Input,
        target_scale: TargetScale | None = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.task = task
        self.names = names
        self.output: Output = output
        self.inputs: Input = inputs
        self.mean, self.std = target_scale or (0.0, 1.0)

    def forward(self, *values: Tensor) -> Tensor:
        """Inputs in the order of the names, each (b, ...) -> probabilities (b, num_classes) or vectors (b, d).

        Of a regression: targets (b, 1) in their own unit, float64, since float32 may not hold it.
        """
        given = dict(zip(self.names, values, strict=True))
        features: Mapping[str, Tensor] = self.classifier.encoders(given) if self.inputs == "samples" else given
        if self.output == "embedding":
            vectors: Tensor = self.classifier.network(features)
            return vectors
        logits = self.classifier.logits(features)
        if self.task == "regression":
            return logits.double() * self.std + self.mean
        return logits.softmax(-1) if self.task == "multiclass" else logits.sigmoid()


def export(
    model: DeliveredModel,
    path: Path,
    format: Format = "onnx",
    output: Output = "classifier",
    inputs: Input = "samples",
) -> dict[str, Any]:
    """Writes a file that runs without this package; any number of samples at once.

    The file is run with one and with five random samples and compared with the model before it takes its name. Beside
    it lies a `.json` file that names inputs, output and classes.

    Args:
        model: The model.
        path: The file: ``.pt2`` for torch.export, ``.onnx`` for ONNX.
        format: ``"torch_export"`` or ``"onnx"`` (extra ``onnx``).
        output: See `ExportModule`.
        inputs: See `ExportModule`. Samples are those that ``model.transforms`` gives: pixels as uint8, texts as ids,
            numbers standardised.

    Returns:
        What the `.json` file holds; ``difference`` is the largest one that was found.

    Raises:
        ConfigError: The suffix is not that of the format.
        ModelError: A part of the model cannot be exported; names it.
        MissingExtraError: A package is missing.
    """
    for value, kind, name in ((format, Format, "format"), (output, Output, "output"), (inputs, Input, "inputs")):
        if value not in get_args(kind):
            raise ConfigError(f"{name} {value!r} is not in {list(get_args(kind))}")
    if model.task is None and output == "classifier":
        raise ModelError(
            'the model was trained without labels: it has no classifier; take --what embedding, or output="embedding"'
        )
    if path.suffix.lower() != SUFFIXES[format]:
        raise ConfigError(f"{path}: the suffix of format {format!r} is {SUFFIXES[format]}; check --output")
    if (own := model.classifier.shares.dtype) != torch.float32:
        raise ModelError(f"the model's weights are {own}, and a file has float32: export what load gives, or .float()")
    training, device = model.training, model.device
    model.eval()
    try:
        with replacing(path) as temporary:
            if path.is_dir():
                raise IsADirectoryError("it is a folder")  # told as `replacing` tells it
            temporary.touch()  # told before the work, not behind it
            return _export(model, path, temporary, format, output, inputs)
    finally:
        model.to(device).train(training)


def _export(
    model: DeliveredModel, path: Path, temporary: Path, format: Format, output: Output, inputs: Input
) -> dict[str, Any]:
    names = list(model.modalities)
    if inputs == "features":
        names = list(model.encoders.feature_shapes)
        if output == "embedding" or model.classifier.linear is None:  # what nothing reads is no input
            read = _read_features(model)
            names = [name for name in names if name in read]
    module = ExportModule(model.classifier, model.task, names, output, inputs, model.card.target_scale).cpu().eval()
    spelled = [_identifier(name) for name in names]
    kind = "prediction" if model.task == "regression" else "probabilities"
    result = kind if output == "classifier" else "embedding"
    with torch.no_grad(), _quiet():
        program = _trace(module, _random(model, names, inputs, 3), spelled)
        if format == "onnx":
            _to_onnx(program, temporary, spelled, result)
            runner = _onnx_runner(temporary, spelled)
        else:
            content = io.BytesIO()  # torch ends the process where it cannot write a file of its own
            torch.export.save(program, content)
            temporary.write_bytes(content.getbuffer())
            runner = torch.export.load(temporary).module()
        difference = 0.0
        for size in _SIZES:
            values = _random(model, names, inputs, size)
            wanted, found = module(*values), runner(*values)
            if result == "prediction":  # as large as the network sees them
                wanted, found = (wanted - module.mean) / module.std, (found - module.mean) / module.std
            difference = max(difference, float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1)))
    if not difference <= _TOLERANCE:
        raise ModelError(f"the exported file differs from the model by {difference:.1g}, more than {_TOLERANCE:g}")
    found_spec = {
        spelling: {"name": name, "shape": ["batch", *value.shape[1:]], "dtype": str(value.dtype).partition(".")[2]}
        for spelling, name, value in zip(spelled, names, _random(model, names, inputs, 1), strict=True)
    }
    description = {
        "format": format,
        "inputs": found_spec,
        "output": result,
        "class_names": model.class_names,
        "thresholds": None if model.classifier.thresholds is None else model.classifier.thresholds.tolist(),
        "difference": difference,
        "made_by": model.card.made_by,
    }
    write_json(description_of(path), description)
    return description


def _trace(module: ExportModule, example: tuple[Tensor, ...], names: list[str]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=2**20)
    try:
        return torch.export.export(module, example, dynamic_shapes=(tuple({0: batch} for _ in names),), strict=False)
    except Exception as error:  # the tracer raises a dozen types
        part = _culprit(module, example)
        raise ModelError(f"{part} cannot be exported: {_first_line(error)}") from error


def _culprit(module: ExportModule, example: tuple[Tensor, ...]) -> str:
    """The part that torch.export does not take: an encoder, by its modality and class, or the network."""
    if module.inputs == "samples":
        for name, value in zip(module.names, example, strict=True):
            encoder = module.classifier.encoders.encoders[name]
            try:
                batch = torch.export.Dim("batch", min=1, max=2**20)
                torch.export.export(encoder, (value,), dynamic_shapes=({0: batch},), strict=False)
            except Exception:
                return f"the encoder of {name!r}, {type(encoder).__name__},"
    return f"the network {type(module.classifier.network).__name__}"


def _to_onnx(program: torch.export.ExportedProgram, path: Path, names: list[str], result: str) -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"exporting to ONNX needs the package {error.name}; run: pip install 'lightning-mmnas[onnx]'"
        ) from error
    try:
        exported = torch.onnx.export(
            program, dynamo=True, input_names=names, output_names=[result], verbose=False, external_data=False
        )
        assert exported is not None
        _free_names(exported.model.graph, {*names, result})
        _name_batch(exported.model.graph)
        exported.save(path, external_data=False)
    except OSError:  # told as `replacing` tells it
        raise
    except Exception as error:  # the exporter raises a dozen types
        reason = _first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise ModelError(f"the model cannot be exported to ONNX: {reason}; try torch_export") from error


def _free_names(graph: Any, taken: set[str]) -> None:
    """Renames what is computed on the way where it is called as an input or as the output."""
    outputs = {id(value) for value in graph.outputs}
    for node in graph:
        for value in node.outputs:
            if value.name in taken and id(value) not in outputs:
                value.name = f"{value.name}_inner"


def _name_batch(graph: Any) -> None:
    """Calls the first dimension of inputs and outputs "batch", and not as torch's tracer does."""
    symbol = re.escape(str(graph.inputs[0].shape[0]))
    for value in (*graph.inputs, *graph.outputs, *(value for node in graph for value in node.outputs)):
        for place, size in enumerate(value.shape or ()):
            if isinstance(name := getattr(size, "value", None), str):
                value.shape[place] = re.sub(rf"\b{symbol}\b", "batch", name)


def _onnx_runner(path: Path, names: list[str]) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(*values: Tensor) -> Tensor:
        given = {name: value.numpy() for name, value in zip(names, values, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run


def _random(model: DeliveredModel, names: list[str], inputs: Input, size: int) -> tuple[Tensor, ...]:
    """Random inputs; of features, those of random samples, so that their sizes are real ones."""
    generator = torch.Generator().manual_seed(size)
    batch = {name: random_sample(spec, size, generator) for name, spec in model.modalities.items()}
    if inputs == "features":
        batch = model.encoders(batch)
    return tuple(batch[name].contiguous() for name in names)


def random_sample(spec: ModalitySpec, size: int, generator: torch.Generator) -> Tensor:
    """Random samples of a modality, (size, ...), in the range of real ones."""
    shape = (size, *spec.shape)
    if spec.vocabulary is not None:
        return torch.randint(0, spec.vocabulary.size, shape, generator=generator)
    if spec.dtype == torch.uint8:
        return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    value = torch.randn(shape, generator=generator)
    return value.clamp(0, 1) if spec.kind in ("image", "video") else value


def _read_features(model: DeliveredModel) -> set[str]:
    """The features that the network looks at, found by taking away one after another."""
    features = model.encoders(
        {n: random_sample(s, 2, torch.Generator().manual_seed(0)) for n, s in model.modalities.items()}
    )
    read = set()
    for name in features:
        try:
            model.network({other: value for other, value in features.items() if other != name})
        except (KeyError, GenotypeError):  # of a network of the user's own, or of ours
            read.add(name)
    return read


def _identifier(name: str) -> str:
    """A name as both formats take it: letters, digits and underscores."""
    text = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    return text if text[:1].isalpha() else f"input_{text}"


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """No words of the exporters."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "torch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
