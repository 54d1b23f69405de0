"""Links in the folders of runs: none may lead out of the outputs, because lmexp would write through it.

A folder from somebody else can hold a link of any name. Through one in place of `log.txt`, `checkpoints/` or of a whole
run directory, a command that trains, cancels or retries would change files that belong to no run. Files that are
replaced as a whole (state.json, record.json) replace a link; the others are opened, appended to or deleted where it
leads.
"""

import os
from pathlib import Path

from lmexp.config.trust import current_trust
from lmexp.errors import UserError

PARTS = ("", "checkpoints", "checkpoints/final")
"""The folders of a run directory that lmexp writes in; libraries make those of the mirrors."""


def check_links(run: Path) -> None:
    """Raise UserError for a run directory that lies outside its outputs, or holds what lmexp must not write through.

    That is a link that leads out of the outputs, or anything but files and folders: a FIFO in place of a log would wait
    for its reader forever.

    A link to a folder that the user trusts by name is allowed.
    """
    sweep = run.absolute().parent
    _check(run, sweep)
    for part in PARTS:
        _check_entries(run / part, sweep)


def check_sweep_links(sweep: Path) -> None:
    """Raise UserError if a sweep's folder holds what lmexp must not write through; see check_links."""
    _check_entries(sweep, sweep.absolute())


def _check_entries(folder: Path, sweep: Path) -> None:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_symlink():
            _check(Path(entry.path), sweep)
        elif not (entry.is_file() or entry.is_dir()) and os.path.lexists(entry.path):  # a draft may be renamed by now
            raise UserError(f"{entry.path} is neither a file nor a folder; remove it first")


def _check(path: Path, sweep: Path) -> None:
    """Raise UserError if a path leads out of the outputs, the folder above the sweep's, which may itself be a link."""
    inside = [Path(os.path.realpath(folder)) for folder in (sweep.parent, sweep)]
    target = Path(os.path.realpath(path))
    if not any(map(target.is_relative_to, inside)) and not current_trust().allows_folder(target):
        raise UserError(
            f"{path} leads out of {inside[0]}, to {target}; nothing was changed there. If you trust it, add "
            f"--trust {target}"
        )
