"""The store of a run's data on disk, of text or of examples, and what a user should know about it."""

from pathlib import Path

from lmexp.config.schema import RunConfig
from lmexp.data import store
from lmexp.data.cleaning import stop_words, unspaced_of
from lmexp.data.example_writing import prepare_examples
from lmexp.data.examples import ExampleStore
from lmexp.data.store import Store
from lmexp.data.tokenizers.lost import facts
from lmexp.errors import UserError
from lmexp.messages import Say, silent

AnyStore = Store | ExampleStore

MIN_LOST = 0.001
"""A smaller share of lost text or unknown tokens is not worth a warning."""


def prepare(config: RunConfig, root: Path, say: Say = silent) -> AnyStore:
    """Return the store of a run's data under `root`; build it first if missing.

    Raises UserError: a wrong source, a source that has changed since its fingerprint was taken, a vocabulary too large
    for the text, or a folder that cannot be written.
    """
    if config.data.holds == "text":
        return store.prepare(config.data, config.tokenizer, root, say)
    return prepare_examples(config.data, config.tokenizer, config.target_tokenizer, root, say)


def warnings(store: AnyStore) -> list[str]:
    """Return what makes scores on a store's validation or test split mean less than they seem to, as sentences."""
    sentences = _of_stop_words(store)
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
