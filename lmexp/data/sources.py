"""Where text and examples come from: out of a data config, always in the same order.

Kinds of source: the standard library's own files (no network needed), local files (local_files.py, example_files.py),
the Hugging Face hub (hub.py), rules (generated.py), and functions from outside (outside.py). Unless data.clean asks for
it (cleaning.py), nothing in a text is normalised: line endings, spaces and Unicode forms stay as they are, so that the
bytes counted here are the bytes of the source. Empty documents are skipped.

A source has a fingerprint, the hash of its content. It stands for the paths in identities: the same text
in another folder is the same data.
"""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from lmexp.config.data import (
    CleanConfig,
    DataConfig,
    ExampleFiles,
    ExampleSection,
    FileData,
    GeneratedData,
    HubData,
    HubExamples,
    LabelData,
    OutsideData,
    PairData,
    StdlibData,
    TagData,
)
from lmexp.data import cleaning, example_files, generated, hub, local_files, outside
from lmexp.data.example_files import Example
from lmexp.data.stop_words import LISTS
from lmexp.errors import UserError
from lmexp.files import hash_files, hash_text, is_leftover, user_path

# Tests are left out: they are repetitive, some are invalid UTF-8 on purpose, and packagers ship them or not.
_NOT_STDLIB = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}


_PATHS = ("path", "target_path", "validation_path", "validation_target_path")
"""The keys that name local files."""


def with_absolute_paths(data: DataConfig) -> DataConfig:
    """Return the config with every local file named from the root, so that it can be read from another folder."""
    paths = {role: getattr(data, role, None) for role in _PATHS}
    update: dict[str, object] = {role: _absolute(path) for role, path in paths.items() if path is not None}
    words = data.clean.stop_words
    if words and words not in LISTS:
        update["clean"] = data.clean.model_copy(update={"stop_words": _absolute(words)})
    return data.model_copy(update=update)


def _absolute(path: str) -> str:
    return str(user_path(path).absolute())


def with_fingerprints(data: DataConfig) -> DataConfig:
    """Return the config with the fingerprints that it lacks: of the source, and of the list of stop words.

    Raises UserError as `fingerprint` does, or when the list cannot be read.
    """
    words = data.clean.stop_words
    if words and not data.clean.stop_words_fingerprint:
        clean = data.clean.model_copy(update={"stop_words_fingerprint": cleaning.fingerprint(words)})
        data = data.model_copy(update={"clean": clean})
    return data if data.fingerprint else data.model_copy(update={"fingerprint": fingerprint(data)})


def fingerprint(data: DataConfig) -> str:
    """Return the SHA-256 of the source's content, in hexadecimal.

    Files: their contents in sorted order. A hub dataset: its name, config, subsets and the commit that
    the revision stands for. A rule: the examples that it makes. Raises UserError when there is no such source or
    nothing in it.
    """
    if isinstance(data, HubData | HubExamples):
        return hub.fingerprint(data)
    if isinstance(data, GeneratedData):
        return generated.fingerprint(data)
    if isinstance(data, OutsideData):
        return outside.fingerprint(data)
    try:
        if isinstance(data, ExampleFiles):
            return hash_text("\n".join(f"{role} {_hash(files)}" for role, files in _example_files(data).items()))
        return _hash(local_files.find(data.path, data.format) if isinstance(data, FileData) else _stdlib_files())
    except OSError as error:
        raise _cannot_read(data, error) from error


def _hash(files: list[Path]) -> str:
    if not any(path.stat().st_size for path in files):
        raise UserError(f"{', '.join(map(str, files))}: the source is empty")
    return hash_files(files)


def _example_files(data: ExampleFiles) -> dict[str, list[Path]]:
    """Return the files of examples by what they are for."""
    return {role: local_files.find(path, _suffix(data)) for role, path in _paths(data).items()}


def check_apart(data: DataConfig) -> None:
    """Raise UserError for a file, or a subset of a hub dataset, that both trains and validates.

    Files are known by their inodes, so that links are seen through. Scoring needs no such check: nothing is trained.
    """
    if isinstance(data, HubExamples) and data.subset == data.validation_subset:
        raise UserError(
            f"data.subset and data.validation_subset are both '{data.subset}': the model would be scored on what it "
            "was trained on; leave data.validation_subset out to split the subset"
        )
    if not isinstance(data, ExampleFiles) or data.validation_path is None:
        return
    try:
        _check_files_apart(_example_files(data))
    except OSError as error:
        raise _cannot_read(data, error) from error


def _check_files_apart(files: dict[str, list[Path]]) -> None:
    sides = {role.startswith("validation"): dict[tuple[int, int], Path]() for role in _PATHS}
    for role, of_role in files.items():
        for file in of_role:
            status = file.stat()
            sides[role.startswith("validation")].setdefault((status.st_dev, status.st_ino), file)
    both = sides[True].keys() & sides[False].keys()
    if both:
        first = min(sides[True][file] for file in both)
        trains = next(sides[False][file] for file in both if sides[True][file] == first)
        named = f"{first}" if first == trains else f"{first} (as {trains})"
        more = f" and {len(both) - 1} more" if len(both) > 1 else ""
        raise UserError(
            f"{named}{more}: this file is in data.path and in data.validation_path, so the model would be scored on "
            "what it was trained on; name the training files alone, with a glob pattern or a folder of their own"
        )


