"""Tokenizers of others: a `tokenizer.json` of the Hugging Face libraries, from a folder or the hub, as it is.

Most of them are not lossless: they make white space and rare characters alike, some lower-case.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from lmexp.config.tokenizers import HFTokenizerConfig
from lmexp.data.scripts import separated
from lmexp.data.tokenizers.base import Ids, Tokenizer, as_ids
from lmexp.data.tokenizers.growth import check_growth
from lmexp.errors import UserError, reason_of
from lmexp.files import read_text, user_path
from lmexp.hub import commit_of

T = TypeVar("T", str, list[str])


class HFTokenizer(Tokenizer):
    """A tokenizer of others, as its tokenizer.json describes it.

    `library` is the content of that file; `bos` the token that is put in front of documents, `mask` the one for what
    is hidden. What it adds to a text by itself (such as [CLS] and [SEP]), truncation and padding are left off.
    `files` are the others that came with it, by name: they give special tokens their roles.
    """

    kind = "hf"

    def __init__(
        self, library: str, bos: str, mask: str | None, files: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        from tokenizers import Tokenizer as LibraryTokenizer

        check_growth(json.loads(library))
        self._file, self._bos, self._mask, self._came_with = library, bos, mask, dict(files)
        self.names = bos, mask
        self._model = LibraryTokenizer.from_str(library)
        self._model.no_truncation()
        self._model.no_padding()
        self._model.encode_special_tokens = True  # a text that spells <s> is a text
        ids = [self._model.token_to_id(token) if token else None for token in (bos, mask)]
        if ids[0] is None or (mask and ids[1] is None):
            raise ValueError(f"no {bos if ids[0] is None else mask} among the tokens")
        self.bos_id, self.own_mask_id = ids[0], ids[1]
        self.vocab_size = max(self._model.get_vocab().values()) + 1
        self.unknown_id = self._unknown()

    @property
    def end_ids(self) -> frozenset[int]:
        """See Tokenizer."""
        end = self._model.token_to_id(self._roles().get("eos_token", self._bos))
        return super().end_ids | ({end} if end is not None else set())

    @property
    def pad_id(self) -> int:
        """See Tokenizer."""
        pad = self._model.token_to_id(self._roles().get("pad_token", self._bos))
        return self.bos_id if pad is None else pad

    def original_files(self, with_mask: bool, context: int) -> dict[str, str]:
        """Return the files of the tokenizer as it came, by name: with what it puts around a text by itself.

        What is not known, because an earlier version of lmexp did not keep it, is as in `library_files`.
        """
        files = self._came_with or self.library_files(with_mask, context)
        return files | {"tokenizer.json": self._file}

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, special tokens by their names; ids past the vocabulary are passed over."""
        return str(self._model.decode([i for i in map(int, ids) if i >= 0], skip_special_tokens=False))

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> list[tuple[Ids, np.ndarray]]:
        """See Tokenizer; the tokenizer itself says which of its tokens are of which word."""
        # What marks a word's beginning is the space in front for byte-level kinds, and put there by the others.
        by_space = type(self._model.decoder).__name__ == "ByteLevel"
        pieces = [separated(list(words)) if by_space else list(words) for words in sentences]
        encoded = []
        split = partial(self._model.encode_batch, is_pretokenized=True, add_special_tokens=False)
        for words, encoding in zip(pieces, self._encoded(pieces, split), strict=True):
            ids = as_ids(encoding.ids)
            starts = np.full(len(words), -1, np.int64)
            for place, word in enumerate(encoding.word_ids):
                # The first token, or the next one where that holds only the space.
                if word is not None and (starts[word] < 0 or encoding.tokens[starts[word]] in ("\u0120", "\u2581")):
                    starts[word] = place
            encoded.append((ids, starts))
        return encoded

    def spans(self, text: str) -> list[tuple[int, int]]:
        """See Tokenizer.spans."""
        (encoding,) = self._encoded([text], partial(self._model.encode_batch, add_special_tokens=False))
        return list(encoding.offsets)

    def _encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        encoded = self._encoded(list(texts), partial(self._model.encode_batch_fast, add_special_tokens=False))
        return [as_ids(e.ids) for e in encoded]

    def _encoded(self, texts: list[T], encode: Callable[[list[T]], list[Any]]) -> list[Any]:
        """Return the library's encodings. Raises UserError for a character that a vocabulary without [UNK] lacks."""
        try:
            return encode(texts)
        except Exception as error:  # the library has one kind of exception for all that goes wrong
            words = [word for text in texts for word in ([text] if isinstance(text, str) else text)]
            unknown = next((character for word in words for character in self._unknown_in(word)), None)
            if unknown is None:
                raise UserError(f"the tokenizer cannot encode the text: {reason_of(error)}") from None
            raise UserError(
                f"this tokenizer does not know the character {unknown!r}, and it has no token for unknown characters"
            ) from None

    def _unknown_in(self, text: str) -> Iterator[str]:
        """Yield the characters of a text that cannot be encoded by themselves."""
        for character in dict.fromkeys(text):
            try:
                self._model.encode(character, add_special_tokens=False)
            except Exception:
                yield character

    def _unknown(self) -> int | None:
        """Return the id that the model gives to what it cannot spell, which a Unigram model names by its number."""
        model = json.loads(self._file)["model"]
        name, number = model.get("unk_token"), model.get("unk_id")
        return self._model.token_to_id(name) if isinstance(name, str) else number

    def _state(self) -> dict[str, Any]:
        return {"library": self._file, "bos": self._bos, "mask": self._mask}

    def _files(self) -> dict[str, str]:
        return self._came_with

    def _roles(self) -> dict[str, str]:
        special = _special_tokens(self._came_with)
        named = {role: _name_of(special.get(role)) for role in _ROLES}
        return {role: name for role, name in named.items() if name and self._model.token_to_id(name) is not None}

    def _library(self) -> tuple[dict[str, Any], str | None]:
        library = json.loads(self._file)
        unknown = library["model"].get("unk_token")
        is_token = isinstance(unknown, str) and self._model.token_to_id(unknown) is not None
        return library, unknown if is_token else None


_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_BEGINS = ("bos_token", "cls_token", "eos_token")
"""The special tokens of others that may begin a document, the first that there is."""
_NAMES = {
    "bos_token": ("<s>", "<bos>", "<|begin_of_text|>"),
    "cls_token": ("[CLS]", "<cls>"),
    "eos_token": ("<|endoftext|>", "</s>", "<eos>"),
    "mask_token": ("[MASK]", "<mask>"),
}
"""What these are usually called: for a tokenizer.json without the files that say so."""


def load_hf(config: HFTokenizerConfig) -> HFTokenizer:
    """Return a tokenizer out of a folder or the hub; only JSON is read, nothing is run. Raises UserError."""
    files = _hf_files(config)
    try:
        library = read_text(files["tokenizer.json"])
        came_with = {name: read_text(file) for name, file in files.items() if name != "tokenizer.json"}
        special = _special_tokens(came_with)
        names = {role: _name_of(special.get(role)) for role in _NAMES}
        if not any(names.values()):
            added = [entry["content"] for entry in json.loads(library).get("added_tokens", [])]
            names = {role: next((name for name in usual if name in added), None) for role, usual in _NAMES.items()}
        bos = next((names[role] for role in _BEGINS if names[role]), None)
        if bos is None:
            raise UserError(f"{config.name}: the tokenizer has no token to begin a document with: no bos, cls or eos")
        tokenizer = HFTokenizer(library, bos, names["mask_token"], came_with)
    except UserError:
        raise
    except Exception as error:  # the library's many ways to fail: each is one message here
        raise UserError(f"{config.name}: not a tokenizer of Hugging Face: {reason_of(error)}") from error
    if config.fingerprint and tokenizer.fingerprint != config.fingerprint:
        raise UserError(
            f"the tokenizer {config.name} has changed since this config was resolved: it no longer has the fingerprint "
            f"{config.fingerprint[:12]}"
        )
    return tokenizer


def _special_tokens(files: Mapping[str, str]) -> dict[str, Any]:
    """Return what the files of a tokenizer say of special tokens, by their roles, and of all else."""
    special: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        special |= json.loads(files[name]) if name in files else {}
    return special


def _name_of(token: Any) -> str | None:
    """Return a special token's text, which is given by itself or with its options."""
    return token.get("content") if isinstance(token, dict) else token


def _hf_files(config: HFTokenizerConfig) -> dict[str, Path]:
    """Return the files that there are of a tokenizer, by name."""
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
    folder = user_path(config.name)
    if folder.is_dir():
        files = {name: folder / name for name in names if (folder / name).is_file()}
        if "tokenizer.json" not in files:
            raise UserError(f"{config.name}: no tokenizer.json in this folder")
        return files
    commit = commit_of("tokenizer", config.name, config.revision, "tokenizer", "give tokenizer.name a folder")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    downloaded = {}
    for name in names:
        try:
            downloaded[name] = Path(hf_hub_download(config.name, name, revision=commit))
        except EntryNotFoundError as error:
            if name == "tokenizer.json":
                raise UserError(f"{config.name}: no tokenizer.json at revision {commit[:12]}") from error
        except Exception as error:
            raise UserError(f"cannot load the tokenizer '{config.name}': {reason_of(error)}") from error
    return downloaded
