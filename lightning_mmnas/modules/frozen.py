"""Encoders as the later stages see them: pretrained, frozen, one dict of named features."""

import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import Self

from lightning_mmnas.data.names import flaw
from lightning_mmnas.data.spec import ModalitySpec, lacking, of_those_in_use
from lightning_mmnas.encoders.base import Encoder
from lightning_mmnas.encoders.weights import check_intact, differences
from lightning_mmnas.errors import CheckpointError, ConfigError, DataError
from lightning_mmnas.space.genotype import Genotype

EncoderFactory = Callable[[ModalitySpec], Encoder]


@dataclass
class Brought:
    """What a checkpoint brings to the stage that is being built for it.

    Args:
        genotype: The checkpoint's, if it has one.

    Attributes:
        lacking: Parts whose files `load_part` could not take, and why.
    """

    genotype: Genotype | None = None
    lacking: list[tuple[nn.Module, CheckpointError]] = field(default_factory=list)


_brought: ContextVar[Brought | None] = ContextVar("brought", default=None)


def build_encoders(
    modalities: Mapping[str, ModalitySpec], factories: Mapping[str, EncoderFactory]
) -> dict[str, Encoder]:
    """Builds the encoder of every modality; a factory is looked up by the modality's name, then by its kind.

    Raises:
        ConfigError: A modality has no encoder, or an encoder no modality.
    """
    factories = of_those_in_use(factories, modalities)
    known = set(modalities) | {spec.kind for spec in modalities.values()}
    if unknown := sorted(set(factories) - known):
        raise ConfigError(
            f"encoders for {unknown}, but the modalities are {sorted(modalities)}; check model.init_args.encoders"
        )
    built = {}
    for name, spec in modalities.items():
        if (reason := flaw(name)) is not None:
            raise ConfigError(f"{name!r} cannot be the name of a modality: {reason}")
        factory = factories.get(name) or factories.get(spec.kind)
        if factory is None:
            raise ConfigError(
                f"modality {name!r} has no encoder; add model.init_args.encoders.{name} (or .{spec.kind} for the kind)"
            )
        built[name] = _built(name, spec, factory)
    return built


def _built(name: str, spec: ModalitySpec, factory: EncoderFactory) -> Encoder:
    if isinstance(factory, nn.Module):
        raise ConfigError(
            f"the encoder of modality {name!r} is a module; give its class, or functools.partial of it with arguments, "
            "which is called with the modality's ModalitySpec"
        )
    encoder = factory(spec)
    if not hasattr(encoder, "feature_shapes"):
        raise ConfigError(
            f"the encoder of modality {name!r}, {type(encoder).__name__}, is none: it has no feature_shapes; subclass "
            "lightning_mmnas.Encoder"
        )
    return encoder


class FrozenEncoders(nn.Module):
    """Runs every modality's encoder without gradients and in eval mode, whatever ``train()`` says.

    Args:
        encoders: Encoder of each modality.
    """

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(dict(encoders))
        self.requires_grad_(False)
        self.train(False)

    @property
    def feature_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every feature without the batch axis, by name ``<modality>/<level>``, level 0 the shallowest."""
        return {
            f"{modality}/{level}": tuple(shape)
            for modality, encoder in self.encoders.items()
            for level, shape in enumerate(cast(Encoder, encoder).feature_shapes)
        }

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode: running statistics of frozen encoders must not move."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Mapping[str, Tensor | Sequence[Tensor]]) -> dict[str, Tensor]:
        """Features by name of a batch.

        Args:
            batch: Per modality, samples of shape (b, ...); or a list of its features, computed before; or these
                features by name, of float16 or float32, as a feature cache gives them.
        """
        features = {}
        for modality, encoder in self.encoders.items():
            if modality not in batch and f"{modality}/0" in batch:
                stored = {n: v for n, v in batch.items() if n.rpartition("/")[0] == modality and isinstance(v, Tensor)}
                own = next((p.dtype for p in encoder.parameters()), torch.get_default_dtype())
                features.update({n: v.to(own) if v.dtype == torch.float16 else v for n, v in stored.items()})
                continue
            if not isinstance(value := batch.get(modality), Tensor | list | tuple):
                raise _no_samples(modality, value, batch)
            if isinstance(value, Tensor) and value.is_floating_point():
                own = next((p.dtype for p in encoder.parameters()), value.dtype)
                value = value.to(own) if value.dtype != own else value  # NumPy's numbers are float64
            levels = encoder(value) if isinstance(value, Tensor) else value
            if not isinstance(levels, list | tuple):
                raise ConfigError(
                    f"the encoder of modality {modality!r}, {type(encoder).__name__}, returned "
                    f"{type(levels).__name__}; it must return a list of features, one for each of its feature_shapes"
                )
            features.update({f"{modality}/{level}": feature for level, feature in enumerate(levels)})
        return features


def _no_samples(modality: str, value: Any, batch: Mapping[str, Any]) -> DataError:
    if modality not in batch:
        return lacking(modality, batch)
    return DataError(
        f"modality {modality!r} of the batch is {type(value).__name__}, not a tensor of prepared samples; a delivered "
        "model's transforms make them of raw values, and its predict takes these as they are"
    )


def read_checkpoint(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """Reads a Lightning checkpoint; nothing in it is executed.

    Raises:
        CheckpointError: No such file, or not a checkpoint that loads with ``weights_only=True``.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{what}: no checkpoint at {os.fspath(path)!r}; run the stage that writes it first")
    try:
        check_intact(path)
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["state_dict"].items()
    except Exception as error:  # torch raises a dozen types for a damaged file
        # Of torch's long texts the first sentence.
        reason = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{what}: {os.fspath(path)!r} is not a Lightning checkpoint ({reason})") from None
    return checkpoint


