"""A study as a folder for any web server: page, tables, records, figures, and a README that explains them.

    index.html         the report's page
    table.csv, table.parquet
    figures/           every chart, as svg and png
    records/SWEEP/     a public copy of each sweep's runs (public_copy.py), which every command reads
    README.md          what this is, how to read it, and how to cite it
    publication.json   which files were written, with their SHA-256

Everything is made from the public copy of the runs, so it can hold nothing else. The folder appears as a whole: it is
made under a hidden name in the same parent folder, and then renamed, or exchanged with the earlier folder. A later
publication replaces the files of the earlier one, and keeps all others, such as a CNAME, a CITATION.cff or the `.git`
of a pages host.
"""

import fcntl
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

import lmexp
from lmexp.analysis.table import Study, load_study
from lmexp.errors import UserError
from lmexp.files import (
    digest_of,
    exchange_folders,
    flush_to_disk,
    hash_text,
    read_bytes,
    user_path,
    write_atomically,
    write_json,
)
from lmexp.report.charts.export import write_charts
from lmexp.report.export.files import write_csv, write_parquet
from lmexp.report.export.markdown import code, escaped, table
from lmexp.report.page.html import report_page
from lmexp.report.said import said_of
from lmexp.runs.columns import column
from lmexp.study.public_copy import write_public_copy
from lmexp.units import counted

MANIFEST, README, RECORDS = "publication.json", "README.md", "records"
_DRAFT = "publication"
"""Part of the name of a hidden draft beside the folder."""


class PublicationFiles(BaseModel):
    """What publication.json holds. Keys that a later version adds are ignored."""

    schema_version: Literal[1] = 1
    written_by: Literal["lmexp report --publish"] = "lmexp report --publish"
    lmexp: str
    written: str
    """When, in UTC."""
    sweeps: list[str]
    records_sha256: str
    """SHA-256 of the list of all files in records/ with theirs: the same records have the same hash."""
    files: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]
    """The files that were written, besides publication.json, with the SHA-256 of each."""


@dataclass(frozen=True)
class Publication:
    """A study that was published."""

    folder: Path
    page: Path
    """index.html"""
    files: int
    n_bytes: int
    records_sha256: str


