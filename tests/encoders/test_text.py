"""Encoders of texts: padding changes nothing, whatever model stands behind."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mmnas.data.columns.texts import TextTokenizer
from lightning_mmnas.data.spec import ModalitySpec, Vocabulary
from lightning_mmnas.encoders.text import TextEncoder, TransformersEncoder, pool_segments
from lightning_mmnas.errors import CheckpointError, ConfigError, DataError

SPEC = ModalitySpec("text", (12,), torch.long, Vocabulary(50))


def ids(*lengths: int, t: int = 12, pad: int = 0) -> Tensor:
    x = torch.full((len(lengths), t), pad)
    for row, n in enumerate(lengths):
        x[row, :n] = torch.arange(10, 10 + n)
    return x


@pytest.mark.parametrize("n", [1, 3, 8, 9, 12])
def test_segments_are_those_of_adaptive_pooling(n: int) -> None:
    hidden = torch.randn(1, 12, 5)
    found = pool_segments(hidden, torch.arange(12).view(1, -1) < n, 8)
    torch.testing.assert_close(found, F.adaptive_avg_pool1d(hidden[:, :n].transpose(1, 2), 8))


def test_segments_of_scattered_words_and_of_none() -> None:
    hidden = torch.randn(2, 6, 3)
    words = torch.tensor([[False, True, False, True, True, False], [False] * 6])
    found = pool_segments(hidden, words, 2)
    torch.testing.assert_close(found[:1], F.adaptive_avg_pool1d(hidden[:1, [1, 3, 4]].transpose(1, 2), 2))
    assert found[1].abs().max() == 0


@pytest.mark.parametrize("blocks", [0, 2])
def test_padding_and_neighbours_change_nothing(blocks: int) -> None:
    encoder = TextEncoder(SPEC, width=16, blocks=blocks).eval()
    together, alone = encoder(ids(5, 12)), encoder(ids(5, t=5))
    assert [tuple(f.shape[1:]) for f in together] == encoder.feature_shapes
    for long, short in zip(together, alone, strict=True):
        torch.testing.assert_close(long[:1], short)


def test_nothing_but_padding_is_no_nan() -> None:
    for feature in TextEncoder(SPEC)(ids(0, 3)):
        assert torch.isfinite(feature).all()


def test_gradients_reach_every_weight() -> None:
    encoder = TextEncoder(SPEC, width=8)
    torch.autograd.backward(torch.stack([f.square().sum() for f in encoder(ids(7, 12))]).sum())
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"takes texts of shape \(t,\)"):
        TextEncoder(ModalitySpec("features", (3,)))
    with pytest.raises(ConfigError, match="kernel_size=2"):
        TextEncoder(SPEC, kernel_size=2)
    with pytest.raises(DataError, match="expected token ids"):
        TextEncoder(SPEC)(torch.zeros(2, 12))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BERT as small as can be, with its tokenizer, in a folder as transformers writes it."""
    transformers: Any = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat"]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_transformers_tokenizer_and_model_from_a_folder(bert: str) -> None:
    tokenizer = TextTokenizer(bert)
    tokenizer.fit(lambda: pytest.fail("nothing is to be learnt"))
    vocabulary = tokenizer.vocabulary
    x = tokenizer.encode(["The cat sat", "cat", ""], 7)
    assert tokenizer.decode(x[0]) == "the cat sat"
    assert vocabulary.pad not in x[0, :5].tolist()
    assert x[0, 5:].tolist() == [vocabulary.pad] * 2
    assert set(vocabulary.special) == {int(x[0, 0]), int(x[0, 4])}

    spec = ModalitySpec("text", (7,), torch.long, vocabulary)
    encoder = TransformersEncoder(spec, bert, layers=(0, 1, -1), segments=3, sentence=True).eval()
    features = encoder(x)
    assert [tuple(f.shape[1:]) for f in features] == encoder.feature_shapes == [(8, 3)] * 3 + [(8,)]
    reference = encoder.model(input_ids=x[:1, :5], output_hidden_states=True)
    torch.testing.assert_close(
        features[2][:1], F.adaptive_avg_pool1d(reference.last_hidden_state.transpose(1, 2), 3), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        features[3][:1], F.normalize(reference.last_hidden_state.mean(1), dim=1), atol=1e-5, rtol=0
    )
    empty = encoder(torch.full((1, 7), vocabulary.pad))
    assert all(torch.isfinite(f).all() for f in empty)


def test_transformers_refusals(bert: str) -> None:
    spec = ModalitySpec("text", (7,), torch.long, Vocabulary(64))
    with pytest.raises(ConfigError, match=r"has the hidden states 0 to 2, not \[5\]"):
        TransformersEncoder(spec, bert, layers=(5,))
    with pytest.raises(DataError, match="give the data module the tokenizer of this model"):
        TransformersEncoder(ModalitySpec("text", (7,), torch.long, Vocabulary(65)), bert)
    with pytest.raises(CheckpointError, match="cannot load"):
        TransformersEncoder(spec, str(Path(bert) / "nothing"))
    with pytest.raises(ConfigError, match="there is no transformers tokenizer"):
        TextTokenizer(str(Path(bert) / "nothing"))


def test_longer_texts_than_the_model_knows_positions_for(bert: str) -> None:
    with pytest.raises(DataError, match="knows 512 positions, fewer than the 513 ids of a text"):
        TransformersEncoder(ModalitySpec("text", (513,), torch.long, Vocabulary(64)), bert)


def test_of_an_encoder_and_decoder_the_encoder_is_taken(tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    config = transformers.T5Config(vocab_size=64, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
    transformers.T5Model(config).save_pretrained(tmp_path)
    spec = ModalitySpec("text", (7,), torch.long, Vocabulary(64))
    encoder = TransformersEncoder(spec, str(tmp_path), layers=(0, -1), segments=3).eval()
    assert [tuple(f.shape[1:]) for f in encoder(ids(5, t=7))] == encoder.feature_shapes
    assert not any("decoder" in name for name in encoder.state_dict())


def test_half_precision_and_local_weights(tmp_path: Path) -> None:
    encoder = TextEncoder(SPEC, width=16).eval()
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(ids(0, 5, 12))
    for half, full in zip(features, encoder(ids(0, 5, 12)), strict=True):
        torch.testing.assert_close(half.float(), full, atol=0.05, rtol=0.05)
    torch.save(encoder.state_dict(), tmp_path / "text.pt")
    loaded = TextEncoder(SPEC, width=16, weights=str(tmp_path / "text.pt")).eval()
    assert all(torch.equal(a, b) for a, b in zip(encoder(ids(5)), loaded(ids(5)), strict=True))
