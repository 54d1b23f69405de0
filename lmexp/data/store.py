"""The token store: a source tokenised once, on disk, read by every run as a memory map.

A store is a folder named by a hash of what it was made from. It is written beside its place and renamed
when it is whole, under a lock, so fifty runs that start together tokenise once and none reads half a store.

    train.bin  validation.bin    flat token ids, little-endian uint16 or uint32: bos, document, bos, ...
    <split>.bounds.npy           (documents + 1,) int64: the offset of each document's bos, and the end
    <split>.bytes.npy            (documents,) int64: UTF-8 bytes of each document's text
    tokenizer.json               tokenizers.py reads it
    manifest.json                counts and hashes; its presence says that the store is complete

Texts are read in three passes (survey, tokenizer, tokens) and never held as a whole.
"""

import hashlib
import json
import os
import shutil
import uuid
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock

from lmexp.config.schema import DataConfig, TokenizerConfig
from lmexp.data import sources
from lmexp.data.split import SPLITS, Split, SplitDocuments
from lmexp.data.tokenizers import Ids, Tokenizer, build_tokenizer, load_tokenizer
from lmexp.errors import UserError
from lmexp.files import hash_text, read_json, write_json

FORMAT_VERSION = 1
DTYPES = {"<u2": 1 << 16, "<u4": 1 << 32}
"""How a token may be stored, and the largest vocabulary that each can hold."""

_BATCH_CHARACTERS = 1 << 22  # texts encoded together: enough for all cores, little beside a model
_BATCH_DOCUMENTS = 10_000


@dataclass(frozen=True)
class SplitInfo:
    """What the manifest says of one split."""

    tokens: int
    """Tokens in the stream, one a document for its beginning included."""
    documents: int
    bytes: int
    """UTF-8 bytes of the texts."""
    sha256: str
    """Of the .bin file."""


