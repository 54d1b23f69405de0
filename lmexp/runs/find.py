"""Find run directories by what a person types."""

from pathlib import Path

from lmexp.errors import UserError, nearest
from lmexp.runs.directory import RunDir, runs_in
from lmexp.runs.manifest import read_manifest


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


def find_run(word: str, outputs: Path) -> RunDir:
    """Return the run that `word` names: a path, the name of a run directory, or a part that only one run has.

    Raises UserError if no run or several runs match.
    """
    path = Path(word)
    if (path / "config.yaml").is_file():
        return RunDir(path.resolve())
    runs = [run for folder in sorted(outputs.glob("[!.]*/")) for run in runs_in(folder)]
    matches = [run for run in runs if word in (run.name, f"{run.path.parent.name}/{run.name}")]
    matches = matches or [run for run in runs if word in f"{run.path.parent.name}/{run.name}"]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise UserError(f"there is no run '{word}' in {outputs}.{nearest(word, [run.name for run in runs])}")
    shown = ", ".join(run.name for run in matches[:4])
    raise UserError(f"'{word}' names {len(matches)} runs ({shown}{', ...' if len(matches) > 4 else ''})")
