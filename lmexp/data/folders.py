"""The folder of a store, which is made once: named by a hash of what it depends on, and renamed when it is complete.

It is written under a lock, so fifty runs that start together tokenise only once, and none of them reads an incomplete
store. The manifest is the last file to be written, and has the size of every other file.
"""

import contextvars
import hashlib
import json
import os
import shutil
import time
import uuid
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from filelock import FileLock

from lmexp.config.data import PATH_KEYS, SPLITS, CleanConfig, DataConfig, OutsideData, Split
from lmexp.config.tokenizers import TokenizerConfig
from lmexp.data import sources
from lmexp.data.tokenizers.build import with_fingerprint
from lmexp.errors import UserError
from lmexp.files import flush_to_disk, hash_text, read_json, write_json
from lmexp.messages import Say
from lmexp.units import counted

Item = TypeVar("Item")
Result = TypeVar("Result")

DTYPES = {"<u2": 1 << 16, "<u4": 1 << 32}
"""The types that tokens are stored in, and the largest vocabulary of each."""

MAX_ALWAYS_READ = 1 << 22
"""Bytes: a larger file is not read as a whole each time that its store is opened; smaller ones take milliseconds."""
_BATCH_CHARACTERS = 1 << 22  # of texts that are encoded together: enough for all cores, and small compared to a model
_BATCH_TEXTS = 10_000


def made_once(
    data: DataConfig,
    tokenizers_: tuple[TokenizerConfig, ...],
    version: int,
    root: Path,
    write: Callable[[DataConfig, tuple[TokenizerConfig, ...], Path], None],
) -> Path:
    """Return the folder under `root` for these data and tokenizers; write it if missing.

    If the fingerprints are set and the folder exists, the source is not read. `write` gets the configs with all
    fingerprints, and the folder to fill. Raises UserError for a wrong source, a source that has changed since its
    fingerprint was taken, or a folder that cannot be written.
    """
    resolved = sources.with_fingerprints(data)
    known = tuple(with_fingerprint(config) for config in tokenizers_)
    path = root / key(resolved, known, version)
    if not _is_complete(path):
        try:
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(root / f".{path.name}.lock"):
                if not _is_complete(path):  # another process may have written it while this one waited
                    _check_unchanged(data)
                    _make(path, lambda folder: write(resolved, known, folder))
        except OSError as error:
            raise UserError(f"cannot write the token store in {root}: {error.strerror or error}") from error
    return path


def key(data: DataConfig, tokenizers_: tuple[TokenizerConfig, ...], version: int) -> str:
    """Return the name of the folder: a hash of everything that the tokens depend on; the configs have fingerprints.

    A fingerprint stands for paths and revisions. Defaults are left out, so that existing stores keep their names when a
    later version adds a field.
    """
    not_in_key: dict[str, Any] = dict.fromkeys([*PATH_KEYS, "revision", "fingerprint", "truncate"], True)
    if data.clean.stop_words_fingerprint:
        not_in_key["clean"] = {"stop_words"}
    made_from = {
        "format_version": version,
        "data": data.model_dump(mode="json", exclude=not_in_key, exclude_defaults=True),
        "fingerprint": data.fingerprint,
    }
    for name, config in zip(("tokenizer", "target_tokenizer"), tokenizers_, strict=False):
        by_content = {"name", "revision"} if getattr(config, "fingerprint", None) else None
        made_from[name] = config.model_dump(mode="json", exclude=by_content, exclude_defaults=True)
    return hash_text(json.dumps(made_from, sort_keys=True), 16)


def read_manifest(path: Path, version: int, holds: Iterable[str]) -> dict[str, Any]:
    """Return the manifest of a folder. Raises UserError if it is missing, damaged, or of another format or kind."""
    try:
        manifest = read_json(path / "manifest.json")
        stored_version = manifest.pop("format_version")
        if stored_version != version:
            raise UserError(f"{path}: a token store of format {stored_version}; this lmexp reads {version}")
        if manifest.get("holds", "text") not in holds:
            raise UserError(f"{path}: a store of {manifest['holds']}, not of {' or '.join(holds)}")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no token store here; `lmexp prepare` makes one") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged_manifest(path) from error
    return dict(manifest)


def damaged_manifest(path: Path) -> UserError:
    """Return the error for a manifest that lacks something."""
    return UserError(f"{path}: the manifest is damaged; delete the folder and prepare again")


