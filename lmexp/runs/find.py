"""Find run directories by what a person types."""

import re
from pathlib import Path

from lmexp.config.identity import folder_name
from lmexp.errors import UserError, nearest
from lmexp.files import is_unicode
from lmexp.runs.directory import RunDir, runs_in
from lmexp.runs.manifest import read_manifest

MAX_SHOWN = 4
"""Runs that a message names if a word stands for several."""


def sweep_folder(name: str, outputs: Path) -> Path:
    """Return the folder of the sweep that a person calls `name`; the sweep `tagB` has the folder `tagb`.

    A path is returned unchanged. So is a name without a folder: the caller that reads the folder reports that it is
    missing. A name that is not UTF-8 is made into no folder's.
    """
    folder = outputs / name
    if not is_unicode(name):
        return folder
    made = outputs / folder_name(name)
    return made if not folder.exists() and made.is_dir() else folder


def runs_of(folder: Path) -> list[RunDir]:
    """Return the runs of the sweep in `folder`, including those that another sweep ran first.

    Raises UserError if nothing was started there.
    """
    manifest = read_manifest(folder)
    runs = [RunDir(folder / cell.path) for cell in manifest.cells] if manifest else runs_in(folder)
    if not runs:
        known = [path.name for path in folder.parent.glob("[!.]*/")]
        raise UserError(f"no sweep '{folder.name}' was started in {folder.parent}.{nearest(folder.name, known)}")
    return runs


def find_run(word: str, outputs: Path, is_finished: bool = False) -> RunDir:
    """Return the run that `word` names: a path, the name of a run directory, or a part that only one run has.

    Upper and lower case make no difference, because the names of runs are in lower case. If several runs have the part,
    one whose name is the part and a hash comes first, then those of a sweep whose name is the part. With `is_finished`,
    the only one of several that has a finished model is meant: a person who wants to use a run does not mean the
    attempts that failed before it.

    Raises UserError if no run or several runs match.
    """
    path = Path(word)
    if (path / "config.yaml").is_file():
        return RunDir(path.resolve())
    if not re.search(r"[^\W_]", word):  # a dot, a dash, nothing: a part of many names, and meant as none
        raise UserError(f"'{word}' is neither a run directory nor a part of a run's name")
    runs = [run for folder in sorted(outputs.glob("[!.]*/")) for run in runs_in(folder)]
    matches = _matching(word, runs, outputs)
    if not matches:
        raise UserError(f"there is no run '{word}' in {outputs}.{nearest(word, [run.name for run in runs])}")
    if len(matches) > 1 and is_finished:
        finished = [run for run in matches if run.final.is_dir()]
        matches = finished or matches
    if len(matches) == 1:
        return matches[0]
    newest_first = sorted(matches, key=lambda run: run.read_state().started or 0.0, reverse=True)
    shown = ", ".join(_full_name(run) for run in newest_first[:MAX_SHOWN])
    more = ", ..." if len(matches) > MAX_SHOWN else ""
    raise UserError(f"'{word}' names {len(matches)} runs; write one name in full, the newest first: {shown}{more}")


def _matching(word: str, runs: list[RunDir], outputs: Path) -> list[RunDir]:
    """Return the runs that have this name or, if none has, those that come next.

    These are runs with this name before their hash, then the runs of the sweep of this name, then runs with the word in
    their names.
    """
    name = word.lower()
    named = {run: _full_name(run).lower() for run in runs}
    return (
        [run for run, full in named.items() if name in (full, full.split("/")[1])]
        or [run for run, full in named.items() if name in (slug := full.rpartition("-")[0], slug.partition("/")[2])]
        or ([] if "/" in word else _runs_of_sweep(sweep_folder(word, outputs)))
        or [run for run, full in named.items() if name in full]
    )


def _runs_of_sweep(folder: Path) -> list[RunDir]:
    """Return the runs of the sweep in `folder` that have a directory; none if there is no such sweep."""
    try:
        return [run for run in runs_of(folder) if run.path.is_dir()]
    except UserError:
        return []


def _full_name(run: RunDir) -> str:
    return f"{run.path.parent.name}/{run.name}"
