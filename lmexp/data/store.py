"""The token store: a source tokenised once, on disk, read by every run as a memory map.

It is a folder that is made once (folders.py).

    <split>.bin                  flat token ids, little-endian uint16 or uint32: bos, document, bos, ...; the splits
                                 are train, validation and, in some stores, test
    <split>.bounds.npy           (documents + 1,) int64: the offset of each document's bos, and the end
    <split>.bytes.npy            (documents,) int64: UTF-8 bytes of each document's text
    tokenizer.json               tokenizers/ reads it
    manifest.json                counts and hashes; its presence says that the store is complete

Texts are read in three passes (survey, tokenizer, tokens) and never held as a whole.
"""

import mmap
from array import array
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy as np

from lmexp.config.data import CANARY_LETTERS, DataConfig, Split
from lmexp.config.tokenizers import TokenizerConfig
from lmexp.data.canaries import planted, planted_tokens
from lmexp.data.folders import (
    DTYPES,
    RowWriter,
    SplitTexts,
    batches,
    check_content,
    check_sizes,
    damaged_manifest,
    made_once,
    read_manifest,
    say_passed_over,
    say_pii,
    splits_of,
    take_hashes,
    token_dtype,
    with_results,
    write_manifest,
)
from lmexp.data.split import SplitDocuments
from lmexp.data.tokenizers.base import Ids, Tokenizer
from lmexp.data.tokenizers.build import build_tokenizer, load_tokenizer
from lmexp.data.tokenizers.lost import LostText
from lmexp.errors import UserError
from lmexp.files import hash_text
from lmexp.messages import Say
from lmexp.units import counted, short_si

FORMAT_VERSION = 1


@dataclass(frozen=True)
class SplitInfo:
    """The entry of the manifest for one split."""

    tokens: int
    """Tokens of the split, with the one that starts each document."""
    documents: int
    bytes: int
    """UTF-8 bytes of the texts."""
    sha256: str
    """Hash of the .bin file."""
    text_lost: float | None = None
    """Share of the bytes that the tokenizer does not give back; None where it was not measured."""
    unknown_tokens: float | None = None
    """Share of the tokens that are unknown; None where it was not measured."""
    words: int | None = None
    """Words of the texts, which white space separates; None where they were not counted: of the training split, and in
    a store of an earlier version."""


