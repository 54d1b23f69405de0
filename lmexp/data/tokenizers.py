"""Text to token ids and back: bytes, characters, or byte-pair encoding trained on the text at hand.

Three properties hold for all. Decoding what was encoded gives the text back, whatever it holds. The last
id, `bos_id`, begins each document and never comes out of a text, not even out of one that spells
``<|endoftext|>``. The saved form is plain JSON that holds nothing but characters and merges, so a
tokenizer from somebody else can be loaded without trust.

BPE is byte-level as in GPT-2 (Radford et al. 2019): its regex splits text into words, bytes are written
as printable characters, and merges never cross words. The Hugging Face `tokenizers` library does the work.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmexp.config.schema import BPETokenizerConfig, ByteTokenizerConfig, TokenizerConfig
from lmexp.data.split import Split
from lmexp.errors import UserError
from lmexp.files import hash_text, read_json, write_atomically

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HFTokenizer

DOCUMENT_TOKEN = "<|endoftext|>"
"""How the token that begins a document is written when ids are decoded."""

Ids = np.ndarray[tuple[int], np.dtype[np.uint32]]


class Tokenizer(ABC):
    """What every tokenizer does; `pieces` are the UTF-8 bytes that each id but the last stands for."""

    kind: ClassVar[str]

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = [*pieces, DOCUMENT_TOKEN.encode()]

    @property
    def vocab_size(self) -> int:
        """Number of ids, the document token included."""
        return len(self.pieces)

    @property
    def bos_id(self) -> int:
        """The id that begins a document, the last one."""
        return len(self.pieces) - 1

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the saved form."""
        return hash_text(self._json())

    def encode(self, text: str) -> Ids:
        """Return the ids of a text (n,), without the token that begins a document. Raises UserError."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text, on all cores where the kind allows. Raises UserError."""
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError as error:  # half of a surrogate pair, as a terminal may hand over
                raise UserError(f"the text holds {text[error.start]!a}, which is no character") from error
        return self._encode_batch(texts)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; what is no valid UTF-8, and ids past the vocabulary, become U+FFFD."""
        known = len(self.pieces)
        raw = b"".join(self.pieces[i] if 0 <= i < known else b"\xff" for i in ids)
        return raw.decode(errors="replace")

    def save(self, path: Path) -> None:
        """Write the tokenizer to a JSON file, atomically. Raises OSError."""
        write_atomically(path, self._json())

    def _json(self) -> str:
        return json.dumps({"kind": self.kind, **self._state()}, ensure_ascii=False)

    @abstractmethod
    def _encode_batch(self, texts: Sequence[str]) -> list[Ids]: ...

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """What the saved form holds besides the kind: the arguments that make the tokenizer again."""


class ByteTokenizer(Tokenizer):
    """One id a UTF-8 byte."""

    kind = "byte"

    def __init__(self) -> None:
        super().__init__([bytes([value]) for value in range(256)])

    def _encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [np.frombuffer(text.encode(), np.uint8).astype(np.uint32) for text in texts]

    def _state(self) -> dict[str, Any]:
        return {}


class CharTokenizer(Tokenizer):
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


class BPETokenizer(Tokenizer):
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
        pieces = [list(_cut(text)) for text in texts]
        flat = chain.from_iterable(pieces)
        encoded: list[Ids] = []
        # The library keeps about 100 bytes a token until a batch is done, so batches are kept small.
        while batch := list(islice(flat, 256)):
            encoded += [np.array(e.ids, np.uint32) for e in self._model.encode_batch_fast(batch)]
        ids = iter(encoded)
        return [np.concatenate([next(ids) for _ in parts]) for parts in pieces]

    def _state(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "merges": self.merges}


def build_tokenizer(config: TokenizerConfig, documents: Iterable[tuple[Split, str]]) -> Tokenizer:
    """Return the tokenizer that `config` asks for; char and bpe learn it from the documents.

    char takes the characters of both splits, so that validation meets no unknown one; bpe is trained on the
    training split alone. Raises UserError when bpe finds fewer entries than asked for.
    """
    if isinstance(config, ByteTokenizerConfig):
        return ByteTokenizer()
    if isinstance(config, BPETokenizerConfig):
        return _train_bpe(config.vocab_size, (text for split, text in documents if split == "train"))
    characters: set[str] = set()
    for _, text in documents:
        characters.update(text)
    return CharTokenizer(characters)


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer that `Tokenizer.save` wrote. Raises UserError when it is missing or damaged."""
    try:
        state = read_json(path)
        kind = state.pop("kind")
        if kind == "byte":
            return ByteTokenizer(**state)
        if kind == "char":
            return CharTokenizer(**state)
        if kind == "bpe":
            return BPETokenizer(state["tokens"], [(left, right) for left, right in state["merges"]])
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # wrong types anywhere in the file, the library's own complaints included
        raise UserError(f"{path}: not a saved tokenizer, or damaged") from error
    raise UserError(f"{path}: unknown kind of tokenizer '{kind}'; there are byte, char, bpe")


def _train_bpe(vocab_size: int, texts: Iterable[str]) -> BPETokenizer:
    from tokenizers import models, pre_tokenizers, trainers

    model = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # and the document token
        min_frequency=2,  # a pair seen once is no statistic
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    model.train_from_iterator(chain.from_iterable(map(_cut, texts)), trainer)
    found = model.get_vocab_size() + 1
    if found < vocab_size:
        remedy = f"set tokenizer.vocab_size={found} or lower" if found > 257 else "use tokenizer=byte"
        raise UserError(
            f"a vocabulary of {vocab_size} is larger than the text supports: {found} entries found; {remedy}"
        )
    state = json.loads(model.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    return BPETokenizer(tokens, [(left, right) for left, right in state["merges"]])


def _byte_level(model: Any) -> "HFTokenizer":
    """Return GPT-2's pipeline around a BPE model: its regex, no normaliser, no space put in front."""
    from tokenizers import Tokenizer as HFTokenizer
    from tokenizers import pre_tokenizers

    tokenizer = HFTokenizer(model)
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


def _cut(text: str) -> Iterator[str]:
    """Yield `text` in parts of about _CUT_LENGTH characters that can be encoded one by one."""
    start = 0
    while found := _CUT_AT.search(text, start + _CUT_LENGTH):
        yield text[start : found.end()]
        start = found.end()
    yield text[start:]
