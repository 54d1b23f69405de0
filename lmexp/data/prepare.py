"""The store of a run's data on disk: of text, or of examples."""

from pathlib import Path

from lmexp.config.schema import RunConfig
from lmexp.data import store
from lmexp.data.examples import ExampleStore, prepare_examples
from lmexp.data.store import Store
from lmexp.messages import Say, silent

AnyStore = Store | ExampleStore


def prepare(config: RunConfig, root: Path, say: Say = silent) -> AnyStore:
    """Return the store of a run's data under `root`; build it first if missing.

    Raises UserError: a wrong source, a source that has changed since its fingerprint was taken, a vocabulary too large
    for the text, or a folder that cannot be written.
    """
    if config.data.holds == "text":
        return store.prepare(config.data, config.tokenizer, root, say)
    return prepare_examples(config.data, config.tokenizer, config.target_tokenizer, root, say)