def load_part(module: nn.Module, path: str | os.PathLike[str], prefix: str, what: str) -> None:
    """Loads the entries below a prefix of a checkpoint into a module, all of them and no others.

    A network that has a genotype is given weights of the same genotype only: another wiring of the same primitives
    has entries of the same names and shapes.

    Raises:
        CheckpointError: The file cannot be read, or holds another architecture; names the first difference. (While a
            stage is built for a checkpoint, which may bring these entries, this is kept for `brought_by`.)
    """
    brought = _brought.get()
    try:
        _load_part(module, path, prefix, what)
    except CheckpointError as error:
        if brought is None:
            raise
        brought.lacking.append((module, error))


def _load_part(module: nn.Module, path: str | os.PathLike[str], prefix: str, what: str) -> None:
    checkpoint = read_checkpoint(path, what)
    entries = checkpoint["state_dict"].items()
    state = {name.removeprefix(prefix): value for name, value in entries if name.startswith(prefix)}
    if (found := differences(module.state_dict(), state)) is not None:
        raise CheckpointError(
            f"{what}: checkpoint {os.fspath(path)!r} is of another architecture: {found.number} entries differ, "
            f"first {prefix + found.first!r}: the model has {found.wanted}, the checkpoint {found.given}"
        )
    check_genotype(module, checkpoint, f"{what}: checkpoint {os.fspath(path)!r}")
    module.load_state_dict(state)


@contextmanager
def brought_by(genotype: Genotype | None) -> Iterator[Brought]:
    """While it lasts, files that `load_part` cannot take may be missing, and a genotype need not be given.

    Args:
        genotype: That of the checkpoint.
    """
    brought = Brought(genotype)
    token = _brought.set(brought)
    try:
        yield brought
    finally:
        _brought.reset(token)


def brought_genotype() -> Genotype | None:
    """The genotype of the checkpoint that a stage is being built for."""
    brought = _brought.get()
    return None if brought is None else brought.genotype


def require_brought(module: nn.Module, names: Container[str], brought: Brought) -> None:
    """Refuses a stage of which some part has its weights neither from a file nor from the checkpoint.

    Args:
        module: The stage.
        names: Of the checkpoint's entries.
        brought: What it was built with.

    Raises:
        CheckpointError: What was wrong with the file.
    """
    known = {id(value) for name, value in module.state_dict(keep_vars=True).items() if name in names}
    for part, error in brought.lacking:
        if any(id(value) not in known for value in part.state_dict(keep_vars=True).values()):
            raise error


def store_genotype(network: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Writes the network's genotype, if it has one, into a checkpoint."""
    genotype = getattr(network, "genotype", None)
    if isinstance(genotype, Genotype):
        checkpoint["genotype"] = genotype.to_json()


def check_genotype(network: nn.Module, checkpoint: Mapping[str, Any], what: str) -> None:
    """Refuses a checkpoint of another genotype than the network's.

    Raises:
        CheckpointError: The genotypes differ.
    """
    genotype, stored = getattr(network, "genotype", None), checkpoint.get("genotype")
    if isinstance(genotype, Genotype) and stored is not None:
        found = Genotype.from_json(stored)
        # Weights belong to the genotype as it is written, so its canonical form is not enough.
        if (found.cells, found.space) != (genotype.cells, genotype.space):
            raise CheckpointError(f"{what} is of another architecture:\n{found.describe()}\nnot\n{genotype.describe()}")
