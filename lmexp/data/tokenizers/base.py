"""What every tokenizer does: text to token ids and back, words with their first tokens, its saved form, its file for
transformers.

No text spells the id that begins each document, `bos_id`, not even one that holds ``<|endoftext|>``. The saved form is
plain JSON that holds nothing but characters, merges and the like, so a tokenizer from somebody else can be loaded
without trust.
"""

import json
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lmexp.data.scripts import separated
from lmexp.errors import UserError
from lmexp.files import hash_text, write_atomically

DOCUMENT_TOKEN = "<|endoftext|>"
"""How the token that begins a document is written when ids are decoded."""
MASK_TOKEN = "<|mask|>"
"""How that for what is hidden is called where others read our tokenizers."""

Ids = np.ndarray[tuple[int], np.dtype[np.uint32]]


def as_ids(numbers: list[int]) -> Ids:
    """Return a list of ids as an array. It goes through array.array, which is faster than numpy's own conversion."""
    return np.frombuffer(array("I", numbers), np.uint32)


class Tokenizer(ABC):
    """What every tokenizer does."""

    kind: ClassVar[str]
    is_lossless: ClassVar[bool] = False
    """Whether decoding gives every text back as it was."""
    unknown_id: int | None = None
    """The id of what the vocabulary cannot spell; None if the tokenizer has none."""
    vocab_size: int
    """Number of ids, the one that begins a document included, and the mask not, unless it is the tokenizer's own."""
    bos_id: int
    """The id that begins a document."""
    own_mask_id: int | None
    """The id that stands for a hidden token; None where a tokenizer of others has none."""
    names: tuple[str, str | None] = (DOCUMENT_TOKEN, MASK_TOKEN)
    """How these two are called where others read the tokenizer."""

    @property
    def mask_id(self) -> int:
        """The id that stands for a hidden token: for ours, the one past the vocabulary. Raises UserError if none."""
        if self.own_mask_id is None:
            raise UserError("this tokenizer has no token for what is hidden, which task=masked_lm needs")
        return self.own_mask_id

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of what makes the ids: the saved form without the files that came with it."""
        return hash_text(self._json({}))

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

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> list[tuple[Ids, np.ndarray]]:
        """Return the ids of sentences given as words, and for each word the place of its first token, (words,) int64.

        No token crosses from one word into another. The first token is that which holds the word's first character: a
        space in front that has a token of its own is passed over. The place is -1 for a word without tokens.
        """
        pieces = [separated(list(words)) for words in sentences]
        encoded = iter(self.encode_batch(list(chain.from_iterable(pieces))))
        sentences_ids = []
        for words in pieces:
            parts = [next(encoded) for _ in words]
            leading = [int(self._begins_with_space(word, ids)) for word, ids in zip(words, parts, strict=True)]
            sentences_ids.append(_join(parts, leading))
        return sentences_ids

    def save(self, path: Path) -> None:
        """Write the tokenizer to a JSON file, atomically. Raises OSError."""
        write_atomically(path, self._json(self._files()))

    @property
    def end_ids(self) -> frozenset[int]:
        """The ids that end a document: the one that begins the next, and others that the tokenizer names so."""
        return frozenset([self.bos_id])

    @property
    def pad_id(self) -> int:
        """The id that pads texts where others read the tokenizer: if it has none for this, the one of documents."""
        return self.bos_id

    def library_files(self, with_mask: bool, context: int, begins_documents: bool = True) -> dict[str, str]:
        """Return the files, by name, of which transformers' AutoTokenizer makes a tokenizer that does what runs do.

        The token that begins a document is put in front of every text, unless not `begins_documents`. It ends a
        document too, as in GPT-2, and it pads, unless the tokenizer has tokens for these. No text spells it there
        either.

        Args:
            with_mask: whether the model has a row for the token that stands for what is hidden.
            context: the most tokens of a text that the model reads, the one that begins it included.
        """
        document, mask = self.names
        ids = {document: self.bos_id}
        roles = dict.fromkeys(("bos_token", "eos_token", "pad_token"), document) | self._roles()
        roles.pop("mask_token", None)
        if with_mask and mask is not None:
            ids[mask] = self.mask_id
            roles["mask_token"] = mask
        library, unknown = self._library()
        known = {entry["content"] for entry in library["added_tokens"]}
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        library["added_tokens"] += [
            {"id": token, "content": name, **plain} for name, token in ids.items() if name not in known
        ]
        template = _in_front(document, self.bos_id) if begins_documents else None
        library |= {"truncation": None, "padding": None, "post_processor": template}
        said: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **roles,
            **({"unk_token": unknown} if unknown else {}),
            "model_max_length": context,
            # Not the numbers of segments: GPT-2 would look them up among its tokens.
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
            "split_special_tokens": True,
        }
        return {
            "tokenizer.json": json.dumps(library, ensure_ascii=False),
            "tokenizer_config.json": json.dumps(said, ensure_ascii=False, indent=2) + "\n",
        }

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, whatever they are."""

    @abstractmethod
    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return which characters of a text each of its tokens stands for, from the first to before the last.

        A token that is a part of a character stands for it whole; white space may be a token's or nobody's.
        """

    def _json(self, files: dict[str, str]) -> str:
        state = {"kind": self.kind, **self._state(), **({"files": files} if files else {})}
        return json.dumps(state, ensure_ascii=False)

    def _files(self) -> dict[str, str]:
        """Return the files that came with a tokenizer of others, by name, which change no id of a text."""
        return {}

    def _roles(self) -> dict[str, str]:
        """Return the special tokens of a tokenizer of others by their roles, such as pad_token."""
        return {}

    def _begins_with_space(self, word: str, ids: Ids) -> bool:
        """Return whether the first token of a word is nothing but the space in front of it."""
        return word.startswith(" ") and len(ids) > 1 and self.decode(ids[:1].tolist()) == " "

    @abstractmethod
    def _encode_batch(self, texts: Sequence[str]) -> list[Ids]: ...

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """What the saved form holds besides the kind: the arguments that make the tokenizer again."""

    @abstractmethod
    def _library(self) -> tuple[dict[str, Any], str | None]:
        """The content of a tokenizer.json with the same ids, and how it names what is unknown, where it has a name."""


def _in_front(name: str, token: int) -> dict[str, Any]:
    """Return the post-processor of a tokenizer.json that puts one token in front of a text, or of a pair of texts."""
    first, *texts = {"SpecialToken": {"id": name, "type_id": 0}}, *({"Sequence": {"id": i, "type_id": 0}} for i in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [first, texts[0]],
        "pair": [first, *texts],
        "special_tokens": {name: {"id": name, "ids": [token], "tokens": [name]}},
    }


def _join(parts: Sequence[Ids], leading: Sequence[int]) -> tuple[Ids, np.ndarray]:
    """Return the ids of words as one, and where each begins: `leading` tokens after its first."""
    lengths = [len(ids) for ids in parts]
    starts = np.cumsum([0, *lengths], dtype=np.int64)[:-1] + np.array(leading, np.int64)
    starts[np.array(lengths, np.int64) == 0] = -1
    return np.concatenate([np.empty(0, np.uint32), *parts]), starts
