"""Who a run is: a hash of what determines its result, and a name that says what was swept.

Left out of the hash is what cannot change the result: where files lie (a source counts by the hash of its
content instead), logger, launcher, prices, names, how often state is saved. When a run counts as diverged is
in it: that is a result. Values that equal their schema's default are left out too, so that a config key that
joins later, with a default that does what was done before, changes no run's identity.
"""

import json
import math
import re
from decimal import Decimal
from typing import Any

from lmexp.config.data import PATH_KEYS
from lmexp.config.schema import DEFAULT_TOKENS, RunConfig
from lmexp.files import hash_text

HASH_LENGTH = 12
SLUG_LENGTH = 80 - 1 - HASH_LENGTH
"""A run directory is named `slug-hash`, 80 characters at most."""

NOT_IN_IDENTITY: dict[str, Any] = {
    "schema_version": True,
    "run": True,
    "logger": True,
    "launcher": True,
    "hardware": True,
    "checkpoint": True,
    "data": set(PATH_KEYS),
    "init": {"run", "pretrain"},
    "optim": {"lr_rule"},
    "trainer": {"profiler", "enable_model_summary", "enable_progress_bar", "log_every"},
}


def run_id(config: RunConfig) -> str:
    """Return the identity of a resolved config: hexadecimal digits, the same on every machine."""
    return ids_of(config)[0]


def ids_of(config: RunConfig) -> tuple[str, ...]:
    """Return a config's identity and, if earlier versions gave it another one, that too.

    Earlier versions gave the default budget another identity if it was written out.
    """
    left_out = NOT_IN_IDENTITY | _by_content(config)
    what = config.model_dump(mode="json", by_alias=True, exclude=left_out, exclude_defaults=True)
    if config.budget.dollars is not None:  # there the price decides how long the run trains
        what["dollars_per_hour"] = config.hardware.dollars_per_hour
    budget = dict(what.get("budget", {}))
    if budget.pop("tokens", None) != DEFAULT_TOKENS:
        return (_hash(what),)
    return _hash(what | {"budget": budget}), _hash(what)


def _hash(what: dict[str, Any]) -> str:
    return hash_text(json.dumps(what, sort_keys=True, ensure_ascii=True), HASH_LENGTH)


def _by_content(config: RunConfig) -> dict[str, Any]:
    """Return what is left out where a hash of the content stands for it: names and places of what others made."""
    left_out: dict[str, Any] = {}
    if config.data.clean.stop_words_fingerprint:
        left_out["data"] = dict.fromkeys(NOT_IN_IDENTITY["data"], True) | {"clean": {"stop_words"}}
    for key in ("tokenizer", "target_tokenizer"):
        if getattr(getattr(config, key), "fingerprint", None):
            left_out[key] = {"name", "revision", "path"}
    left_out["model"] = config.model.not_in_identity
    if not config.privacy.is_on:  # without an epsilon, nothing reads the rest of the section
        left_out["privacy"] = True
    # An identity is the same on every machine. Where "auto" leads to another result than "false", which was the default
    # once, it differs by rounding, as results of a CPU and a GPU do. So the two have one identity; "true" is a choice.
    if config.trainer.compile is not True:
        left_out["trainer"] = NOT_IN_IDENTITY["trainer"] | {"compile"}
    return left_out


def slug(values: dict[str, Any]) -> str:
    """Return the swept values as a short name of [a-z0-9._-], such as `gpt_nano-n_layers4-bf16-seed1`.

    A group's choice stands for itself; any other value follows the last part of its key. What is null, and lists and
    mappings, which would make no name, are left out.
    """
    words = []
    for key, value in values.items():
        if value is None or isinstance(value, list | dict):
            continue
        is_choice = "." not in key and isinstance(value, str)
        words.append(value if is_choice else f"{key.rsplit('.', 1)[-1]}{_word(value)}")
    text = re.sub(r"[^a-z0-9._-]+", "_", "-".join(words).lower()).strip("._-")
    return text[:SLUG_LENGTH].rstrip("._-") or "run"


def _word(value: Any) -> str:
    """Return a value for a name. A float is exact, but short: 4e10, not 40000000000.0."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    exact = Decimal(repr(value)).normalize()
    is_far = abs(value) >= 1e9 or 0 < abs(value) < 1e-3
    return f"{exact:e}".replace("e+", "e") if is_far else f"{exact:f}"


def folder_name(name: str) -> str:
    """Return the name of a sweep's folder: the name as a slug, or its hash if the slug would be empty."""
    return slug({"name": name}) if re.search("[a-z0-9]", name.lower()) else f"sweep-{hash_text(name, 6)}"
