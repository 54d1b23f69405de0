"""Texts for membership attacks: beginnings of training documents (members) and of validation documents (others).

All are cut to the same number of tokens, because most attacks depend on the length. If the split was made by hash,
members and others are two random samples of one source. They then differ only in whether the model was trained on them.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lmexp.config.data import MAX_CANARY_TOKENS, CanariesConfig, Split
from lmexp.config.schema import MIN_DOCUMENTS
from lmexp.data.canaries import canaries_of
from lmexp.data.prepare import AnyStore
from lmexp.data.store import Store
from lmexp.errors import UserError

MIN_TOKENS = 8
"""The fewest tokens of a text."""
SHORTER = 0.25
"""Share of the validation documents that may be too short."""
_SPLITS: tuple[Split, Split] = ("train", "validation")


@dataclass(frozen=True)
class Texts:
    """As many members as others, all of one length."""

    members: np.ndarray
    """Tokens of training documents, without the one that begins each: (count, tokens) int64."""
    others: np.ndarray
    """The same of validation documents."""


def membership_texts(store: AnyStore, context: int, count: int) -> Texts:
    """Return at most `count` texts of each kind, drawn at random, always the same ones.

    They are as long as three quarters of the validation documents, MIN_TOKENS at least and the context at most. Shorter
    documents are left out, and so are canaries. Raises UserError if fewer than MIN_DOCUMENTS are left.
    """
    if not isinstance(store, Store):
        raise UserError("membership is measured on documents, and these data hold examples")
    bounds = {split: store.bounds(split) for split in _SPLITS}
    lengths = {split: np.diff(bounds[split]) - 1 for split in _SPLITS}  # without the document token
    length = min(context, max(MIN_TOKENS, int(np.quantile(lengths["validation"], SHORTER))))
    long_enough = {split: np.flatnonzero(lengths[split] >= length) for split in _SPLITS}
    if length <= MAX_CANARY_TOKENS:
        long_enough["train"] = _without_canaries(store, bounds["train"], long_enough["train"])
    drawn = min(count, *(len(each) for each in long_enough.values()))
    if drawn < MIN_DOCUMENTS:
        training, validation = (f"{len(long_enough[split]):,}" for split in _SPLITS)
        raise UserError(
            f"membership needs at least {MIN_DOCUMENTS} training documents and {MIN_DOCUMENTS} validation documents; "
            f"these data have {training} training and {validation} validation documents of at least {length} tokens. "
            "data.document=paragraph or line gives more documents; a larger data.validation gives more validation "
            "documents"
        )
    return Texts(*(_beginnings(store, split, bounds[split], long_enough[split], length, drawn) for split in _SPLITS))


def _beginnings(
    store: Store, split: Split, bounds: np.ndarray, documents: np.ndarray, length: int, count: int
) -> np.ndarray:
    """Return the first tokens of random documents."""
    dice = np.random.PCG64(np.random.SeedSequence(0, spawn_key=(_SPLITS.index(split),))).random_raw(len(documents))
    chosen = np.sort(documents[np.argsort(dice, kind="stable")[:count]])
    tokens = np.asarray(store.array(split))
    return np.stack([tokens[start + 1 : start + 1 + length] for start in bounds[chosen]]).astype(np.int64)


def _without_canaries(store: Store, bounds: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """Return the training documents of these that are not canaries."""
    config = CanariesConfig.model_validate(store.source.get("canaries") or {})
    encoded = store.tokenizer().encode_batch([canary.text for canary in canaries_of(config)])
    planted = {ids.tobytes() for ids in encoded}
    tokens = np.asarray(store.array("train"))
    starts_and_ends = list(pairwise(bounds))
    keep = [tokens[slice(*starts_and_ends[i])][1:].astype(np.uint32).tobytes() not in planted for i in documents]
    return documents[np.array(keep, bool)]
