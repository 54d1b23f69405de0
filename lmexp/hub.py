"""Repositories of the Hugging Face hub: which commit a revision stands for."""

import os
import re
from typing import Literal

from lmexp.errors import UserError, reason_of

_SECONDS = 10  # for the hub to answer; it takes well under one
_UNREAD = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
"""Files of weights that are not read: pickles, which can run code, and formats of other libraries."""


def commit_of(
    kind: Literal["dataset", "model", "tokenizer"], name: str, revision: str | None, section: str, instead: str
) -> str:
    """Return the commit that a repository's revision stands for, as the hub says now.

    `section` is that of the config with the revision, and `instead` what to do without a network. Raises UserError;
    for a model also where its commit has no safetensors.
    """
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"{name}: no such folder")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    ask = HfApi().dataset_info if kind == "dataset" else HfApi().model_info
    try:
        info = ask(name, revision=revision, timeout=_SECONDS)
    except OfflineModeIsEnabled as error:
        if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
            return revision  # a commit needs no resolving, and the cache may have it
        raise UserError(
            f"HF_HUB_OFFLINE is set, so the {kind} '{name}' needs {section}.revision=<commit> to be found"
        ) from error
    except GatedRepoError as error:
        raise UserError(f"the {kind} '{name}' is gated: accept its terms on the hub and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise UserError(f"the {kind} '{name}' has no revision '{revision}'") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(
            f"there is no folder '{name}', and no such {kind} on the Hugging Face hub, or it is private"
        ) from error
    except Exception as error:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        raise UserError(
            f"cannot reach {endpoint} for the {kind} '{name}': {reason_of(error)}. Without a network, {instead}"
        ) from error
    if kind == "model":
        files = [file.rfilename for file in info.siblings or []]
        if not any(file.endswith(".safetensors") for file in files):
            raise lacking_weights(name, files)
    if info.sha is None:
        raise UserError(f"the hub names no commit for the {kind} '{name}'")
    return str(info.sha)


def lacking_weights(name: str, files: list[str]) -> UserError:
    """Return what is said of a pretrained model that has these files, and no safetensors among them."""
    unread = sorted(file for file in files if file.endswith(_UNREAD))
    instead = f"has {unread[0]}, which is not read: pickles can run code" if unread else "has no weights"
    return UserError(f"{name} {instead}. Weights are read from safetensors alone")
