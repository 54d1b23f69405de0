"""Which stretch of the training text, or which example, is the i-th sample: a pure function of (seed, i).

The text is cut into windows of `context` inputs and, one further, `context` targets. An epoch takes every
window once, in an order of its own; each epoch also shifts the cuts by an offset of its own, so that the
model does not meet the same windows again. Examples are taken once an epoch, in an order of its own. As nothing depends
on what was asked before, a run that stops and resumes, or that runs on another number of devices, sees the same samples
in the same order.

Random bits come straight from numpy's PCG64, whose stream is guaranteed never to change between versions
of numpy (NEP 19); `Generator.permutation` is not.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from lmexp.errors import UserError

Method = Literal["sorted", "keyed"]
"""How windows are put in order: see Shuffled and Keyed."""
_BUCKET = 1 << 16
"""About how many numbers are sorted together."""
_MAX_SORTED = 1 << 20
"""The most windows of an epoch that are put in order by sorting, which takes less than 0.1 s. Longer epochs are keyed.
"""
_ROUNDS = 8
"""Rounds of Keyed."""


class Shuffle(Protocol):
    """An order of the places 0 to n - 1."""

    def take(self, first: int, stop: int) -> np.ndarray:
        """Return the places at positions `first` to `stop` - 1, or to the end of the order: int64."""


class Keyed:
    """An order that is computed place by place from a few keys, so that even a long order needs no preparation.

    It is the generalised Feistel cipher of Black and Rogaway (2002, "Ciphers with Arbitrary Finite Domains", section
    5): a place is left + a * right, and each round adds a hash of one half to the other. The few results that are n or
    more go through it again. The hash is the finaliser of SplitMix64 (Steele, Lea and Flood 2014, figure 17).

    It is for long orders. Orders of a dozen places are not quite uniform, which shows over many keys.
    """

    def __init__(self, size: int, keys: np.ndarray) -> None:
        """`keys` are uniform, one for each round, an even number of them: (rounds,) uint64."""
        self._size, self._keys = size, keys
        self._a = math.isqrt(size - 1) + 1
        self._b = -(-size // self._a)

    def take(self, first: int, stop: int) -> np.ndarray:
        """See Shuffle."""
        places = self._once(np.arange(first, min(stop, self._size), dtype=np.uint64))
        while len(outside := np.flatnonzero(places >= self._size)):
            places[outside] = self._once(places[outside])
        return places.astype(np.int64)

    def _once(self, places: np.ndarray) -> np.ndarray:
        a, b = np.uint64(self._a), np.uint64(self._b)
        left, right = places % a, places // a
        of_left, of_right = a, b
        for key in self._keys:
            left, right = right, (left + _hash(right, key)) % of_left
            of_left, of_right = of_right, of_left
        return left + of_left * right  # an even number of rounds: left is below a again


def _hash(values: np.ndarray, key: np.uint64) -> np.ndarray:
    """Return a 32-bit hash of each value, as uint64, so that a sum with it cannot overflow."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(32)


class Shuffled:
    """The order of random numbers by size, smallest first, ties by place; only the parts that are needed are sorted.

    So a run can begin at once, while sorting all windows of a long text would take seconds. The numbers are put into
    buckets by their first bits, and a bucket is sorted when one of its places is asked for.
    """

    def __init__(self, numbers: np.ndarray) -> None:
        """`numbers` are uniform: (n,) uint64."""
        self._numbers = numbers
        bits = min(max(len(numbers) // _BUCKET, 1).bit_length() - 1, 16)
        self._width = 1 << 16 - bits
        """How many values of the first 16 bits a bucket has."""
        self._first_bits = numbers.astype("<u8", copy=False).view("<u2")[3::4]
        counts = np.bincount(self._first_bits, minlength=1 << 16).reshape(-1, self._width).sum(axis=1)
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._sorted = np.empty(0, np.int64)
        """The places of the bucket that was asked for last; the next two say where it begins and ends."""
        self._from = self._to = 0

    def take(self, first: int, stop: int) -> np.ndarray:
        """See Shuffle."""
        stop = min(stop, len(self._numbers))
        parts: list[np.ndarray] = []
        while first < stop:
            if not self._from <= first < self._to:
                self._sort(int(np.searchsorted(self._starts, first, side="right")) - 1)
            parts.append(self._sorted[first - self._from : stop - self._from])
            first = self._to
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])

    def _sort(self, bucket: int) -> None:
        """Sort the numbers of a bucket."""
        least = bucket * self._width
        members = np.flatnonzero((self._first_bits >= least) & (self._first_bits <= least + self._width - 1))
        self._sorted = members[np.argsort(self._numbers[members], kind="stable")]
        self._from, self._to = map(int, self._starts[bucket : bucket + 2])


@dataclass(frozen=True)
class Epoch:
    """The samples of one epoch: `offset + stride * place`, in a random order of the places."""

    order: Shuffle
    offset: int = 0
    stride: int = 1

    def take(self, first: int, stop: int) -> np.ndarray:
        """Return the samples from `first` to before `stop`, or to the end of the epoch: int64."""
        return self.offset + self.stride * self.order.take(first, stop)