def publish_study(sweeps: Sequence[Path], folder: Path, quality: str, cost: str, all_runs: bool = False) -> Publication:
    """Publish the sweeps in these folders together, in `folder`; see above.

    Raises UserError, and writes nothing, if `folder` is a file, if it holds other files and no earlier publication, if
    a published file in it was changed, if two sweeps have the same name, or if the quality or the cost is wrong. Raises
    OSError if the folder cannot be written; the earlier publication then stays as it is.
    """
    target = Path(os.path.realpath(user_path(folder)))
    names = [sweep.resolve().name for sweep in sweeps]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two of the sweeps have the folder name '{twice[0]}', so they cannot be published together")
    earlier = _earlier(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _draft(target) as draft:
        draft.mkdir()
        written = _write(sweeps, draft, quality, cost, all_runs)
        content = sum((draft / name).stat().st_size for name in written.files)
        if target.exists():
            _link_others(target, draft, earlier)
            shutil.copymode(target, draft)
            exchange_folders(draft, target)
            _link_others(draft, target, earlier, is_replacing=True)  # what somebody added in the meantime
        else:
            draft.rename(target)
        flush_to_disk(target.parent)
    return Publication(target, target / "index.html", len(written.files) + 1, content, written.records_sha256)


def _earlier(target: Path) -> set[str]:
    """Return the files of the earlier publication in a folder; an empty set if the folder is missing or empty.

    Raises UserError if it is no folder, if it holds no earlier publication, or if a published file was changed.
    """
    if not os.path.lexists(target):
        return set()
    if not target.is_dir():
        raise UserError(f"{target} is a file; --publish needs the name of a folder")
    if not any(target.iterdir()):
        return set()
    try:
        known = PublicationFiles.model_validate_json(read_bytes(target / MANIFEST))
    except (OSError, ValidationError):
        raise UserError(
            f"{target} holds other files and is no earlier publication (it has no valid {MANIFEST}), so nothing was "
            "written. Name a new folder"
        ) from None
    present = {name for name, path in _entries(target) if path.is_file()}
    for name in sorted(present & known.files.keys()):
        if digest_of(target / name).hex() != known.files[name]:
            raise UserError(f"{target / name} was changed since it was published; nothing was written. Move it away")
    return {*known.files, MANIFEST}


def _entries(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield everything below a folder, with its relative name; links are not followed."""
    for at, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(at, name)
            yield path.relative_to(folder).as_posix(), path


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Yield the path for a new folder beside `target`; whatever has that path at the end is deleted.

    The drafts of processes that were killed are deleted as well: their locks are free.
    """
    prefix = f".{target.name}.{_DRAFT}-"
    for left in target.parent.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError), (left / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
    room = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        with (room / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield room / "folder"
    finally:
        shutil.rmtree(room)


def _link_others(source: Path, into: Path, ours: set[str], is_replacing: bool = False) -> None:
    """Link everything in `source` that no publication wrote into the folder `into`; contents are not copied.

    Raises UserError if a file of the new publication has the name of such a file, unless `is_replacing`.
    """
    ours_above = {above.as_posix() for name in ours for above in PurePosixPath(name).parents}
    for name, path in _entries(source):
        place = into / name
        if path.is_dir() and not path.is_symlink():
            if name not in ours_above:
                place.mkdir(parents=True, exist_ok=True)
        elif name in ours or (is_replacing and os.path.lexists(place)):
            continue
        elif os.path.lexists(place):
            raise UserError(f"{path} is in the way and was not written by --publish; nothing was written. Move it away")
        elif path.is_symlink():
            place.symlink_to(path.readlink())
        else:
            os.link(path, place)


def _write(sweeps: Sequence[Path], folder: Path, quality: str, cost: str, all_runs: bool) -> PublicationFiles:
    """Write a whole publication into a new folder, and return what its publication.json says."""
    copies = [write_public_copy(sweep, folder / RECORDS, all_runs) for sweep in sweeps]
    study = load_study(copies, all_runs)
    write_atomically(folder / "index.html", report_page(study, quality, cost, published=folder.resolve()))
    write_csv(study.table, folder / "table.csv")
    write_parquet(study.table, folder / "table.parquet")
    write_charts(study, folder / "figures", quality, cost, ["svg", "png"])
    written = datetime.now(UTC)
    records = {name: digest for name, digest in _digests(folder).items() if name.startswith(f"{RECORDS}/")}
    records_sha256 = hash_text(json.dumps(records, sort_keys=True))
    names = [copy.name for copy in copies]
    write_atomically(folder / README, _readme(study, names, quality, cost, written, records_sha256))
    known = PublicationFiles(
        lmexp=lmexp.__version__,
        written=written.isoformat(timespec="seconds"),
        sweeps=names,
        records_sha256=records_sha256,
        files=_digests(folder),
    )
    write_json(folder / MANIFEST, known.model_dump(mode="json"))
    return known


def _digests(folder: Path) -> dict[str, str]:
    return {name: digest_of(path).hex() for name, path in sorted(_entries(folder)) if path.is_file()}


def _readme(
    study: Study, sweeps: Sequence[str], quality: str, cost: str, written: datetime, records_sha256: str
) -> str:
    """Return the text of README.md. Names and questions may hold any character, so they are escaped."""
    read = [f"lmexp report {RECORDS}/{name} --output-dir ." for name in sweeps]
    load = ", ".join(repr(f"{RECORDS}/{name}") for name in sweeps)
    files = [
        ("[index.html](index.html)", "the report: charts, the table, and the details of runs; it makes no requests"),
        ("[table.csv](table.csv), [table.parquet](table.parquet)", "a row for each run or milestone, all columns"),
        ("figures/", "every chart, as svg and png"),
        *((f"{RECORDS}/{escaped(name)}/", "the runs: configs, records, curves and scores") for name in sweeps),
        (f"[{MANIFEST}]({MANIFEST})", "the SHA-256 of every file"),
    ]
    measured = [str(name) for name in study.table if study.table[name].notna().any()]
    columns = [
        (code(name), escaped(column(name).unit or ""), escaped(column(name).meaning or "an axis of the sweep"))
        for name in measured
    ]
    day = written.date().isoformat()
    cite = f"{study.name}: {counted(len(study.runs), 'run')}, {day}, records {records_sha256[:16]}, measured with lmexp"
    return (
        "\n\n".join(
            [
                f"# {escaped(study.name)}",
                *([escaped(study.question)] if study.question else []),
                *(escaped(sentence) for sentence in said_of(study, quality, cost).answer),
                f"A study of {len(study.runs)} training runs, published on {day} with lmexp {lmexp.__version__}.",
                "## Files",
                table(["file", "holds"], files),
                "Left out are logs, predictions, weights, the names of machines, absolute paths, and the settings of "
                "loggers and launchers.",
                "## How to read it",
                "Open index.html in a browser, or read the tables with any program. A value that was not measured is "
                "empty, never 0. With lmexp, in this folder:",
                "```console\n" + "\n".join(f"$ {line}" for line in read) + "\n```",
                f"```python\nimport lmexp\n\ndf = lmexp.load({load})\n```",
                "## How to cite it",
                "Name its authors, its address, and the line below. With a copy, anybody can check the hash in it: it "
                f"is the beginning of `records_sha256` in {MANIFEST}. If there is a CITATION.cff, it says more.",
                f"> {escaped(cite)}",
                "## Columns",
                table(["column", "unit", "meaning"], columns),
            ]
        )
        + "\n"
    )