def _paths(data: FileData | ExampleFiles) -> dict[str, str]:
    """Return the paths of a source by what they are for."""
    paths = {role: getattr(data, role, None) for role in _PATHS}
    return {role: path for role, path in paths.items() if path is not None}


def _suffix(data: FileData | ExampleFiles) -> str:
    """Return how the names of a source's files end."""
    return "conll" if isinstance(data, TagData) else getattr(data, "format", "")


def passed_over(data: DataConfig) -> list[Path]:
    """Return the hidden files and leftovers of programs in the source's folders, which are not read."""
    if not isinstance(data, FileData | ExampleFiles):
        return []
    return [file for path in _paths(data).values() for file in local_files.passed_over(path, _suffix(data))]


def documents(data: DataConfig) -> Iterator[str]:
    """Yield the text of every document that is not empty, cleaned, in an order that is the same on every machine.

    Raises UserError where the source is missing, is damaged, or holds no text at all.
    """
    if isinstance(data, HubData):
        texts = hub.documents(data)
    elif isinstance(data, FileData):
        texts = local_files.documents(data)
    elif isinstance(data, StdlibData):
        texts = _stdlib_documents()
    elif isinstance(data, OutsideData) and data.holds == "text":
        texts = outside.documents(data)
    else:
        raise UserError(f"data.source={data.source} holds {data.holds}, not text")
    cleaner = cleaning.Cleaner(data)
    as_it_is = data.clean == CleanConfig()
    has_text = False
    try:
        for text in texts:
            kept = text if as_it_is else cleaner.document(text)
            if kept:
                has_text = True
                yield kept
    except OSError as error:
        raise _cannot_read(data, error) from error
    if not has_text:
        raise UserError(f"{name(data)}: the source holds no text{'' if as_it_is else ', once cleaned by data.clean'}")


def has_validation(data: ExampleSection) -> bool:
    """Return whether the source says itself which examples validate."""
    return bool(getattr(data, "validation_path", None) or getattr(data, "validation_subset", None))


def examples(data: DataConfig, validating: bool = False) -> Iterator[Example]:
    """Yield the examples of a source as they are, in an order that is the same on every machine.

    Where `validating`, those of its validation files or subset. Raises UserError where the source is missing, is
    damaged, or holds text.
    """
    try:
        if isinstance(data, ExampleFiles):
            path = data.validation_path if validating else data.path
            assert path is not None, "asked only of a source that has_validation"
            if isinstance(data, PairData):
                _check_targets(data)
                target_path = data.validation_target_path if validating else data.target_path
                yield from example_files.pairs(data, path, target_path)
            elif isinstance(data, LabelData):
                yield from example_files.labels(data, path)
            elif isinstance(data, TagData):
                yield from example_files.tags(data, path)
        elif isinstance(data, HubExamples):
            yield from hub.examples(data, (data.validation_subset if validating else None) or data.subset)
        elif isinstance(data, GeneratedData):
            yield from generated.examples(data)
        elif isinstance(data, OutsideData) and data.holds != "text":
            yield from outside.examples(data)
        else:
            raise UserError(f"data.source={data.source} holds text, not examples")
    except OSError as error:
        raise _cannot_read(data, error) from error


def _check_targets(data: PairData) -> None:
    """Raise UserError where only one of the sides is given."""
    if data.validation_target_path and not data.validation_path:
        raise UserError("data.validation_target_path is set, and data.validation_path is not")
    if data.validation_path and (data.target_path is None) != (data.validation_target_path is None):
        missing = "target_path" if data.target_path is None else "validation_target_path"
        raise UserError(f"data.{missing} is not set: training and validation both need their targets' file, or neither")


def name(data: DataConfig) -> str:
    """Return what a person would call the source."""
    if isinstance(data, FileData | ExampleFiles):
        return data.path
    return data.name if isinstance(data, HubData | HubExamples) else data.source


def _cannot_read(data: DataConfig, error: OSError) -> UserError:
    return UserError(f"{error.filename or name(data)}: cannot be read: {error.strerror or error}")


def library_files(root: Path) -> list[Path]:
    """Return the Python files of a standard library, tests left out, sorted by their path in it."""
    files = {
        path.relative_to(root): path
        for path in root.rglob("*.py")
        if not _NOT_STDLIB.intersection(path.relative_to(root).parts[:-1])
        and not any(map(is_leftover, path.relative_to(root).parts))
        and path.is_file()
    }
    if not files:
        raise UserError(f"{root}: this interpreter came without its library's sources; use data=text")
    return [files[name] for name in sorted(files, key=Path.as_posix)]


def _stdlib_files() -> list[Path]:
    return library_files(Path(sysconfig.get_path("stdlib")))


def _stdlib_documents() -> Iterator[str]:
    """Yield each file of the standard library, pydoc_data/topics.py (the language's manual) included."""
    for path in _stdlib_files():
        try:
            yield path.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # a few files declare another encoding