class Endless:
    """Epochs of `size` samples without end, each with a content of its own."""

    method: Method = "sorted"
    """How each epoch is put in order; set it before samples are taken."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._cached: tuple[int, Epoch] | None = None  # the epoch asked for last

    def take(self, first: int, count: int) -> np.ndarray:
        """Return samples `first` to `first + count`, (count,) int64, over epochs if need be."""
        taken = np.empty(count, np.int64)
        filled = 0
        while filled < count:
            epoch, inside = divmod(first + filled, self.size)
            if self._cached is None or self._cached[0] != epoch:
                self._cached = epoch, self.epoch(epoch)
            part = self._cached[1].take(inside, inside + count - filled)
            taken[filled : filled + len(part)] = part
            filled += len(part)
        return taken

    def epoch(self, number: int) -> Epoch:
        """Return one epoch."""
        raise NotImplementedError


class Permutations(Endless):
    """The numbers of `size` examples, once an epoch, in an order of its own."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size)
        self.seed = seed

    def epoch(self, number: int) -> Epoch:
        """See Endless."""
        return Epoch(Shuffled(_bits(self.seed, number).random_raw(self.size)))


class ByLength:
    """Optimizer steps of examples of similar length, for ever; each epoch in an order of its own.

    A step has `slots` sequences of the full context, each of which holds as many examples as go into it side by side:
    one, two halves, four quarters and so on. So every step computes the same number of positions, padding included. An
    example that finds no full step among those of its length goes with longer ones. Fewer than `slots` examples are
    left out of an epoch, and different ones in each epoch.
    """

    def __init__(self, parts: np.ndarray, slots: int, seed: int) -> None:
        """`parts` says how many of its kind go into the context for each example: (examples,) powers of two.

        `slots` is at most the number of examples.
        """
        self.parts, self.slots, self.seed = parts, slots, seed
        self._permutations = Permutations(len(parts), seed)
        self._cached: tuple[int, list[tuple[int, np.ndarray]]] | None = None
        self.steps = len(self._epoch(0))
        """Steps of an epoch, the same in all."""

    def step(self, number: int) -> tuple[int, np.ndarray]:
        """Return how many examples share a sequence in a step, and the step's examples: (slots * that,) int64."""
        epoch, inside = divmod(number, self.steps)
        return self._epoch(epoch)[inside]

    def counts(self) -> dict[int, int]:
        """Return in how many steps of an epoch so many examples share a sequence."""
        return dict(Counter(parts for parts, _ in self._epoch(0)))

    def _epoch(self, number: int) -> list[tuple[int, np.ndarray]]:
        if self._cached is None or self._cached[0] != number:
            order = self._permutations.epoch(number).take(0, len(self.parts))
            steps: list[tuple[int, np.ndarray]] = []
            waiting = np.empty(0, np.int64)
            parts = int(self.parts.max())
            while parts:
                waiting = np.concatenate([waiting, order[self.parts[order] == parts]])
                size = self.slots * parts
                full = len(waiting) // size
                steps += [(parts, step) for step in waiting[: full * size].reshape(full, size)]
                waiting, parts = waiting[full * size :], parts // 2
            dice = np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(number, 1)))
            self._cached = number, [steps[i] for i in np.argsort(dice.random_raw(len(steps)), kind="stable")]
        return self._cached[1]


class PoissonSamples:
    """The samples of each private step: each of `size` is drawn with the same probability, independently of the others.

    The number of samples of a step varies. The accounting of privacy rests on that ("amplification by sampling",
    Abadi et al. 2016, section 3.1).
    """

    def __init__(self, size: int, expected: int, seed: int) -> None:
        """`expected` is the mean number of samples of a step, less than `size`."""
        self.size, self.seed = size, seed
        self._below = (expected << 64) // size

    def step(self, number: int) -> np.ndarray:
        """Return the samples of a step, in order: (n,) int64."""
        bits = np.random.PCG64(np.random.SeedSequence(self.seed, spawn_key=(number, 2)))
        return np.flatnonzero(bits.random_raw(self.size) < np.uint64(self._below))


class TooShort(UserError):
    """A text is shorter than a window of the context."""


class Order(Endless):
    """Token offsets of the samples of a training text, for ever.

    Every epoch has the same number of windows. One window less than fits is taken, which leaves room for every
    offset in [0, context); a text of a single window is taken as it is.
    """

    def __init__(self, n_tokens: int, context: int, seed: int) -> None:
        """Raises TooShort when the text is shorter than one window, which is context + 1 tokens."""
        if n_tokens < context + 1:
            raise TooShort(
                f"model.context={context} is longer than the training text, which has {n_tokens} tokens: "
                f"a window is context + 1 = {context + 1}"
            )
        super().__init__(max(1, (n_tokens - 1) // context - 1))
        self.n_tokens, self.context, self.seed = n_tokens, context, seed
        self.method = "sorted" if self.size <= _MAX_SORTED else "keyed"

    def epoch(self, number: int) -> Epoch:
        """Return the offsets of one epoch's windows: one at s has the inputs s .. s + context - 1, and the targets
        that follow each."""
        bits = _bits(self.seed, number)
        spare = self.n_tokens - 1 - self.size * self.context
        offset = int(bits.random_raw()) % (min(spare, self.context - 1) + 1)
        if self.method == "keyed":
            return Epoch(Keyed(self.size, bits.random_raw(_ROUNDS)), offset, self.context)
        return Epoch(Shuffled(bits.random_raw(self.size)), offset, self.context)


def _bits(seed: int, epoch: int) -> np.random.PCG64:
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch,)))
