"""From run directories to one table: a study, the form in which all of analysis and report reads results.

The table has every row of every record, and one row for each run without a record. The manifest lists the runs of a
sweep and their axes; everything else comes from the run directories. Missing values stay missing: columns have
pandas' nullable types, so an integer stays an integer and null never becomes 0.

Curves are read only when they are used, because a table of 10,000 runs does not need them.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Marks
from lmexp.analysis.columns import distinguishing_axes, in_words
from lmexp.analysis.filters import choosing, matching
from lmexp.analysis.frontier import is_done
from lmexp.analysis.rankable import rank_groups
from lmexp.errors import UserError, nearest
from lmexp.runs.columns import COLUMNS, FAMILIES, QUALITIES
from lmexp.runs.directory import CONFLICTS, RunDir, runs_in
from lmexp.runs.manifest import INIT, Axes, Cell, LookRule, Manifest, SkippedCell, Values, read_manifest
from lmexp.runs.record import Row, identity_columns, kaplan_columns
from lmexp.units import counted

CURVE = ("run_id", "kind", "step", "tokens", "flops", "seconds", "loss")
"""The columns that every curve has; `kind` is train or validation, `loss` in nats per token."""

TELLING = ("sweep", "tokenizer_fingerprint", "validation_fingerprint", "test_fingerprint", "data_fingerprint")
"""The columns that name parts of a study whose rows do not compare, if no axis tells the parts apart."""


@dataclass(frozen=True, eq=False)
class Study:
    """One or several sweeps, as read at one moment."""

    names: tuple[str, ...]
    questions: tuple[str, ...]
    axes: Axes
    """The values of each swept axis, in the order of the sweep file."""
    table: pd.DataFrame
    """The record's columns, then scores, `state`, `reason`, and the axes that are not yet columns."""
    skipped: tuple[SkippedCell, ...]
    """Cells that were skipped before the start, with the reason."""
    outside: int
    """How many runs lie in the folders but no longer belong to the sweeps, and are left out."""
    members: dict[str, frozenset[str]]
    """Sweep -> its run ids. Comparisons stay within one sweep."""
    runs: dict[str, RunDir]
    """Run id -> run directory."""
    folders: tuple[Path, ...] = ()
    """The folders of the sweeps."""
    objectives: tuple[str, ...] = ()
    """The columns that the sweeps optimise, if all of them are searches for the same ones."""
    looks: tuple[LookRule, ...] = ()
    """The rules of the sweeps whose seeds were added after looks at results."""
    command: tuple[str, ...] = ()
    """The command of the sweep, without its axes; empty for several sweeps, and if it is not known."""
    conflicts: Mapping[str, int] = field(default_factory=dict)
    """Sweep -> how many other results of its runs `lmexp pull` has put beside it; they are left out."""

    @property
    def name(self) -> str:
        """The names of the sweeps in one line."""
        return " + ".join(self.names)

    @property
    def question(self) -> str | None:
        """The questions that the sweep files ask, or None."""
        return " ".join(self.questions) or None

    @cached_property
    def varied(self) -> list[str]:
        """The axes with more than one value; if there are very many, only enough of them to distinguish the runs."""
        axes = [axis for axis, values in self.axes.items() if len(values) > 1 and self._varies(axis)]
        cells = zip(*(self.table[axis] for axis in axes), strict=True)
        return distinguishing_axes(axes, [dict(zip(axes, cell, strict=True)) for cell in cells])

    def _varies(self, axis: str) -> bool:
        """Whether rows differ in an axis; always true for fewer than two rows, since more may follow."""
        return len(self.table) < 2 or self.table[axis].nunique(dropna=False) > 1

    @property
    def tasks(self) -> list[str]:
        """The tasks of the runs. Runs are compared within one task only, because each task predicts something else."""
        return [str(task) for task in self.table["task"].dropna().unique()]

    def rankable(self, quality: str | Sequence[str]) -> dict[str, "Study"]:
        """Return the parts of the study whose rows may be ranked together (rankable.py), by name, in order.

        A name is that of the task and, if rows of one task do not all compare, the value of the axis or, without such
        an axis, of the column of TELLING that tells its parts apart. A study of one part is returned as it is;
        otherwise a part that is not its whole task has finished rows alone.
        """
        parts: dict[str, Study] = {}
        for task in self.tasks or [""]:
            of_task = self.of_task(task) if len(self.tasks) > 1 else self
            done = of_task.of_rows(is_done(of_task.table))
            groups = rank_groups(done.table, quality)
            if len(np.unique(groups)) < 2:
                parts[task] = of_task
                continue
            each = [done.of_rows(groups == group) for group in np.unique(groups)]
            for name, part in zip(_names_of_parts(of_task.varied, each), each, strict=True):
                parts[f"{task}, {name}" if len(self.tasks) > 1 else name] = part
        return parts

    def how_to_choose(self, quality: str | Sequence[str]) -> str:
        """Return how --where keeps the first part whose rows may be ranked together, as a sentence; "" if all may be.

        The study has one task.
        """
        parts = list(self.rankable(quality).values())
        apart = _apart(self.varied, parts) if len(parts) > 1 else None
        if apart is None:
            return ""
        name, values = apart
        return f'Choose those that compare, as with --where "{choosing(name, values[0])}".'

    @property
    def about_conflicts(self) -> list[str]:
        """For each sweep with other results of its runs, a sentence that says where they are."""
        return [
            f"Left out: {counted(n, 'other result')} of runs of {name}, which a pull brought; "
            f"`lmexp report {name}/{CONFLICTS}` shows {'it' if n == 1 else 'them'}."
            for name, n in self.conflicts.items()
        ]

    def of_task(self, task: str) -> "Study":
        """Return the study with only the rows of one task."""
        return self.of_rows((self.table["task"] == task).to_numpy(dtype=bool, na_value=False))

    def where(self, expression: str) -> "Study":
        """Return the study with only the rows that match an expression (filters.py).

        Raises UserError as `matching` does.
        """
        return self.of_rows(matching(self.table, expression))

    def kept(self, expression: str) -> "Study":
        """Return the study with only the rows that `--where` keeps. Raises UserError if there are none."""
        part = self.where(expression)
        if part.table.empty:
            raise UserError(f"no row of {self.name} meets --where {expression}")
        return part

    def of_rows(self, marks: Marks) -> "Study":
        """Return the study with only these rows."""
        return replace(self, table=self.table[marks])

    @property
    def has_one_tokenizer(self) -> bool:
        """Whether all runs of a task use the same tokenizer: only then are their losses per token comparable.

        Losses per label are always comparable.
        """
        of_text = self.table[self.table["perplexity"].notna()]
        return bool((of_text.groupby("task")["tokenizer_fingerprint"].nunique() <= 1).all())

    @property
    def default_quality(self) -> str:
        """The column that compares these runs fairly: the loss, or bits per byte if tokenizers differ."""
        has_bits = self.table.loc[self.table["loss"].notna(), "bits_per_byte"].notna().all()
        return "bits_per_byte" if has_bits and not self.has_one_tokenizer else "loss"

    @property
    def default_cost(self) -> str:
        """The cost that the design varies: for budgets in tokens or FLOPs, and milestones, the training FLOPs.

        For budgets in FLOPs alone it is the budget: runs of one budget spend slightly different FLOPs, since a run has
        whole steps, and a larger model is not cheaper for that. For budgets in dollars it is the dollars, and otherwise
        the training time.
        """
        budgets = {axis for axis in self.axes if axis.startswith("budget.") and len(self.axes[axis]) > 1}
        if budgets == {"budget.dollars"}:
            return "dollars"
        if bool(units_of(self.table).duplicated().any()):  # milestones: a budget is for the last of them
            return "train_flops"
        if budgets == {"budget.flops"} and self.table["budget.flops"].notna().all():
            return "budget.flops"
        return "train_flops" if budgets - {"budget.seconds", "budget.dollars"} else "train_seconds"

    @cached_property
    def curves(self) -> pd.DataFrame:
        """All points of all curves, one per row: the columns of CURVE, then all other fields of the points."""
        points = [
            {"run_id": run_id, **curve_point(point)} for run_id, run in self.runs.items() for point in run.read_curve()
        ]
        extra = dict.fromkeys(name for point in points for name in point if name not in CURVE)
        return pd.DataFrame(points, columns=[*CURVE, *extra])