def check_sizes(sizes: Mapping[Path, int]) -> None:
    """Raise UserError for the first file that does not have the expected size in bytes."""
    for file, expected in sizes.items():
        size = file.stat().st_size if file.exists() else 0
        if size != expected:
            raise UserError(f"{file}: damaged, {size} bytes instead of {expected}; delete the folder and prepare again")


def say_passed_over(known: sources.Files, say: Say) -> None:
    """Say which files of the source's folders were not read."""
    if files := [file for named in known.values() for file in named.passed_over]:
        count = counted(len(files), "file", "that is")
        say(f"passed over {count} hidden or left by a program: {files[0]}{', ...' if len(files) > 1 else ''}")


def say_pii(clean: CleanConfig, count: Mapping[str, int] | None, say: Say) -> None:
    """Say how much personal data was found, and what became of it, if any was looked for."""
    if count is not None:
        what = {"mask": "masked", "remove": "removed", "drop": "left out the texts with"}[clean.pii_mode]
        say(f"data.clean.pii {what} {', '.join(f'{number:,} {kind}' for kind, number in count.items())}")


def write_manifest(folder: Path, manifest: Mapping[str, Any], written: Iterable["RowWriter"]) -> None:
    """Write the manifest of a folder whose files are complete, with their hashes.

    The files of `written` are not read, because their hashes are known.
    """
    known = {rows.name: rows.sha256 for rows in written}
    files = {file.name: known.get(file.name) or _sha256(file, *_version(file)) for file in sorted(folder.iterdir())}
    write_json(folder / "manifest.json", {**manifest, "files": files})


def splits_of(manifest: Mapping[str, Any]) -> list[Split]:
    """Return the splits of a store, in their order; only some have a test split."""
    return [split for split in SPLITS if split != "test" or split in manifest["splits"]]


def take_hashes(manifest: dict[str, Any]) -> dict[str, str]:
    """Remove the hashes of files from a manifest and return them by name; earlier versions had only those of tokens."""
    files: dict[str, str] | None = manifest.pop("files", None)
    if files is None and manifest.get("holds", "text") == "text":
        files = {f"{split}.bin": of["sha256"] for split, of in manifest["splits"].items()}
    return files or {}


def check_content(folder: Path, hashes: Mapping[str, str]) -> None:
    """Raise UserError for the first file whose content is not what was written.

    A large file is read only if it was changed later than the manifest, which is written last. In a copy of a store
    this can be all of them: the manifest is then marked as newer, so that they are read once and not at every start.
    """
    manifest = folder / "manifest.json"
    _, made = _version(manifest)
    large: dict[Path, tuple[int, int]] = {}
    for name, expected in hashes.items():
        file = folder / name
        try:
            size, changed = _version(file)
            if size > MAX_ALWAYS_READ:
                if changed <= made:
                    continue
                large[file] = size, changed
            content = _sha256(file, size, changed)
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error
        if content != expected:
            raise _changed(file)
    if large:
        with suppress(OSError):  # somebody else's store, or a read-only disk
            os.utime(manifest)
            for file, version in large.items():
                if _version(file) != version:  # changed after it was read, perhaps before the manifest was marked
                    _make_newer(file, manifest)
                    raise _changed(file)


def _make_newer(file: Path, other: Path) -> None:
    """Mark a file as changed later than another one; the clock of files ticks every few milliseconds."""
    while _version(file)[1] <= _version(other)[1]:
        time.sleep(0.001)
        os.utime(file)


def _changed(file: Path) -> UserError:
    return UserError(f"{file}: its content was changed after the store was made; delete the folder and prepare again")


def _version(file: Path) -> tuple[int, int]:
    """Return the size of a file and when it was last changed, in nanoseconds; no program can set that time back."""
    status = file.stat()
    return status.st_size, status.st_ctime_ns


@cache
def _sha256(file: Path, size: int, changed: int) -> str:
    """Return the hash of a file, which is read once in a process for each size and time of change."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def batches(items: Iterable[Item], characters: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Yield items in groups that are large enough to encode in parallel."""
    batch: list[Item] = []
    held = 0
    for item in items:
        batch.append(item)
        held += characters(item)
        if held >= _BATCH_CHARACTERS or len(batch) >= _BATCH_TEXTS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def with_results(items: Iterable[Item], work: Callable[[Item], Result]) -> Iterator[tuple[Item, Result]]:
    """Yield each item with what `work` makes of it; a thread works on the next item while the caller uses this one.

    That saves time if `work` releases Python's global lock, as the tokenizers library does. At most two items are in
    use at a time.
    """
    context = contextvars.copy_context()  # it holds what the user trusts
    with ThreadPoolExecutor(1) as thread:
        before: tuple[Item, Future[Result]] | None = None
        for item in items:
            now = item, thread.submit(context.run, work, item)
            if before is not None:
                yield before[0], before[1].result()
            before = now
        if before is not None:
            yield before[0], before[1].result()


