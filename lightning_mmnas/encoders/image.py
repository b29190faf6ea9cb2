"""Encoders of images: a small convolutional one, and the backbones of torchvision and timm."""

import logging
import operator
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_mmnas.data.packages import names_package
from lightning_mmnas.data.spec import ModalitySpec, to_unit
from lightning_mmnas.encoders.base import Encoder
from lightning_mmnas.encoders.weights import load_state, load_weights, read_weights, renamed_by_order
from lightning_mmnas.errors import CheckpointError, ConfigError, DataError, MissingExtraError

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""RGB of ImageNet, in [0, 1], as torchvision's weights expect it."""

_TRAIN_ONLY = ".*nodes obtained by tracing the model in eval mode.*"
"""torchvision's remark that some nodes, such as dropout, exist in training mode only; they are not tapped."""

TAPS: dict[str, tuple[str, ...]] = {
    # BM-NAS on MM-IMDB: the outputs of layers 20, 26, 33 and 36 of VGG-19's convolutional part, counted from 0 with
    # ReLUs and poolings: ReLU 4_1, ReLU 4_4, ReLU 5_3 and the last pooling.
    "vgg19": ("features.20", "features.26", "features.33", "features.36"),
    "resnet18": ("layer1", "layer2", "layer3", "layer4"),
    "resnet50": ("layer1", "layer2", "layer3", "layer4"),
}
"""Layers that are tapped where none are named."""


