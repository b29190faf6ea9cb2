"""Tokenizers: ids that are the same for the same texts, and what is refused."""

import os
import random
from pathlib import Path

import pytest
import torch

from lightning_mmnas.data.columns.texts import TextColumn, TextTokenizer, check_text, read_text
from lightning_mmnas.data.spec import Vocabulary
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
    with pytest.raises(DataError, match="has ids up to 14, more than the vocabulary size of 5"):
        TextTokenizer(str(path), 5)


@pytest.mark.parametrize("content", ["", "{}", "no json", '{"model": 1}'])
def test_what_is_no_tokenizer(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"t\.json is not a tokenizer"):
        TextTokenizer(str(path))


def test_a_tokenizer_file_damaged_at_random_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    learnt(source=str(path))
    whole, generator = path.read_bytes(), random.Random(0)
    refused = accepted = 0
    for trial in range(200):
        content = bytearray(whole[: generator.randrange(len(whole))] if trial % 3 == 0 else whole)
        for _ in range(0 if trial % 3 == 0 else generator.choice([1, 3])):
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        try:
            ids = TextTokenizer(str(path), 64).encode(["the cat, zebra", "\ue000"], 6)
        except DataError as error:
            refused += "t.json" in str(error)
        else:
            assert 0 <= int(ids.min()) <= int(ids.max()) < 64
            accepted += 1
    assert refused > 100
    assert refused + accepted == 200


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"unk_token":"[UNK]"', '"unk_token":"[UNX]"', r"t\.json is not a tokenizer"),
        ('"cat":4', '"cat":400000', r"t\.json has ids up to 400000, more than the vocabulary size of 64 allows"),
    ],
)
def test_a_tokenizer_file_that_would_fail_later(tmp_path: Path, before: str, after: str, message: str) -> None:
    path = tmp_path / "t.json"
    learnt(source=str(path))
    content = "".join(line.strip() for line in path.read_text().splitlines()).replace('": ', '":')
    assert before in content
    path.write_text(content.replace(before, after))
    with pytest.raises(DataError, match=message):
        TextTokenizer(str(path), 64)


def test_texts_that_are_not_unicode() -> None:
    broken = "half a pair \ud800"  # as JSON may hold it
    assert check_text("fine", "a.json") == "fine"
    with pytest.raises(DamagedFilesError, match=r"b\.json: it holds half a surrogate pair"):
        check_text(broken, "b.json")
    tokenizer = TextTokenizer(size=64)
    tokenizer.fit(lambda: [*TEXTS, broken])
    assert torch.equal(tokenizer.encode(TEXTS, 8), learnt().encode(TEXTS, 8))
    with pytest.raises(DamagedFilesError, match=r"2 damaged(.|\n)*b\.json(.|\n)*c\.json"):
        TextColumn(["fine", broken, broken], learnt(), 4, "plots", ["a.json", "b.json", "c.json"])
    with pytest.raises(DataError, match="half a surrogate pair"):
        tokenizer.encode([broken], 4)


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
    if os.geteuid() != 0:  # to root every file is readable
        path.chmod(0)
        with pytest.raises(DamagedFilesError, match=r"plot.txt: it cannot be read"):
            read_text(path)
    with pytest.raises(DamagedFilesError, match="there is no such file"):
        read_text(tmp_path / "none.txt")
