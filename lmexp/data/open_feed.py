"""The feed of a run: what its task sees of its store."""

from lmexp.config.data import Split
from lmexp.config.fixes import shorter_context
from lmexp.config.schema import RunConfig
from lmexp.data.example_feeds import Labelled, Pairs
from lmexp.data.examples import ExampleStore
from lmexp.data.feeds import Feed
from lmexp.data.order import TooShort
from lmexp.data.store import Store
from lmexp.data.windows import MaskedWindows, Windows
from lmexp.errors import UserError


def open_feed(config: RunConfig, store: Store | ExampleStore, scored: Split = "validation") -> Feed:
    """Return what the run's task sees of a store. Raises UserError where that is not enough, or too long."""
    if scored not in store.splits:
        raise UserError(
            f"the data have no {scored} split; set data.{scored}_path, data.{scored}_subset or data.{scored}"
        )
    if isinstance(store, ExampleStore):
        return Pairs(store, config, scored) if store.holds == "pairs" else Labelled(store, config, scored)
    share = config.task.hidden_share
    try:
        if share is not None:
            return MaskedWindows(store, config.model.context, config.seed, share, scored)
        return Windows(store, config.model.context, config.seed, scored, config.task.masks_documents)
    except TooShort as problem:
        most = store.tokens("train") - 1
        if share is not None:
            most = min(most, *(store.tokens(split) for split in store.splits))
        fix = shorter_context(config, most)
        raise UserError(f"{problem}; {f'set {fix}' if fix else 'use a longer text'}") from problem
