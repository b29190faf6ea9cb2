"""Texts as token ids: a tokenizer learnt from the training texts, or that of a transformers model."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_mmnas.data.columns.column import TensorColumn, damaged
from lightning_mmnas.data.columns.words import accents_count, load_tokenizers, word_tokenizer
from lightning_mmnas.data.packages import model_folder
from lightning_mmnas.data.spec import Vocabulary
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError, MissingExtraError
from lightning_mmnas.files import replacing

_RESERVED = ("[PAD]", "[UNK]", "[MASK]")
"""The first ids of a learnt vocabulary: 0, 1 and 2, as in `Vocabulary`."""


class TextTokenizer:
    """Turns texts into ids of one length.

    A learnt tokenizer knows words: texts are brought to lower case without accents where these are of no account, and
    cut as `word_tokenizer` does; the most frequent words of the training texts get an id, equally frequent ones in
    alphabetical order, so that the same texts give the same ids. Its vocabulary is known before any text is read, since
    `size` bounds it.

    A data module makes one when it is built, asks for `vocabulary` in `available_modalities`, and calls `fit` with its
    training texts before it encodes any split.

    Args:
        source: None: learnt anew from the training texts; a path that ends in ``.json``: read from there if it exists,
            otherwise learnt and written there, for another data set to use the same ids; anything else: name or folder
            of a transformers model (extra ``transformers``), or ``package:NAME``, one in an installed package.
        size: Greatest number of ids of a learnt tokenizer, reserved ones included.

    Attributes:
        keeps_accents: Whether it has just learnt Latin letters with their accents, as tones; see `accents_count`.

    Raises:
        MissingExtraError: The package it needs is not installed.
        ConfigError: The size is too small, or there is no such transformers tokenizer.
        DataError: The JSON file is no tokenizer, or its vocabulary is larger than `size`.
    """

    def __init__(self, source: str | None = None, size: int = 8192) -> None:
        if size <= len(_RESERVED):
            raise ConfigError(f"a vocabulary of {size} ids has no room for words; it takes more than {len(_RESERVED)}")
        self.source = source
        self.size = size
        self.keeps_accents = False
        self._learnt: Any = None
        self._pretrained: Any = None
        if source is None:
            return
        if not source.endswith(".json"):
            self._pretrained = _pretrained(source)
            # Not len(tokenizer): ids may have gaps.
            self.size = max(self._pretrained.get_vocab().values()) + 1
        elif Path(source).is_file():
            self._learnt = _read(Path(source), size)

    @property
    def known(self) -> int:
        """Number of ids that are in use, reserved ones included; 0 before a learnt tokenizer is fitted."""
        tokenizer = self._learnt if self._pretrained is None else self._pretrained
        return 0 if tokenizer is None else len(tokenizer.get_vocab())

    @property
    def vocabulary(self) -> Vocabulary:
        """The ids that `encode` gives."""
        if self._pretrained is None:
            return Vocabulary(self.size)
        known = self._pretrained
        pad = known.pad_token_id
        unknown = known.unk_token_id if known.unk_token_id is not None else pad
        mask = known.mask_token_id if known.mask_token_id is not None else unknown
        special = sorted(set(known.all_special_ids) - {pad, unknown, mask})
        return Vocabulary(self.size, pad, unknown, mask, tuple(special))

    def fit(self, texts: Callable[[], Sequence[str]]) -> None:
        """Learns the words, unless they are known already.

        Args:
            texts: Gives the training texts. Those that are not Unicode (see `check_text`) are left out here, for
                `TextColumn` to name them.

        Raises:
            DataError: There is no word in them.
        """
        if self._learnt is not None or self._pretrained is not None:
            return
        usable = [text for text in texts() if _flaw(text) is None]
        self.keeps_accents = accents_count(usable)
        self._learnt = _learn(usable, self.size, self.keeps_accents)
        if self.source is not None:
            with replacing(Path(self.source)) as path:
                self._learnt.save(str(path))

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        """Ids of texts, shape (n, length), int64: cut off at the end, or filled up with padding.

        Raises:
            DataError: The tokenizer has not been fitted, or a text is not Unicode; see `check_text`.
        """
        for row, text in enumerate(texts):
            if (flaw := _flaw(text)) is not None:
                raise DataError(f"text {row} of {len(texts)}: {flaw}")
        if self._pretrained is not None:
            found = self._pretrained(
                list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            )
            ids: Tensor = found["input_ids"]
            return ids.long()
        if self._learnt is None:
            raise DataError("the tokenizer knows no words yet: fit it on the training texts first")
        ids = torch.zeros(len(texts), length, dtype=torch.long)
        for row, encoding in enumerate(self._learnt.encode_batch(list(texts))):
            kept = encoding.ids[:length]
            ids[row, : len(kept)] = torch.tensor(kept, dtype=torch.long)
        return ids

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Ids that each text needs, those that a pretrained tokenizer adds included; it need not be fitted."""
        if self._pretrained is not None:
            return [len(ids) for ids in self._pretrained(list(texts), verbose=False)["input_ids"]] if texts else []
        tokenizer = self._learnt if self._learnt is not None else word_tokenizer(accents=False)
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]

    def save(self, folder: Path, name: str) -> None:
        """Writes the tokenizer, for another one to be made of it: ``<name>.json``, or a folder ``<name>``.

        Raises:
            DataError: It has not been fitted.
        """
        if self._pretrained is not None:
            self._pretrained.save_pretrained(folder / name)
        elif self._learnt is None:
            raise DataError("the tokenizer knows no words yet: fit it on the training texts first")
        else:
            with replacing(folder / f"{name}.json") as path:
                self._learnt.save(str(path))

    def decode(self, ids: Tensor) -> str:
        """The words of one text's ids, shape (t,); padding is left out."""
        pad = self.vocabulary.pad
        kept = [int(i) for i in ids.tolist() if int(i) != pad]
        if self._pretrained is not None:
            return str(self._pretrained.decode(kept, skip_special_tokens=True))
        if self._learnt is None:
            return " ".join(map(str, kept))
        return " ".join(str(self._learnt.id_to_token(i)) for i in kept)


