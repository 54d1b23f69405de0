"""How an example store is made: examples are read, tokenised and written; examples.py describes the files."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmexp.config.data import DataConfig, Split
from lmexp.config.tokenizers import TokenizerConfig
from lmexp.data.example_files import Example, LinePlace
from lmexp.data.examples import FORMAT_VERSION, NO_TAG, ExampleSplitInfo, ExampleStore
from lmexp.data.folders import (
    RowWriter,
    SplitTexts,
    batches,
    made_once,
    say_passed_over,
    say_pii,
    token_dtype,
    write_manifest,
)
from lmexp.data.split import SplitExamples
from lmexp.data.tokenizers.base import Ids, Tokenizer
from lmexp.data.tokenizers.build import build_tokenizer
from lmexp.data.tokenizers.lost import LostText
from lmexp.data.tokenizers.training import Key, UnsupportedSize
from lmexp.errors import UserError
from lmexp.files import hash_text
from lmexp.messages import Say
from lmexp.units import short_si

MAX_SHOWN = 10
"""Labels that a message lists at most."""


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
    say_passed_over(examples.files, say)
    say_pii(data.clean, examples.pii, say)
    _say_counts(examples, say)
    source, target = _tokenizers(examples, configs, folder, say)
    hashes = SplitTexts()
    writing = _tokenise(examples, source, target, folder, hashes, say)
    splits = {split: writer.finish() for split, writer in writing.writers.items()}
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
            "fingerprint": hash_text(splits["train"].sha256 + splits["validation"].sha256),
            "bos_id": source.bos_id,
            "target_bos_id": target.bos_id,
            "shares_tokenizer": target is source,
            "dtypes": _dtypes(data, source, target),
            "places": [list(place) for place in writing.places],
            **hashes.manifest(examples.labels),
            **({} if examples.pii is None else {"pii": examples.pii}),
            **({"tags_repaired": examples.repaired} if data.holds == "tags" else {}),
            "splits": {split: asdict(info) for split, info in splits.items()},
        },
        [rows for writer in writing.writers.values() for rows in writer.rows.values()],
    )
    counts = ", ".join(f"{info.examples:,} {split}" for split, info in splits.items())
    say(f"examples: {counts}")


def _say_counts(examples: SplitExamples, say: Say) -> None:
    """Say how much there is, what was left out, and which labels no score will show."""
    skipped = f" ({examples.left_out:,} blank or left out)" if examples.left_out else ""
    total = f"{sum(examples.count.values()):,} examples{skipped}"
    say(f"{total}, {short_si(examples.characters, 3)} characters; building the tokenizer")
    if missing := examples.unvalidated:
        shown = ", ".join(missing[:MAX_SHOWN]) + (", ..." if len(missing) > MAX_SHOWN else "")
        say(f"warning: the validation split lacks {len(missing)} of {len(examples.labels)} labels: {shown}")
    by_letters: dict[str, list[str]] = {}
    for label in examples.labels:
        by_letters.setdefault(label.casefold(), []).append(label)
    if twins := [" and ".join(same) for same in by_letters.values() if len(same) > 1]:
        shown = "; ".join(twins[:MAX_SHOWN]) + ("; ..." if len(twins) > MAX_SHOWN else "")
        say(f"warning: these labels differ only in capital letters, and count as different: {shown}")


def _tokenizers(
    examples: SplitExamples, configs: tuple[TokenizerConfig, ...], folder: Path, say: Say
) -> tuple[Tokenizer, Tokenizer]:
    """Return the tokenizers of sources and of targets, which may be one, and save them."""
    if len(configs) == 1:
        source = target = build_tokenizer(configs[0], _SplitTexts(examples, None), say)
    else:
        built: list[Tokenizer] = []
        problems: dict[Key, tuple[int, str]] = {}
        keys: tuple[Key, Key] = ("tokenizer", "target_tokenizer")
        for side, (key, config) in enumerate(zip(keys, configs, strict=True)):
            try:
                built.append(build_tokenizer(config, _SplitTexts(examples, side), say, key))
            except UnsupportedSize as problem:
                problems |= problem.problems
        if problems:
            raise UnsupportedSize(problems)
        source, target = built
        target.save(folder / "target_tokenizer.json")
    source.save(folder / "tokenizer.json")
    return source, target


def _dtypes(data: DataConfig, source: Tokenizer, target: Tokenizer) -> dict[str, str]:
    """Return the type of the values in each file of rows."""
    dtypes = {"source": token_dtype(source.vocab_size), "text": "|u1"}
    if data.holds == "pairs":
        dtypes |= {"target": token_dtype(target.vocab_size), "reference": "|u1"}
    elif data.holds == "tags":
        dtypes |= {"target": "<i4"}
    return dtypes


class _Written(NamedTuple):
    """What has written the examples."""

    writers: dict[Split, "_ExampleWriter"]
    places: dict[LinePlace, int]
    """The number of each place."""


def _tokenise(
    examples: SplitExamples, source: Tokenizer, target: Tokenizer, folder: Path, hashes: SplitTexts, say: Say
) -> _Written:
    """Write all examples, and add their texts and answers to `hashes`."""
    total, done = sum(examples.count.values()), 0
    dtypes = _dtypes(examples.data, source, target)
    places: dict[LinePlace, int] = {}
    with ExitStack() as files:
        writers = {
            split: _ExampleWriter(folder, split, dtypes, examples.labels, (source, target), files)
            for split in examples.count
        }
        for batch in batches(examples, lambda item: sum(map(len, item[1].texts))):
            encoded = _encoded([example for _, example in batch], source, target, examples)
            for (split, example), (ids, answer) in zip(batch, encoded, strict=True):
                writers[split].add(example, places.setdefault(example.place, len(places)), ids, answer)
                hashes.add(split, *example.texts, *example.answer)
            done += len(batch)
            say(f"tokenised {done / total:.0%}")
    return _Written(writers, places)


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

    def __init__(
        self,
        folder: Path,
        split: Split,
        dtypes: dict[str, str],
        labels: list[str],
        tokenizers: tuple[Tokenizer, Tokenizer],
        files: ExitStack,
    ) -> None:
        """`tokenizers` are those of sources and of targets; `files` closes the streams."""
        self._folder, self._split = folder, split
        self._numbers = {label: number for number, label in enumerate(labels)}
        self.rows = {
            name: RowWriter(files.enter_context((folder / f"{split}.{name}.bin").open("wb")), dtype)
            for name, dtype in dtypes.items()
        }
        self._labels = array("i")
        self._lines = array("i")
        names = ("texts", "targets")[: 2 if "reference" in dtypes else 1]
        self._lost = {} if split == "train" else dict(zip(names, map(LostText, tokenizers), strict=False))

    def add(self, example: Example, place: int, ids: Ids, answer: np.ndarray | None) -> None:
        """Append an example: `ids` are its source's tokens, `answer` its target's tokens or its tags."""
        for lost, text, tokens in zip(self._lost.values(), example.texts, (ids, answer), strict=False):
            assert tokens is not None, "a pair has the tokens of its target"
            lost.add(text, tokens)
        texts = dict(zip(("text", "reference"), example.texts, strict=False))
        for name, text in texts.items():
            self.rows[name].add(np.frombuffer(text.encode(), np.uint8))
        self.rows["source"].add(ids)
        if answer is not None:
            self.rows["target"].add(answer)
        else:
            self._labels.append(self._numbers[str(example.target)])
        self._lines.extend((place, example.number))

    def finish(self) -> ExampleSplitInfo:
        """Write the files without rows; the caller closes the streams. Raises UserError if the text is lost."""
        for what, lost in self._lost.items():
            lost.check(f"the {self._split} {what}")
        scored = list(self._lost.values())[-1:]  # of pairs, the targets
        for name, rows in self.rows.items():
            rows.save_bounds(self._folder / f"{self._split}.{name}.bounds.npy")
        np.save(self._folder / f"{self._split}.line.npy", np.asarray(self._lines, np.int32).reshape(-1, 2))
        hashes = {name: rows.sha256 for name, rows in self.rows.items()}
        if self._labels:
            labels = np.asarray(self._labels, np.int32)
            np.save(self._folder / f"{self._split}.label.npy", labels)
            hashes["label"] = hash_text(" ".join(map(str, self._labels)))
        is_pairs = "reference" in self.rows
        return ExampleSplitInfo(
            examples=len(self._lines) // 2,
            tokens=self.rows["source"].size + (self.rows["target"].size if is_pairs else 0),
            bytes=self.rows["reference" if is_pairs else "text"].size,
            cells={name: rows.size for name, rows in self.rows.items()},
            sha256=hash_text("".join(hashes[name] for name in sorted(hashes))),
            text_lost=scored[0].text_lost if scored else None,
            unknown_tokens=scored[0].unknown_tokens if scored else None,
        )
