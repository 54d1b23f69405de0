"""Tokenizers that give every text back: bytes, characters, and byte-pair encoding trained here.

BPE is byte-level as in GPT-2 (Radford et al. 2019): its regex splits text into words, bytes are written as printable
characters, and merges never cross words. The Hugging Face `tokenizers` library does the work.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from lmexp.config.tokenizers import BPE_LEAST
from lmexp.data.tokenizers.base import DOCUMENT_TOKEN, Ids, Tokenizer, as_ids
from lmexp.data.tokenizers.training import Key, UnsupportedSize, bounded, too_small_a_text
from lmexp.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as LibraryTokenizer


class LosslessTokenizer(Tokenizer):
    """A tokenizer whose ids stand for UTF-8 bytes; `pieces` are those of each id.

    The last id begins a document and is no piece of a text, and the mask is the id past the last.
    """

    is_lossless = True

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = [*pieces, DOCUMENT_TOKEN.encode()]
        self.vocab_size = len(self.pieces)
        self.bos_id = self.vocab_size - 1
        self.own_mask_id = self.vocab_size

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; what is no valid UTF-8, and ids past the vocabulary, become U+FFFD."""
        known = len(self.pieces)
        raw = b"".join(self.pieces[i] if 0 <= i < known else b"\xff" for i in ids)
        return raw.decode(errors="replace")

    def spans(self, text: str) -> list[tuple[int, int]]:
        """See Tokenizer.spans."""
        character = [i for i, c in enumerate(text) for _ in c.encode()]  # of each byte
        ends = np.cumsum([len(self.pieces[i]) for i in self.encode(text)]).tolist()
        return [(character[a], character[b - 1] + 1) for a, b in pairwise([0, *ends])]


class ByteTokenizer(LosslessTokenizer):
    """One id a UTF-8 byte."""

    kind = "byte"

    def __init__(self) -> None:
        super().__init__([bytes([value]) for value in range(256)])

    def _encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [np.frombuffer(text.encode(), np.uint8).astype(np.uint32) for text in texts]

    def _state(self) -> dict[str, Any]:
        return {}

    def _library(self) -> tuple[dict[str, Any], None]:
        from tokenizers import decoders, models, pre_tokenizers

        model = _byte_level(models.BPE(vocab=_BYTE_OF, merges=[]))
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        model.decoder = decoders.ByteLevel()
        return json.loads(model.to_str()), None


class CharTokenizer(LosslessTokenizer):
    """One id a character, for a fixed set of characters."""

    kind = "char"

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = "".join(sorted(set(characters)))
        self._code_points = np.array([ord(c) for c in self.characters], dtype=np.uint32)
        super().__init__([c.encode() for c in self.characters])

    def _encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [self._encode_one(text) for text in texts]

    def _encode_one(self, text: str) -> Ids:
        points = np.frombuffer(text.encode("utf-32-le"), "<u4")
        ids = np.searchsorted(self._code_points, points).astype(np.uint32)
        unknown = np.take(self._code_points, ids, mode="clip") != points
        if unknown.any():
            raise UserError(
                f"the character {text[int(unknown.argmax())]!r} is not among the {len(self.characters)} "
                "of this tokenizer; tokenizer=byte and tokenizer=bpe know every character"
            )
        return ids

    def _state(self) -> dict[str, Any]:
        return {"characters": self.characters}

    def _library(self) -> tuple[dict[str, Any], None]:
        from tokenizers import Regex, decoders, models, pre_tokenizers
        from tokenizers import Tokenizer as LibraryTokenizer

        # An unknown character is refused there too, for there is no token that would stand for it.
        model = LibraryTokenizer(models.WordLevel({character: i for i, character in enumerate(self.characters)}))
        model.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        model.decoder = decoders.Fuse()
        return json.loads(model.to_str()), None


class BPETokenizer(LosslessTokenizer):
    """Byte-level byte-pair encoding.

    `tokens` are the entries in order of their ids, in GPT-2's printable alphabet; `merges` the pairs of
    tokens that are joined, the first with the highest priority.
    """

    kind = "bpe"

    def __init__(self, tokens: Sequence[str], merges: Sequence[tuple[str, str]]) -> None:
        from tokenizers import models

        self.tokens = list(tokens)
        self.merges = list(merges)
        # The document token is no entry of the model, so no text can spell it.
        vocabulary = {token: i for i, token in enumerate(self.tokens)}
        self._model = _byte_level(models.BPE(vocab=vocabulary, merges=self.merges))
        super().__init__([bytes(_BYTE_OF[c] for c in token) for token in self.tokens])

    def _encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        pieces = [list(cut(text)) for text in texts]
        flat = chain.from_iterable(pieces)
        encoded: list[Ids] = []
        # The library keeps about 100 bytes a token until a batch is done, so batches are kept small.
        while batch := list(islice(flat, 256)):
            encoded += [as_ids(e.ids) for e in self._model.encode_batch_fast(batch)]
        ids = iter(encoded)
        return [np.concatenate([next(ids) for _ in parts]) for parts in pieces]

    def _state(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "merges": self.merges}

    def _library(self) -> tuple[dict[str, Any], None]:
        from tokenizers import decoders

        library = json.loads(self._model.to_str())
        return library | {"decoder": json.loads(decoders.ByteLevel().__getstate__())}, None


def train_bpe(vocab_size: int, texts: Iterable[str], key: Key = "tokenizer") -> BPETokenizer:
    """Return a tokenizer with so many entries, made from texts, for the section `key` of a config.

    Raises UnsupportedSize if the texts support fewer entries, and UserError if they support none beyond the bytes.
    """
    from tokenizers import models, pre_tokenizers, trainers

    model = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # and the document token
        min_frequency=2,  # a pair seen once is no statistic
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator((part for text in texts for piece in cut(text) for part in bounded(piece)), trainer)
    entries = model.get_vocab_size() + 1
    if entries < vocab_size:
        if entries < BPE_LEAST:
            raise too_small_a_text("bpe", BPE_LEAST, entries, key, "byte")
        problem = f"a vocabulary of {vocab_size} is larger than the text supports: {entries} entries found; "
        raise UnsupportedSize({key: (entries, problem + f"set {key}.vocab_size={entries} or lower")})
    state = json.loads(model.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    return BPETokenizer(tokens, [(left, right) for left, right in state["merges"]])


def _byte_level(model: Any) -> "LibraryTokenizer":
    """Return GPT-2's pipeline around a BPE model: its regex, no normaliser, no space put in front."""
    from tokenizers import Tokenizer as LibraryTokenizer
    from tokenizers import pre_tokenizers

    tokenizer = LibraryTokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _bytes_of_alphabet() -> dict[str, int]:
    """Return GPT-2's printable alphabet: the byte that each of its 256 characters stands for."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return {chr(v): v for v in printable} | {chr(256 + n): v for n, v in enumerate(others)}


_BYTE_OF = _bytes_of_alphabet()

# GPT-2's regex lets no word run from a letter or digit into white space, and looks at nothing before a
# word: between the two, a long text can be cut, encoded in parts on all cores, and give the same ids.
_CUT_AT = re.compile(r"[A-Za-z0-9](?=[ \n])")
_CUT_LENGTH = 1 << 15  # characters


def cut(text: str) -> Iterator[str]:
    """Yield `text` in parts of about _CUT_LENGTH characters that can be encoded one by one."""
    start = 0
    while cut_at := _CUT_AT.search(text, start + _CUT_LENGTH):
        yield text[start : cut_at.end()]
        start = cut_at.end()
    yield text[start:]
