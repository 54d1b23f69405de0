"""The loss that no model can beat, where the text is drawn from a process whose entropy rate is known (markov.py)."""

from functools import cache

import numpy as np

from lmexp.config.data import CleanConfig, MarkovData
from lmexp.config.schema import RunConfig
from lmexp.config.tasks.causal_lm import CausalLMConfig
from lmexp.data.markov import MarkovProcess
from lmexp.data.prepare import AnyStore
from lmexp.data.store import Store

_entropies = cache(MarkovProcess.entropies)


def loss_floor(config: RunConfig, store: AnyStore) -> float | None:
    """Return the least expected loss of any model on a run's validation split, in nats per token; None if unknown.

    It is exact if each symbol is one token. It is then the mean entropy of the next token over the positions of a
    window; the first positions see fewer tokens than the process depends on. If tokens stand for several symbols, it is
    the entropy rate of the symbols and document ends, divided by the tokens that the tokenizer makes of them. This is a
    lower bound; the loss on windows stays slightly above it. The floor is unknown for other tasks, for other texts, for
    a text that data.clean changes, and for a tokenizer that loses text.
    """
    data = config.data
    if not isinstance(data, MarkovData) or not isinstance(config.task, CausalLMConfig):
        return None
    assert isinstance(store, Store), "a Markov process gives text"
    scored = store.splits["validation"]
    if data.clean != CleanConfig() or scored.text_lost:
        return None
    entropies = _entropies(MarkovProcess.of(data))
    symbols = scored.bytes + scored.documents  # a document token is a symbol of the stream
    if scored.tokens != symbols:
        return float(entropies[-1]) * symbols / scored.tokens
    visible = np.minimum(np.arange(1, config.model.context + 1), data.order)
    return float(entropies[visible - 1].mean())
