"""Augmentations of token ids on whole batches, on their device; every sample draws its own parameters."""

import torch
from torch import Tensor, nn

from lightning_mmnas.data.spec import ModalitySpec, Vocabulary
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.views.ranges import check


def words_of(x: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Which ids are words: neither padding nor special. Bool, of the shape (b, t) of the ids."""
    reserved = torch.tensor([vocabulary.pad, *vocabulary.special], device=x.device)
    return ~torch.isin(x, reserved)


def crop_words(words: Tensor, smallest: float) -> Tensor:
    """Chooses a random stretch of the words of each text, at least one word.

    Args:
        words: Which tokens are words, bool, shape (b, t).
        smallest: Least share of the words that is kept, in (0, 1].

    Returns:
        Which words are kept, bool, shape (b, t).
    """
    b, device = len(words), words.device
    n = words.sum(1, keepdim=True)
    share = smallest + (1 - smallest) * torch.rand(b, 1, device=device)
    length = (share * n).round().clamp(min=1)
    start = ((n - length + 1) * torch.rand(b, 1, device=device)).floor()
    place = words.cumsum(1) - 1
    return words & (place >= start) & (place < start + length)


def drop_words(words: Tensor, p: float) -> Tensor:
    """Leaves out every word with probability p, but never all words of a text.

    Args:
        words: Which tokens are words, bool, shape (b, t).
        p: Probability, in [0, 1].

    Returns:
        Which words are kept, bool, shape (b, t).
    """
    draws = torch.rand(words.shape, device=words.device).masked_fill(~words, -1.0)
    return words & ((draws >= p) | (draws == draws.amax(1, keepdim=True)))


def compact(x: Tensor, kept: Tensor, pad: int) -> Tensor:
    """Moves the tokens that are kept to the front, in their order, and fills up with padding.

    Args:
        x: Ids, shape (b, t).
        kept: Which tokens are kept, bool, shape (b, t).
        pad: Id of the padding.
    """
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
    moved = x.gather(1, order)
    return moved.masked_fill(~kept.gather(1, order), pad)


class TextViews(nn.Module):
    """One random view of token ids: a stretch of the text, with some words left out and some masked.

    Special ids stay and are not masked; a text with words keeps at least one. Where the vocabulary has no id for masks
    but that of padding, words to be masked are left out. An argument of 0 (crop: 1) switches its augmentation off.
    Random in evaluation mode too.

    Source: word dropout: Iyyer et al., ACL 2015; token masking: Devlin et al. (BERT), NAACL 2019; crops: Meng et al.
    (COCO-LM), NeurIPS 2021.

    Args:
        crop: Least share of the words that a crop keeps, in (0, 1]; see `crop_words`.
        drop: Probability that a word is left out, in [0, 1]; see `drop_words`.
        mask: Probability that a word is replaced by the id of the mask, in [0, 1].

    Raises:
        ConfigError: An argument is out of its range.
    """

    def __init__(self, crop: float = 0.5, drop: float = 0.2, mask: float = 0.1) -> None:
        super().__init__()
        check("crop", crop, 0 < crop <= 1, "in (0, 1]")
        check("drop", drop, 0 <= drop <= 1, "in [0, 1]")
        check("mask", mask, 0 <= mask <= 1, "in [0, 1]")
        self.crop = crop
        self.drop = drop
        self.mask = mask
        self.vocabulary: Vocabulary | None = None

    def bind(self, spec: ModalitySpec) -> None:
        """Learns which ids are reserved; `TwoViews` calls it with each modality that these views are for.

        Raises:
            ConfigError: It was bound to another vocabulary before.
        """
        if self.vocabulary is not None and spec.vocabulary != self.vocabulary:
            raise ConfigError(
                "one TextViews cannot serve texts of two vocabularies; give augmentations an entry for each modality"
            )
        self.vocabulary = spec.vocabulary

    def forward(self, x: Tensor) -> Tensor:
        """Returns a view of ids (b, t), of the same shape.

        Raises:
            ConfigError: The vocabulary is not known.
        """
        if self.vocabulary is None:
            raise ConfigError("TextViews does not know the vocabulary; call bind(spec) with the modality first")
        words = words_of(x, self.vocabulary)
        kept = words
        if self.crop < 1:
            kept = crop_words(kept, self.crop)
        if self.drop > 0:
            kept = drop_words(kept, self.drop)
        if self.mask > 0 and self.vocabulary.mask == self.vocabulary.pad:
            kept = drop_words(kept, self.mask)
        elif self.mask > 0:
            masked = kept & (torch.rand(x.shape, device=x.device) < self.mask)
            x = x.masked_fill(masked, self.vocabulary.mask)
        marks = ~words & (x != self.vocabulary.pad)
        return compact(x, kept | marks, self.vocabulary.pad)

    def extra_repr(self) -> str:
        """Lists the arguments."""
        return f"crop={self.crop}, drop={self.drop}, mask={self.mask}"