@dataclass(frozen=True)
class Store:
    """A complete token store, read-only."""

    path: Path
    source: dict[str, Any]
    """The data config that it was made from."""
    vocab_size: int
    dtype: str
    """The type of a token on disk: '<u2' or '<u4'."""
    tokenizer_fingerprint: str
    fingerprint: str
    """Hash of the tokens for training and validation."""
    splits: dict[Split, SplitInfo]
    bos_id: int
    """The token that starts each document."""
    own_mask_id: int | None
    """The token that hides another one; None if a tokenizer from elsewhere has no such token."""
    validation_fingerprint: str | None = None
    """Hash of the texts that validate, whatever the tokenizer; None in a store of an earlier version."""
    validation_seen: float | None = None
    """Share of the documents that validate whose text trains too; None in a store of an earlier version."""
    test_fingerprint: str | None = None
    """The same hash of the texts for test; None if there are none."""
    test_seen: float | None = None
    """Share of the documents for test whose text is also in another split; None if there are none."""
    canary_tokens: int | None = None
    """Tokens of the training split that are planted (canaries.py), the one that starts each included; None if none
    are."""
    pii: dict[str, int] | None = None
    """How often data.clean.pii found each kind of personal data, in all splits; None if it looked for none."""

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open the store in a folder. Raises UserError if it is missing, damaged or of another format."""
        manifest = read_manifest(path, FORMAT_VERSION, ["text"])
        try:
            hashes = take_hashes(manifest)
            splits = {split: SplitInfo(**manifest["splits"][split]) for split in splits_of(manifest)}
            # What stores that were made before masks did not say holds for all of them.
            vocab_size = manifest["vocab_size"]
            manifest = {"bos_id": vocab_size - 1, "own_mask_id": vocab_size} | manifest
            store = cls(**(manifest | {"path": path, "splits": splits}))
            width = {dtype: np.dtype(dtype).itemsize for dtype in DTYPES}[store.dtype]
            check_sizes({store._tokens_file(split): store.tokens(split) * width for split in splits})
        except (KeyError, TypeError) as error:
            raise damaged_manifest(path) from error
        check_content(path, hashes)
        return store

    @property
    def mask_id(self) -> int:
        """The token that hides another one. Raises UserError if the tokenizer has no such token."""
        if self.own_mask_id is None:
            raise UserError("this tokenizer has no token for what is hidden, which task=masked_lm needs")
        return self.own_mask_id

    def tokens(self, split: Split) -> int:
        """Return the number of tokens of a split."""
        return self.splits[split].tokens

    def documents(self, split: Split) -> int:
        """Return the number of documents of a split."""
        return self.splits[split].documents

    def bytes(self, split: Split) -> int:
        """Return the UTF-8 bytes of a split's text."""
        return self.splits[split].bytes

    def array(self, split: Split) -> np.memmap:
        """Return the tokens of a split as a read-only memory map: (n,), uint16 or uint32."""
        return np.memmap(self._tokens_file(split), dtype=self.dtype, mode="r")

    def bounds(self, split: Split) -> np.ndarray:
        """Return the offset of each document's first token, and the end: (documents + 1,) int64."""
        return np.load(self.path / f"{split}.bounds.npy")

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer that made the tokens."""
        return load_tokenizer(self.path / "tokenizer.json")

    def _tokens_file(self, split: Split) -> Path:
        return self.path / f"{split}.bin"


MIN_ADVISED = 1 << 30
"""Bytes: a smaller file is soon in memory as a whole, so advice about it would cost more than it saves."""


def is_advised(tokens: np.memmap) -> bool:
    """Whether announcing reads of a file saves time: it is large, and the operating system takes such advice."""
    return tokens.nbytes >= MIN_ADVISED and hasattr(mmap, "MADV_WILLNEED") and isinstance(tokens.base, mmap.mmap)


def read_soon(tokens: np.memmap, starts: np.ndarray, length: int) -> None:
    """Let the operating system read stretches of a file from its disk, in the background, before they are needed.

    Otherwise each stretch of a file that is larger than the memory costs a wait for the disk.
    """
    pages = tokens.base
    assert isinstance(pages, mmap.mmap), "see is_advised"
    for start in starts.tolist():
        at = start * tokens.itemsize // mmap.PAGESIZE * mmap.PAGESIZE
        pages.madvise(mmap.MADV_WILLNEED, at, (start + length) * tokens.itemsize - at)


def prepare(data: DataConfig, tokenizer: TokenizerConfig, root: Path, say: Say | None = None) -> Store:
    """Return the token store of `data` under `root`; tokenise the text first if it is missing.

    If `data.fingerprint` is set and the store exists, the source is not read. `say` is told of progress
    in short sentences. Raises UserError: a wrong source, a source that has changed since its fingerprint was
    taken, a vocabulary too large for the text, or a folder that cannot be written.
    """
    write = partial(_write, say or (lambda message: None))
    return Store.open(made_once(data, (tokenizer,), FORMAT_VERSION, root, write))


def _write(say: Say, data: DataConfig, configs: tuple[TokenizerConfig, ...], folder: Path) -> None:
    documents = SplitDocuments(data)
    say_passed_over(documents.files, say)
    say_pii(data.clean, documents.pii, say)
    total = counted(documents.documents, "document")
    say(f"{total}, {short_si(documents.characters, 3)} characters; building the tokenizer")
    tokenizer = build_tokenizer(configs[0], documents, say, characters=ascii_lowercase if data.canaries.count else "")
    tokenizer.save(folder / "tokenizer.json")
    canary_tokens = planted_tokens(data.canaries, tokenizer) if data.canaries.count else None
    hashes = SplitTexts()
    writers = _tokenise(documents, tokenizer, folder, hashes, say)
    splits = {split: writer.finish() for split, writer in writers.items()}
    write_manifest(
        folder,
        {
            "format_version": FORMAT_VERSION,
            "source": data.model_dump(mode="json"),
            "vocab_size": tokenizer.vocab_size,
            "bos_id": tokenizer.bos_id,
            "own_mask_id": tokenizer.own_mask_id,
            "dtype": token_dtype(tokenizer.vocab_size),
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "fingerprint": hash_text(splits["train"].sha256 + splits["validation"].sha256),
            **hashes.manifest(),
            **({} if canary_tokens is None else {"canary_tokens": canary_tokens}),
            **({} if documents.pii is None else {"pii": documents.pii}),
            "splits": {split: asdict(info) for split, info in splits.items()},
        },
        [writer.rows for writer in writers.values()],
    )
    counts = ", ".join(f"{info.tokens:,} {split}" for split, info in splits.items())
    of_canaries = f"; {canary_tokens:,} of train are planted canaries" if canary_tokens else ""
    say(f"tokens: {counts}{of_canaries}")


def _tokenise(
    documents: SplitDocuments, tokenizer: Tokenizer, folder: Path, hashes: SplitTexts, say: Say
) -> dict[Split, "_SplitWriter"]:
    """Write the tokens of all documents, add their texts to `hashes`, and return what has written each split."""
    data = documents.data
    done, characters = 0, documents.characters + data.canaries.copies * CANARY_LETTERS
    texts = planted(documents, data.canaries, documents.training_characters)
    with ExitStack() as files:
        writers = {split: _SplitWriter(folder, split, tokenizer, files) for split in data.splits}
        together = batches(texts, lambda document: len(document[1]))
        for batch, encoded in with_results(together, lambda batch: tokenizer.encode_batch([text for _, text in batch])):
            for (split, text), ids in zip(batch, encoded, strict=True):
                writers[split].add(text, ids)
                hashes.add(split, text)
            done += sum(len(text) for _, text in batch)
            say(f"tokenised {done / characters:.0%}")
    return writers


class _SplitWriter:
    """Appends documents to the file of one split, and counts them."""

    def __init__(self, folder: Path, split: Split, tokenizer: Tokenizer, files: ExitStack) -> None:
        self._folder, self._split = folder, split
        stream = files.enter_context((folder / f"{split}.bin").open("wb"))
        self.rows = RowWriter(stream, token_dtype(tokenizer.vocab_size))
        self._sizes = array("q")  # UTF-8 bytes of each document
        self._words = 0
        self._bos = np.array([tokenizer.bos_id], np.uint32)
        # Decoding the whole of a large text would take as long as encoding it, so training texts are not.
        self._lost = None if split == "train" else LostText(tokenizer)

    def add(self, text: str, ids: Ids) -> None:
        """Append a document."""
        self.rows.add(np.concatenate([self._bos, ids]))
        self._sizes.append(len(text.encode()))
        if self._lost is not None:
            self._lost.add(text, ids)
            self._words += len(text.split())

    def finish(self) -> SplitInfo:
        """Write the files beside the tokens; the caller closes the stream. Raises UserError if the text is lost."""
        self.rows.save_bounds(self._folder / f"{self._split}.bounds.npy")
        np.save(self._folder / f"{self._split}.bytes.npy", np.asarray(self._sizes, np.int64))
        if self._lost is not None:
            self._lost.check(f"the {self._split} text")
        return SplitInfo(
            tokens=self.rows.size,
            documents=len(self._sizes),
            bytes=sum(self._sizes),
            sha256=self.rows.sha256,
            text_lost=self._lost.text_lost if self._lost else None,
            unknown_tokens=self._lost.unknown_tokens if self._lost else None,
            words=self._words if self._lost else None,
        )
