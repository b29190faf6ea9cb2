"""Tokenizers: ids that are the same for the same texts, and what is refused."""

import random
from pathlib import Path

import pytest
import torch

from lightning_mmnas.data.spec import Vocabulary
from lightning_mmnas.data.texts import TextColumn, TextTokenizer, read_text
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError

TEXTS = ["The cat saw the dog.", "A dog, a cat and a BIRD!", "Émile saw nothing"]


def learnt(size: int = 64, source: str | None = None) -> TextTokenizer:
    tokenizer = TextTokenizer(source, size)
    tokenizer.fit(lambda: TEXTS)
    return tokenizer


def test_words_by_frequency_then_alphabet() -> None:
    tokenizer = learnt()
    assert tokenizer.vocabulary == Vocabulary(64)
    # a: 3; cat, dog, saw, the: 2; then once each.
    ids = tokenizer.encode(["a cat dog saw the"], 6)
    assert ids.tolist() == [[3, 4, 5, 6, 7, 0]]
    assert tokenizer.decode(ids[0]) == "a cat dog saw the"
    assert tokenizer.encode(["EMILE emile émile zebra"], 4).tolist()[0][3] == 1
    assert len(set(tokenizer.encode(["EMILE emile émile"], 3).tolist()[0])) == 1


def test_the_same_texts_give_the_same_ids_in_any_order() -> None:
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefgh", k=4)) for _ in range(2000)]
    texts = [" ".join(generator.choices(words, k=50)) for _ in range(200)]
    first, second = TextTokenizer(size=500), TextTokenizer(size=500)
    first.fit(lambda: texts)
    second.fit(lambda: texts[::-1])
    assert torch.equal(first.encode(texts, 50), second.encode(texts, 50))
    assert int(first.encode(texts, 50).max()) < 500


def test_texts_are_cut_off_and_filled_up() -> None:
    tokenizer = learnt()
    assert tokenizer.encode(["the the the", "the", ""], 2).tolist() == [[7, 7], [7, 0], [0, 0]]


def test_a_json_file_is_written_once_and_read_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "words" / "tokenizer.json"
    ids = learnt(source=str(path)).encode(TEXTS, 8)
    again = TextTokenizer(str(path), 64)
    again.fit(lambda: pytest.fail("learnt anew"))
    assert torch.equal(again.encode(TEXTS, 8), ids)
    assert [p.name for p in path.parent.iterdir()] == ["tokenizer.json"]
    with pytest.raises(DataError, match="more than the vocabulary size of 5"):
        TextTokenizer(str(path), 5)


@pytest.mark.parametrize("content", ["", "{}", "no json", '{"model": 1}'])
def test_what_is_no_tokenizer(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"t\.json is not a tokenizer"):
        TextTokenizer(str(path))


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="vocabulary of 3 ids has no room"):
        TextTokenizer(size=3)
    with pytest.raises(DataError, match="knows no words yet"):
        TextTokenizer().encode(["a"], 3)
    with pytest.raises(DataError, match="not one word in the 2 training texts"):
        TextTokenizer().fit(lambda: ["", " "])


def test_column_digests_whole_texts_and_names_sources() -> None:
    column = TextColumn(["the cat sat", "the cat ran"], learnt(), 2, "plots", ["a.json", "b.json"])
    assert torch.equal(column.read(0), column.read(1))
    assert column.digest(0) != column.digest(1)
    assert column.source(1) == "b.json"
    assert column.fingerprint(0) == column.fingerprint(1)


def test_text_files(tmp_path: Path) -> None:
    path = tmp_path / "plot.txt"
    path.write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    assert read_text(path) == "café"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(DamagedFilesError, match=r"plot.txt: it is not UTF-8: byte 3 is 0xe9"):
        read_text(path)
    with pytest.raises(DamagedFilesError, match="there is no such file"):
        read_text(tmp_path / "none.txt")
