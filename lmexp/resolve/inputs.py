"""What a run's data, tokenizers and pretrained models decide about its config: hashes, vocabulary sizes, labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lmexp.config.models.base import CountedSection
from lmexp.config.models.hf import HFConfig
from lmexp.config.schema import RunConfig
from lmexp.config.tokenizers import HFTokenizerConfig, SavedTokenizerConfig, TokenizerConfig
from lmexp.cost import hf
from lmexp.cost.measure import measured
from lmexp.data import sources
from lmexp.data.digests import kept_in
from lmexp.data.examples import ExampleStore
from lmexp.data.prepare import AnyStore, prepare, vocabulary_sizes, with_sizes
from lmexp.data.tokenizers.build import load_tokenizer, with_fingerprint
from lmexp.errors import UserError
from lmexp.files import absolute_text, user_path
from lmexp.messages import Say, silent

T = TypeVar("T")


class InputResolver:
    """Fills into configs what their texts, tokenizers and pretrained models decide; reads each of these once."""

    def __init__(self, root: Path, say: Say = silent) -> None:
        """`root` is the folder of the stores."""
        self.root, self.say = root, say
        self._known: dict[tuple[str, ...], Any] = {}

    def identified(self, config: RunConfig) -> RunConfig:
        """Fill in what identifies every input: hashes of contents, and absolute paths. Raises UserError.

        For a model of transformers, also what the library knows about it, so that it can be built without its folder.
        """
        data, digest = sources.with_absolute_paths(config.data), kept_in(self.root)
        changes: dict[str, Any] = {
            "data": self._once("data", data.model_dump_json(), lambda: sources.with_fingerprints(data, digest)),
            "tokenizer": self._tokenizer(config.tokenizer),
        }
        if config.target_tokenizer is not None:
            changes["target_tokenizer"] = self._tokenizer(config.target_tokenizer)
        if isinstance(config.model, HFConfig):
            model = config.model
            changes["model"] = self._once("model", model.model_dump_json(), lambda: _described(model))
        return config.model_copy(update=changes)

    def store(self, config: RunConfig) -> AnyStore:
        """Return the store of a run's data; see `prepare`."""
        return self._once("store", _data_key(config), lambda: prepare(config, self.root, self.say))

    def settled(self, config: RunConfig) -> RunConfig:
        """Fill in what the data of an identified config decide; see `vocabulary_sizes` and `with_store`."""
        sizes = self._once("sizes", _data_key(config), lambda: vocabulary_sizes(config, self.root, self.say))
        config = with_sizes(config, sizes)
        config = with_store(config, self.store(config))
        model = config.model
        if isinstance(model, CountedSection) and model.size is None:
            counted = self._once("size", model.model_dump_json(), lambda: measured(model))
            config = config.model_copy(update={"model": counted})
        return config

    def _tokenizer(self, config: TokenizerConfig) -> TokenizerConfig:
        if isinstance(config, HFTokenizerConfig) and user_path(config.name).is_dir():
            config = config.model_copy(update={"name": absolute_text(user_path(config.name))})
        return self._once("tokenizer", config.model_dump_json(), lambda: with_fingerprint(config))

    def _once(self, kind: str, key: str, compute: Callable[[], T]) -> T:
        """Compute once per key; cache and re-raise UserErrors."""
        if (kind, key) not in self._known:
            try:
                self._known[kind, key] = compute()
            except UserError as problem:
                self._known[kind, key] = problem
        result: T = self._known[kind, key]
        if isinstance(result, UserError):
            raise result
        return result


def _data_key(config: RunConfig) -> str:
    """Return all that a store is made from, as text."""
    sections = config.data, config.tokenizer, config.target_tokenizer
    return " ".join(section.model_dump_json() for section in sections if section is not None)


def _described(model: HFConfig) -> HFConfig:
    """Return a model of transformers with what the library knows about it, and its fingerprint if it is pretrained."""
    if model.pretrained is not None and model.fingerprint is None:
        if (folder := user_path(model.pretrained)).is_dir():
            model = model.model_copy(update={"pretrained": absolute_text(folder)})
        model = model.model_copy(update={"fingerprint": hf.fingerprint(model)})
    return hf.describe(model)


def with_store(config: RunConfig, store: AnyStore) -> RunConfig:
    """Fill in what a run's data decide: the number of rows of the embeddings, and the labels.

    Raises UserError if the model has fewer rows than its tokenizer has entries.
    """
    model, task = config.model, config.task
    if isinstance(store, ExampleStore):
        is_pairs = store.holds == "pairs"
        model = model.with_vocabularies(store.target_vocab_size if is_pairs else store.vocab_size, store.vocab_size)
        if task.head == "labels":
            task = task.with_labels(list(store.labels), store.label_counts)
    else:
        hides = task.hidden_share is not None
        needed = max(store.vocab_size, store.mask_id + 1) if hides else store.vocab_size
        model = model.with_vocabularies(needed, needed)
    return config.model_copy(update={"model": model, "task": task})


def begin_with(config: RunConfig, source: RunConfig, tokenizer: Path) -> RunConfig:
    """Return a config with the model and the tokenizer of the run `source`, whose weights it starts from.

    `tokenizer` is the tokenizer.json of that run.
    """
    fingerprint = load_tokenizer(tokenizer).fingerprint
    saved = SavedTokenizerConfig(kind="saved", path=absolute_text(tokenizer), fingerprint=fingerprint)
    # The weights come from that run, whatever its own started from.
    return config.model_copy(update={"model": source.model.without_weights(), "tokenizer": saved})
