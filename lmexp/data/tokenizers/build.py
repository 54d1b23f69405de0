"""From a config, or a saved file, to a tokenizer."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from lmexp.config.data import Split
from lmexp.config.tokenizers import (
    BPETokenizerConfig,
    ByteTokenizerConfig,
    HFTokenizerConfig,
    OutsideTokenizerConfig,
    SavedTokenizerConfig,
    TokenizerConfig,
    WordPieceTokenizerConfig,
)
from lmexp.data.tokenizers.base import Tokenizer
from lmexp.data.tokenizers.lossless import BPETokenizer, ByteTokenizer, CharTokenizer, train_bpe
from lmexp.data.tokenizers.others import HFTokenizer, load_hf
from lmexp.data.tokenizers.outside import build_outside, load_outside
from lmexp.data.tokenizers.training import Key, train_patiently
from lmexp.data.tokenizers.wordpiece import WordPieceTokenizer, train_wordpiece
from lmexp.errors import UserError
from lmexp.files import read_json
from lmexp.messages import Say, silent


def build_tokenizer(
    config: TokenizerConfig,
    documents: Iterable[tuple[Split, str]],
    say: Say = silent,
    key: Key = "tokenizer",
    characters: str = "",
) -> Tokenizer:
    """Return the tokenizer that `config` asks for; char, bpe and wordpiece learn it from the documents, which can be
    iterated more than once.

    char takes the characters of all splits, so that validation meets no unknown one, and `characters`; bpe and
    wordpiece are trained on the training split alone, and `say` is told how long that takes. `key` is the section of
    the run's config that `config` is. Raises UnsupportedSize when these find fewer entries than asked for, and
    UserError when a tokenizer of others cannot be had.
    """
    if isinstance(config, ByteTokenizerConfig):
        return ByteTokenizer()
    if isinstance(config, HFTokenizerConfig):
        return load_hf(config)
    if isinstance(config, SavedTokenizerConfig):
        return _load_saved(config)
    if isinstance(config, OutsideTokenizerConfig):
        return build_outside(config, _texts_of_training(documents))
    if isinstance(config, BPETokenizerConfig):
        return train_patiently(lambda: train_bpe(number_of(config), _texts_of_training(documents), key), say)
    if isinstance(config, WordPieceTokenizerConfig):
        texts = partial(_texts_of_training, documents)
        return train_patiently(lambda: train_wordpiece(number_of(config), texts, key), say)
    known = set(characters)
    for _, text in documents:
        known.update(text)
    return CharTokenizer(known)


def number_of(config: BPETokenizerConfig | WordPieceTokenizerConfig) -> int:
    """Return the size of the vocabulary that a config asks for, once `auto` is replaced; see data/prepare.py."""
    assert config.vocab_size != "auto", "auto is replaced before a tokenizer is built"
    return config.vocab_size


def _texts_of_training(documents: Iterable[tuple[Split, str]]) -> Iterator[str]:
    return (text for split, text in documents if split == "train")


def _load_saved(config: SavedTokenizerConfig) -> Tokenizer:
    tokenizer = load_tokenizer(Path(config.path))
    if config.fingerprint and tokenizer.fingerprint != config.fingerprint:
        raise UserError(f"{config.path} has changed since this config was resolved")
    return tokenizer


def with_fingerprint(config: TokenizerConfig) -> TokenizerConfig:
    """Return the config with the fingerprint that it lacks, where the tokenizer is one of others. Raises UserError."""
    if not isinstance(config, HFTokenizerConfig) or config.fingerprint:
        return config
    return config.model_copy(update={"fingerprint": load_hf(config).fingerprint})


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
        if kind == "outside":
            return load_outside(**state)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # wrong types anywhere in the file, the library's own complaints included
        raise UserError(f"{path}: not a saved tokenizer, or damaged") from error
    raise UserError(f"{path}: unknown kind of tokenizer '{kind}'; there are byte, char, bpe, wordpiece, hf")
