"""From a store to batches: what a task sees of a text, or of examples, as a pure function of the sample's number.

Training samples are numbered for ever, and the i-th is the same whatever came before it: a run that stops and
resumes, or that runs on another number of devices, sees the same samples in the same order. A sample takes
`sequence_tokens` positions. Windows of a text fill them; examples are padded, so that what is counted as work is what
is computed.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lmexp.config.checks import sequences, whole_batch
from lmexp.config.data import Split
from lmexp.config.fixes import longer_contexts, shorter_context
from lmexp.config.hf import special_tokens
from lmexp.config.models.base import ModelSection
from lmexp.config.models.hf import HFConfig
from lmexp.config.schema import RunConfig
from lmexp.config.tasks.base import LabelTaskSection
from lmexp.data.examples import ExampleStore
from lmexp.data.order import ByLength, Endless, Order, Permutations, TooShort
from lmexp.data.store import Store, is_advised, read_soon
from lmexp.errors import UserError

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor"]
"""What a task predicts from: see the feeds. `targets` are IGNORED where nothing is to be predicted."""
IGNORED = -100
MASKED, REPLACED = 0.8, 0.1
"""Among the tokens that a masked language model predicts, the shares shown as the mask and as another token
(Devlin et al. 2018, section 3.1); the others are shown as they are."""


class Feed(Protocol):
    """Samples of one task out of one store: for training, and of one split that is scored."""

    scored: Split
    """The split that is scored: validation, or test. What is called validation below is of this split."""
    order: Endless
    """The order of the training samples."""
    epoch_tokens: int
    """Positions in one pass over the training split."""
    validation_samples: int
    cut: int
    """Texts that are longer than the context, and are cut."""
    targets_cut: float
    """Share of the validation split's targets that are cut off, 0 to 1: they are not scored."""
    text_bytes: int | None
    """UTF-8 bytes of all that is predicted in validation; None where bits a byte would mean nothing."""
    text_words: int | None
    """Words of all that is predicted in validation; None where they are not known, or a loss per word means nothing."""

    parts: dict[int, int]
    """In how many steps of an epoch so many examples share a sequence; see ByLength."""

    def batch(self, first: int, count: int) -> Batch:
        """Return training samples `first` to `first + count`."""

    def expect(self, first: int, count: int) -> None:
        """Start to read the training samples that will be asked for next, if that saves time."""

    def targets(self, first: int, count: int) -> int:
        """Return how many targets these have."""

    @property
    def apart(self) -> int:
        """How many training sequences there are on a fixed grid, so that no token is in two of them; 0: no text."""

    def batch_apart(self, samples: np.ndarray, step: int) -> Batch:
        """Return some of these by their numbers, as a private step sees them: (B,) int64."""

    def validation(self, samples: np.ndarray) -> Iterator[Batch]:
        """Yield validation samples by their numbers, in as many batches as their lengths ask for."""


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


ALONE = {1: 1}
"""The parts of a feed whose sequences are not shared."""
MIN_WIDTH = 8
"""Positions that an example has at least where examples share a sequence: shorter products are not faster."""


