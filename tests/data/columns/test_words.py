# ruff: noqa: RUF001
"""Words of a learnt tokenizer in many scripts."""

import random
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from lightning_mmnas.data.columns.texts import TextTokenizer
from lightning_mmnas.data.columns.words import accents_count

tokenizers = pytest.importorskip("tokenizers")


def words(text: str, *others: str) -> list[str]:
    """The words that a tokenizer learnt from the texts finds in the first."""
    tokenizer = TextTokenizer(size=4096)
    tokenizer.fit(lambda: [text, *others])
    ids = tokenizer.encode([text], 100)[0]
    assert 1 not in ids.tolist()
    assert tokenizer.lengths([text]) == [int((ids > 0).sum())]
    return [tokenizer.decode(one) for one in ids[ids > 0].view(-1, 1)]


def as_before(texts: list[str], size: int) -> Any:
    """What was learnt of texts until scripts other than Latin counted."""
    normalizers = tokenizers.normalizers
    found = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token="[UNK]"))
    found.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])
    found.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = ["[PAD]", "[UNK]", "[MASK]"]
    trainer = tokenizers.trainers.WordLevelTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    found.train_from_iterator(texts, trainer)
    return found


def padded(encodings: list[list[int]], length: int) -> Tensor:
    return torch.tensor([(ids + [0] * length)[:length] for ids in encodings])


def english() -> list[str]:
    draw = random.Random(0)
    parts = [
        "the",
        "Bird",
        "don't",
        "well-known",
        "3.5",
        "U.S.",
        "caf\u00e9",
        "na\u00efve",
        "\u201cso\u201d",
        "\u2014",
        "!!",
        "a_b",
        "$5",
        "\u00bd",
    ]
    parts += ["".join(draw.choices("abcdefghij", k=draw.randint(1, 5))) for _ in range(80)]
    return [" ".join(draw.choices(parts, k=draw.randint(1, 30))) for _ in range(100)]


@pytest.mark.parametrize("size", [40, 4096])
def test_ids_of_english_are_what_they_were(size: int) -> None:
    texts = english()
    tokenizer = TextTokenizer(size=size)
    tokenizer.fit(lambda: texts)
    before = padded([encoding.ids for encoding in as_before(texts, size).encode_batch(texts)], 24)
    assert torch.equal(tokenizer.encode(texts, 24), before)


def test_ids_of_ascii_against_plain_python() -> None:
    texts = [text for text in english() if text.isascii()]
    cut = [re.findall(r"\w+|[^\w\s]+", text.lower()) for text in texts]
    counts = Counter(word for found in cut for word in found)
    place = {word: 3 + i for i, word in enumerate(sorted(counts, key=lambda word: (-counts[word], word)))}
    tokenizer = TextTokenizer(size=4096)
    tokenizer.fit(lambda: texts)
    assert torch.equal(tokenizer.encode(texts, 60), padded([[place[w] for w in found] for found in cut], 60))
    assert tokenizer.lengths(texts) == [len(found) for found in cut]
    assert tokenizer.known == 3 + len(place)


def test_a_tokenizer_saved_before_reads_as_it_did(tmp_path: Path) -> None:
    texts = ["\u0939\u093f\u0928\u094d\u0926\u0940 and caf\u00e9", "\u6211\u5f88\u597d"]
    before = as_before(texts, 64)
    before.save(str(tmp_path / "t.json"))
    tokenizer = TextTokenizer(str(tmp_path / "t.json"), 64)
    tokenizer.fit(lambda: pytest.fail("learnt anew"))
    expected = padded([encoding.ids for encoding in before.encode_batch(texts)], 8)
    assert torch.equal(tokenizer.encode(texts, 8), expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी में किताब", ["हिन्दी", "में", "किताब"]),
        ("தமிழ் বাংলা", ["தமிழ்", "বাংলা"]),
        ("我用iPhone手机，很好。", ["我", "用", "iphone", "手", "机", ",", "很", "好", "。"]),
        ("今日はラーメンを", ["今", "日", "は", "ラ", "ー", "メ", "ン", "を"]),
        ("ｶﾞｽ２０", ["ガ", "ス", "20"]),
        ("เมื่อที่", ["เ", "มื่", "อ", "ที่"]),
        ("ພາສາ", ["ພ", "າ", "ສ", "າ"]),
        ("ភាសា", ["ភា", "សា"]),
        ("한국어를 공부", ["한국어를", "공부"]),
        ("العَرَبِيَّة أحمد مـــرحبا", ["العربية", "أحمد", "مرحبا"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("שָׁלוֹם", ["שלום"]),
        ("за\u0301мок мой мои ещё їжак ќе", ["замок", "мой", "мои", "еще", "їжак", "ќе"]),
        ("ΟΔΟΣ οδός", ["οδοσ", "οδοσ"]),
        ("Émile STRASSE Dvořák", ["emile", "strasse", "dvorak"]),
        ("so 😀😀! 👍🏽 ❤\ufe0f 🇩🇪🇫🇷 👨\u200d👩", ["so", "😀", "😀", "!", "👍🏽", "❤", "🇩🇪", "🇫🇷", "👨", "👩"]),
        ("soft\u00adhyphen a\u200bb \ufeffc", ["softhyphen", "a", "b", "c"]),
    ],
)
def test_words_of_many_scripts(text: str, expected: list[str]) -> None:
    forms: list[Literal["NFC", "NFD"]] = ["NFC", "NFD"]
    for form in forms:
        # A script's own form: what is the same text has the same ids.
        found = words(unicodedata.normalize(form, text), text)
        assert found == [unicodedata.normalize("NFC", word) for word in expected]


def test_signs_tell_words_apart() -> None:
    tokenizer = TextTokenizer(size=64)
    tokenizer.fit(lambda: ["की के का को", "คา ค่า ค้า", "мой мои"])
    for text, distinct in (("की के का को", 4), ("คา ค่า ค้า", 4), ("мой мои", 2)):
        ids = tokenizer.encode([text], 16)[0]
        assert len(set(ids[ids > 0].tolist())) == distinct
        assert 1 not in ids


def test_accents_stay_where_they_are_tones() -> None:
    assert words("ma má mà mả mã mạ", "tiếng Việt") == ["ma", "má", "mà", "mả", "mã", "mạ"]
    assert words("café cafe", "déjà vu") == ["cafe", "cafe"]
    assert accents_count(["xin chào", "cảm ơn", "hello"])
    assert not accents_count(["xin chào", "cảm ơn", "déjà", "café"])
    assert not accents_count(["plain", ""])
