"""Where text and examples come from: out of a data config, always in the same order.

Kinds of source: the standard library's own files (no network needed), local files (local_files.py, example_files.py,
tag_files.py), the Hugging Face hub (hub.py), rules (generated.py), a random process (markov.py), and functions from
outside (outside.py). Unless data.clean asks for it (cleaning.py), nothing in a text is normalised: line endings, spaces
and Unicode forms stay as they are, so that the bytes counted here are the bytes of the source. Empty documents are
skipped.

A source has a fingerprint, the hash of its content. It stands for the paths in identities: the same text
in another folder is the same data.
"""

import os
import sysconfig
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

from lmexp.config.data import (
    PATH_KEYS,
    SPLITS,
    CleanConfig,
    DataConfig,
    FileData,
    GeneratedData,
    HubData,
    HubExamples,
    HubSection,
    LabelData,
    LocalSection,
    MarkovData,
    OutsideData,
    PairData,
    Split,
    StdlibData,
    TagData,
)
from lmexp.data import cleaning, example_files, generated, hub, local_files, markov, outside, tag_files
from lmexp.data.digests import Digest
from lmexp.data.example_files import Example
from lmexp.data.local_files import Named
from lmexp.data.stop_words import LISTS
from lmexp.errors import UserError
from lmexp.files import absolute_text, digest_of, hash_files, hash_text, is_leftover, user_path

# Tests are left out: they are repetitive, some are invalid UTF-8 on purpose, and packagers ship them or not.
_NOT_STDLIB = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}


_SHARED: dict[Split, str] = {
    "train": "the model would be scored on what it was trained on",
    "validation": "the test split would be the one by which models were chosen",
}
"""What is wrong with data in two splits, by the first of these."""


def with_absolute_paths(data: DataConfig) -> DataConfig:
    """Return the config with every local file named from the root, so that it can be read from another folder."""
    paths = {role: getattr(data, role, None) for role in PATH_KEYS}
    update: dict[str, object] = {
        role: absolute_text(user_path(path)) for role, path in paths.items() if path is not None
    }
    words = data.clean.stop_words
    if words and words not in LISTS:
        update["clean"] = data.clean.model_copy(update={"stop_words": absolute_text(user_path(words))})
    return data.model_copy(update=update)


def with_fingerprints(data: DataConfig, digest: Digest = digest_of) -> DataConfig:
    """Return the config with the fingerprints that it lacks: of the source, and of the list of stop words.

    `digest` returns the hash of a file (digests.py). Raises UserError as `fingerprint` does, or when the list cannot be
    read.
    """
    words = data.clean.stop_words
    if words and not data.clean.stop_words_fingerprint:
        clean = data.clean.model_copy(update={"stop_words_fingerprint": cleaning.fingerprint(words)})
        data = data.model_copy(update={"clean": clean})
    return data if data.fingerprint else data.model_copy(update={"fingerprint": fingerprint(data, digest)})


def fingerprint(data: DataConfig, digest: Digest = digest_of) -> str:
    """Return the SHA-256 of the source's content, in hexadecimal.

    Files: their contents in sorted order. A hub dataset: its name, config, subsets and the commit that
    the revision stands for. A rule: the examples that it makes. Raises UserError when there is no such source or
    nothing in it.
    """
    if isinstance(data, HubSection):
        return hub.fingerprint(data)
    if isinstance(data, GeneratedData):
        return generated.fingerprint(data)
    if isinstance(data, MarkovData):
        return markov.fingerprint(data)
    if isinstance(data, OutsideData):
        return outside.fingerprint(data)
    try:
        if not isinstance(data, LocalSection):
            return _hash(_stdlib_files(), digest)
        known = files(data)
        if isinstance(data, FileData) and len(known) == 1:
            return _hash(known["path"].files, digest)
        return hash_text("\n".join(f"{key} {_hash(named.files, digest)}" for key, named in known.items()))
    except OSError as error:
        raise _cannot_read(data, error) from error


