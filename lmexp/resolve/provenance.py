"""Whether a finished run can still be traced: its record and config, compared with what is on this machine now.

The files of a run directory may come from anybody. They are compared and shown. Nothing that they name is imported,
except for a source of the user's own, and only if the user trusts it.
"""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from lmexp.config.code import CodeVersion, code_version
from lmexp.config.data import DataConfig
from lmexp.config.identity import ids_of
from lmexp.config.tokenizers import TokenizerConfig
from lmexp.config.trust import current_trust
from lmexp.cost.device import detect
from lmexp.data import sources
from lmexp.data.examples import FORMAT_VERSION as EXAMPLES_VERSION
from lmexp.data.examples import ExampleStore
from lmexp.data.folders import key
from lmexp.data.store import FORMAT_VERSION, Store
from lmexp.errors import UserError, reason_of
from lmexp.files import digest_of
from lmexp.runs import origin
from lmexp.runs.directory import STORES, WEIGHTS, RunDir
from lmexp.runs.record import Row

Subject = Literal["data", "code", "packages", "weights", "hardware"]
Result = Literal["same", "differs", "not checked", "noted"]


@dataclass(frozen=True)
class Check:
    """One thing that a run depends on, compared."""

    subject: Subject
    what: str
    """What was compared, such as `torch`."""
    result: Result
    """same or differs; not checked if one of the two is missing; noted for what need not be the same."""
    recorded: str | None
    """What the run says."""
    here: str | None
    """What is on this machine now."""
    reason: str | None = None
    """Why it was not checked, or what follows from it."""


def trace(run: RunDir, outputs: Path) -> list[Check]:
    """Compare everything that a finished run depends on. Raises UserError for a run without a record.

    Reads the source of the data, which takes as long as hashing it, and the weights. `outputs` holds the token stores.
    """
    rows = run.read_record()
    if not rows:
        raise UserError(f"{run.path}: this run has no record to check; its state is '{run.read_state().state}'")
    row = rows[-1]
    return [
        *_data(run, row, outputs),
        *_code(run, row),
        *_packages(row),
        _weights(run, row),
        Check("hardware", "device", "noted", _text(row.get("device_name")), detect().name),
        Check("hardware", "host", "noted", _text(row.get("host")), platform.node()),
    ]


def _compared(subject: Subject, what: str, recorded: Any, here: Callable[[], str | None]) -> Check:
    """Compare what a run says with what `here` returns; its UserError or OSError is why it was not checked."""
    if recorded in (None, ""):
        return Check(subject, what, "not checked", None, None, "not recorded by the version that trained it")
    try:
        now = here()
    except (UserError, OSError, ValueError) as error:
        return Check(subject, what, "not checked", str(recorded), None, reason_of(error))
    if now is None:
        return Check(subject, what, "not checked", str(recorded), None, "it is not here")
    return Check(subject, what, "same" if now == recorded else "differs", str(recorded), now)


def _data(run: RunDir, row: Row, outputs: Path) -> Iterator[Check]:
    data = run.parse_config(lambda config: TypeAdapter(DataConfig).validate_python(config["data"]))
    source = f"source {sources.name(data)}"
    fresh = data.model_copy(update={"fingerprint": None})
    yield _compared("data", source, data.fingerprint, lambda: sources.fingerprint(fresh))
    if data.clean.stop_words_fingerprint:
        words = data.clean.model_copy(update={"stop_words_fingerprint": None})
        yield _compared(
            "data",
            f"stop words {data.clean.stop_words}",
            data.clean.stop_words_fingerprint,
            lambda: sources.with_fingerprints(data.model_copy(update={"clean": words})).clean.stop_words_fingerprint,
        )
    yield _compared("data", "token store", row.get("data_fingerprint"), lambda: _stored(run, data, outputs))


def _stored(run: RunDir, data: DataConfig, outputs: Path) -> str | None:
    """Return the fingerprint of the token store that a run read; None if it is gone. Raises UserError if damaged."""
    reader: TypeAdapter[TokenizerConfig] = TypeAdapter(TokenizerConfig)

    def tokenizers(config: Any) -> list[TokenizerConfig]:
        named = [config["tokenizer"], config.get("target_tokenizer")]
        return [reader.validate_python(each) for each in named if each is not None]

    is_text = data.holds == "text"
    version = FORMAT_VERSION if is_text else EXAMPLES_VERSION
    path = outputs / STORES / key(data, tuple(run.parse_config(tokenizers)), version)
    if not path.is_dir():
        return None
    return Store.open(path).fingerprint if is_text else ExampleStore.open(path).fingerprint


def _code(run: RunDir, row: Row) -> Iterator[Check]:
    try:
        config = run.read_config()
        here = run.name.rpartition("-")[2]
        yield Check("code", "config", "same" if here in ids_of(config) else "differs", here, ids_of(config)[0])
    except UserError as error:  # also for code that is not trusted: it is not imported to look
        yield Check("code", "config", "not checked", None, None, str(error))
    versions = str(row.get("trained_by") or "").split(origin.THEN)
    source = _source_of(versions[-1])
    yield _compared("code", "source of lmexp", source, lambda: _source_of(origin.code_version()))
    if len(versions) > 1:
        reason = f"{len(versions)} versions of the code or the packages trained it, one after another"
        yield Check("code", "earlier versions", "noted", origin.THEN.join(versions[:-1]), None, reason)
    commit, is_dirty = origin.checkout()
    recorded = row.get("git_sha")
    if recorded or commit:
        yield Check("code", "commit", "noted", _commit(recorded, row.get("git_dirty")), _commit(commit, is_dirty), None)
    reader: TypeAdapter[dict[str, CodeVersion]] = TypeAdapter(dict[str, CodeVersion])
    for target, known in run.parse_config(lambda config: reader.validate_python(config.get("code") or {})).items():
        check = _compared("code", target, known.sha256, partial(_hash_of_code, target))
        is_trusted = current_trust().allows(target)
        yield check if is_trusted or check.reason else replace(check, reason="it is not trusted here")


def _hash_of_code(target: str) -> str:
    return code_version(target).sha256


def _source_of(version: str) -> str | None:
    """Return the hash of lmexp's source from a version as origin.code_version writes it."""
    word = version.split(" ")[0]
    return word.removeprefix("source@") if word.startswith("source@") else None


def _commit(sha: Any, is_dirty: Any) -> str | None:
    return f"{sha}{' with uncommitted changes' if is_dirty else ''}" if sha else None


def _packages(row: Row) -> Iterator[Check]:
    recorded = [word.partition("==") for word in str(row.get("packages") or "").split()]
    if not recorded:
        yield _compared("packages", "versions", None, lambda: None)
    for name, _, version in recorded:
        yield _compared("packages", name, version, partial(_installed, name))


def _installed(package: str) -> str | None:
    version = platform.python_version() if package == "python" else origin.pinned(package).partition("==")[2]
    return None if version == "?" else version


def _weights(run: RunDir, row: Row) -> Check:
    file = run.final / WEIGHTS

    def here() -> str | None:
        return digest_of(file).hex() if file.is_file() else None

    return _compared("weights", WEIGHTS, row.get("weights_sha256"), here)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
