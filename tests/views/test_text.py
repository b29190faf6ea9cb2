"""Augmentations of token ids against plain Python."""

import pytest
import torch
from torch import Tensor

from lightning_mmnas.data.spec import ModalitySpec, Vocabulary
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.views import MotionViews, TextViews, TwoViews
from lightning_mmnas.views.text import compact, crop_words, drop_words

VOCABULARY = Vocabulary(100, pad=0, unknown=1, mask=2, special=(3, 4))
SPEC = ModalitySpec("text", (10,), torch.long, VOCABULARY)


def texts(b: int = 2000) -> Tensor:
    """[3, word, ..., word, 4, pad, ...] with 0 to 8 different words each."""
    x = torch.zeros(b, 10, dtype=torch.long)
    for row in range(b):
        n = row % 9
        x[row, : n + 2] = torch.tensor([3, *range(10, 10 + n), 4])
    return x


def bound(**arguments: float) -> TextViews:
    views = TextViews(**arguments)
    views.bind(SPEC)
    return views


def test_compacting_keeps_the_order() -> None:
    x = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
    kept = torch.tensor([[False, True, False, True], [True, False, False, False]])
    assert compact(x, kept, 9).tolist() == [[6, 8, 9, 9], [5, 9, 9, 9]]


def test_crops_are_stretches_of_the_length_asked_for() -> None:
    torch.manual_seed(0)
    x = texts()
    words = x >= 10
    kept = crop_words(words, 0.5)
    starts = set()
    for row in range(len(x)):
        chosen = x[row][kept[row]].tolist()
        n = int(words[row].sum())
        assert chosen == (list(range(chosen[0], chosen[0] + len(chosen))) if n else [])
        assert max(round(0.5 * n - 1e-6), min(n, 1)) <= len(chosen) <= n
        if n == 8:
            starts.add(chosen[0] - 10)
    assert starts == {0, 1, 2, 3, 4}


def test_words_are_dropped_as_often_as_asked_for_but_never_all() -> None:
    torch.manual_seed(0)
    words = texts() >= 10
    kept = drop_words(words, 0.4)
    assert bool((kept.any(1) == words.any(1)).all())
    of_eight = kept[8::9]
    assert of_eight.sum(1).float().mean() == pytest.approx(8 * 0.6 + 0.4**8, abs=0.2)
    assert not bool((kept & ~words).any())


def test_views_keep_the_marks_and_hold_only_words_of_the_text_in_order() -> None:
    torch.manual_seed(0)
    x = texts()
    y = bound(crop=0.5, drop=0.3, mask=0.2)(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    masked = 0
    for before, after in zip(x.tolist(), y.tolist(), strict=True):
        body = [token for token in after if token != 0]
        assert after == body + [0] * (10 - len(body))  # padding at the end only
        assert body[0] == 3
        assert body[-1] == 4
        words = [token for token in body if token >= 10]
        assert words == sorted(words)
        assert set(words) <= set(before)
        masked += body.count(2)
        assert len(body) > 2 or before[1] == 4  # something is left of a text with words
    assert masked > 0


def test_a_mask_that_is_padding_leaves_words_out_but_never_all() -> None:
    torch.manual_seed(0)
    views = TextViews(crop=1, drop=0, mask=0.5)
    views.bind(ModalitySpec("text", (5,), torch.long, Vocabulary(50, pad=5, unknown=5, mask=5)))
    y = views(torch.tensor([[7, 8, 9, 5, 5]]).repeat(500, 1))
    n = (y != 5).sum(1)
    assert set(n.tolist()) == {1, 2, 3}
    assert bool(((y != 5) == (torch.arange(5) < n.unsqueeze(1))).all())


def test_everything_off_and_everything_masked() -> None:
    x = texts(20)
    assert torch.equal(bound(crop=1, drop=0, mask=0)(x), x)
    assert set(bound(crop=1, drop=0, mask=1)(x).flatten().tolist()) == {0, 2, 3, 4}


def test_two_views_bind_and_drop_to_padding() -> None:
    pad = Vocabulary(100, pad=7, unknown=1, mask=2)
    specs = {"text": ModalitySpec("text", (4,), torch.long, pad), "sensor": ModalitySpec("motion", (3, 8))}
    views = TwoViews(specs, {"text": TextViews(), "motion": MotionViews()}, modality_dropout=1.0)
    batch = {"text": torch.full((64, 4), 20), "sensor": torch.ones(64, 3, 8)}
    first, _ = views(batch)
    assert first["text"].dtype == torch.long
    gone = (first["text"] == 7).all(1)
    assert torch.equal(gone, ~(first["sensor"] == 0).flatten(1).all(1))
    assert 10 < int(gone.sum()) < 54


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="does not know the vocabulary"):
        TextViews()(texts(2))
    views = bound()
    views.bind(SPEC)
    with pytest.raises(ConfigError, match="two vocabularies"):
        views.bind(ModalitySpec("text", (4,), torch.long, Vocabulary(9)))
    for argument in ("crop", "drop", "mask"):
        with pytest.raises(ConfigError, match=f"{argument} must be"):
            TextViews(**{argument: 1.5})