def _hash(paths: list[Path], digest: Digest) -> str:
    if not any(path.stat().st_size for path in paths):
        raise UserError(f"{', '.join(map(str, paths))}: the source is empty")
    return hash_files(paths, digest)


Files = Mapping[str, Named]
"""The files of a source by the key that names them."""


def files(data: DataConfig) -> Files:
    """Return the local files that a source reads, of whatever split. Raises UserError for a path without any."""
    if not isinstance(data, LocalSection):
        return {}
    paths = {key: getattr(data, key, None) for key in PATH_KEYS}
    suffix = str(getattr(data, "format", ""))
    return {key: local_files.find(path, suffix) for key, path in paths.items() if path is not None}


def check_apart(data: DataConfig) -> None:
    """Raise UserError for a file, or a subset of a hub dataset, that is in two splits.

    Files are known by their inodes, so that links are seen through. Scoring needs no such check: nothing is trained.
    """
    if isinstance(data, HubSection):
        for first, second in combinations(data.own_splits, 2):
            if data.subset_of(first) == data.subset_of(second):
                keys = ["data.subset" if split == "train" else f"data.{split}_subset" for split in (first, second)]
                raise UserError(
                    f"{' and '.join(keys)} are both '{data.subset_of(first)}': {_SHARED[first]}; "
                    f"leave {keys[1]} out to split the subset"
                )
    if not isinstance(data, LocalSection) or len(data.own_splits) == 1:
        return
    try:
        _check_files_apart(files(data))
    except OSError as error:
        raise _cannot_read(data, error) from error


def _check_files_apart(known: Files) -> None:
    keys_of: dict[tuple[int, int], dict[str, Path]] = defaultdict(dict)  # of each file, by its inode
    for key, named in known.items():
        for file in named.files:
            status = file.stat()
            keys_of[status.st_dev, status.st_ino].setdefault(key, file)
    shared: list[tuple[Path, Path, Split, Split]] = []
    for keys in keys_of.values():
        for (key, file), (other_key, other) in combinations(keys.items(), 2):
            if PATH_KEYS[key] != PATH_KEYS[other_key]:
                shared.append((other, file, PATH_KEYS[key], PATH_KEYS[other_key]))
    if shared:
        file, other, first, second = min(shared)
        path_keys = [f"data.{_key(split)}" for split in (first, second)]
        place = f"{file}" if file == other else f"{file} (as {other})"
        more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
        raise UserError(
            f"{place}{more}: this file is in {' and in '.join(path_keys)}, so {_SHARED[first]}; name the "
            f"{'training' if first == 'train' else first} files alone, with a glob pattern or a folder of their own"
        )


def documents(
    data: DataConfig, known: Files | None = None, cleaner: cleaning.Cleaner | None = None
) -> Iterator[tuple[Split, str]]:
    """Yield the text of every document that is not empty, cleaned, with the one of the source's own splits it is in.

    The order is the same on every machine: train, validation, test. `known` are the source's files [default: they are
    looked up]; `cleaner` is a new one [default: one is made]. Raises UserError where the source is missing, is damaged,
    or holds no text at all.
    """
    known = files(data) if known is None else known
    cleaner = cleaner or cleaning.Cleaner(data)
    as_it_is = data.clean == CleanConfig()
    for split in data.own_splits:
        has_text = False
        try:
            for text in _texts(data, split, known):
                kept = text if as_it_is else cleaner.document(text)
                if kept:
                    has_text = True
                    yield split, kept
        except OSError as error:
            raise _cannot_read(data, error) from error
        if not has_text:
            cleaned = "" if as_it_is else ", once cleaned by data.clean"
            raise UserError(f"{name(data, split)}: the source holds no text{cleaned}")


