"""The example store: pairs, labelled texts or tagged sentences, tokenised once, on disk, read as memory maps.

It is a folder that is made once (folders.py), by example_writing.py. The splits are train, validation and, in some
stores, test. Rows of unequal length lie one after another in a file, and another says where each begins:

    <split>.source.bin  .source.bounds.npy        token ids of the sources, little-endian uint16 or uint32
    <split>.target.bin  .target.bounds.npy        of pairs, token ids of the targets; of tags, int32: for each source
                                                  token the number of its word's tag, -100 after the word's first
    <split>.text.bin  .text.bounds.npy            the sources as they were tokenised, in UTF-8
    <split>.reference.bin  .reference.bounds.npy  of pairs, the targets as they were tokenised, in UTF-8
    <split>.label.npy                             of labels, (examples,) int32
    <split>.line.npy                              (examples, 2) int32: in which place, and at which line
    tokenizer.json  target_tokenizer.json         the second where the targets have their own
    manifest.json                                 counts, labels, places and hashes; says that the store is complete
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from lmexp.config.data import Split
from lmexp.data.folders import check_content, check_sizes, damaged_manifest, read_manifest, splits_of, take_hashes
from lmexp.data.tokenizers.base import Tokenizer
from lmexp.data.tokenizers.build import load_tokenizer

FORMAT_VERSION = 1
NO_TAG = -100
"""The tag of a token that is not the first of its word."""

Holds = Literal["pairs", "labels", "tags"]
Rows = Literal["source", "target", "text", "reference"]


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length, stored one after another in one array."""

    values: np.ndarray
    bounds: np.ndarray
    """(rows + 1,) int64: the offset of each row, and the end."""

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.bounds[row] : self.bounds[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """The length of each row."""
        return np.diff(self.bounds)


class Texts(Sequence[str]):
    """Texts on disk; each is read when it is accessed."""

    def __init__(self, rows: Ragged) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._rows[range(len(self))[index]].tobytes().decode()


@dataclass(frozen=True)
class ExampleSplitInfo:
    """The entry of the manifest for one split."""

    examples: int
    tokens: int
    """Tokens of sources and targets, without those that start or end them."""
    bytes: int
    """UTF-8 bytes of the targets of pairs, or of the texts."""
    cells: dict[str, int]
    """Number of values in each file of rows."""
    sha256: str
    """Hash over the hashes of the files."""
    text_lost: float | None = None
    """Share of `bytes` that the tokenizer does not give back; None where it was not measured."""
    unknown_tokens: float | None = None
    """Share of the tokens of that text that are unknown; None where it was not measured."""


@dataclass(frozen=True)
class ExampleStore:
    """A complete store of examples, read-only."""

    path: Path
    holds: Holds
    source_config: dict[str, Any]
    """The data config that it was made from."""
    vocab_size: int
    target_vocab_size: int
    labels: list[str]
    """The names of the labels, or of the tags with O first; empty for pairs."""
    tokenizer_fingerprint: str
    """Hash of the tokenizer, or of both."""
    fingerprint: str
    """Hash of the examples for training and validation."""
    bos_id: int
    target_bos_id: int
    shares_tokenizer: bool
    """Whether sources and targets have the same tokenizer."""
    dtypes: dict[str, str]
    """The type of the values in each file of rows."""
    places: list[list[str]]
    """The text before and after the line number of an example in a message, for each place."""
    splits: dict[Split, ExampleSplitInfo]
    validation_fingerprint: str | None = None
    """Hash of the examples that validate and of all labels, whatever the tokenizer; None in a store of an earlier
    version."""
    validation_seen: float | None = None
    """Share of the examples that validate and train too; None in a store of an earlier version."""
    test_fingerprint: str | None = None
    """The same hash of the examples for test; None if there are none."""
    test_seen: float | None = None
    """Share of the examples for test that are also in another split; None if there are none."""
    tags_repaired: int = 0
    """How many tags broke data.scheme, and were read as conlleval does."""
    pii: dict[str, int] | None = None
    """How often data.clean.pii found each kind of personal data, in all splits; None if it looked for none."""
    _opened: dict[tuple[str, Split], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path) -> "ExampleStore":
        """Open the store in a folder. Raises UserError if it is missing, damaged or of another format."""
        manifest = read_manifest(path, FORMAT_VERSION, ["pairs", "labels", "tags"])
        try:
            hashes = take_hashes(manifest)
            splits = {split: ExampleSplitInfo(**manifest["splits"][split]) for split in splits_of(manifest)}
            store = cls(**(manifest | {"path": path, "splits": splits}))
            width = {name: np.dtype(dtype).itemsize for name, dtype in store.dtypes.items()}
            check_sizes(
                {
                    path / f"{split}.{name}.bin": cells * width[name]
                    for split in splits
                    for name, cells in splits[split].cells.items()
                }
            )
        except (KeyError, TypeError) as error:
            raise damaged_manifest(path) from error
        check_content(path, hashes)
        return store

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}  # a memory map that is sent to another process would be read whole

    def documents(self, split: Split) -> int:
        """Return the number of examples of a split."""
        return self.splits[split].examples

    def tokens(self, split: Split) -> int:
        """Return the number of tokens of a split, in sources and targets."""
        return self.splits[split].tokens

    def bytes(self, split: Split) -> int:
        """Return the UTF-8 bytes of the targets of pairs, or of the texts."""
        return self.splits[split].bytes

    def source(self, split: Split) -> Ragged:
        """Return the tokens of the sources."""
        return self._rows("source", split)

    def target(self, split: Split) -> Ragged:
        """Return the tokens of the targets (pairs), or for each source token its tag's number, NO_TAG at all but a
        word's first."""
        return self._rows("target", split)

    def label(self, split: Split) -> np.ndarray:
        """Return each example's label by its number: (examples,) int32."""
        return self._array("label", split)

    def label_counts(self) -> list[int]:
        """Return how many training texts, or words, have each label."""
        if self.holds == "labels":
            numbers = np.asarray(self.label("train"))
        else:
            numbers = self.target("train").values
            numbers = numbers[numbers != NO_TAG]
        return [int(count) for count in np.bincount(numbers, minlength=len(self.labels))]

    def texts(self, split: Split) -> Sequence[str]:
        """Return the sources as they were tokenised."""
        return Texts(self._rows("text", split))

    def references(self, split: Split) -> Sequence[str]:
        """Return the targets of pairs as they were tokenised."""
        return Texts(self._rows("reference", split))

    def where(self, split: Split, example: int) -> str:
        """Return the file and the line of an example, for a message."""
        place, line = self._array("line", split)[example]
        before, after = self.places[place]
        return f"{before}{line}{after}"

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the sources."""
        return load_tokenizer(self.path / "tokenizer.json")

    def target_tokenizer(self) -> Tokenizer:
        """Return the tokenizer of the targets."""
        return load_tokenizer(self.path / ("tokenizer.json" if self.shares_tokenizer else "target_tokenizer.json"))

    def _rows(self, name: Rows, split: Split) -> Ragged:
        if (name, split) not in self._opened:
            if name not in self.dtypes:
                raise ValueError(f"a store of {self.holds} has no {name}")
            file = self.path / f"{split}.{name}.bin"
            cells = self.splits[split].cells[name]
            values = np.memmap(file, self.dtypes[name], "r") if cells else np.empty(0, self.dtypes[name])
            self._opened[name, split] = Ragged(values, np.load(file.with_suffix(".bounds.npy"), mmap_mode="r"))
        rows: Ragged = self._opened[name, split]
        return rows

    def _array(self, name: str, split: Split) -> np.ndarray:
        if (name, split) not in self._opened:
            self._opened[name, split] = np.load(self.path / f"{split}.{name}.npy", mmap_mode="r")
        values: np.ndarray = self._opened[name, split]
        return values