class TextColumn(TensorColumn):
    """Texts in memory, encoded once.

    Args:
        texts: The texts.
        tokenizer: Fitted.
        length: Ids of a sample.
        name: What to call it in messages, such as the file it came from.
        sources: Where each text comes from; None: the name and the row.

    Raises:
        DamagedFilesError: Texts are not Unicode; see `check_text`. Names them all.
    """

    def __init__(
        self,
        texts: Sequence[str],
        tokenizer: TextTokenizer,
        length: int,
        name: str,
        sources: Sequence[str] | None = None,
    ) -> None:
        flaws = [(row, flaw) for row, text in enumerate(texts) if (flaw := _flaw(text)) is not None]
        if flaws:
            raise DamagedFilesError(
                [(f"{name}, row {row}" if sources is None else sources[row], flaw) for row, flaw in flaws]
            )
        super().__init__(tokenizer.encode(texts, length), name)
        self.texts = list(texts)
        self.sources = None if sources is None else list(sources)

    def source(self, index: int) -> str:
        """Where the text comes from."""
        return super().source(index) if self.sources is None else self.sources[index]

    def digest(self, index: int) -> str:
        """Hash of the whole text, whatever its length and tokenizer."""
        return blake2b(self.texts[index].encode(), digest_size=16).hexdigest()


def check_text(text: str, source: Path | str) -> str:
    """Returns a text that is Unicode; one out of a JSON file may hold half a surrogate pair, which no tokenizer takes.

    Raises:
        DamagedFilesError: It is not; names the source.
    """
    if (flaw := _flaw(text)) is not None:
        raise damaged(source, flaw)
    return text


def read_text(path: Path) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Raises:
        DamagedFilesError: There is no such file, it cannot be read, or it is not UTF-8.
    """
    if not path.is_file():
        raise damaged(path, "there is no such file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise damaged(path, f"it is not UTF-8: byte {error.start} is {error.object[error.start]:#x}") from None
    except OSError as error:
        raise damaged(path, f"it cannot be read: {error.strerror or error}") from error


def _flaw(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"it holds half a surrogate pair at character {error.start}"
    return None


def _learn(texts: Sequence[str], size: int, accents: bool) -> Any:
    tokenizer = word_tokenizer(accents)
    trainer = load_tokenizers().trainers.WordLevelTrainer(
        vocab_size=size, special_tokens=list(_RESERVED), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() <= len(_RESERVED):
        raise DataError(f"there is not one word in the {len(texts)} training texts")
    return tokenizer


def _read(path: Path, size: int) -> Any:
    library = load_tokenizers()
    try:
        tokenizer = library.Tokenizer.from_file(str(path))
        tokenizer.encode("\ue000")  # an unknown word: it fails here rather than later
    except Exception as error:  # the library raises bare Exceptions
        raise DataError(f"{path} is not a tokenizer: {error}; delete it to learn it again") from error
    reserved = [tokenizer.token_to_id(token) for token in _RESERVED]
    if reserved != [0, 1, 2]:
        raise DataError(f"{path} was not written here: {_RESERVED} have the ids {reserved}, not 0, 1 and 2")
    last = max(tokenizer.get_vocab().values())
    if last >= size:
        raise DataError(f"{path} has ids up to {last}, more than the vocabulary size of {size} allows")
    return tokenizer


def _pretrained(source: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtraError(
            f"the tokenizer {source!r} needs the package transformers; run: pip install 'lightning-mmnas[transformers]'"
        ) from error
    folder = model_folder(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"there is no transformers tokenizer {source!r}: {reason}; a learnt one has a name that ends in .json"
        ) from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(f"the transformers tokenizer {source!r} has no id for padding")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer
