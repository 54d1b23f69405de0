"""Text to token ids and back: bytes, characters, byte-pair encoding, WordPiece, or a tokenizer of others.

No text spells the id that begins each document, `bos_id`, not even one that holds ``<|endoftext|>``. The saved form is
plain JSON that holds nothing but characters, merges and the like, so a tokenizer from somebody else can be loaded
without trust.

Byte, char and bpe are lossless: decoding what was encoded gives the text back, whatever it holds. WordPiece and most
tokenizers of others are not: they make white space and rare characters alike, some lower-case.

BPE is byte-level as in GPT-2 (Radford et al. 2019): its regex splits text into words, bytes are written
as printable characters, and merges never cross words. WordPiece splits text as BERT does (Devlin et al. 2018). The
Hugging Face `tokenizers` library does the work.
"""

import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lmexp.config.data import (
    WORDPIECE_LEAST,
    BPETokenizerConfig,
    ByteTokenizerConfig,
    HFTokenizerConfig,
    SavedTokenizerConfig,
    TokenizerConfig,
    WordPieceTokenizerConfig,
)
from lmexp.data.scripts import UNSPACED, separated
from lmexp.data.split import Split
from lmexp.errors import UserError, reason_of
from lmexp.files import hash_text, read_json, write_atomically
from lmexp.hub import commit_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer as LibraryTokenizer

DOCUMENT_TOKEN = "<|endoftext|>"
"""How the token that begins a document is written when ids are decoded."""
MASK_TOKEN = "<|mask|>"
"""How that for what is hidden is called where others read our tokenizers."""

Ids = np.ndarray[tuple[int], np.dtype[np.uint32]]


class Tokenizer(ABC):
    """What every tokenizer does."""

    kind: ClassVar[str]
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
        write_atomically(path, self._json())

    def library_files(self, with_mask: bool) -> dict[str, str]:
        """Return the files, by name, of which transformers' AutoTokenizer makes a tokenizer with the same ids.

        The token that begins a document ends one too, as in GPT-2; `with_mask` names the one for what is hidden. No
        text spells them there either, and nothing is put around a text.
        """
        document, mask = self.names
        ids, roles = {document: self.bos_id}, {"bos_token": document, "eos_token": document}
        if with_mask and mask is not None:
            ids[mask] = self.mask_id
            roles["mask_token"] = mask
        library, unknown = self._library()
        known = {entry["content"] for entry in library["added_tokens"]}
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        library["added_tokens"] += [
            {"id": token, "content": name, **plain} for name, token in ids.items() if name not in known
        ]
        library |= {"truncation": None, "padding": None, "post_processor": None}
        said: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **roles,
            **({"unk_token": unknown} if unknown else {}),
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

    def _json(self) -> str:
        return json.dumps({"kind": self.kind, **self._state()}, ensure_ascii=False)

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


def _join(parts: Sequence[Ids], leading: Sequence[int]) -> tuple[Ids, np.ndarray]:
    """Return the ids of words as one, and where each begins: `leading` tokens after its first."""
    lengths = [len(ids) for ids in parts]
    starts = np.cumsum([0, *lengths], dtype=np.int64)[:-1] + np.array(leading, np.int64)
    starts[np.array(lengths, np.int64) == 0] = -1
    return np.concatenate([np.empty(0, np.uint32), *parts]), starts


class LosslessTokenizer(Tokenizer):
    """A tokenizer whose ids stand for UTF-8 bytes; `pieces` are those of each id.

    The last id begins a document and is no piece of a text, and the mask is the id past the last.
    """

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

    def _library(self) -> tuple[dict[str, Any], None]:
        from tokenizers import decoders

        library = json.loads(self._model.to_str())
        return library | {"decoder": json.loads(decoders.ByteLevel().__getstate__())}, None


UNKNOWN_TOKEN = "[UNK]"


class WordPieceTokenizer(Tokenizer):
    """WordPiece: each word in the longest entries that spell it, those inside a word marked by ##.

    Text is split as by BERT: at white space, at punctuation, and around each Chinese character. A word that cannot be
    spelled is [UNK]. The document token and the mask are the ids past the entries.
    """

    kind = "wordpiece"

    def __init__(self, tokens: Sequence[str]) -> None:
        from tokenizers import decoders, models

        self.tokens = list(tokens)
        vocabulary = {token: i for i, token in enumerate(self.tokens)}
        if UNKNOWN_TOKEN not in vocabulary:
            raise ValueError(f"no {UNKNOWN_TOKEN} among the tokens")
        self._model = _bert_split(models.WordPiece(vocab=vocabulary, unk_token=UNKNOWN_TOKEN))
        self._decoder = decoders.WordPiece(cleanup=True)
        self.bos_id = len(self.tokens)
        self.vocab_size = self.own_mask_id = self.bos_id + 1

    def decode(self, ids: Iterable[int]) -> str:
        """Return the words of ids with spaces between them, as far as people write these; U+FFFD for an unknown id."""
        tokens = [*self.tokens, DOCUMENT_TOKEN]
        words = self._decoder.decode([tokens[i] if 0 <= i < len(tokens) else "\ufffd" for i in ids])
        return _NEEDLESS_SPACE.sub("", words)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """See Tokenizer.spans."""
        return list(self._model.encode(text).offsets)

    def _encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [np.array(e.ids, np.uint32) for e in self._model.encode_batch_fast(list(texts))]

    def _state(self) -> dict[str, Any]:
        return {"tokens": self.tokens}

    def _library(self) -> tuple[dict[str, Any], str]:
        library = json.loads(self._model.to_str())
        return library | {"decoder": json.loads(self._decoder.__getstate__())}, UNKNOWN_TOKEN


_NEEDLESS_SPACE = re.compile(f"(?<=[{UNSPACED}]) | (?=[{UNSPACED}])")


class HFTokenizer(Tokenizer):
    """A tokenizer of others, as its tokenizer.json describes it.

    `library` is the content of that file; `bos` the token that is put in front of documents, `mask` the one for what
    is hidden. What it adds to a text by itself (such as [CLS] and [SEP]), truncation and padding are left off.
    """

    kind = "hf"

    def __init__(self, library: str, bos: str, mask: str | None) -> None:
        from tokenizers import Tokenizer as LibraryTokenizer

        self._file, self._bos, self._mask = library, bos, mask
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

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, special tokens by their names; ids past the vocabulary are passed over."""
        return str(self._model.decode([i for i in map(int, ids) if i >= 0], skip_special_tokens=False))

    def encode_words(self, sentences: Sequence[Sequence[str]]) -> list[tuple[Ids, np.ndarray]]:
        """See Tokenizer; the tokenizer itself says which of its tokens are of which word."""
        # What marks a word's beginning is the space in front for byte-level kinds, and put there by the others.
        by_space = type(self._model.decoder).__name__ == "ByteLevel"
        pieces = [separated(list(words)) if by_space else list(words) for words in sentences]
        found = []
        for words, encoding in zip(
            pieces, self._model.encode_batch(pieces, is_pretokenized=True, add_special_tokens=False), strict=True
        ):
            ids = np.array(encoding.ids, np.uint32)
            starts = np.full(len(words), -1, np.int64)
            for place, word in enumerate(encoding.word_ids):
                # The first token, or the next one where that holds only the space.
                if word is not None and (starts[word] < 0 or encoding.tokens[starts[word]] in ("\u0120", "\u2581")):
                    starts[word] = place
            found.append((ids, starts))
        return found

    def spans(self, text: str) -> list[tuple[int, int]]:
        """See Tokenizer.spans."""
        return list(self._model.encode(text, add_special_tokens=False).offsets)

    def _encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        encoded = self._model.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(e.ids, np.uint32) for e in encoded]

    def _state(self) -> dict[str, Any]:
        return {"library": self._file, "bos": self._bos, "mask": self._mask}

    def _library(self) -> tuple[dict[str, Any], str | None]:
        library = json.loads(self._file)
        unknown = library["model"].get("unk_token")
        return library, unknown if isinstance(unknown, str) else None


def build_tokenizer(config: TokenizerConfig, documents: Iterable[tuple[Split, str]]) -> Tokenizer:
    """Return the tokenizer that `config` asks for; char, bpe and wordpiece learn it from the documents, which can be
    iterated more than once.

    char takes the characters of both splits, so that validation meets no unknown one; bpe and wordpiece are trained on
    the training split alone. Raises UserError when these find fewer entries than asked for, or one of others cannot be
    had.
    """
    if isinstance(config, ByteTokenizerConfig):
        return ByteTokenizer()
    if isinstance(config, HFTokenizerConfig):
        return _load_hf(config)
    if isinstance(config, SavedTokenizerConfig):
        return _load_saved(config)
    if isinstance(config, BPETokenizerConfig):
        return _train_bpe(config.vocab_size, (text for split, text in documents if split == "train"))
    if isinstance(config, WordPieceTokenizerConfig):
        return _train_wordpiece(config.vocab_size, lambda: (text for split, text in documents if split == "train"))
    characters: set[str] = set()
    for _, text in documents:
        characters.update(text)
    return CharTokenizer(characters)


def _load_saved(config: SavedTokenizerConfig) -> Tokenizer:
    tokenizer = load_tokenizer(Path(config.path))
    if config.fingerprint and tokenizer.fingerprint != config.fingerprint:
        raise UserError(f"{config.path} has changed since this config was resolved")
    return tokenizer


def with_fingerprint(config: TokenizerConfig) -> TokenizerConfig:
    """Return the config with the fingerprint that it lacks, where the tokenizer is one of others. Raises UserError."""
    if not isinstance(config, HFTokenizerConfig) or config.fingerprint:
        return config
    return config.model_copy(update={"fingerprint": _load_hf(config).fingerprint})


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
        if kind == "wordpiece":
            return WordPieceTokenizer(**state)
        if kind == "hf":
            return HFTokenizer(**state)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # wrong types anywhere in the file, the library's own complaints included
        raise UserError(f"{path}: not a saved tokenizer, or damaged") from error
    raise UserError(f"{path}: unknown kind of tokenizer '{kind}'; there are byte, char, bpe, wordpiece, hf")


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


def _train_wordpiece(vocab_size: int, texts: Callable[[], Iterable[str]]) -> WordPieceTokenizer:
    from tokenizers import models, trainers

    model = _bert_split(models.WordPiece(unk_token=UNKNOWN_TOKEN))
    assert model.normalizer is not None and model.pre_tokenizer is not None
    counts: Counter[str] = Counter()
    inside: set[str] = set()  # characters that occur after the first of a word
    for text in texts():
        for word, _ in model.pre_tokenizer.pre_tokenize_str(model.normalizer.normalize_str(text)):
            counts.update(word)
            inside.update(word[1:])
    alphabet = sorted(character for character, count in counts.items() if count > 1)  # seen once is no statistic
    # The trainer numbers characters inside words in no fixed order, and breaks ties between merges by these numbers;
    # named beforehand, they have theirs.
    first = [UNKNOWN_TOKEN, *(f"##{character}" for character in alphabet if character in inside)]
    least = len(first) + len(alphabet) + 1  # and the document token
    if vocab_size < least:
        raise UserError(
            f"a vocabulary of {vocab_size} does not hold the characters of the training text, which begin words "
            f"and stand inside; set tokenizer.vocab_size={least} or higher"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        special_tokens=first,
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    model.train_from_iterator(texts(), trainer)
    vocabulary = json.loads(model.to_str())["model"]["vocab"]
    found = len(vocabulary) + 1
    if found < vocab_size:
        remedy = f"set tokenizer.vocab_size={found} or lower" if found >= WORDPIECE_LEAST else "use tokenizer=char"
        raise UserError(
            f"a vocabulary of {vocab_size} is larger than the text supports: {found} entries found; {remedy}"
        )
    return WordPieceTokenizer(sorted(vocabulary, key=vocabulary.get))


def _bert_split(model: Any) -> "LibraryTokenizer":
    """Return BERT's pipeline around a model: its cleaning and splitting, letters and accents left as they are."""
    from tokenizers import Tokenizer as LibraryTokenizer
    from tokenizers import normalizers, pre_tokenizers

    tokenizer = LibraryTokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


_BEGINS = ("bos_token", "cls_token", "eos_token")
"""The special tokens of others that may begin a document, the first that there is."""
_NAMES = {
    "bos_token": ("<s>", "<bos>", "<|begin_of_text|>"),
    "cls_token": ("[CLS]", "<cls>"),
    "eos_token": ("<|endoftext|>", "</s>", "<eos>"),
    "mask_token": ("[MASK]", "<mask>"),
}
"""What these are usually called: for a tokenizer.json without the files that say so."""


def _load_hf(config: HFTokenizerConfig) -> HFTokenizer:
    """Return a tokenizer out of a folder or the hub; only JSON is read, nothing is run. Raises UserError."""
    files = _hf_files(config)
    try:
        library = files["tokenizer.json"].read_text(encoding="utf-8")
        special: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            special |= read_json(files[name]) if name in files else {}
        names = {role: _name_of(special.get(role)) for role in _NAMES}
        if not any(names.values()):
            added = [entry["content"] for entry in json.loads(library).get("added_tokens", [])]
            names = {role: next((name for name in usual if name in added), None) for role, usual in _NAMES.items()}
        bos = next((names[role] for role in _BEGINS if names[role]), None)
        if bos is None:
            raise UserError(f"{config.name}: the tokenizer has no token to begin a document with: no bos, cls or eos")
        tokenizer = HFTokenizer(library, bos, names["mask_token"])
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


def _name_of(token: Any) -> str | None:
    """Return a special token's text, which is given by itself or with its options."""
    return token.get("content") if isinstance(token, dict) else token


def _hf_files(config: HFTokenizerConfig) -> dict[str, Path]:
    """Return the files that there are of a tokenizer, by name."""
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    folder = Path(config.name).expanduser()
    if folder.is_dir():
        files = {name: folder / name for name in names if (folder / name).is_file()}
        if "tokenizer.json" not in files:
            raise UserError(f"{config.name}: no tokenizer.json in this folder")
        return files
    commit = commit_of("tokenizer", config.name, config.revision, "tokenizer", "give tokenizer.name a folder")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    found = {}
    for name in names:
        try:
            found[name] = Path(hf_hub_download(config.name, name, revision=commit))
        except EntryNotFoundError as error:
            if name == "tokenizer.json":
                raise UserError(f"{config.name}: no tokenizer.json at revision {commit[:12]}") from error
        except Exception as error:
            raise UserError(f"cannot load the tokenizer '{config.name}': {reason_of(error)}") from error
    return found


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


def _cut(text: str) -> Iterator[str]:
    """Yield `text` in parts of about _CUT_LENGTH characters that can be encoded one by one."""
    start = 0
    while found := _CUT_AT.search(text, start + _CUT_LENGTH):
        yield text[start : found.end()]
        start = found.end()
    yield text[start:]
