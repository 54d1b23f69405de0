"""From what a person types to a run directory."""

from pathlib import Path

from lmexp.errors import UserError, nearest
from lmexp.runs.directory import RunDir, runs_in


def find_run(word: str, outputs: Path) -> RunDir:
    """Return the run that `word` names: its directory, its directory's name, or a part that only it has.

    Raises UserError when none or several match.
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