def _texts(data: DataConfig, split: Split, known: Files) -> Iterator[str]:
    """Return the texts of one of a source's own splits as they are."""
    if isinstance(data, HubData):
        return hub.documents(data, split)
    if isinstance(data, FileData):
        return local_files.documents(data, known[_key(split)].files)
    if isinstance(data, StdlibData):
        return _stdlib_documents()
    if isinstance(data, MarkovData):
        return markov.MarkovProcess.of(data).documents(data.documents)
    if isinstance(data, OutsideData) and data.holds == "text":
        return outside.documents(data)
    raise UserError(f"data.source={data.source} holds {data.holds}, not text")


def _key(split: Split, kind: str = "path") -> str:
    """Return the key that names the files of a split, or with another kind those of its targets."""
    return kind if split == "train" else f"{split}_{kind}"


def examples(data: DataConfig, split: Split = "train", known: Files | None = None) -> Iterator[Example]:
    """Yield the examples of one of a source's own splits as they are, in an order that is the same on every machine.

    `known` are the source's files [default: they are looked up]. Raises UserError where the source is missing, is
    damaged, or holds text.
    """
    try:
        if isinstance(data, PairData):
            _check_targets(data)
        known = files(data) if known is None else known
        if isinstance(data, PairData):
            target_files = known.get(_key(split, "target_path"))
            yield from example_files.pairs(data, split, known[_key(split)].files, target_files and target_files.files)
        elif isinstance(data, LabelData):
            yield from example_files.labels(data, known[_key(split)].files)
        elif isinstance(data, TagData):
            for file in known[_key(split)].files:
                yield from tag_files.sentences(data, file)
        elif isinstance(data, HubExamples):
            yield from hub.examples(data, split)
        elif isinstance(data, GeneratedData):
            yield from generated.examples(data)
        elif isinstance(data, OutsideData) and data.holds != "text":
            yield from outside.examples(data)
        else:
            raise UserError(f"data.source={data.source} holds text, not examples")
    except OSError as error:
        raise _cannot_read(data, error) from error


def _check_targets(data: PairData) -> None:
    """Raise UserError where only one of the sides is given, or where the targets cannot be in files of their own."""
    if data.target_path and data.format != "txt":
        raise UserError(
            f"data.target_path={data.target_path}: only text files lie in parallel; data.format={data.format}"
        )
    for split in SPLITS[1:]:
        path, target_path = data.path_of(split), data.target_path_of(split)
        if target_path and not path:
            raise UserError(f"data.{split}_target_path is set, and data.{split}_path is not")
        if path and (data.target_path is None) != (target_path is None):
            missing = "target_path" if data.target_path is None else f"{split}_target_path"
            raise UserError(
                f"data.{missing} is not set: training and {split} both need their targets' file, or neither"
            )


def name(data: DataConfig, split: Split = "train") -> str:
    """Return what a person would call the source, or one of its own splits."""
    if isinstance(data, LocalSection):
        return data.path_of(split) or data.path
    return data.name if isinstance(data, HubSection) else data.source


def _cannot_read(data: DataConfig, error: OSError) -> UserError:
    return UserError(f"{error.filename or name(data)}: cannot be read: {error.strerror or error}")


def library_files(root: Path) -> list[Path]:
    """Return the Python files of a standard library, tests left out, sorted by their path in it."""
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _NOT_STDLIB and not is_leftover(name)]
        paths = (Path(folder, name) for name in names if name.endswith(".py") and not is_leftover(name))
        files += [path for path in paths if path.is_file()]
    if not files:
        raise UserError(f"{root}: this interpreter came without its library's sources; use data=text")
    return sorted(files, key=Path.as_posix)


def _stdlib_files() -> list[Path]:
    return library_files(Path(sysconfig.get_path("stdlib")))


def _stdlib_documents() -> Iterator[str]:
    """Yield each file of the standard library, pydoc_data/topics.py (the language's manual) included."""
    for path in _stdlib_files():
        try:
            yield path.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # a few files declare another encoding
