"""Where configs are found: the user's own folder first, then installed plug-ins, then those that lmexp ships.

A root is a folder that holds `conf/` (Hydra groups) and `sweeps/` (one file a study). The user's root is
`--config-dir`, or else the current folder where it holds one of the two. What lmexp ships lies beside the
package in a checkout, and inside it when installed from a wheel. A plug-in is an installed package with an entry point
of the group `lmexp.plugins`; its value is the module or the package that holds `conf/` and `sweeps/`.
"""

import os
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import lmexp
from lmexp.errors import UserError, nearest
from lmexp.files import is_leftover, open_regular, user_path, why_not_a_file

CONF, SWEEPS = "conf", "sweeps"
PLUGINS = "lmexp.plugins"
"""Entry point group of installed packages that bring configs and code."""
MAX_COMMENT = 1000
"""Bytes of a file's first line that are read."""
WANDB = "wandb"
"""The folder in SWEEPS for sweeps that W&B drives: its files are read by `wandb sweep`, not by lmexp."""


def shipped_root() -> Path:
    """Return the root that lmexp ships."""
    package = Path(lmexp.__file__).resolve().parent
    return package if (package / CONF).is_dir() else package.parent


def search_roots(config_dir: Path | None = None) -> list[Path]:
    """Return the roots to search, in order. Raises UserError for a `--config-dir` that holds no configs."""
    root = Path(os.path.realpath(config_dir or Path.cwd()))
    is_root = (root / CONF).is_dir() or (root / SWEEPS).is_dir()
    if config_dir is not None and not is_root:
        raise UserError(f"--config-dir {config_dir}: there is no folder {CONF}/ or {SWEEPS}/ in it")
    shipped = shipped_root()
    own = [root] if is_root and root != shipped else []
    return [*own, *plugin_roots(), shipped]


def plugin_roots() -> list[Path]:
    """Return the roots that installed plug-ins bring, by their entry points' names. Imports nothing."""
    roots = []
    for point in sorted(entry_points(group=PLUGINS), key=lambda point: point.name):
        top, *parts = point.module.split(".")
        spec = find_spec(top)
        folders = (spec.submodule_search_locations or []) if spec else []
        roots += [root for folder in folders if (root := Path(folder, *parts)).is_dir()]
    return roots


def clashes(roots: list[Path]) -> dict[str, list[Path]]:
    """Return the configs and sweeps that several plug-ins bring under one name, as `conf/optim/lion.yaml`, with roots.

    A file of the user's own under that name decides which is meant, so that is no clash.
    """
    plugins = [root for root in dict.fromkeys(plugin_roots()) if root in roots]
    own = roots[: roots.index(plugins[0])] if plugins else []
    bringing: dict[str, list[Path]] = {}
    for root in plugins:
        for file in (file for part in (CONF, SWEEPS) for file in (root / part).rglob("*.yaml")):
            bringing.setdefault(file.relative_to(root).as_posix(), []).append(root)
    return {
        name: several
        for name, several in bringing.items()
        if len(several) > 1 and not any((root / name).exists() for root in own)
    }


def check_clash(file: str, known: dict[str, list[Path]]) -> None:
    """Raise UserError if several plug-ins bring a file, as `clashes` knows them."""
    if roots := known.get(file):
        raise UserError(
            f"{file} is in {len(roots)} plug-ins, {' and '.join(map(str, roots))}: uninstall one, or copy the one that "
            f"you mean to {file} in your own folder"
        )


def sweep_files(roots: list[Path]) -> dict[str, Path]:
    """Return every sweep by name (`demo`, `papers/kaplan`); the user's hides a shipped one of its name."""
    files: dict[str, Path] = {}
    for root in reversed(roots):
        folder = root / SWEEPS
        for file in sorted(folder.rglob("*.yaml")):
            if _is_config(file) and not _is_for_wandb(file, folder):
                files[file.relative_to(folder).with_suffix("").as_posix()] = file
    return dict(sorted(files.items()))


def find_sweep(name: str, roots: list[Path]) -> tuple[str, Path]:
    """Return the name and the file of a sweep, given by name or by the path of its file.

    Raises UserError, with the nearest name, when there is none.
    """
    if name.endswith((".yaml", ".yml")):
        file = Path(os.path.realpath(user_path(name)))
        if reason := why_not_a_file(file):
            raise UserError(f"{name}: {reason}")
        if not file.is_file():
            raise UserError(f"{name}: there is no such sweep file")
        if any(_is_for_wandb(file, root / SWEEPS) for root in roots):
            raise UserError(f"{name} is a sweep of W&B's: `wandb sweep {name}` registers it, and `wandb agent` runs it")
        return file.stem, file
    known = sweep_files(roots)
    if name not in known:
        raise UserError(f"there is no sweep '{name}'.{nearest(name, known)} `lmexp list sweeps` shows them")
    check_clash(f"{SWEEPS}/{name}.yaml", clashes(roots))
    return name, known[name]


def _is_for_wandb(file: Path, folder: Path) -> bool:
    return file.is_relative_to(folder / WANDB)


def group_choices(group: str, roots: list[Path]) -> dict[str, Path]:
    """Return the choices of a Hydra group by name, each with its file."""
    choices: dict[str, Path] = {}
    for root in reversed(roots):
        for file in sorted((root / CONF / group).glob("*.yaml")):
            if _is_config(file):
                choices[file.stem] = file
    return dict(sorted(choices.items()))


def _is_config(file: Path) -> bool:
    """Return whether a path is a file to list: no folder, no hidden file, no lock file of an editor (`.#x.yaml`)."""
    return not is_leftover(file.name) and file.is_file()


def groups(roots: list[Path]) -> set[str]:
    """Return the names of the Hydra groups."""
    folders = [root / CONF for root in roots if (root / CONF).is_dir()]
    return {path.name for folder in folders for path in folder.iterdir() if path.is_dir()}


def first_comment(file: Path) -> str:
    """Return the comment of one line that a config file starts with, or why it cannot be read."""
    try:
        with open_regular(file) as opened:
            first = opened.readline(MAX_COMMENT).decode(errors="replace").strip().removeprefix("\ufeff")
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return first.removeprefix("#").strip() if first.startswith("#") else ""
