"""Which side of the train and validation split a text falls on.

By `hash`, a document's side is a function of its text alone: neither order, nor seed, nor the other
documents matter, and two copies of a document never stand on different sides. By `tail`, the end of the
text validates, as is customary for a single long text; a document is cut where the split falls.
"""

import hashlib
from collections.abc import Iterator
from typing import Literal

from lmexp.config.schema import DataConfig, FileData
from lmexp.data import sources
from lmexp.errors import UserError

Split = Literal["train", "validation"]
SPLITS: tuple[Split, Split] = ("train", "validation")


class SplitDocuments:
    """The documents of a source, each with its side; can be iterated any number of times.

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


def hashed_side(text: str, validation: float) -> Split:
    """Return the side of a document: its hash, as a number in [0, 1), against the share."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return "validation" if int(digest[:16], 16) / 2**64 < validation else "train"
