"""Text drawn from a Markov process whose entropy rate is computed exactly: the loss that no model can beat is known.

The probability of a symbol depends on up to `order` symbols before it. It is proportional to a product of factors, one
for each length of context, from none to `order`, so that a model can learn the short contexts first:

    p(x | last k symbols) ~ f0(x) f1(x | last 1) ... fk(x | last k),  each f one of 1, 2, 4, 8, 16

A document begins without context, and ends after each of its symbols with probability 1 / `document_length`. So its
length is geometric and cannot be predicted from what is before, and the stream of tokens that models read (document
token, symbols, document token, ...) is itself a Markov process. All draws and weights are integers, made from raw bits
of numpy's PCG64, so the text is the same on every machine.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lmexp.config.data import MarkovData
from lmexp.files import hash_text

Floats = npt.NDArray[np.float64]

SYMBOLS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789."
"""The first `alphabet` of these are drawn. All are ASCII, so that one symbol is one token of byte and char tokenizers;
27 are the letters and the space, as in Shannon (1951)."""
FACTORS = 5
"""Each factor is a power of two below 2 ** FACTORS, all with the same probability."""
VERSION = 1
"""Part of the fingerprint; it must change when the same config begins to give another text."""
_BLOCK = 1 << 20  # symbols that are drawn together: many documents side by side, a symbol of each at a time
_CONVERGED = 1e-14


@dataclass(frozen=True)
class MarkovProcess:
    """A process: its states, what follows each, and the entropy of its stream of tokens.

    A state is what decides the next symbol: the last `order` symbols, or all of them while a document has fewer. The
    states of one length lie together, the shorter ones first, and within a length they are numbered in base `alphabet`.
    """

    order: int
    alphabet: int
    document_length: int
    seed: int

    @classmethod
    def of(cls, data: MarkovData) -> "MarkovProcess":
        """Return the process of a config."""
        return cls(data.order, data.alphabet, data.document_length, data.seed)

    @property
    def first(self) -> list[int]:
        """The number of the first state of each length, 0 to `order`, and the number of states."""
        return [(self.alphabet**length - 1) // (self.alphabet - 1) for length in range(self.order + 2)]

    @cached_property
    def weights(self) -> npt.NDArray[np.uint64]:
        """The symbols' probabilities after each state, times the sum of the row: (states, alphabet)."""
        bits = np.random.PCG64(np.random.SeedSequence(self.seed))
        weights = np.ones((1, self.alphabet), np.uint64)
        by_length = []
        for length in range(self.order + 1):
            factors = np.uint64(1) << bits.random_raw(self.alphabet ** (length + 1)) % np.uint64(FACTORS)
            # The last symbols of a state count least in its number, so shorter contexts repeat.
            shorter = weights if length == 0 else np.tile(weights, (self.alphabet, 1))
            weights = shorter * factors.reshape(-1, self.alphabet)
            by_length.append(weights)
        return np.concatenate(by_length)

    @property
    def probabilities(self) -> Floats:
        """Probability of each symbol after each state, if the document does not end there: (states, alphabet)."""
        return self.weights / self.weights.sum(axis=1, keepdims=True)

    def documents(self, count: int) -> Iterator[str]:
        """Yield `count` documents, always the same ones; a larger count only adds documents at the end."""
        bits = np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(1,)))
        together = max(1, _BLOCK // self.document_length)
        for first in range(0, count, together):
            yield from self._block(bits, together)[: count - first]

    def _block(self, bits: np.random.PCG64, documents: int) -> list[str]:
        """Draw `documents` documents side by side, one symbol of each at a time."""
        lengths = _geometric(bits, documents, self.document_length)
        starts = np.cumsum(lengths) - lengths
        symbols = np.empty(lengths.sum(), np.uint8)
        longest_first = np.argsort(-lengths, kind="stable")
        places, totals = starts[longest_first], self.weights.sum(axis=1)
        # One search finds the next symbol of all documents: each state's weights follow those of the state before it.
        bounds = self.weights.cumsum(dtype=np.uint64)
        offsets = np.concatenate([[np.uint64(0)], totals.cumsum()[:-1]])
        following, size = self._following(), self.alphabet
        states = np.zeros(documents, np.int64)
        alive = documents - np.cumsum(np.bincount(lengths))  # by length, the number of longer documents
        for drawn, count in enumerate(alive[:-1].tolist()):
            states = states[:count]
            draws = offsets[states] + bits.random_raw(count) % totals[states]  # totals are far below 2**64: no bias
            chosen = np.searchsorted(bounds, draws, side="right") - states * size
            symbols[places[:count] + drawn] = chosen
            states = following[states] + chosen
        text = np.frombuffer(SYMBOLS.encode(), np.uint8)[symbols].tobytes().decode()
        return [text[start : start + length] for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)]

    def _following(self) -> npt.NDArray[np.int64]:
        """Return the state that each state leads to by the first symbol: (states,); the other symbols' come after."""
        size, order = self.alphabet, self.order
        following = []
        for length in range(order + 1):
            numbers = np.arange(size**length)
            longer = numbers * size if length < order else numbers * size % size**order
            following.append(self.first[min(length + 1, order)] + longer)
        return np.concatenate(following)

    @property
    def _end(self) -> Floats:
        """Probability that the document ends, after each state: (states,); no document is empty."""
        ends = np.full(len(self.weights), 1 / self.document_length)
        ends[0] = 0
        return ends

    def shares(self) -> Floats:
        """Return how often each state occurs in the stream of tokens, as a share: (states,), which sum to 1.

        It is the stationary distribution, by power iteration; documents end, so the start is forgotten.
        """
        moves = self.probabilities * (1 - self._end[:, None])
        ends, size, order = self._end, self.alphabet, self.order
        shares = np.zeros(len(moves))
        shares[0] = 1
        change = np.inf
        while change > _CONVERGED:
            flow = shares[:, None] * moves
            after = np.empty_like(shares)
            after[0] = shares @ ends
            for length in range(order):
                after[self.first[length + 1] : self.first[length + 2]] = self._of_length(flow, length).ravel()
            after[self.first[order] :] += self._of_length(flow, order).reshape(size, -1, size).sum(axis=0).ravel()
            after /= after.sum()
            change, shares = float(np.abs(after - shares).sum()), after
        return shares

    def entropies(self) -> Floats:
        """Return the entropy of the next token where the last 1, 2, ... `order` tokens are known: (order,), in nats.

        The last one is the entropy rate: no model of the stream, however long its context, has a lower expected loss.
        """
        shares, probabilities, order = self.shares(), self.probabilities, self.order
        end = 1 / self.document_length
        of_end = -(end * np.log(end) + (1 - end) * np.log1p(-end))
        known = shares * (_entropy(probabilities) * (1 - self._end) + of_end * (self._end > 0))
        entropies = []
        for visible in range(1, order + 1):
            # Where the document token is visible, so is the whole state. Elsewhere, states that end alike look alike.
            total = float(known[: self.first[visible]].sum())
            suffixes = self.alphabet**visible
            mass, flow = np.zeros(suffixes), np.zeros((suffixes, self.alphabet))
            for length in range(visible, order + 1):
                its_shares = self._of_length(shares, length)
                mass += its_shares.reshape(-1, suffixes).sum(axis=0)
                its_flow = its_shares[:, None] * self._of_length(probabilities, length)
                flow += its_flow.reshape(-1, suffixes, self.alphabet).sum(axis=0)
            seen = mass > 0
            mixed = _entropy(flow[seen] / mass[seen, None])
            entropies.append(total + float(mass[seen] @ (of_end + (1 - end) * mixed)))
        return np.array(entropies)

    def _of_length(self, values: Floats, length: int) -> Floats:
        """Return the part of an array over states that belongs to the states of `length` symbols."""
        return values[self.first[length] : self.first[length + 1]]


def _geometric(bits: np.random.PCG64, count: int, mean: int) -> npt.NDArray[np.int64]:
    """Return `count` geometric numbers, 1 or more: the gaps between draws of which one in `mean` is a hit."""
    hits: list[npt.NDArray[np.int64]] = []
    drawn = known = 0
    while known < count:
        hits.append(np.flatnonzero(bits.random_raw(count * mean) % np.uint64(mean) == 0) + drawn)
        drawn, known = drawn + count * mean, known + len(hits[-1])
    return np.diff(np.concatenate(hits)[:count], prepend=-1)


def _entropy(probabilities: Floats) -> Floats:
    """Return the entropy in nats of each row: (n, alphabet) to (n,); no probability is 0."""
    return -(probabilities * np.log(probabilities)).sum(axis=1)


def fingerprint(data: MarkovData) -> str:
    """Return a hash of everything that the text depends on; the text itself is not drawn."""
    drawn = {"version": VERSION, "documents": data.documents, **asdict(MarkovProcess.of(data))}
    return hash_text(json.dumps(drawn, sort_keys=True))
