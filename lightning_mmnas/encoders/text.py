"""Encoders of texts: a small convolutional one over word embeddings, and the models of transformers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mmnas.data.packages import model_folder
from lightning_mmnas.data.spec import ModalitySpec, Vocabulary
from lightning_mmnas.encoders.base import Encoder
from lightning_mmnas.encoders.weights import load_weights
from lightning_mmnas.errors import CheckpointError, ConfigError, DataError, MissingExtraError
from lightning_mmnas.files import write_text

_EMBEDDING_STD = 0.02
"""Standard deviation of embeddings at the beginning, as in BERT."""


class TextEncoder(Encoder):
    """Word embeddings pooled to a few segments, then residual convolutions over the segments; one feature per depth.

    Block i is x + dropout(ReLU(conv(LayerNorm(x)))). The embeddings are pooled over the words alone (see
    `pool_segments`), so padding changes nothing, and the convolutions cost a tenth of what they would over words: made
    for a few thousand texts, where which words occur says more than their order. Embeddings begin small, with a
    standard deviation of 0.02, so that few steps can move them.

    Args:
        spec: Modality of kind "text", shape (t,).
        width: Size of the embeddings and channels of every block.
        blocks: Number of convolutional blocks.
        kernel_size: Width of the convolutions in segments, odd.
        segments: Positions of a feature.
        dropout: Probability of dropping a value, in [0, 1).
        weights: Local file of pretrained weights; see `load_weights`.

    Raises:
        ConfigError: A size is not usable.
        DataError: The modality is not a text.

    Examples:
        >>> spec = ModalitySpec("text", (48,), torch.long, Vocabulary(1000))
        >>> TextEncoder(spec).feature_shapes
        [(256, 8), (256, 8), (256, 8)]
    """

    def __init__(
        self,
        spec: ModalitySpec,
        width: int = 256,
        blocks: int = 2,
        kernel_size: int = 3,
        segments: int = 8,
        dropout: float = 0.1,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.vocabulary = _vocabulary(spec, "TextEncoder")
        if width < 1 or blocks < 0 or segments < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(
                f"width and segments must be positive, blocks at least 0 and kernel_size odd, got width={width}, "
                f"segments={segments}, blocks={blocks}, kernel_size={kernel_size}"
            )
        self.width = width
        self.segments = segments
        self.embedding = nn.Embedding(self.vocabulary.size, width, padding_idx=self.vocabulary.pad)
        with torch.no_grad():
            self.embedding.weight.mul_(_EMBEDDING_STD)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2) for _ in range(blocks)
        )
        self.dropout = nn.Dropout(dropout)
        if weights is not None:
            load_weights(self, weights)

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (width, segments) of the embeddings and of every block's output."""
        return [(self.width, self.segments)] * (1 + len(self.norms))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Ids (b, t) -> features (b, width, segments).

        Raises:
            DataError: The shape does not fit.
        """
        _check_ids(x)
        state = pool_segments(self.embedding(x), x != self.vocabulary.pad, self.segments)
        features = [state]
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            update = F.relu(convolution(norm(state.transpose(1, 2)).transpose(1, 2)))
            state = state + self.dropout(update)
            features.append(state)
        return features


class TransformersEncoder(Encoder):
    """Any encoder model of transformers over texts, its hidden states pooled over the words (extra ``transformers``).

    The data module must use the same model's tokenizer. A sentence-embedding model is one too: ``sentence=True`` adds
    what sentence-transformers calls mean pooling, normalised to length 1, as the deepest feature. Of a model of encoder
    and decoder, such as T5, the encoder is taken.

    Args:
        spec: Modality of kind "text", shape (t,).
        name: Name or local folder of the model, or ``package:NAME``, the model in an installed package. Weights are
            read as safetensors; no code of the model's is run. A ``.json`` file is its configuration alone, with random
            weights unless there are ``weights``.
        layers: Hidden states that are features, shallow to deep; 0 is the embeddings, -1 the last layer.
        segments: Positions of a feature; see `pool_segments`.
        sentence: Whether the normalised mean of the last hidden state is a feature, of shape (c,).
        weights: A local file for all of the model's weights (see `load_weights`), or None: those of ``name``.

    Raises:
        MissingExtraError: transformers is not installed.
        CheckpointError: There is no such model, or its weights are not to be had as safetensors.
        ConfigError: There is no such layer.
        DataError: The modality is not a text, of another vocabulary, or longer than the model knows positions for.
    """

    def __init__(
        self,
        spec: ModalitySpec,
        name: str,
        layers: Sequence[int] = (-1,),
        segments: int = 8,
        sentence: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.vocabulary = _vocabulary(spec, "TransformersEncoder")
        if segments < 1 or (not layers and not sentence):
            raise ConfigError("segments must be positive, and there must be a layer or sentence=True")
        self.model = _model(name)
        known = self.model.get_input_embeddings().num_embeddings
        if self.vocabulary.size > known:
            raise DataError(
                f"the texts have ids up to {self.vocabulary.size - 1}, {name!r} knows {known}; "
                "give the data module the tokenizer of this model"
            )
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions is not None and spec.shape[0] > positions:
            raise DataError(
                f"{name!r} knows {positions} positions, fewer than the {spec.shape[0]} ids of a text; "
                "give the data module shorter texts"
            )
        if weights is not None:
            load_weights(self.model, weights)
        states = int(self.model.config.num_hidden_layers) + 1
        if wrong := [layer for layer in layers if not -states <= layer < states]:
            raise ConfigError(f"{name!r} has the hidden states 0 to {states - 1}, not {wrong}")
        self.layers = tuple(layers)
        self.segments = segments
        self.sentence = sentence
        self.width = int(self.model.config.hidden_size)

    def write_files(self, folder: Path) -> dict[str, str]:
        """Writes the model's configuration, without weights."""
        write_text(folder / "config.json", self.model.config.to_json_string())
        return {"name": "config.json"}

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (c, segments) of every layer, and (c,) of the sentence."""
        shapes: list[tuple[int, ...]] = [(self.width, self.segments)] * len(self.layers)
        return [*shapes, (self.width,)] if self.sentence else shapes

    def forward(self, x: Tensor) -> list[Tensor]:
        """Ids (b, t) -> features (b, c, segments), and (b, c) of the sentence."""
        _check_ids(x)
        words = x != self.vocabulary.pad
        # Attention over nothing is not a number.
        words = words | ((~words).all(1, keepdim=True) & (torch.arange(x.shape[1], device=x.device) == 0))
        states = self.model(input_ids=x, attention_mask=words.long(), output_hidden_states=True).hidden_states
        features = [pool_segments(states[layer], words, self.segments) for layer in self.layers]
        if self.sentence:
            features.append(F.normalize(pool_segments(states[-1], words, 1).squeeze(2), dim=1))
        return features


def pool_segments(hidden: Tensor, words: Tensor, segments: int) -> Tensor:
    """Adaptive average pooling over the words of each text, whatever their number and wherever its padding.

    Segment j of n words averages words floor(j n / segments) to ceil((j + 1) n / segments) - 1, as
    `adaptive_avg_pool1d` does on the words alone; a text without words gives zeros.

    Args:
        hidden: One vector per token, shape (b, t, c).
        words: Which tokens are words, bool, shape (b, t).
        segments: Positions of the result.

    Returns:
        Shape (b, c, segments).
    """
    n = words.sum(1).view(-1, 1, 1)
    place = (words.cumsum(1) - 1).unsqueeze(1)  # of each token among the words
    j = torch.arange(segments, device=hidden.device).view(1, -1, 1)
    first = torch.div(j * n, segments, rounding_mode="floor")
    last = torch.div((j + 1) * n + segments - 1, segments, rounding_mode="floor")
    member = ((place >= first) & (place < last) & words.unsqueeze(1)).to(hidden.dtype)  # b: text, segment, token
    means = member @ hidden / member.sum(2, keepdim=True).clamp(min=1)
    return means.transpose(1, 2)


def _vocabulary(spec: ModalitySpec, encoder: str) -> Vocabulary:
    if spec.kind != "text" or len(spec.shape) != 1 or spec.vocabulary is None:
        raise DataError(f"{encoder} takes texts of shape (t,), got kind {spec.kind!r} of shape {spec.shape}")
    return spec.vocabulary


def _check_ids(x: Tensor) -> None:
    if x.ndim != 2 or x.is_floating_point():
        raise DataError(f"expected token ids of shape (b, t), got {x.dtype} of shape {tuple(x.shape)}")


def _model(name: str) -> Any:
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError as error:
        raise MissingExtraError(
            "TransformersEncoder needs the package transformers; run: pip install 'lightning-mmnas[transformers]'"
        ) from error
    try:
        if name.endswith(".json"):
            configuration = AutoConfig.from_pretrained(name, trust_remote_code=False)
            model = cast(Any, AutoModel).from_config(configuration, trust_remote_code=False)
            return model.get_encoder() if model.config.is_encoder_decoder else model
        folder = model_folder(name)
        with _without_bars():
            model = cast(Any, AutoModel).from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"transformers cannot load {name!r} as safetensors: {reason}") from error
    return model.get_encoder() if model.config.is_encoder_decoder else model


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keeps transformers from drawing bars while it loads weights that are on the disk."""
    from transformers.utils import logging

    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
