"""The split into training, validation and test: which of them each text belongs to.

A split that the source holds as such is taken as it is. What is left to make is made from the source's training split.
By `hash`, a document's split is a function of its text alone: neither order, nor seed, nor the other documents matter,
and two copies of a document are never in different splits. By `tail`, the end of the text is for validation, as is
customary for a single long text, or for validation and then test; a document is cut where the split falls. Examples are
split by the hash of their source text, or by their number, and are never cut.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import accumulate, pairwise

from lmexp.config.data import DataConfig, ExampleSection, FileData, Split
from lmexp.data import sources
from lmexp.data.cleaning import Cleaner
from lmexp.data.example_files import Example
from lmexp.errors import UserError

MAX_TRIED = 10_000_000
"""The most characters of a text for which other ways to split it are tried, to name only those that work."""
_NAMES: dict[Split, str] = {"train": "training", "validation": "validation", "test": "test"}


class SplitDocuments:
    """The documents of a source, each with its split; can be iterated repeatedly.

    Making one reads the source once, so that damaged input and an empty split are reported before anything
    slow begins. Raises UserError.
    """

    def __init__(self, data: DataConfig) -> None:
        self.data = data
        self.files = sources.files(data)
        self.documents = 0
        self.characters = 0
        divided = 0  # characters of the source's own training split
        by_hash = dict.fromkeys(("train", *data.shares), 0)
        hashed_to_train = 0  # characters
        cleaner = Cleaner(data)
        for own, text in sources.documents(data, self.files, cleaner):
            self.documents += 1
            self.characters += len(text)
            if own == "train":
                divided += len(text)
                split = hashed_split(text, data.shares)
                by_hash[split] += 1
                hashed_to_train += len(text) if split == "train" else 0
        self.pii = cleaner.pii
        """How often each kind of personal data was found; None if none was looked for."""
        # Characters at which train ends, and each made split after it, when split by tail.
        self._ends = _ends(divided, data.shares)
        self.training_characters = hashed_to_train if data.split == "hash" else self._ends["train"]
        """Characters of the training split."""
        if data.split == "hash":
            for split, documents in by_hash.items():
                if not documents:
                    raise self._empty_split(split, sum(by_hash.values()))
        elif any(first == second for first, second in pairwise([0, *self._ends.values()])):
            kept = " and ".join(f"{share:g} for {split}" for split, share in data.shares.items())
            keys = " and ".join(f"data.{split}" for split in data.shares)
            raise UserError(f"{divided} characters are too few to keep a share of {kept}; change {keys}")

    def __iter__(self) -> Iterator[tuple[Split, str]]:
        position = 0  # characters so far
        for own, text in sources.documents(self.data, self.files):
            if own != "train":
                yield own, text
            elif self.data.split == "hash":
                yield hashed_split(text, self.data.shares), text
            else:
                start = 0
                for split, end in self._ends.items():
                    stop = min(max(end - position, start), len(text))
                    if start < stop:
                        yield split, text[start:stop]
                    start = stop
                position += len(text)

    def _empty_split(self, split: Split, documents: int) -> UserError:
        others = self._other_splits()
        remedy = f"set {' or '.join(others)}" if others else "use a longer text"
        if documents == 1:
            return UserError(f"one document cannot be split by hash: {remedy}")
        key, share = _share_of(self.data, split)
        return UserError(
            f"the {_NAMES[split]} split is empty: none of {documents} documents fell there with "
            f"{key}={share}; change it, or {remedy}"
        )

    def _other_splits(self) -> list[str]:
        """Return overrides that each split this text, the best first."""
        data = self.data
        others: dict[str, dict[str, str]] = {"data.split=tail": {"split": "tail"}}
        if isinstance(data, FileData) and data.format == "txt" and data.document == "file":
            others |= {f"data.document={part}": {"document": part} for part in ("paragraph", "line")}
        if self.characters > MAX_TRIED:  # it has enough lines and paragraphs, and trying takes long
            return list(others)
        working = []
        for override, update in others.items():
            with suppress(UserError):
                SplitDocuments(data.model_copy(update=update))
                working.append(override)
        return working


class SplitExamples:
    """The cleaned examples of a source, each with its split; can be iterated repeatedly.

    Making one reads the source once, as for SplitDocuments. Raises UserError, also for a label or a tag that another
    split has and training lacks.
    """

    def __init__(self, data: DataConfig) -> None:
        assert isinstance(data, ExampleSection), "the caller knows what the source holds"
        self.data = data
        self.files = sources.files(data)
        self.left_out = 0
        """Number of examples that are blank, or that data.clean drops."""
        self.repaired = 0
        """Number of tags that break data.scheme."""
        self.count: dict[Split, int] = dict.fromkeys(data.splits, 0)
        self.characters = 0
        total = divided = 0
        cleaner = Cleaner(data)
        for own, example in self._cleaned(cleaner, count=True):
            total += 1
            divided += own == "train"
            self.characters += sum(map(len, example.texts))
            self.repaired += example.repaired
        self.pii = cleaner.pii
        """How often each kind of personal data was found; None if none was looked for."""
        if not total:
            skipped = f": all {self.left_out} are blank, or left out by data.clean" if self.left_out else ""
            raise UserError(f"{sources.name(data)}: the source holds no examples{skipped}")
        self._ends = _ends(divided, data.shares)
        known: set[str] = set()
        first_at: dict[Split, dict[str, str]] = {split: {} for split in data.splits[1:]}  # where a label is first
        for split, example in self:
            self.count[split] += 1
            if split == "train":
                known.update(example.answer)
            else:
                for label in example.answer:
                    first_at[split].setdefault(label, example.where)
        self._check(known, first_at)
        self.labels: list[str] = self._in_order(known)
        """The names of the labels, or of the tags with O first; empty for pairs."""
        self.unvalidated = [label for label in self.labels if label not in first_at["validation"] and label != "O"]
        """Labels that validation lacks, so that no score shows how well they are learned."""

    def __iter__(self) -> Iterator[tuple[Split, Example]]:
        number = 0  # of an example in the source's own training split
        for own, example in self._cleaned(Cleaner(self.data)):
            if own != "train":
                yield own, example
            elif self.data.split == "tail":
                yield next(split for split, end in self._ends.items() if number < end), example
                number += 1
            else:
                yield hashed_split(example.text, self.data.shares), example

    def _cleaned(self, cleaner: Cleaner, count: bool = False) -> Iterator[tuple[Split, Example]]:
        """Yield the examples that are kept, with the one of the source's own splits that each is in."""
        for split in self.data.own_splits:
            for example in sources.examples(self.data, split, self.files):
                kept = cleaner.example(example)
                if kept is not None:
                    yield split, kept
                elif count:
                    self.left_out += 1

    def _check(self, known: set[str], first_at: Mapping[Split, Mapping[str, str]]) -> None:
        """Raise UserError for a split without examples, or a label that training lacks."""
        data = self.data
        for split, count in self.count.items():
            if count:
                continue
            made = sum(self.count[each] for each in ("train", *data.shares))
            key, share = _share_of(data, split)
            remedy = (
                f"none of {made} fell there with {key}={share}; change it, or set "
                f"data.split={'hash' if data.split == 'tail' else 'tail'}"
                if made and (split == "train" or split in data.shares)
                else "its source holds none"
            )
            raise UserError(f"{sources.name(data, split)}: the {_NAMES[split]} split has no examples: {remedy}")
        for split, places in first_at.items():
            for label, where in places.items():
                if label not in known and not (label == "O" and self._has_outside):
                    what = "tag" if data.holds == "tags" else "label"
                    raise UserError(f"{where}: the {what} '{label}' occurs in the {split} split and never in training")

    def _in_order(self, known: set[str]) -> list[str]:
        return ["O", *sorted(known - {"O"})] if self._has_outside else sorted(known)

    @property
    def _has_outside(self) -> bool:
        """Whether there is a tag O for what is outside of all spans, even if no word has it."""
        return self.data.holds == "tags" and getattr(self.data, "scheme", None) != "words"


def hashed_split(text: str, shares: Mapping[Split, float]) -> Split:
    """Return the split of a document by its hash, as a number in [0, 1).

    Validation takes its share from below and test from above, so that one can grow without moving the other.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()
    number = int(digest[:16], 16) / 2**64
    if number < shares.get("validation", 0.0):
        return "validation"
    return "test" if number >= 1 - shares.get("test", 0.0) else "train"


def _ends(total: int, shares: Mapping[Split, float]) -> dict[Split, int]:
    """Return where train ends, and each split after it, if the last of `total` things make these splits."""
    left = accumulate([*shares.values()][::-1], initial=0.0)
    ends = [int(total * (1 - share)) for share in left][::-1]
    return dict(zip(("train", *shares), ends, strict=True))


def _share_of(data: DataConfig, split: Split) -> tuple[str, float]:
    """Return the key, and its value, that decides how large a made split is."""
    if split == "test" or (split == "train" and "validation" not in data.shares):
        return "data.test", data.test
    return "data.validation", data.validation