def load_study(folders: list[Path], all_runs: bool = False) -> Study:
    """Read the sweeps in `folders` as one study; a run that several of them share appears once.

    A sweep consists of the runs of its last command. With `all_runs`, all other runs in its folder join them.

    Raises UserError if a folder is missing, a manifest cannot be read, or there are no runs at all.
    """
    manifests = [_manifest(folder) for folder in folders]
    if all_runs:
        manifests = [_with_all_runs(folder, manifest) for folder, manifest in zip(folders, manifests, strict=True)]
    rows: list[Row] = []
    runs: dict[str, RunDir] = {}
    members: dict[str, set[str]] = {}
    seen: dict[Path, list[Row]] = {}
    outside = 0
    axes: Axes = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        root = folder.resolve()
        of_sweep = members.setdefault(manifest.name, set())
        listed = set()
        for cell in manifest.cells:
            path = Path(os.path.normpath(root / cell.path))
            if path not in seen:
                seen[path] = _rows_of(RunDir(path), cell, manifest.name)
                rows += seen[path]
                runs.setdefault(seen[path][0]["run_id"], RunDir(path))
            for row in seen[path]:
                _fill(row, cell.values)
            of_sweep.add(seen[path][0]["run_id"])
            listed.add(path)
        outside += sum(root / run.name not in listed for run in runs_in(folder))
        for axis, values in manifest.axes.items():
            axes[axis] = _union(axes.get(axis, []), values)
    _tell_apart(rows)
    if not rows:
        raise UserError(f"no runs in {', '.join(str(folder) for folder in folders)} yet")
    return Study(
        names=tuple(dict.fromkeys(manifest.name for manifest in manifests)),
        questions=tuple(dict.fromkeys(m.question for m in manifests if m.question)),
        axes=axes,
        table=_frame(rows, axes),
        skipped=tuple(cell for manifest in manifests for cell in manifest.skipped),
        outside=outside,
        members={name: frozenset(ids) for name, ids in members.items()},
        runs=runs,
        folders=tuple(folders),
        objectives=_common([tuple(manifest.objectives) for manifest in manifests]),
        looks=tuple(manifest.looks for manifest in manifests if manifest.looks),
        command=tuple(manifests[0].command) if len(manifests) == 1 else (),
        conflicts={folder.name: n for folder in folders if (n := len(runs_in(folder / CONFLICTS)))},
    )


