"""The example store: pairs, labelled texts or tagged sentences, tokenised once, on disk, read as memory maps.

It is a folder that is made once (folders.py). Rows of unequal length lie one after another in a file, and another says
where each begins:

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

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from lmexp.config.data import DataConfig, TokenizerConfig
from lmexp.data.example_files import Example, LinePlace
from lmexp.data.folders import (
    RowWriter,
    SplitTexts,
    batches,
    check_content,
    check_sizes,
    damaged_manifest,
    made_once,
    read_manifest,
    say_passed_over,
    take_hashes,
    token_dtype,
    write_manifest,
)
from lmexp.data.split import SPLITS, Split, SplitExamples
from lmexp.data.tokenizers.base import Ids, Tokenizer
from lmexp.data.tokenizers.build import build_tokenizer, load_tokenizer
from lmexp.data.tokenizers.lost import LostText
from lmexp.errors import UserError
from lmexp.files import hash_text
from lmexp.messages import Say

FORMAT_VERSION = 1
NO_TAG = -100
"""The tag of a token that is not the first of its word."""
MAX_SHOWN = 10
"""Labels that a message lists at most."""

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
    """Hash of the examples of both splits."""
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
    _opened: dict[tuple[str, Split], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path) -> "ExampleStore":
        """Open the store in a folder. Raises UserError if it is missing, damaged or of another format."""
        manifest = read_manifest(path, FORMAT_VERSION, ["pairs", "labels", "tags"])
        try:
            hashes = take_hashes(manifest)
            splits = {split: ExampleSplitInfo(**manifest["splits"][split]) for split in SPLITS}
            store = cls(**(manifest | {"path": path, "splits": splits}))
            width = {name: np.dtype(dtype).itemsize for name, dtype in store.dtypes.items()}
            check_sizes(
                {
                    path / f"{split}.{name}.bin": cells * width[name]
                    for split in SPLITS
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


def prepare_examples(
    data: DataConfig,
    tokenizer: TokenizerConfig,
    target_tokenizer: TokenizerConfig | None,
    root: Path,
    say: Say | None = None,
) -> ExampleStore:
    """Return the store of the examples of `data` under `root`; tokenise them first if it is missing.

    Without `target_tokenizer`, the targets of pairs have the sources', made from both. `say` is told of progress in
    short sentences. Raises UserError: a wrong source, a source that has changed since its fingerprint was taken, a
    vocabulary too large for the texts, or a folder that cannot be written.
    """
    if target_tokenizer is not None and data.holds != "pairs":
        raise UserError(f"target_tokenizer is for the targets of pairs, and data.source={data.source} has {data.holds}")
    configs = (tokenizer,) if target_tokenizer is None else (tokenizer, target_tokenizer)
    write = partial(_write, say or (lambda message: None))
    return ExampleStore.open(made_once(data, configs, FORMAT_VERSION, root, write))


def _write(say: Say, data: DataConfig, configs: tuple[TokenizerConfig, ...], folder: Path) -> None:
    examples = SplitExamples(data)
    say_passed_over(data, say)
    total = sum(examples.count.values())
    skipped = f" ({examples.left_out:,} blank or left out)" if examples.left_out else ""
    say(f"{total:,} examples{skipped}, {examples.characters / 1e6:,.1f} million characters; building the tokenizer")
    if missing := examples.unvalidated:
        shown = ", ".join(missing[:MAX_SHOWN]) + (", ..." if len(missing) > MAX_SHOWN else "")
        say(f"warning: the validation split lacks {len(missing)} of {len(examples.labels)} labels: {shown}")
    if len(configs) == 1:
        source = target = build_tokenizer(configs[0], _SplitTexts(examples, None), say)
    else:
        source, target = (
            build_tokenizer(config, _SplitTexts(examples, side), say) for side, config in enumerate(configs)
        )
        target.save(folder / "target_tokenizer.json")
    source.save(folder / "tokenizer.json")

    dtypes = {"source": token_dtype(source.vocab_size), "text": "|u1"}
    if data.holds == "pairs":
        dtypes |= {"target": token_dtype(target.vocab_size), "reference": "|u1"}
    elif data.holds == "tags":
        dtypes |= {"target": "<i4"}
    with ExitStack() as files:
        writers = {split: _ExampleWriter(folder, split, dtypes, examples.labels, files) for split in SPLITS}
        places: dict[LinePlace, int] = {}
        hashes = SplitTexts()
        lost = [LostText(source), LostText(target)]  # of sources, and of the targets of pairs
        done = 0
        for batch in batches(examples, lambda item: sum(map(len, item[1].texts))):
            of_batch = [example for _, example in batch]
            for (split, example), (ids, answer) in zip(
                batch, _encoded(of_batch, source, target, examples), strict=True
            ):
                writers[split].add(example, places.setdefault(example.place, len(places)), ids, answer)
                hashes.add(split, *example.texts, *example.answer)
                if split == "validation":
                    lost[0].add(example.texts[0], ids)
                    if answer is not None and example.is_pair:
                        lost[1].add(example.texts[1], answer)
            done += len(batch)
            say(f"tokenised {done / total:.0%}")
    lost[0].check("the validation texts")
    if data.holds == "pairs":
        lost[1].check("the validation targets")
    splits = {split: writer.finish() for split, writer in writers.items()}
    scored = lost[1 if data.holds == "pairs" else 0]
    splits["validation"] = replace(
        splits["validation"], text_lost=scored.text_lost, unknown_tokens=scored.unknown_tokens
    )
    prints = [source.fingerprint] if target is source else [source.fingerprint, target.fingerprint]
    write_manifest(
        folder,
        {
            "format_version": FORMAT_VERSION,
            "holds": data.holds,
            "source_config": data.model_dump(mode="json"),
            "vocab_size": source.vocab_size,
            "target_vocab_size": target.vocab_size,
            "labels": examples.labels,
            "tokenizer_fingerprint": prints[0] if len(prints) == 1 else hash_text("".join(prints)),
            "fingerprint": hash_text("".join(splits[split].sha256 for split in SPLITS)),
            "bos_id": source.bos_id,
            "target_bos_id": target.bos_id,
            "shares_tokenizer": target is source,
            "dtypes": dtypes,
            "places": [list(place) for place in places],
            "validation_fingerprint": hashes.fingerprint(examples.labels),
            "validation_seen": hashes.shared(),
            "splits": {split: asdict(info) for split, info in splits.items()},
        },
    )
    counts = ", ".join(f"{info.examples:,} {split}" for split, info in splits.items())
    say(f"examples: {counts}")


@dataclass(frozen=True)
class _SplitTexts:
    """The texts of one side (0 the sources, 1 the targets), or of both, each with its split."""

    examples: SplitExamples
    side: int | None

    def __iter__(self) -> Iterator[tuple[Split, str]]:
        for split, example in self.examples:
            for text in example.texts if self.side is None else (example.texts[self.side],):
                yield split, text


def _encoded(
    examples: list[Example], source: Tokenizer, target: Tokenizer, known: SplitExamples
) -> Iterable[tuple[Ids, np.ndarray | None]]:
    """Yield each example's source tokens, and its target tokens or tags. Raises UserError for a text without tokens."""
    if known.data.holds == "tags":
        numbers = {tag: number for number, tag in enumerate(known.labels)}
        sentences = [example.source for example in examples]
        for example, (ids, starts) in zip(examples, source.encode_words(sentences), strict=True):
            if (starts < 0).any():
                word = example.source[int((starts < 0).argmax())]
                raise UserError(f"{example.where}: the tokenizer makes no token of the word {word!r}")
            tags = np.full(len(ids), NO_TAG, np.int32)
            tags[starts] = [numbers[tag] for tag in example.target]
            yield ids, tags
        return
    sources = source.encode_batch([example.texts[0] for example in examples])
    targets: Sequence[Ids | None] = [None] * len(examples)
    if known.data.holds == "pairs":
        targets = target.encode_batch([example.texts[1] for example in examples])
    for example, ids, answer in zip(examples, sources, targets, strict=True):
        if not len(ids) or (answer is not None and not len(answer)):
            raise UserError(f"{example.where}: the tokenizer makes no token of this text")
        yield ids, answer


