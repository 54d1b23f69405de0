"""Documents out of a Hugging Face dataset, from the hub or from a local folder laid out like one.

The revision is resolved to a commit first, by one request that fails at once where there is no network
(`load_dataset` alone would retry for half a minute), and that very commit is then loaded. Datasets that
bring their own loading scripts are not run: nothing here executes downloaded code.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmexp.config.schema import HubData
from lmexp.data.local_files import as_text, missing_field
from lmexp.errors import UserError, reason_of
from lmexp.files import hash_files, hash_text

_SECONDS = 10  # for the hub to answer; it takes well under one


def fingerprint(data: HubData) -> str:
    """Return the SHA-256 over name, config, subset and commit; of a local folder, over its files' content.

    Raises UserError when the dataset is unknown or the hub cannot be reached.
    """
    if _is_local(data):
        name, version = "", hash_files(_local_files(data))
    else:
        name, version = data.name, _commit(data)
    return hash_text(json.dumps([name, data.config, data.subset, version]))


def documents(data: HubData) -> Iterator[str]:
    """Yield the texts of `data.subset`, row by row, in the dataset's own order. Raises UserError."""
    builder = _builder(data)
    try:
        builder.download_and_prepare()
        rows = builder.as_dataset(split=data.subset)
    except Exception as error:  # a third party's many ways to fail: each is one message here
        raise _cannot_load(data, error) from error
    if data.field not in rows.column_names:
        raise missing_field(data.name, data.field, rows.column_names)
    number = 0
    for batch in rows.select_columns([data.field]).iter(batch_size=1000):
        for value in batch[data.field]:
            number += 1
            yield as_text(value, f"{data.name}: row {number} of {data.subset}", data.field)


def _is_local(data: HubData) -> bool:
    return Path(data.name).is_dir()


def _cannot_load(data: HubData, error: Exception) -> UserError:
    return UserError(f"cannot load the Hugging Face dataset '{data.name}': {reason_of(error)}")


def _builder(data: HubData) -> Any:
    """Return the `datasets` builder of exactly the commit that was asked for."""
    commit = None if _is_local(data) else _commit(data)
    import datasets

    try:
        builder = datasets.load_dataset_builder(data.name, data.config, revision=commit)
    except Exception as error:
        raise _cannot_load(data, error) from error
    if commit is not None and builder.hash != commit:  # offline, `datasets` takes whatever it has cached
        raise UserError(f"the cached copy of '{data.name}' is {builder.hash}, not commit {commit}")
    return builder


def _local_files(data: HubData) -> list[Path]:
    files = _builder(data).config.data_files or {}
    return sorted((Path(str(name)) for names in files.values() for name in names), key=Path.as_posix)


def _commit(data: HubData) -> str:
    """Return the commit that `data.revision` stands for, as the hub says now."""
    if data.name.startswith((".", "/", "~")) or data.name.count("/") > 1:
        raise UserError(f"{data.name}: no such folder")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    is_commit = re.fullmatch(r"[0-9a-f]{40}", data.revision or "") is not None
    try:
        commit = HfApi().dataset_info(data.name, revision=data.revision, timeout=_SECONDS).sha
    except OfflineModeIsEnabled as error:
        if is_commit and data.revision:
            return data.revision  # a commit needs no resolving, and the cache may have it
        raise UserError(
            f"HF_HUB_OFFLINE is set, so the dataset '{data.name}' needs data.revision=<commit> to be found"
        ) from error
    except GatedRepoError as error:
        raise UserError(f"the dataset '{data.name}' is gated: accept its terms on the hub and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise UserError(f"the dataset '{data.name}' has no revision '{data.revision}'") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(f"there is no dataset '{data.name}' on the Hugging Face hub, or it is private") from error
    except Exception as error:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        raise UserError(
            f"cannot reach {endpoint} for the dataset '{data.name}': {reason_of(error)}. "
            "Without a network, use data=stdlib or local files"
        ) from error
    if commit is None:
        raise UserError(f"the hub names no commit for the dataset '{data.name}'")
    return commit
