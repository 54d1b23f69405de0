"""The manifest of a sweep, `sweep.json`: which runs are its cells, and with which values of its axes.

The launcher writes it before the first run starts, so a half-finished sweep can be read like a finished one. A folder
without a manifest can be read too: each run directory in it is then a cell, and there are no axes.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from lmexp.errors import UserError
from lmexp.files import read_bytes, write_json

MANIFEST = "sweep.json"

PATH = r"^(\.\./[^/.\x00][^/\x00]*/)?[^/.\x00][^/\x00]*$"
"""A run directory in the sweep's own folder, or in the folder of another sweep beside it; nothing else."""

INIT = "init"
"""The axis that separates runs that start from weights trained by the sweep itself from those that start from scratch.

It takes the place of `init.pretrain`, whose values are too long for a name or a table.
"""

Axes = dict[str, list[Any]]
Values = dict[str, Any]


class Cell(BaseModel):
    """A cell that became a run."""

    run_id: str
    path: Annotated[str, Field(pattern=PATH)]
    """The run directory, relative to the sweep's folder: `../other/...` when another sweep ran it first."""
    values: Values = {}


class SkippedCell(BaseModel):
    """A cell that was not started, with the reason."""

    values: Values = {}
    reason: str = ""


class LookRule(BaseModel):
    """How `sweep --seeds auto` decides which arms get another seed. Fixed at the start: a look cannot be taken back."""

    quality: str
    """The column that arms are compared by."""
    difference: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """A difference in the quality that matters; smaller ones need not be found."""
    cap: Annotated[int, Field(ge=3, le=1000)]
    """The most seeds of an arm."""


class Manifest(BaseModel):
    """What a sweep is made of. Keys that a later version adds are ignored."""

    schema_version: Literal[1] = 1
    name: str
    question: str | None = None
    axes: Axes = {}
    cells: list[Cell] = []
    skipped: list[SkippedCell] = []
    objectives: list[str] = []
    """The columns that a search optimises; empty for a sweep that is no search."""
    looks: LookRule | None = None
    """How seeds were added; None if their number was fixed."""
    command: list[str] = []
    """The command that makes these cells, without its axes; empty if that is not known, as of earlier versions."""
    former_axes: list[str] = []
    """Other axes that earlier commands of the sweep had; runs of these commands may still lie in its folder."""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a sweep's manifest, atomically; the axes of the one that it replaces are kept as `former_axes`.

    So is its rule of looks, if the two share runs.
    """
    try:
        earlier = read_manifest(folder) or manifest
    except UserError:  # it is replaced, and only the names of its axes are lost
        earlier = manifest
    former = [axis for axis in [*earlier.former_axes, *earlier.axes] if axis not in manifest.axes]
    shared = {cell.run_id for cell in earlier.cells} & {cell.run_id for cell in manifest.cells}
    # A later sweep without looks does not undo those of an earlier one at the same runs.
    looks = manifest.looks or (earlier.looks if shared else None)
    manifest = manifest.model_copy(update={"former_axes": list(dict.fromkeys(former)), "looks": looks})
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a sweep's folder, or None if there is none.

    Raises UserError if the manifest cannot be read.
    """
    file = folder / MANIFEST
    try:
        return Manifest.model_validate_json(read_bytes(file))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{file} cannot be read: {where + ': ' if where else ''}{first['msg']}") from None