class _ExampleWriter:
    """Appends examples to the files of one split, and counts them."""

    def __init__(self, folder: Path, split: Split, dtypes: dict[str, str], labels: list[str], files: ExitStack) -> None:
        self._folder, self._split = folder, split
        self._numbers = {label: number for number, label in enumerate(labels)}
        self._rows = {
            name: RowWriter(files.enter_context((folder / f"{split}.{name}.bin").open("wb")), dtype)
            for name, dtype in dtypes.items()
        }
        self._labels = array("i")
        self._lines = array("i")

    def add(self, example: Example, place: int, ids: Ids, answer: np.ndarray | None) -> None:
        texts = dict(zip(("text", "reference"), example.texts, strict=False))
        for name, text in texts.items():
            self._rows[name].add(np.frombuffer(text.encode(), np.uint8))
        self._rows["source"].add(ids)
        if answer is not None:
            self._rows["target"].add(answer)
        else:
            self._labels.append(self._numbers[str(example.target)])
        self._lines.extend((place, example.number))

    def finish(self) -> ExampleSplitInfo:
        """Write the files without rows; the caller closes the streams."""
        for name, rows in self._rows.items():
            rows.save_bounds(self._folder / f"{self._split}.{name}.bounds.npy")
        np.save(self._folder / f"{self._split}.line.npy", np.asarray(self._lines, np.int32).reshape(-1, 2))
        hashes = {name: rows.sha256 for name, rows in self._rows.items()}
        if self._labels:
            labels = np.asarray(self._labels, np.int32)
            np.save(self._folder / f"{self._split}.label.npy", labels)
            hashes["label"] = hash_text(" ".join(map(str, self._labels)))
        is_pairs = "reference" in self._rows
        return ExampleSplitInfo(
            examples=len(self._lines) // 2,
            tokens=self._rows["source"].size + (self._rows["target"].size if is_pairs else 0),
            bytes=self._rows["reference" if is_pairs else "text"].size,
            cells={name: rows.size for name, rows in self._rows.items()},
            sha256=hash_text("".join(hashes[name] for name in sorted(hashes))),
        )