class ImageEncoder(Encoder):
    """3x3 convolutions of stride 2, each with batch norm and ReLU; one feature per block. Made for small images.

    Args:
        spec: Modality of kind "image", shape (1 or 3, h, w).
        channels: Output channels of every block.
        weights: Local file of pretrained weights; see `load_weights`.

    Raises:
        ConfigError: `channels` is not usable.
        DataError: The modality is not an image, or too small for so many blocks.

    Examples:
        >>> ImageEncoder(ModalitySpec("image", (1, 28, 28), torch.uint8)).feature_shapes
        [(16, 14, 14), (32, 7, 7), (64, 4, 4)]
    """

    def __init__(self, spec: ModalitySpec, channels: Sequence[int] = (16, 32, 64), weights: str | None = None) -> None:
        super().__init__()
        check_image(spec, type(self).__name__)
        if not channels or min(channels) < 1:
            raise ConfigError(f"channels must be positive numbers, got {list(channels)}")
        self.in_channels, h, w = spec.shape
        self._feature_shapes: list[tuple[int, ...]] = []
        self.blocks = nn.ModuleList()
        before = self.in_channels
        for after in channels:
            if max(h, w) == 1:
                raise DataError(f"images of {spec.shape[1]} x {spec.shape[2]} are too small for {len(channels)} blocks")
            block = nn.Sequential(
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
            )
            self.blocks.append(block.to(memory_format=torch.channels_last))
            before, h, w = after, (h + 1) // 2, (w + 1) // 2
            self._feature_shapes.append((after, h, w))
        if weights is not None:
            load_weights(self, weights)

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (c, h / 2^i, w / 2^i) of every block's output."""
        return list(self._feature_shapes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the output of every block.

        Args:
            x: Pixels (b, channels, h, w), uint8 or in [0, 1].

        Raises:
            DataError: The shape does not fit.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise DataError(f"expected images of shape (b, {self.in_channels}, h, w), got {tuple(x.shape)}")
        features = []
        x = to_unit(x).to(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return features


class TorchvisionEncoder(Encoder):
    """Any classification model of torchvision, tapped at named layers.

    Pixels are normalised by the mean and standard deviation that torchvision's weights of the model were trained with,
    mostly those of ImageNet; grey images are repeated to three channels.

    Args:
        spec: Modality of kind "image", shape (1 or 3, h, w).
        name: Name of the model, as `torchvision.models.list_models` gives it, such as "resnet18".
        layers: Nodes that are tapped, shallow to deep, as torchvision's `get_graph_node_names` gives them; None: the
            preset in `TAPS`. For "vgg19" these are the four taps of BM-NAS, for ResNets the four stages.
        weights: A local file of the whole model's weights (see `load_weights`; the classifier need not match), a name
            that torchvision downloads, such as "DEFAULT" or "IMAGENET1K_V1", or None: random weights.
        channels_last: Whether the tapped layers put the channels last, as those of transformers do: (b, n, c) of ViT
            and (b, h', w', c) of Swin become (b, c, n) and (b, c, h', w'). None: by the name of the model.

    Raises:
        ConfigError: There is no such model or node.
        CheckpointError: The weights cannot be had, or are of another architecture.
        DataError: The modality is not an image, or of a size that the model does not take.

    Examples:
        >>> encoder = TorchvisionEncoder(ModalitySpec("image", (3, 64, 64), torch.uint8), "resnet18")
        >>> encoder.feature_shapes[-1]
        (512, 2, 2)
    """

    def __init__(
        self,
        spec: ModalitySpec,
        name: str = "resnet18",
        layers: Sequence[str] | None = None,
        weights: str | None = None,
        channels_last: bool | None = None,
    ) -> None:
        super().__init__()
        check_image(spec, type(self).__name__)
        from torchvision import models

        known = models.list_models(module=models)
        if name not in known:
            raise ConfigError(f"torchvision has no classification model {name!r}; it has {known}")
        self.extractor = tapped(torchvision_model(name, weights), name, layers)
        self.channels_last = name.startswith(("swin", "vit")) if channels_last is None else channels_last
        published = models.get_model_weights(name)
        transform = published[weights if weights in published.__members__ else "DEFAULT"].transforms()
        self.register_buffer("mean", torch.tensor(transform.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(transform.std).view(3, 1, 1), persistent=False)
        self._feature_shapes = shapes_of(self, spec)

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (c, h', w') of every tapped layer."""
        return list(self._feature_shapes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the output of every tapped layer.

        Args:
            x: Pixels (b, 1 or 3, h, w), uint8 or in [0, 1].
        """
        pixels = (three_channels(to_unit(x)) - self.get_buffer("mean")) / self.get_buffer("std")
        features = list(self.extractor(pixels).values())
        return [feature.movedim(-1, 1) for feature in features] if self.channels_last else features


class TimmEncoder(Encoder):
    """Any model of timm that gives features at several depths (extra ``timm``).

    Args:
        spec: Modality of kind "image", shape (1 or 3, h, w); grey images are repeated to three channels.
        name: Name of the model, as `timm.list_models` gives it.
        levels: Which of its levels, shallow to deep; None: all.
        weights: A local file of the whole model's weights, as timm publishes them, or of the part that gives features
            (see `load_weights`; the classifier need not match; entries of other names must stand in timm's order), the
            file of an installed package as ``package:NAME``, "pretrained": timm downloads them, or None: random.

    Raises:
        MissingExtraError: timm is not installed.
        ConfigError: There is no such model or level.
        CheckpointError: The weights cannot be had, or are of another architecture.
        DataError: The modality is not an image, or of a size that the model does not take.
    """

    def __init__(
        self,
        spec: ModalitySpec,
        name: str = "resnet18",
        levels: Sequence[int] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        check_image(spec, type(self).__name__)
        try:
            import timm
        except ImportError as error:
            raise MissingExtraError(
                "TimmEncoder needs the package timm; run: pip install 'lightning-mmnas[timm]'"
            ) from error
        if not timm.is_model(name):
            raise ConfigError(f"timm has no model {name!r}; timm.list_models() names those it has")
        options: dict[str, Any] = {}
        if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
            options["img_size"] = tuple(spec.shape[1:])  # transformers are built for one size
        self.extractor = _timm_features(name, levels, weights, options)
        # Transformers of timm put the channels last.
        self.channels_last = str(getattr(self.extractor, "output_fmt", "")) in ("NHWC", "Format.NHWC")
        configuration = getattr(self.extractor, "default_cfg", None) or {}
        self.register_buffer("mean", torch.tensor(configuration.get("mean", _MEAN)).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(configuration.get("std", _STD)).view(-1, 1, 1), persistent=False)
        self._feature_shapes = shapes_of(self, spec)

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (c, h', w') of every level."""
        return list(self._feature_shapes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the features of every level.

        Args:
            x: Pixels (b, 1 or 3, h, w), uint8 or in [0, 1].
        """
        pixels = (three_channels(to_unit(x)) - self.get_buffer("mean")) / self.get_buffer("std")
        features = list(self.extractor(pixels))
        return [feature.movedim(-1, 1) for feature in features] if self.channels_last else features


def check_image(spec: ModalitySpec, encoder: str) -> None:
    """Raises `DataError` for a modality that is not an image."""
    if spec.kind != "image" or len(spec.shape) != 3 or spec.shape[0] not in (1, 3):
        raise DataError(f"{encoder} takes images of shape (1 or 3, h, w), got kind {spec.kind!r} of shape {spec.shape}")


def three_channels(x: Tensor) -> Tensor:
    """Repeats grey pixels (b, 1, *rest) to (b, 3, *rest); RGB stays as it is."""
    return x if x.shape[1] == 3 else x.expand(-1, 3, *x.shape[2:])


def tapped(model: nn.Module, name: str, layers: Sequence[str] | None) -> nn.Module:
    """A torchvision model that returns a dict of the outputs of named nodes; later layers are cut off.

    Nothing works in place in it: a convolution that is tapped gives its own output, not that of the ReLU after it.

    Args:
        model: The model.
        name: Its name, for presets and messages.
        layers: The nodes, shallow to deep; None: the preset of `TAPS`.

    Raises:
        ConfigError: There is no preset, or no such node.
    """
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    if layers is None and name not in TAPS:
        raise ConfigError(f"{name!r} has no preset layers; name them, or take one of {sorted(TAPS)}")
    chosen = list(TAPS[name] if layers is None else layers)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ConfigError(f"layers must name one or more nodes, each once, got {chosen}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_TRAIN_ONLY)
        nodes = get_graph_node_names(model)[1]
    for layer in chosen:
        if not any(node == layer or node.startswith(f"{layer}.") for node in nodes):
            raise ConfigError(f"{name!r} has no node {layer!r}; it has {nodes}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_TRAIN_ONLY)
        extractor = create_feature_extractor(model, chosen)
    for module in extractor.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    for graph in (extractor.train_graph, extractor.eval_graph):
        for node in graph.nodes:
            if node.kwargs.get("inplace"):
                node.kwargs = {**node.kwargs, "inplace": False}
            if node.target is operator.iadd:
                node.target = operator.add
    extractor.recompile()
    return cast(nn.Module, extractor)


def shapes_of(encoder: nn.Module, spec: ModalitySpec) -> list[tuple[int, ...]]:
    """Shape of every feature without the batch axis, found by one sample of zeros in eval mode.

    Raises:
        DataError: The sample does not go through, such as a picture too small for the poolings.
    """
    training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            features: list[Tensor] = encoder(torch.zeros(1, *spec.shape, dtype=spec.dtype))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{type(encoder).__name__} cannot take {spec.kind} of shape {spec.shape}: {reason}; "
            "give the data another size, or take another model"
        ) from error
    encoder.train(training)
    return [tuple(feature.shape[1:]) for feature in features]


def torchvision_model(name: str, weights: str | None) -> nn.Module:
    """A torchvision model with random weights, those of a local file, or those that torchvision downloads."""
    from torchvision import models

    local = weights is not None and (names_package(weights) or Path(weights).suffix or Path(weights).exists())
    file = weights if local else None
    # These two rescale their input to the range they were trained with, if told so.
    options = {"transform_input": True} if name in ("googlenet", "inception_v3") else {}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The default weight initialization of", category=FutureWarning)
            model: nn.Module = models.get_model(name, weights=None if file else weights, **options)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"torchvision has no weights {weights!r} for {name!r}: {error}") from error
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"torchvision cannot download the weights {weights!r} of {name!r}: {error}") from error
    if file:
        load_weights(model, file, ignore=("classifier.", "fc.", "heads.", "head.", "AuxLogits.", "aux1.", "aux2."))
    return model


def _timm_features(name: str, levels: Sequence[int] | None, weights: str | None, options: dict[str, Any]) -> nn.Module:
    """A timm model that returns its features; see `TimmEncoder`."""
    import timm

    options = {**options, "features_only": True, **({} if levels is None else {"out_indices": tuple(levels)})}
    try:
        with _quiet("timm"):
            extractor: nn.Module = timm.create_model(name, pretrained=weights == "pretrained", **options)
    except (RuntimeError, ValueError, IndexError, AssertionError, AttributeError, TypeError) as error:
        raise ConfigError(f"timm model {name!r} gives no features at levels {levels}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"timm cannot download the weights of {name!r}: {error}") from error
    if weights is None or weights == "pretrained":
        return extractor
    state = read_weights(weights)
    if state.keys() == extractor.state_dict().keys():
        load_state(extractor, state, weights)
        return extractor
    whole: Any = timm.create_model(name)
    classifier = whole.default_cfg.get("classifier") or ()
    if not state.keys() & whole.state_dict().keys():
        state = renamed_by_order(state, [(key, tuple(value.shape)) for key, value in whole.state_dict().items()])
    load_state(whole, state, weights, ignore=(classifier,) if isinstance(classifier, str) else tuple(classifier))
    # timm knows how the names of the whole model become those of its features, and tells which are left over.
    overlay = {"state_dict": dict(whole.state_dict())}
    with _quiet("timm"):
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keeps a library from warning of weights that are left over, as those of a classifier are."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