def _common(objectives: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the objectives that all sweeps share; none if one of them has others."""
    return objectives[0] if len(set(objectives)) == 1 else ()


def _names_of_parts(axes: Sequence[str], parts: Sequence[Study]) -> list[str]:
    """Return a name for each part: its values of the column that tells the parts apart, else a number."""
    apart = _apart(axes, parts)
    if apart is None:
        return [f"part {number} of {len(parts)}" for number in range(1, len(parts) + 1)]
    name, values = apart
    return [f"{name} {' or '.join(map(str, of_part))}" for of_part in values]


def _apart(axes: Sequence[str], parts: Sequence[Study]) -> tuple[str, list[list[Any]]] | None:
    """Return the first of the axes and of TELLING of which no two parts share a value, and each part's values."""
    for name in [*axes, *TELLING]:
        values = [part.table[name].dropna().unique().tolist() for part in parts]
        if all(values) and sum(map(len, values)) == len({str(value) for of_part in values for value in of_part}):
            return name, values
    return None


def final_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the last row of each finished run; a run has several rows if it has milestones.

    A run that has reached a milestone and has not ended yet is left out.
    """
    done = is_done(table)
    going = table["run_id"].isin(table["run_id"][~done]).to_numpy(dtype=bool)
    rows = table[done & ~going].sort_values("tokens", kind="stable", na_position="first")
    return rows.drop_duplicates("run_id", keep="last")


def units_of(table: pd.DataFrame) -> pd.Series:
    """Return the independent unit of each row: the run, which milestones share; each row is one if that is unknown."""
    alone = pd.Series([f"row {row}" for row in range(len(table))])
    for name in ("unit", "run_id"):
        if name in table:
            return table[name].astype("string").reset_index(drop=True).fillna(alone)
    return alone


def names_of_rows(table: pd.DataFrame) -> list[str]:
    """Return the display name of each row: its slug, and its tokens if its run has several rows."""
    several = table["run_id"].duplicated(keep=False)
    names = table["slug"].where(table["slug"].notna(), table["run_id"]).astype(str)
    return [
        f"{name} at {in_words('tokens', float(tokens))}" if more and pd.notna(tokens) else name
        for name, tokens, more in zip(names, table["tokens"], several, strict=True)
    ]


def name_at(table: pd.DataFrame, position: int) -> str:
    """Return the display name of the row at a position."""
    of_run = table[(table["run_id"] == table["run_id"].iloc[position]).to_numpy(dtype=bool, na_value=False)]
    at = int(np.flatnonzero(of_run.index == table.index[position])[0])
    return names_of_rows(of_run)[at]


def _tell_apart(rows: list[Row]) -> None:
    """Append the start of the run id to the slug of runs that share one slug."""
    runs: dict[str, set[str]] = {}
    for row in rows:
        runs.setdefault(str(row.get("slug")), set()).add(row["run_id"])
    for row in rows:
        if len(runs[str(row.get("slug"))]) > 1:
            row["slug"] = f"{row['slug']}-{row['run_id'][:6]}"


def _manifest(folder: Path) -> Manifest:
    """Return a folder's manifest; without one, every run directory in it becomes a cell without axes."""
    if not folder.is_dir():
        siblings = folder.parent.iterdir() if folder.parent.is_dir() else ()
        known = [sibling.name for sibling in siblings if sibling.is_dir() and sibling.name[0] != "."]
        raise UserError(f"there is no sweep in {folder}.{nearest(folder.name, known)}")
    cells = [Cell(run_id="", path=run.name) for run in runs_in(folder)]
    return read_manifest(folder) or Manifest(name=folder.resolve().name, cells=cells)


def _with_all_runs(folder: Path, manifest: Manifest) -> Manifest:
    """Return a manifest with every run of its folder as a cell; values that it lacks come from the configs."""
    listed = {Path(os.path.normpath(folder / cell.path)) for cell in manifest.cells}
    more = [run for run in runs_in(folder) if Path(os.path.normpath(run.path)) not in listed]
    names = [*manifest.axes, *manifest.former_axes]
    axes = {name: list(manifest.axes.get(name, [])) for name in names}
    cells = []
    for cell in [*manifest.cells, *(Cell(run_id="", path=run.name) for run in more)]:
        values = cell.values
        if any(name not in values for name in names):
            values = config_values(RunDir(folder / cell.path), names) | values
        for name, value in values.items():
            if value not in axes.setdefault(name, []):
                axes[name].append(value)
        cells.append(cell.model_copy(update={"values": values}))
    return manifest.model_copy(update={"cells": cells, "axes": axes})


def config_values(run: RunDir, axes: Sequence[str]) -> Values:
    """Return the values of those of the axes that a run's config has: the name of a group, the value of a key."""
    try:
        config = run.read_config().model_dump(mode="json", by_alias=True)
    except UserError:
        return {}
    config[INIT] = "pretrained" if config[INIT]["run_id"] else "scratch"
    values = {}
    for axis in axes:
        value: Any = config
        for part in axis.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        value = value.get("name") if isinstance(value, dict) else value
        if value is not None:
            values[axis] = value
    return values


def _rows_of(run: RunDir, cell: Cell, sweep: str) -> list[Row]:
    """Return a run's rows with its state: those of its record or, without a record, one from its config.

    Milestones that a run without a record has reached are results all the same: their rows follow, as done.
    """
    state, lost = run.read_lost()
    where = {"state": state.state, "reason": state.reason}
    rows = [{**kaplan_columns(row), **row, **where} for row in run.read_record()]
    if rows:
        return rows
    # Before the queue has created the run directory, only the cell is known.
    known: Row = {"run_id": cell.run_id or run.name, "sweep": sweep, "slug": run.name}
    if run.path.is_dir():
        try:
            known = identity_columns(run.read_config())
        except UserError as error:  # one unreadable run must not hide the others
            where["reason"] = str(error)
    if state.is_pruned:
        known |= _last_score(run)
    if lost:
        where["reason"] = where["reason"] or "its process is gone"
    reached = ({**kaplan_columns(row), **row, "state": "done", "reason": None} for row in run.read_milestones())
    return [{**known, **where}, *reached]


def _last_score(run: RunDir) -> Row:
    """Return the last evaluation of a run that a search pruned, and the work done until then."""
    points = [point for point in run.read_curve() if "loss" in point]
    if not points:
        return {}
    last = points[-1]
    work = {"tokens": last.get("tokens"), "steps": last.get("step"), "train_flops": last.get("flops")}
    return work | {name: last.get(name) for name in QUALITIES}


def _fill(row: Row, values: Values) -> None:
    """Add a cell's values to a row, without overwriting values that the row already has."""
    for axis, value in values.items():
        if row.get(axis) is None:
            row[axis] = plain(value)


def plain(value: Any) -> Any:
    """Return an axis value in a form that a table can hold: lists and mappings become JSON text."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _union(known: list[Any], more: list[Any]) -> list[Any]:
    """Return the distinct values of both lists, in order of appearance; 1 and True count as two values."""
    by_kind = {(isinstance(value, bool), value): value for value in map(plain, [*known, *more])}
    return list(by_kind.values())


def curve_point(point: dict[str, Any]) -> dict[str, Any]:
    """Return a point of a curve with its kind, and with its loss under the name `loss`."""
    if "train_loss" in point:
        return {"kind": "train", **point, "loss": point["train_loss"]}
    return {"kind": "validation", **point}


def _frame(rows: list[Row], axes: Axes) -> pd.DataFrame:
    """Return rows as a data frame: the record's columns, its column families, state, reason, then the other axes."""
    more = sorted({name for row in rows for name in row if name.startswith(tuple(FAMILIES))})
    names = dict.fromkeys([*COLUMNS, *more, "state", "reason", *axes])
    return pd.DataFrame({name: _nullable([row.get(name) for row in rows]) for name in names})


def _nullable(values: Iterable[Any]) -> pd.Series:
    """Return values as a column of the narrowest nullable type; null stays null, and mixed types become text."""
    values = [plain(value) for value in values]
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pd.Series(values, dtype=object)
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds == {int}:
        return pd.Series(values, dtype="Int64" if max(abs(v) for v in values if v is not None) < 2**63 else "Float64")
    if kinds <= {int, float}:
        return pd.Series(values, dtype="Float64")
    return pd.Series([None if value is None else str(value) for value in values], dtype="string")
