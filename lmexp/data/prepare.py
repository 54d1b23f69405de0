"""The store of a run's data on disk, of text or of examples, and what a user should know about it."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from lmexp.config.data import CanariesConfig, DataConfig
from lmexp.config.schema import RunConfig
from lmexp.config.tokenizers import AUTO_ENTRIES, TokenizerConfig
from lmexp.data import store
from lmexp.data.cleaning import stop_words, unspaced_of
from lmexp.data.example_writing import prepare_examples
from lmexp.data.examples import ExampleStore
from lmexp.data.folders import made_once, read_manifest, write_manifest
from lmexp.data.store import Store
from lmexp.data.tokenizers.lost import facts
from lmexp.data.tokenizers.training import Key, UnsupportedSize
from lmexp.errors import UserError
from lmexp.messages import Say, silent
from lmexp.units import counted

AnyStore = Store | ExampleStore

MIN_LOST = 0.001
"""A smaller share of lost text or unknown tokens is not worth a warning."""


SIZES_VERSION = 1
_SIZES = "sizes"  # how the manifest names the content of a folder that keeps found sizes


def prepare(config: RunConfig, root: Path, say: Say = silent) -> AnyStore:
    """Return the store of a run's data under `root`; build it first if missing.

    Raises UserError: a wrong source, a source that has changed since its fingerprint was taken, a vocabulary too large
    for the text, or a folder that cannot be written.
    """
    config = with_sizes(config, vocabulary_sizes(config, root, say))
    if config.data.holds == "text":
        return store.prepare(config.data, config.tokenizer, root, say)
    return prepare_examples(config.data, config.tokenizer, config.target_tokenizer, root, say)


def vocabulary_sizes(config: RunConfig, root: Path, say: Say = silent) -> dict[Key, int]:
    """Return the number that each `vocab_size=auto` of a config stands for; see BPETokenizerConfig.

    It follows from the data. It is found by building the store, and kept under `root`. Raises UserError as `prepare`
    does.
    """
    if not automatic_sizes(config):
        return {}
    tokenizers = tuple(section for section in (config.tokenizer, config.target_tokenizer) if section is not None)
    folder = made_once(config.data, tokenizers, SIZES_VERSION, root, partial(_write_sizes, config, root, say))
    sizes = read_manifest(folder, SIZES_VERSION, [_SIZES])["sizes"]
    return {key: sizes[key] for key in automatic_sizes(config)}


def automatic_sizes(config: RunConfig) -> list[Key]:
    """Return the sections of the tokenizers that have `vocab_size=auto`."""
    keys: tuple[Key, Key] = ("tokenizer", "target_tokenizer")
    return [key for key in keys if getattr(getattr(config, key), "vocab_size", None) == "auto"]


def with_sizes(config: RunConfig, sizes: Mapping[Key, int]) -> RunConfig:
    """Return a config whose tokenizers have vocabularies of these sizes."""
    sections: dict[str, TokenizerConfig] = {
        key: getattr(config, key).model_copy(update={"vocab_size": size}) for key, size in sizes.items()
    }
    return config.model_copy(update=sections)


def _write_sizes(
    config: RunConfig, root: Path, say: Say, data: DataConfig, _: tuple[TokenizerConfig, ...], folder: Path
) -> None:
    """Find the sizes by building the store: first with AUTO_ENTRIES, then with what the text supports."""
    sizes = dict.fromkeys(automatic_sizes(config), AUTO_ENTRIES)
    config = config.model_copy(update={"data": data})
    while True:
        try:
            prepare(with_sizes(config, sizes), root, say)
            break
        except UnsupportedSize as error:
            if given := {key: problem for key, problem in error.problems.items() if key not in sizes}:
                raise UnsupportedSize(given) from error
            sizes |= {key: entries for key, (entries, _) in error.problems.items()}
    write_manifest(folder, {"format_version": SIZES_VERSION, "holds": _SIZES, "sizes": sizes}, [])


def warnings(store: AnyStore) -> list[str]:
    """Return what makes scores on a store's validation or test split mean less than they seem to, as sentences."""
    sentences = _of_stop_words(store) + _of_canaries(store)
    for split, about in store.splits.items():
        if max(about.text_lost or 0.0, about.unknown_tokens or 0.0) < MIN_LOST:
            continue
        said = facts(about.text_lost or 0.0, about.unknown_tokens or 0.0, f"the {split} text")
        sentences.append(
            f"the tokenizer loses text: {said}; its bits per byte do not compare with those of other tokenizers"
        )
    if isinstance(store, ExampleStore) and store.tags_repaired:
        scheme = store.source_config.get("scheme", "")
        sentences.append(
            f"{store.tags_repaired:,} tags break data.scheme={scheme}; "
            "data.repair=lenient read each as conlleval does: one that cannot continue a span begins one"
        )
    what = "documents" if isinstance(store, Store) else "examples"
    if store.validation_seen:
        sentences.append(
            f"{store.validation_seen:.1%} of the {store.documents('validation'):,} validation {what} are in the "
            "training split too; scores on them show what was memorised"
        )
    if store.test_seen:
        sentences.append(
            f"{store.test_seen:.1%} of the {store.documents('test'):,} test {what} are in the training or validation "
            "split too; scores on them show what was memorised, or what runs were chosen by"
        )
    return sentences


def _of_canaries(store: AnyStore) -> list[str]:
    """Return a warning if copies of canaries stand side by side."""
    if not isinstance(store, Store) or not store.canary_tokens:
        return []
    copies = CanariesConfig.model_validate(store.source["canaries"]).copies
    own = store.documents("train") - copies
    if own >= copies:
        return []
    documents = counted(own, "document")
    return [
        f"the training split has {documents} for {copies:,} copies of canaries, so several copies stand side by side; "
        "data.document=paragraph or line gives more documents, and a smaller data.canaries.count gives fewer copies"
    ]


def _of_stop_words(store: AnyStore) -> list[str]:
    """Say that stop words were removed from inside of other words, if they were."""
    config = store.source if isinstance(store, Store) else store.source_config
    clean = config.get("clean") or {}
    name = clean.get("stop_words")
    if not name or clean.get("segment"):
        return []
    try:
        unspaced = unspaced_of(stop_words(name))
    except UserError:  # the file is gone, and the store is still good
        return []
    if not unspaced:
        return []
    return [
        "Chinese stop words were removed wherever their characters occur, also from inside other words (目的 loses its "
        "的); with data.clean.segment=jieba, texts are cut into words first"
    ]