def token_dtype(vocab_size: int) -> str:
    """Return the narrowest type that can store every token of a vocabulary."""
    return next(name for name, largest in DTYPES.items() if vocab_size <= largest)


class RowWriter:
    """Appends rows of unequal length to one file, and keeps their offsets, their number and the hash of the file."""

    def __init__(self, stream: BinaryIO, dtype: str) -> None:
        self._stream = stream
        self.name = Path(stream.name).name
        """The name of the file."""
        self._dtype = np.dtype(dtype)
        self._hash = hashlib.sha256()
        self.bounds = array("q", [0])

    def add(self, row: np.ndarray) -> None:
        """Append a row."""
        raw = row.astype(self._dtype).tobytes()
        self._stream.write(raw)
        self._hash.update(raw)
        self.bounds.append(self.bounds[-1] + len(row))

    @property
    def size(self) -> int:
        """Number of values in all rows."""
        return self.bounds[-1]

    @property
    def sha256(self) -> str:
        """Hash of everything that was written."""
        return self._hash.hexdigest()

    def save_bounds(self, path: Path) -> None:
        """Write the offset of each row, and the end: (rows + 1,) int64."""
        np.save(path, np.asarray(self.bounds, np.int64))


class SplitTexts:
    """Hashes of the documents or examples of all splits, whatever the tokenizer."""

    def __init__(self) -> None:
        self._scored: dict[Split, Any] = {split: hashlib.sha256() for split in SPLITS[1:]}
        # 8 bytes each: a collision among a billion documents is unlikely, and their memory is that of their offsets.
        self._digests = {split: array("Q") for split in SPLITS}

    def add(self, split: Split, *texts: str) -> None:
        """Add a document, or an example as its texts and its label or tags."""
        content = b"".join(text.encode() + b"\xff" for text in texts)  # a byte that no UTF-8 has
        self._digests[split].append(int.from_bytes(hashlib.blake2b(content, digest_size=8).digest()))
        if split in self._scored:
            self._scored[split].update(content)

    def manifest(self, labels: Sequence[str] = ()) -> dict[str, str | float]:
        """Return what a manifest says of each split that is scored; `labels` are all labels."""
        said: dict[str, str | float] = {}
        for split in (split for split in SPLITS[1:] if self._digests[split]):
            said |= {f"{split}_fingerprint": self._fingerprint(split, labels), f"{split}_seen": self._seen(split)}
        return said

    def _fingerprint(self, split: Split, labels: Sequence[str]) -> str:
        """Return the hash of what a split holds, in its order, and of all labels."""
        whole = self._scored[split].copy()
        whole.update(b"".join(label.encode() + b"\xff" for label in labels))
        return str(whole.hexdigest())

    def _seen(self, split: Split) -> float:
        """Return the share of a split that is also in the splits before it, 0 to 1."""
        before = SPLITS[: SPLITS.index(split)]
        earlier = np.concatenate([np.asarray(self._digests[each]) for each in before])
        return float(np.isin(np.asarray(self._digests[split]), earlier).mean())


def _is_complete(path: Path) -> bool:
    return (path / "manifest.json").exists()


def _check_unchanged(data: DataConfig) -> None:
    """Raise UserError if the source no longer has the fingerprints in `data`."""
    clean = data.clean
    fresh = data.model_copy(
        update={"fingerprint": None, "clean": clean.model_copy(update={"stop_words_fingerprint": None})}
    )
    for what, taken in (("data", data.fingerprint), ("list of stop words", clean.stop_words_fingerprint)):
        if not taken:
            continue
        now = sources.with_fingerprints(fresh)
        if taken != (now.fingerprint if what == "data" else now.clean.stop_words_fingerprint):
            hint = f"; {data.target} must yield the same each time" if isinstance(data, OutsideData) else ""
            raise UserError(
                f"the {what} has changed since this config was resolved: its content no longer has "
                f"the fingerprint {taken[:12]}{hint}"
            )


def _make(path: Path, write: Callable[[Path], None]) -> None:
    """Write the folder under another name, then rename it to `path`. The caller holds the lock."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # from a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    aside.mkdir()
    try:
        write(aside)
        flush_to_disk(*aside.iterdir(), aside)
        aside.rename(path)
        flush_to_disk(path.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
