"""Documents and examples from a Hugging Face dataset, on the hub or in a local folder with the same layout.

The revision is resolved to a commit first, by one request that fails at once where there is no network
(`load_dataset` alone would retry for half a minute), and that very commit is then loaded. Datasets that
bring their own loading scripts are not run: nothing here executes downloaded code.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmexp.config.data import HubData, HubExamples, HubSection, Split
from lmexp.data.example_files import Example, LinePlace, as_label
from lmexp.data.tables import as_text, missing_field, split_field, value_inside
from lmexp.data.tag_schemes import Converted, convert
from lmexp.errors import UserError, reason_of
from lmexp.files import hash_files, hash_text
from lmexp.hub import commit_of


def fingerprint(data: HubSection) -> str:
    """Return the SHA-256 over name, config, subsets and commit; of a local folder, over its files' content.

    Raises UserError when the dataset is unknown or the hub cannot be reached.
    """
    if _is_local(data):
        name, version = "", hash_files(_local_files(data))
    else:
        name, version = data.name, _commit(data)
    subsets = [data.validation_subset, data.test_subset]
    if data.test_subset is None:  # as before there were test subsets, so that fingerprints stay what they were
        subsets = subsets[:1]
    if isinstance(data, HubData) and data.own_splits == ("train",):
        subsets = []
    return hash_text(json.dumps([name, data.config, data.subset, version, *subsets]))


def documents(data: HubData, split: Split) -> Iterator[str]:
    """Yield the texts of one of the source's own splits, row by row, in the order of the dataset. Raises UserError."""
    subset = data.subset_of(split)
    rows = _rows(data, subset)
    if data.field not in rows.column_names:
        raise missing_field(data.name, data.field, rows.column_names)
    number = 0
    for batch in rows.select_columns([data.field]).iter(batch_size=1000):
        for value in batch[data.field]:
            number += 1
            yield as_text(value, f"{data.name}: row {number} of {subset}", data.field)


def examples(data: HubExamples, split: Split) -> Iterator[Example]:
    """Yield the examples of one of the source's own splits, row by row, in the order of the dataset.

    Raises UserError.
    """
    subset = data.subset_of(split)
    rows = _rows(data, subset)
    source, target = (_Column(data.name, rows.features, field) for field in (data.field, data.target_field))
    place = LinePlace(f"{data.name}: row ", f" of {subset}")
    number = 0
    for batch in rows.select_columns(sorted({source.name, target.name})).iter(batch_size=1000):
        for left, right in zip(batch[source.name], batch[target.name], strict=True):
            number += 1
            where = f"{place.before}{number}{place.after}"
            left, right = source.value(left, where), target.value(right, where)
            if data.examples == "tags":
                words, tags = _tagged(data, left, right, where)
                yield Example(place, number, words, tags.tags, repaired=tags.repaired)
            elif data.examples == "labels":
                label = as_label(right, where, data.target_field)
                yield Example(place, number, as_text(left, where, data.field), label)
            else:
                texts = as_text(left, where, data.field), as_text(right, where, data.target_field)
                yield Example(place, number, *texts, is_pair=True)


class _Column:
    """A column, or a field inside one with a dotted name; numbers are replaced by the names that the dataset has."""

    def __init__(self, dataset: str, features: Any, field: str) -> None:
        """Raises UserError if there is no such column."""
        self.name, self.inside = split_field(field, features)
        if self.name not in features:
            raise missing_field(dataset, field, features)
        self.field = field
        self._names = _names(features, self.name, self.inside)

    def value(self, cell: Any, where: str) -> Any:
        """Return the value of a cell, with names instead of numbers."""
        cell = value_inside(cell, self.field, self.inside, where)
        if self._names is None:
            return cell
        if isinstance(cell, list):
            return [self._named(number, where) for number in cell]
        return self._named(cell, where)

    def _named(self, number: Any, where: str) -> str:
        assert self._names is not None, "asked only where there are names"
        if not isinstance(number, int) or not 0 <= number < len(self._names):
            raise UserError(f"{where}: '{self.field}' is {number}, which stands for none of {len(self._names)} names")
        return self._names[number]


def _names(features: Any, name: str, inside: list[str]) -> list[str] | None:
    """Return the names that a ClassLabel, or a list of it, gives to numbers."""
    feature = features[name]
    for key in inside:
        feature = feature.get(key) if isinstance(feature, dict) else None
    while feature is not None and not hasattr(feature, "names") and hasattr(feature, "feature"):
        feature = feature.feature  # of a list's elements
    return list(feature.names) if hasattr(feature, "names") else None


def _tagged(data: HubExamples, words: Any, tags: Any, where: str) -> tuple[tuple[str, ...], Converted]:
    for values, field in ((words, data.field), (tags, data.target_field)):
        if not isinstance(values, list):
            raise UserError(f"{where}: '{field}' must be a list, found {type(values).__name__}")
        for value in values:
            as_text(value, where, field)
    if len(words) != len(tags):
        raise UserError(f"{where}: {len(words)} words in '{data.field}', {len(tags)} tags in '{data.target_field}'")
    return tuple(words), convert(tags, data, lambda number: where)


def _rows(data: HubSection, subset: str | None) -> Any:
    builder = _builder(data)
    try:
        builder.download_and_prepare()
        return builder.as_dataset(split=subset)
    except Exception as error:  # a third party's many ways to fail: each is one message here
        raise _cannot_load(data, error) from error


def _is_local(data: HubSection) -> bool:
    return Path(data.name).is_dir()


def _cannot_load(data: HubSection, error: Exception) -> UserError:
    return UserError(f"cannot load the Hugging Face dataset '{data.name}': {reason_of(error)}")


def _builder(data: HubSection) -> Any:
    """Return the `datasets` builder of exactly the given commit."""
    commit = None if _is_local(data) else _commit(data)
    import datasets

    try:
        builder = datasets.load_dataset_builder(data.name, data.config, revision=commit)
    except Exception as error:
        raise _cannot_load(data, error) from error
    if commit is not None and builder.hash != commit:  # offline, `datasets` takes whatever it has cached
        raise UserError(f"the cached copy of '{data.name}' is {builder.hash}, not commit {commit}")
    return builder


def _local_files(data: HubSection) -> list[Path]:
    files = _builder(data).config.data_files or {}
    return sorted((Path(str(name)) for names in files.values() for name in names), key=Path.as_posix)


def _commit(data: HubSection) -> str:
    """Return the commit that `data.revision` stands for on the hub now."""
    return commit_of("dataset", data.name, data.revision, "data", "use data=stdlib or local files")
