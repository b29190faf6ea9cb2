"""How a learnt tokenizer cuts texts into words, in whatever script they are written."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from lightning_mmnas.errors import MissingExtraError

_SPACELESS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese, Shan
    "\u1780-\u17ff"  # Khmer
    "\u1a20-\u1aaf"  # Tai Tham
    "\u1b00-\u1b7f\ua980-\ua9df"  # Balinese, Javanese
    "\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff"  # Han
)
"""Characters of scripts that leave no space between words."""

_OPTIONAL = "|".join(
    (
        r"(?<=[\p{Latin}\p{Greek}])\p{M}+",
        "(?<=\\p{Cyrillic})(?<![\u0413\u041a\u0433\u043a])[\u0300\u0301]",  # stress, unlike the letters gje and kje
        "(?<=[\u0415\u0435])\u0308",  # Cyrillic io, which is usually written as ie
        "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]",  # Hebrew points and chant marks
        "[\u064b-\u0652\u0670\u0640]",  # Arabic short vowels, and the stretching of letters
    )
)
"""Marks without which a text is as well written; of other scripts they are vowels and tones, and stay."""
_TONES = _OPTIONAL.replace(r"\p{Latin}", "")
_INVISIBLE = "[\u00ad\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]"
_EMOJI = "[\U0001f1e6-\U0001f1ff]{2}|\\p{Extended_Pictographic}[\U0001f3fb-\U0001f3ff]?"
_ACCENT = re.compile("[\u0300-\u036f]")
_VIETNAMESE = {"\u0309", "\u031b", "\u0323"}
"""Hook above, horn and dot below: of Vietnamese, and of Yoruba and Igbo, where accents are tones or letters as well."""


def load_tokenizers() -> Any:
    """The package tokenizers.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtraError(
            "learning a tokenizer needs the package tokenizers; run: pip install 'lightning-mmnas[text]'"
        ) from error
    return tokenizers


def word_tokenizer(accents: bool) -> Any:
    """A tokenizer without words yet.

    Characters are brought to one form (NFKC) and lower case. Marks are left out where a text is as well written without
    them: accents of Latin and Greek letters, stress in Cyrillic, points in Hebrew and Arabic. Those of other scripts,
    the vowel signs of Hindi for one, stay. Words are cut at white space and punctuation. Where a script puts no space
    between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) every character with its marks is a word, and so is
    every emoji.

    Args:
        accents: Whether Latin letters keep theirs; see `accents_count`.
    """
    library = load_tokenizers()
    normalizers, split, regex = library.normalizers, library.pre_tokenizers.Split, library.Regex
    tokenizer = library.Tokenizer(library.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.Replace(regex(f"{_TONES if accents else _OPTIONAL}|{_INVISIBLE}"), ""),
            normalizers.Replace(regex("\u200b|(?<=\\p{Extended_Pictographic})\u200d"), " "),
            normalizers.NFC(),
            normalizers.Lowercase(),
            normalizers.Replace("\u03c2", "\u03c3"),  # sigma at the end of a word
        ]
    )
    tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.Whitespace(),
            split(regex(rf"{_EMOJI}|[{_SPACELESS}]\p{{M}}*"), "isolated"),
        ]
    )
    return tokenizer


def accents_count(texts: Iterable[str]) -> bool:
    """Whether accents of Latin letters tell words apart: where half of the texts that have any are Vietnamese, say."""
    accented = tonal = 0
    for text in texts:
        marks = set() if text.isascii() else set(_ACCENT.findall(unicodedata.normalize("NFD", text)))
        accented += bool(marks)
        tonal += bool(marks & _VIETNAMESE)
    return 0 < accented <= 2 * tonal
