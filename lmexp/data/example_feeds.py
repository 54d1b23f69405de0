"""Feeds of examples: texts with labels or tags, and pairs of texts, padded to the context."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from lmexp.config.checks import sequences, whole_batch
from lmexp.config.data import Split
from lmexp.config.fixes import longer_contexts
from lmexp.config.hf import special_tokens
from lmexp.config.models.base import ModelSection
from lmexp.config.models.hf import HFConfig
from lmexp.config.schema import RunConfig
from lmexp.config.tasks.base import LabelTaskSection
from lmexp.data.examples import ExampleStore
from lmexp.data.feeds import ALONE, IGNORED, Batch, tensors
from lmexp.data.order import ByLength, Endless, Permutations
from lmexp.errors import UserError

MIN_WIDTH = 8
"""Positions that an example has at least where examples share a sequence: shorter products are not faster."""


class _Examples:
    """Examples in an order of their own for each epoch, padded to one length."""

    def __init__(self, store: ExampleStore, config: RunConfig, scored: Split) -> None:
        self.store, self.config, self.scored = store, config, scored
        self.order: Endless = Permutations(store.documents("train"), config.seed)
        self.epoch_tokens = store.documents("train") * config.model.sequence_tokens
        self.validation_samples = store.documents(scored)
        self.text_bytes: int | None = None
        self.text_words: int | None = None
        self.targets_cut = 0.0
        self.parts = ALONE
        self._by_length: ByLength | None = None

    def group_by_length(self, *sides: tuple[np.ndarray, int]) -> None:
        """Train on examples of similar length together, if the config says so.

        Each of the `sides` is the positions that every training example needs, (examples,), and those that a sequence
        has of the kind.
        """
        if not self.config.batch.by_length:
            return
        parts = np.ones(self.order.size, np.int64)
        number = 2
        while all(width % number == 0 and width // number >= MIN_WIDTH for _, width in sides):
            parts[np.all([needed <= width // number for needed, width in sides], axis=0)] = number
            number *= 2
        slots = sequences(self.config)
        if self.order.size < slots:
            enough = whole_batch(self.config, self.order.size * self.config.model.sequence_tokens)
            raise UserError(
                f"batch.by_length=true: {self.order.size} training examples are too few for a step of {slots}; set "
                f"batch.tokens={enough} or lower"
            )
        self._by_length = ByLength(parts, slots, self.config.seed)
        self.parts = self._by_length.counts()
        self.epoch_tokens = self._by_length.steps * slots * self.config.model.sequence_tokens

    def batch(self, first: int, count: int) -> Batch:
        """See Feed."""
        return self.gather("train", *self._taken(first, count))

    def expect(self, first: int, count: int) -> None:
        """See Feed: examples are few enough to be in memory."""

    @property
    def disjoint_sequences(self) -> int:
        """See Feed."""
        return 0

    def disjoint_batch(self, samples: np.ndarray, step: int) -> Batch:
        """See Feed."""
        raise NotImplementedError("private training is for running text")

    def targets(self, first: int, count: int) -> int:
        """See Feed."""
        return int(self.count_targets(self._taken(first, count)[0]))

    def _taken(self, first: int, count: int) -> tuple[np.ndarray, int]:
        """Return the examples of training samples that are of one step, and how many of them share a sequence."""
        if self._by_length is None:
            return self.order.take(first, count), 1
        step, inside = divmod(first, self._by_length.slots)
        parts, examples = self._by_length.step(step)
        return examples[inside * parts : (inside + count) * parts], parts

    def validation(self, samples: np.ndarray) -> Iterator[Batch]:
        """See Feed."""
        yield self.gather(self.scored, samples)

    def gather(self, split: Split, examples: np.ndarray, parts: int = 1) -> Batch:
        """Return examples by their numbers, each in one of so many parts of the context."""
        raise NotImplementedError

    def count_targets(self, examples: np.ndarray) -> int:
        """Return the targets of training examples."""
        raise NotImplementedError


class Labelled(_Examples):
    """Texts with one label each, or one for each word: `inputs` (B, T) int64, `valid` (B, T) bool, `targets`.

    Targets are (B,) int64 of labels, or (B, T) of tags, at the first token of each word. Each text begins with the
    document token, off which an encoder reads the label.

    A text that is longer than the context is cut in training. In validation so is a labelled text, but a tagged
    sentence is read in windows that overlap by half: each of its words is scored once, in the window that shows most of
    what is around it.
    """

    def __init__(self, store: ExampleStore, config: RunConfig, scored: Split = "validation") -> None:
        """Raises UserError when a text is longer than the context, and is not to be cut."""
        super().__init__(store, config, scored)
        self.room = config.model.context - 1  # beside the document token
        self.cut = _check_lengths(store, config, {"source": (self.room, "context")})
        lengths = store.source(scored).lengths
        if store.holds == "tags":
            self.cut = int((store.source("train").lengths > self.room).sum())
            self._windows = np.array(
                [window for i, n in enumerate(lengths) for window in _overlapping(i, n, self.room)]
            )
        else:
            self._windows = np.array([(i, 0, 0, self.room) for i in range(len(lengths))])
        self.validation_samples = len(self._windows)
        # A model that was trained on other data may have more labels, and others before these.
        task = config.task
        known = (task.labels if isinstance(task, LabelTaskSection) else None) or store.labels
        self._numbers = np.array([known.index(label) for label in store.labels], np.int64)
        self._tags: np.ndarray | None = None
        """How many words each training example has, once somebody asks."""
        needed = 1 + np.minimum(store.source("train").lengths, self.room)
        self.group_by_length((needed, config.model.context))

    @property
    def validation_examples(self) -> np.ndarray:
        """The number of the example that each validation sample is, or is a window of: (validation_samples,)."""
        return self._windows[: self.validation_samples, 0]

    def validation(self, samples: np.ndarray) -> Iterator[Batch]:
        """See Feed; the windows of a sentence follow each other."""
        yield self._gathered(self.scored, self._windows[samples])

    def gather(self, split: Split, examples: np.ndarray, parts: int = 1) -> Batch:
        """See _Examples."""
        return self._gathered(split, np.array([(example, 0, 0, self.room) for example in examples]), parts)

    def _gathered(self, split: Split, windows: np.ndarray, parts: int = 1) -> Batch:
        """Return windows, each given as in `_overlapping`, and in one of so many parts of the context."""
        context = self.config.model.context // parts
        inputs = np.zeros((len(windows), context), np.int64)
        valid = np.zeros((len(windows), context), bool)
        source = self.store.source(split)
        answers = self.store.target(split) if self.store.holds == "tags" else None
        tags = np.full((len(windows), context), IGNORED, np.int64)
        for row, (example, start, first, end) in enumerate(windows):
            tokens = source[example][start : start + self.room]
            inputs[row, 0], inputs[row, 1 : 1 + len(tokens)] = self.store.bos_id, tokens
            valid[row, : 1 + len(tokens)] = True
            if answers is not None:
                mine = answers[example][first:end]
                scored = np.where(mine == IGNORED, IGNORED, self._numbers[np.maximum(mine, 0)])
                tags[row, 1 + first - start : 1 + first - start + len(mine)] = scored
        targets = tags if answers is not None else self._numbers[self.store.label(split)[windows[:, 0]]]
        return tensors(_named(inputs, valid, targets))

    def count_targets(self, examples: np.ndarray) -> int:
        """See _Examples."""
        if self.store.holds == "labels":
            return len(examples)
        if self._tags is None:
            tags = self.store.target("train")
            self._tags = np.array([(tags[i][: self.room] != IGNORED).sum() for i in range(self.order.size)])
        return int(self._tags[examples].sum())


class Pairs(_Examples):
    """Pairs of texts: `sources` (B, S) int64, `source_valid` (B, S) bool, `inputs` and `targets` (B, T) int64.

    The decoder's input begins with the document token, and its last target is that token. A pretrained model of
    transformers keeps its own ways: another token may start and end its targets, and what ends these ends sources.
    """

    def __init__(self, store: ExampleStore, config: RunConfig, scored: Split = "validation") -> None:
        """Raises UserError when a source or a target is longer than its context, and is not to be cut."""
        super().__init__(store, config, scored)
        self.start, self.end, self.source_end = ends_of_pairs(config.model, store.target_bos_id)
        self.source_room, key = config.model.source_limit
        self.source_room -= self.source_end is not None
        self.room = config.model.context - 1  # beside the token that ends it
        limits = {"source": (self.source_room, key.removeprefix("model.")), "target": (self.room, "context")}
        self.cut = _check_lengths(store, config, limits)
        self.text_bytes = None if self.cut else store.bytes(scored)
        whole = store.target(scored).lengths
        self.targets_cut = float(np.maximum(whole - self.room, 0).sum() / (whole.sum() + len(whole)))
        ends = int(self.source_end is not None)
        sides = (("source", self.source_room, ends), ("target", self.room, 1))
        needed = [
            (np.minimum(getattr(store, side)("train").lengths, room) + more, room + more) for side, room, more in sides
        ]
        self.group_by_length(*needed)

    def gather(self, split: Split, examples: np.ndarray, parts: int = 1) -> Batch:
        """See _Examples."""
        context, rows = self.config.model.context // parts, len(examples)
        ending = [] if self.source_end is None else [self.source_end]
        sources = np.zeros((rows, (self.source_room + len(ending)) // parts), np.int64)
        source_valid = np.zeros(sources.shape, bool)
        inputs = np.zeros((rows, context), np.int64)
        targets = np.full((rows, context), IGNORED, np.int64)
        source, target = self.store.source(split), self.store.target(split)
        for row, example in enumerate(examples):
            tokens, answer = [*source[example][: self.source_room], *ending], target[example][: self.room]
            sources[row, : len(tokens)], source_valid[row, : len(tokens)] = tokens, True
            inputs[row, 0], inputs[row, 1 : 1 + len(answer)] = self.start, answer
            targets[row, : len(answer)], targets[row, len(answer)] = answer, self.end
        return tensors({"sources": sources, "source_valid": source_valid, "inputs": inputs, "targets": targets})

    def count_targets(self, examples: np.ndarray) -> int:
        """See _Examples: the tokens of the targets, and one that ends each."""
        lengths = np.minimum(self.store.target("train").lengths[examples], self.room)
        return int(lengths.sum()) + len(examples)


def ends_of_pairs(model: ModelSection, document: int) -> tuple[int, int, int | None]:
    """Return the tokens that start and that end a target, and what ends a source, if anything does; see Pairs."""
    if isinstance(model, HFConfig) and model.fingerprint is not None:
        start, end = special_tokens(model)
        return start, end, end
    return document, document, None


def _check_lengths(store: ExampleStore, config: RunConfig, sides: dict[str, tuple[int, str]]) -> int:
    """Return how many texts of all splits are too long. Raises UserError unless they may be cut.

    `sides` are how many tokens a text may have, and the key of the model that says so, for sources and for targets.
    """
    problems, needed, cut = [], dict[str, int](), 0
    for side, (room, key) in sides.items():
        lengths = {split: (store.source if side == "source" else store.target)(split).lengths for split in store.splits}
        count = sum(int((each > room).sum()) for each in lengths.values())
        cut += count
        if not count:
            continue
        split = next(split for split, each in lengths.items() if (each > room).any())
        first = int(np.flatnonzero(lengths[split] > room)[0])
        limit = config.model.source_limit[0] if key == "input_context" else config.model.context
        longest = max(int(each.max()) for each in lengths.values() if len(each))
        needed[key] = max(needed.get(key, 0), limit + longest - room)
        more = f", and {count - 1} more are too long" if count > 1 else ""
        problems.append(
            f"{store.where(split, first)}: the {side} has {int(lengths[split][first])} tokens, more than the {room} "
            f"that model.{key} leaves{more}"
        )
    if not problems or getattr(config.data, "truncate", False):
        return cut
    fix = longer_contexts(config, needed)
    remedies = [f"set {fix}"] if fix else []
    if hasattr(config.data, "truncate"):
        remedies.append("cut them with data.truncate=true")
    raise UserError("; ".join([*problems, ", or ".join(remedies) or "shorten them"]))


def _overlapping(example: int, length: int, room: int) -> list[tuple[int, int, int, int]]:
    """Return the windows of an example of `length` tokens: its number, a window's first token, and what it scores.

    What a window scores is given by its first token and the one after its last. Neighbours overlap by half a window,
    and each scores half of that.
    """
    starts = [*range(0, max(length - room, 0), max(room // 2, 1)), max(length - room, 0)]
    bounds = [0, *((first + room + second) // 2 for first, second in pairwise(starts)), length]
    return [(example, start, *ends) for start, ends in zip(starts, pairwise(bounds), strict=True)]


def _named(inputs: np.ndarray, valid: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    return {"inputs": inputs, "valid": valid, "targets": targets}