@dataclass(frozen=True)
class Store:
    """A complete token store; reads only."""

    path: Path
    source: dict[str, Any]
    """The data config it was made from."""
    vocab_size: int
    dtype: str
    """Of a token on disk: '<u2' or '<u4'."""
    tokenizer_fingerprint: str
    fingerprint: str
    """Hash of the tokens of both splits."""
    splits: dict[Split, SplitInfo]

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open the store in a folder. Raises UserError when it is missing, of another format, or damaged."""
        try:
            manifest = read_json(path / "manifest.json")
            version = manifest.pop("format_version")
            if version != FORMAT_VERSION:
                raise UserError(f"{path}: a token store of format {version}; this lmexp reads {FORMAT_VERSION}")
            splits = {split: SplitInfo(**manifest["splits"][split]) for split in SPLITS}
            store = cls(**(manifest | {"path": path, "splits": splits}))
            width = {dtype: np.dtype(dtype).itemsize for dtype in DTYPES}[store.dtype]
        except FileNotFoundError as error:
            raise UserError(f"{path}: no token store here; `lmexp prepare` makes one") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: the manifest is damaged; delete the folder and prepare again") from error
        for split in SPLITS:
            file = store._tokens_file(split)
            size = file.stat().st_size if file.exists() else 0
            expected = store.tokens(split) * width
            if size != expected:
                raise UserError(
                    f"{file}: damaged, {size} bytes instead of {expected}; delete the folder and prepare again"
                )
        return store

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
        """Return the tokens of a split (n,), uint16 or uint32, read-only, without reading them."""
        return np.memmap(self._tokens_file(split), dtype=self.dtype, mode="r")

    def bounds(self, split: Split) -> np.ndarray:
        """Return the offset of each document's first token, and the end: (documents + 1,) int64."""
        return np.load(self.path / f"{split}.bounds.npy")

    def document_bytes(self, split: Split) -> np.ndarray:
        """Return the UTF-8 bytes of each document: (documents,) int64."""
        return np.load(self.path / f"{split}.bytes.npy")

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer that made the tokens."""
        return load_tokenizer(self.path / "tokenizer.json")

    def _tokens_file(self, split: Split) -> Path:
        return self.path / f"{split}.bin"


def prepare(
    data: DataConfig,
    tokenizer: TokenizerConfig,
    root: Path,
    say: Callable[[str], None] | None = None,
) -> Store:
    """Return the token store of `data` under `root`; tokenise first, once, where there is none yet.

    When `data.fingerprint` is set and the store exists, the source is not touched. `say` is told of progress
    in short sentences. Raises UserError: a wrong source, a source that has changed since its fingerprint was
    taken, a vocabulary too large for the text, or a folder that cannot be written.
    """
    say = say or (lambda message: None)
    fingerprint = data.fingerprint or sources.fingerprint(data)
    key = _key(data, fingerprint, tokenizer)
    path = root / key
    if not _is_complete(path):
        try:
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / f".{key}.lock"):
                if not _is_complete(path):  # another process may have made it while this one waited
                    if data.fingerprint and sources.fingerprint(data) != data.fingerprint:
                        raise UserError(
                            "the data has changed since this config was resolved: its content no longer has "
                            f"the fingerprint {data.fingerprint[:12]}"
                        )
                    resolved = data.model_copy(update={"fingerprint": fingerprint})
                    _make(resolved, tokenizer, path, say)
        except OSError as error:
            raise UserError(f"cannot write the token store in {root}: {error.strerror or error}") from error
    return Store.open(path)


def _key(data: DataConfig, fingerprint: str, tokenizer: TokenizerConfig) -> str:
    """Return the folder's name: a hash of all that the tokens depend on.

    The fingerprint stands for the path and the revision. Defaults are left out, so that a field added later
    does not orphan the stores there are.
    """
    made_from = {
        "format_version": FORMAT_VERSION,
        "data": data.model_dump(mode="json", exclude={"path", "revision", "fingerprint"}, exclude_defaults=True),
        "fingerprint": fingerprint,
        "tokenizer": tokenizer.model_dump(mode="json", exclude_defaults=True),
    }
    return hash_text(json.dumps(made_from, sort_keys=True), 16)


def _is_complete(path: Path) -> bool:
    return (path / "manifest.json").exists()


def _make(data: DataConfig, tokenizer: TokenizerConfig, path: Path, say: Callable[[str], None]) -> None:
    """Write the store aside, then rename it to `path`. The caller holds the lock."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    aside.mkdir()
    try:
        _write(data, tokenizer, aside, say)
        for file in (*aside.iterdir(), aside):
            _sync(file)
        aside.rename(path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _write(data: DataConfig, config: TokenizerConfig, folder: Path, say: Callable[[str], None]) -> None:
    documents = SplitDocuments(data)
    megabytes = documents.characters / 1e6
    say(f"{documents.documents:,} documents, {megabytes:,.1f} million characters; building the tokenizer")
    tokenizer = build_tokenizer(config, documents)
    tokenizer.save(folder / "tokenizer.json")
    dtype = next(name for name, largest in DTYPES.items() if tokenizer.vocab_size <= largest)
    with ExitStack() as files:
        streams = {split: files.enter_context((folder / f"{split}.bin").open("wb")) for split in SPLITS}
        writers = {split: _SplitWriter(streams[split], dtype, tokenizer.bos_id) for split in SPLITS}
        done = 0  # characters
        for batch in _batches(documents):
            texts = [text for _, text in batch]
            for (split, text), ids in zip(batch, tokenizer.encode_batch(texts), strict=True):
                writers[split].add(text, ids)
            done += sum(map(len, texts))
            say(f"tokenised {done / documents.characters:.0%}")
    splits = {split: writer.finish(folder, split) for split, writer in writers.items()}
    write_json(
        folder / "manifest.json",
        {
            "format_version": FORMAT_VERSION,
            "source": data.model_dump(mode="json"),
            "vocab_size": tokenizer.vocab_size,
            "dtype": dtype,
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "fingerprint": hash_text("".join(splits[split].sha256 for split in SPLITS)),
            "splits": {split: asdict(info) for split, info in splits.items()},
        },
    )
    counts = ", ".join(f"{info.tokens:,} {split}" for split, info in splits.items())
    say(f"tokens: {counts}")


def _batches(documents: Iterable[tuple[Split, str]]) -> Iterator[list[tuple[Split, str]]]:
    """Yield documents in groups worth encoding together."""
    batch: list[tuple[Split, str]] = []
    characters = 0
    for split, text in documents:
        batch.append((split, text))
        characters += len(text)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _SplitWriter:
    """Appends documents to one split's stream and keeps its counts."""

    def __init__(self, stream: BinaryIO, dtype: str, bos_id: int) -> None:
        self._stream = stream
        self._dtype = dtype
        self._bos = np.array([bos_id], dtype).tobytes()
        self._hash = hashlib.sha256()
        self._bounds = array("q", [0])
        self._bytes = array("q")

    def add(self, text: str, ids: Ids) -> None:
        raw = self._bos + ids.astype(self._dtype).tobytes()
        self._stream.write(raw)
        self._hash.update(raw)
        self._bounds.append(self._bounds[-1] + 1 + len(ids))
        self._bytes.append(len(text.encode()))

    def finish(self, folder: Path, split: Split) -> SplitInfo:
        """Write bounds and bytes; the stream is closed by whoever opened it."""
        np.save(folder / f"{split}.bounds.npy", np.asarray(self._bounds, np.int64))
        np.save(folder / f"{split}.bytes.npy", np.asarray(self._bytes, np.int64))
        return SplitInfo(
            tokens=self._bounds[-1],
            documents=len(self._bytes),
            bytes=sum(self._bytes),
            sha256=self._hash.hexdigest(),
        )


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk, so that a power cut cannot undo the order."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