class _TrainingText:
    """Tokens of a store's training split; the map stays open, since opening it takes longer than reading a batch."""

    store: Store

    @cached_property
    def text(self) -> np.memmap:
        """The tokens: (n,)."""
        return self.store.array("train")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the map out: a process that gets a copy of the feed opens the file itself."""
        return {name: value for name, value in self.__dict__.items() if name != "text"}


class Windows(_TrainingText):
    """Windows of a text: `inputs` and `targets`, both (B, T) int64; a target is the token after its input.

    In validation every token but the first is a target exactly once, and the last window is as short as what is left.
    """

    def __init__(
        self, store: Store, context: int, seed: int, scored: Split = "validation", marks_documents: bool = False
    ) -> None:
        """Raises UserError when the text is shorter than a window, or has nothing to validate on.

        `marks_documents` adds `documents` (B, T) int64 to each batch: which of a window's documents a token is of.
        """
        self.store, self.context, self.scored, self.marks_documents = store, context, scored, marks_documents
        self.order: Endless = Order(store.tokens("train"), context, seed)
        if store.tokens(scored) < 2:
            raise UserError(f"the {scored} split has no token to predict; raise data.{scored}")
        self.epoch_tokens = store.tokens("train")
        self.cut, self.targets_cut = 0, 0.0
        self._last = store.tokens(scored) - 1
        self.validation_samples = -(-self._last // context)
        self.parts = ALONE
        self.text_bytes: int | None = store.bytes(scored)
        self.text_words: int | None = store.splits[scored].words

    def batch(self, first: int, count: int) -> Batch:
        """See Feed."""
        return self._windows(self.text, self.order.take(first, count), self.context)

    def expect(self, first: int, count: int) -> None:
        """See Feed."""
        if is_advised(self.text):
            read_soon(self.text, self.order.take(first, count), self.context + 1)

    @property
    def apart(self) -> int:
        """See Feed; the last target of a sequence is not the first input of the next one, so a token more is taken."""
        return self.store.tokens("train") // (self.context + 1)

    def batch_apart(self, samples: np.ndarray, step: int) -> Batch:
        """See Feed."""
        return self._windows(self.text, samples * (self.context + 1), self.context)

    def targets(self, first: int, count: int) -> int:
        """See Feed: every position has one."""
        return count * self.context

    def validation(self, samples: np.ndarray) -> Iterator[Batch]:
        """See Feed; the last window of all is a batch of its own where it is shorter: no padding, no duplicates."""
        text = self.store.array(self.scored)
        starts = samples * self.context
        short = starts + self.context > self._last
        if not short.all():
            yield self._windows(text, starts[~short], self.context)
        for start in starts[short]:
            yield self._windows(text, np.array([start]), self._last - int(start))

    def _windows(self, tokens: np.ndarray, starts: np.ndarray, length: int) -> Batch:
        """Return the windows of `length` targets that begin at `starts`."""
        batch = {"inputs": _stretches(tokens, starts, length), "targets": _stretches(tokens, starts + 1, length)}
        if self.marks_documents:
            batch["documents"] = (batch["inputs"] == self.store.bos_id).cumsum(1)
        return _tensors(batch)


class MaskedWindows(_TrainingText):
    """Windows of a text in which some tokens are hidden: `inputs` and `targets`, both (B, T) int64.

    Which tokens, and what stands in their place, is a function of the seed and the sample's number; in validation of
    the number alone, so that every run is asked the same. The same number of tokens in every window is predicted.
    """

    def __init__(self, store: Store, context: int, seed: int, share: float, scored: Split = "validation") -> None:
        """Raises TooShort when the text has no window for training, or to score."""
        self.store, self.context, self.seed, self.scored = store, context, seed, scored
        self.order: Endless = Order(store.tokens("train"), context, seed)
        self.epoch_tokens = store.tokens("train")
        self.validation_samples = store.tokens(scored) // context
        if not self.validation_samples:
            raise TooShort(
                f"the {scored} split is shorter than model.context={context}: it has {store.tokens(scored)} tokens"
            )
        self.cut, self.targets_cut = 0, 0.0
        self.parts = ALONE
        self.text_bytes: int | None = None  # only some tokens are predicted, and these from both sides
        self.text_words: int | None = None
        self.hidden = max(1, round(share * context))
        """Tokens of a window that are predicted."""
        special = [store.bos_id, store.mask_id]
        self._ordinary = np.setdiff1d(np.arange(store.vocab_size, dtype=np.int64), special)

    def batch(self, first: int, count: int) -> Batch:
        """See Feed."""
        tokens = _stretches(self.text, self.order.take(first, count), self.context)
        return self._hide(tokens, [(self.seed, 0, first + i) for i in range(count)])

    def expect(self, first: int, count: int) -> None:
        """See Feed."""
        if is_advised(self.text):
            read_soon(self.text, self.order.take(first, count), self.context)

    @property
    def apart(self) -> int:
        """See Feed."""
        return self.store.tokens("train") // self.context

    def batch_apart(self, samples: np.ndarray, step: int) -> Batch:
        """See Feed; a step hides other tokens of a sequence than the step before it."""
        tokens = _stretches(self.text, samples * self.context, self.context)
        return self._hide(tokens, [(self.seed, 1, step, int(i)) for i in samples])

    def targets(self, first: int, count: int) -> int:
        """See Feed."""
        return count * self.hidden

    def validation(self, samples: np.ndarray) -> Iterator[Batch]:
        """See Feed; what is left after the last whole window is not read."""
        tokens = _stretches(self.store.array(self.scored), samples * self.context, self.context)
        yield self._hide(tokens, [(0, 1, int(i)) for i in samples])

    def _hide(self, tokens: np.ndarray, keys: Sequence[tuple[int, ...]]) -> Batch:
        inputs, targets = tokens.copy(), np.full_like(tokens, IGNORED)
        for row, key in enumerate(keys):
            # Raw bits, whose stream numpy guarantees; one generator a sample, so that none depends on another.
            bits = np.random.PCG64(np.random.SeedSequence(key[0], spawn_key=key[1:]))
            where = np.argsort(bits.random_raw(self.context), kind="stable")[: self.hidden]
            dice = bits.random_raw(self.hidden) / 2.0**64
            others = self._ordinary[bits.random_raw(self.hidden) % np.uint64(len(self._ordinary))]
            targets[row, where] = tokens[row, where]
            masked, replaced = dice < MASKED, (dice >= MASKED) & (dice < MASKED + REPLACED)
            inputs[row, where[masked]] = self.store.mask_id
            inputs[row, where[replaced]] = others[replaced]
        return _tensors({"inputs": inputs, "targets": targets})


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
    def apart(self) -> int:
        """See Feed."""
        return 0

    def batch_apart(self, samples: np.ndarray, step: int) -> Batch:
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
        return _tensors(_named(inputs, valid, targets))

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
        return _tensors({"sources": sources, "source_valid": source_valid, "inputs": inputs, "targets": targets})

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


def _tensors(arrays: dict[str, np.ndarray]) -> Batch:
    """Return arrays as tensors that share their memory."""
    import torch  # here, because a plan opens feeds, and takes seconds less without it

    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _stretches(tokens: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Return the stretches of `length` tokens that begin at `starts`: (B, length) int64."""
    stretches = np.empty((len(starts), length), np.int64)
    tokens = np.asarray(tokens)  # slicing a memory map takes longer than copying it
    for row, start in zip(stretches, starts.tolist(), strict=True):
        row[:] = tokens[start : start + length]
    return stretches
