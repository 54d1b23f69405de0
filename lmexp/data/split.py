"""The split into training and validation: which side each text belongs to.

By `hash`, a document's side is a function of its text alone: neither order, nor seed, nor the other
documents matter, and two copies of a document never stand on different sides. By `tail`, the end of the
text validates, as is customary for a single long text; a document is cut where the split falls. Examples are split
by the hash of their source text, or by their number, and are never cut.
"""

import hashlib
from collections.abc import Iterator
from typing import Literal

from lmexp.config.data import DataConfig, ExampleSection, FileData
from lmexp.data import sources
from lmexp.data.cleaning import Cleaner
from lmexp.data.example_files import Example
from lmexp.errors import UserError

Split = Literal["train", "validation"]
SPLITS: tuple[Split, Split] = ("train", "validation")


class SplitDocuments:
    """The documents of a source, each with its side; can be iterated repeatedly.

    Making one reads the source once, so that damaged input and an empty side are reported before anything
    slow begins. Raises UserError.
    """

    def __init__(self, data: DataConfig) -> None:
        self.data = data
        self.documents = 0
        self.characters = 0
        validating = 0
        for text in sources.documents(data):
            self.documents += 1
            self.characters += len(text)
            validating += data.split == "hash" and hashed_side(text, data.validation) == "validation"
        # Characters that train, when split by tail: the rest validates.
        self.cut = int(self.characters * (1 - data.validation))
        if data.split == "hash" and not 0 < validating < self.documents:
            raise self._empty_side("validation" if validating == 0 else "training")
        if data.split == "tail" and not 0 < self.cut < self.characters:
            raise UserError(
                f"{self.characters} characters are too few to keep a share of {data.validation} "
                "for validation; change data.validation"
            )

    def __iter__(self) -> Iterator[tuple[Split, str]]:
        position = 0  # characters so far
        for text in sources.documents(self.data):
            if self.data.split == "hash":
                yield hashed_side(text, self.data.validation), text
                continue
            before = min(max(self.cut - position, 0), len(text))
            if before:
                yield "train", text[:before]
            if before < len(text):
                yield "validation", text[before:]
            position += len(text)

    def _empty_side(self, side: str) -> UserError:
        data = self.data
        whole_files = isinstance(data, FileData) and data.format == "txt" and data.document == "file"
        smaller = " or data.document=paragraph" if whole_files else ""
        if self.documents == 1:
            return UserError(f"one document cannot be split by hash: set data.split=tail{smaller}")
        return UserError(
            f"the {side} side is empty: none of {self.documents} documents fell there with "
            f"data.validation={data.validation}; change it, or set data.split=tail{smaller}"
        )


class SplitExamples:
    """The cleaned examples of a source, each with its side; can be iterated repeatedly.

    Making one reads the source once, as for SplitDocuments. Raises UserError, also for a label or a tag that validation
    has and training lacks.
    """

    def __init__(self, data: DataConfig) -> None:
        assert isinstance(data, ExampleSection), "the caller knows what the source holds"
        self.data = data
        self.left_out = 0
        """Number of examples that are blank, or that data.clean drops."""
        self.count: dict[Split, int] = {"train": 0, "validation": 0}
        self.characters = 0
        self._cut = 0
        total = 0
        for _, example in self._cleaned(count=True):
            total += 1
            self.characters += sum(map(len, example.texts))
        if not total:
            skipped = f": all {self.left_out} are blank, or left out by data.clean" if self.left_out else ""
            raise UserError(f"{sources.name(data)}: the source holds no examples{skipped}")
        if data.split == "tail":
            self._cut = int(total * (1 - data.validation))
        known: set[str] = set()
        first_at: dict[str, str] = {}  # where validation has a label first
        for split, example in self:
            self.count[split] += 1
            if split == "train":
                known.update(example.answer)
            else:
                for label in example.answer:
                    first_at.setdefault(label, example.where)
        self._check(known, first_at)
        self.labels: list[str] = self._in_order(known)
        """The names of the labels, or of the tags with O first; empty for pairs."""
        self.unvalidated = [label for label in self.labels if label not in first_at and label != "O"]
        """Labels that occur only in training, so that no score shows how well they are learned."""

    def __iter__(self) -> Iterator[tuple[Split, Example]]:
        own = sources.has_validation(self.data)
        for number, (given, example) in enumerate(self._cleaned()):
            if own:
                yield given, example
            elif self.data.split == "tail":
                yield ("train" if number < self._cut else "validation"), example
            else:
                yield hashed_side(example.text, self.data.validation), example

    def _cleaned(self, count: bool = False) -> Iterator[tuple[Split, Example]]:
        """Yield the examples that are kept, with the side that the source assigns to them."""
        cleaner = Cleaner(self.data)
        for split in SPLITS if sources.has_validation(self.data) else SPLITS[:1]:
            for example in sources.examples(self.data, validating=split == "validation"):
                kept = cleaner.example(example)
                if kept is not None:
                    yield split, kept
                elif count:
                    self.left_out += 1

    def _check(self, known: set[str], first_at: dict[str, str]) -> None:
        for split in SPLITS:
            if self.count[split]:
                continue
            total = sum(self.count.values())
            name = "validation" if split == "validation" else "training"
            remedy = (
                "its source holds none"
                if sources.has_validation(self.data)
                else f"none of {total} fell there with data.validation={self.data.validation}; change it, or set "
                f"data.split={'hash' if self.data.split == 'tail' else 'tail'}"
            )
            raise UserError(f"{sources.name(self.data)}: the {name} split has no examples: {remedy}")
        for label, where in first_at.items():
            if label not in known and label != "O":
                what = "tag" if self.data.holds == "tags" else "label"
                raise UserError(f"{where}: the {what} '{label}' occurs in the validation split and never in training")

    def _in_order(self, known: set[str]) -> list[str]:
        return ["O", *sorted(known - {"O"})] if self.data.holds == "tags" else sorted(known)


def hashed_side(text: str, validation: float) -> Split:
    """Return the side of a document: its hash, as a number in [0, 1), against the share."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return "validation" if int(digest[:16], 16) / 2**64 < validation else "train"
