"""What of a study is shown, and how: chosen once, the same in the terminal and in every format.

A view names the columns that count as quality and cost, which others are shown, their order, how rows are grouped, and
what is asked of them: the cheapest run that reaches something, the best under a limit, the seeds for a difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from lmexp.analysis.columns import format_number, in_words, number_format
from lmexp.analysis.comparable import crowded
from lmexp.analysis.effects.pairing import comparable_runs, runs_by_cell
from lmexp.analysis.effects.power import Detection, detect
from lmexp.analysis.frontier import Marks, frontier, is_done, numbers
from lmexp.analysis.groups import default_grouping, grouped
from lmexp.analysis.hypervolume import Hypervolume, hypervolume
from lmexp.analysis.select import best, cheapest, knee, meets
from lmexp.analysis.table import Study, name_at, names_of_rows
from lmexp.errors import UserError, nearest
from lmexp.runs.columns import COLUMNS, DEVICE_BOUND, column, higher_is_better
from lmexp.units import printable

MEASURES = tuple(column.name for column in COLUMNS.values() if column.terminal_rank)
"""The columns of the record that a table in the terminal has without being asked for, if they were measured."""
SCORES = ("score/seq2seq/bleu", "score/classify/f1_macro", "score/tag/span_f1")
"""The one score of each task that stands beside its loss; table.csv has all."""
MARK, BESIDE, NULL = "*", "~", "–"
TOP = 50
"""Rows that a terminal is given without being asked for more."""


@dataclass(frozen=True)
class ViewOptions:
    """What is asked of a study."""

    quality: tuple[str, ...] = ("loss",)
    cost: tuple[str, ...] = ("train_seconds",)
    sort: str | None = None
    columns: tuple[str, ...] = ()
    """Which to show, and no others; empty: those that tell the runs apart, and the measures."""
    group_by: str | None = None
    top: int = TOP
    """Rows in the terminal; 0 shows all."""
    reach: dict[str, float] = field(default_factory=dict)
    under: dict[str, float] = field(default_factory=dict)
    detect: float | None = None


@dataclass(frozen=True)
class StudyView:
    """A study as a view has it."""

    study: Study
    view: ViewOptions

    @property
    def table(self) -> pd.DataFrame:
        """All rows and columns."""
        return self.study.table

    @cached_property
    def marks(self) -> Marks:
        """Which rows are on the frontier."""
        return frontier(self.table, self.view.quality, self.view.cost).to_numpy(dtype=bool)

    @cached_property
    def measures(self) -> list[str]:
        """The columns of numbers that are shown without being asked for."""
        table, view = self.table, self.view
        if view.group_by and view.columns:
            return list(dict.fromkeys([*view.quality, *view.columns, *view.cost]))
        measured = [name for name in (*SCORES, *MEASURES) if name in table and table[name].notna().any()]
        return list(dict.fromkeys([view.quality[0], *measured, *view.quality, *view.cost]))

    @cached_property
    def names(self) -> list[str]:
        """The columns that are shown: the chosen ones, else the axes (or the run), the measures and the state."""
        study, table = self.study, self.table
        if self.view.columns:
            for name in self.view.columns:
                if name not in table:
                    raise UserError(f"there is no column '{name}'.{nearest(name, map(str, table.columns))}")
            return list(dict.fromkeys(self.view.columns))
        whose = study.varied or ["slug"]
        if len(study.tasks) > 1 and "task" not in whose:
            whose = ["task", *whose]
        state = [] if bool(is_done(table).all()) else ["state"]
        return list(dict.fromkeys([*whose, *self.measures, *state]))

    @cached_property
    def order(self) -> np.ndarray:
        """The positions of rows: by task, then by the sort column, the best first, those without a number last."""
        sort = self.view.sort or self.view.quality[0]
        tasks = pd.factorize(self.table["task"])[0]
        task = np.where(tasks < 0, tasks.max(initial=0) + 1, tasks)
        values = self.table.get(sort)
        if values is not None and not pd.api.types.is_numeric_dtype(values) and values.notna().any():
            ranks = values.astype(str).rank(method="dense").where(values.notna(), np.inf).to_numpy(dtype=float)
        else:
            found = numbers(self.table, sort)
            ranks = np.where(np.isnan(found), np.inf, -found if higher_is_better(sort) else found)
        return np.lexsort((ranks, task))

    @cached_property
    def first(self) -> np.ndarray:
        """The positions that a terminal shows: the first `top` in order, and as many of the frontier's others."""
        top = self.view.top
        if not top or len(self.order) <= top:
            return self.order
        on = np.flatnonzero(self.marks[self.order])
        kept = np.union1d(np.arange(top), on[:top])
        return self.order[kept]

    @property
    def group_by(self) -> str | None:
        """The expressions that rows are grouped by: the chosen ones, else all axes but the seed where seeds repeat."""
        return self.view.group_by or default_grouping(self.study)

    @cached_property
    def groups(self) -> pd.DataFrame | None:
        """The means over seeds, sorted as the rows are, with `frontier`; None where nothing is to be grouped."""
        if self.group_by is None or not self.table["state"].eq("done").any():
            return None
        found = grouped(self.table, self.group_by, self.measures)
        sort = self.view.sort
        by = sort if sort is not None and sort in found else self.view.quality[0]
        found.insert(0, "frontier", frontier(found, self.view.quality, self.view.cost))
        down = bool(pd.api.types.is_numeric_dtype(found[by])) and higher_is_better(by)
        return found.sort_values(by, ascending=not down, kind="stable", ignore_index=True)

    @cached_property
    def detection(self) -> Detection | None:
        """How many seeds show the difference that is asked about."""
        if self.view.detect is None:
            return None
        return detect(self.study, self.view.quality[0], self.view.detect, self.view.cost[0])

    @cached_property
    def hypervolumes(self) -> dict[str, Hypervolume]:
        """The hypervolume of each task's frontier, where it is of two or three columns."""
        if len({*self.view.quality, *self.view.cost}) not in (2, 3):
            return {}
        found = {
            task: hypervolume(one.table, self.view.quality, self.view.cost) for task, one in self.study.by_task.items()
        }
        return {task: volume for task, volume in found.items() if volume is not None}

    @cached_property
    def knees(self) -> dict[str, int]:
        """The position of the knee in each task's own table, where the frontier has one."""
        if len({*self.view.quality, *self.view.cost}) != 2:
            return {}
        found = {
            task: knee(one.table, self.view.quality[0], self.view.cost[0]) for task, one in self.study.by_task.items()
        }
        return {task: at for task, at in found.items() if at is not None}

    def check(self) -> None:
        """Compute what can be refused before anything is written. Raises UserError."""
        for step in (self.marks, self.names, self.order, self.choices):
            assert step is not None
        if self.view.group_by and self.groups is None:
            raise UserError("there is nothing to group: no run has finished")

    @cached_property
    def choices(self) -> list[str]:
        """The answers to what is asked: reach, under, detect."""
        said = []
        for task, study in self.study.by_task.items():
            prefix = f"{task}: " if len(self.study.by_task) > 1 else ""
            if self.view.reach:
                said.append(prefix + self._reached(study))
            if self.view.under:
                said.append(prefix + self._best_under(study))
        return said + (self.detection.sentences if self.detection else [])

    def _reached(self, study: Study) -> str:
        """Say which run is the cheapest that reaches what is asked, or that none does."""
        quality, cost = self.view.quality[0], self.view.cost[0]
        bounds = _bounds(self.view.reach) + (f" with {_bounds(self.view.under)}" if self.view.under else "")
        at = cheapest(study.table, self.view.reach | self.view.under, quality, cost)
        if at is None:
            return f"No finished run reaches {bounds}{self._closest(study, self.view.reach)}."
        told = [quality, *(name for name in self.view.reach if name != quality), cost]
        said = f"The cheapest run that reaches {bounds} is {name_at(study.table, at)}: {_told(study.table, at, told)}"
        return f"{said}{self._other_seeds(study, at)}."

    def _best_under(self, study: Study) -> str:
        """Say which run is the best within the limits, or that none is within them."""
        quality = self.view.quality[0]
        at = best(study.table, self.view.under, quality, self.view.cost[0])
        if at is None:
            return f"No finished run has {_bounds(self.view.under)}{self._closest(study, self.view.under)}."
        told = _told(study.table, at, [quality, *self.view.under])
        return f"The best run with {_bounds(self.view.under)} is {name_at(study.table, at)}: {told}."

    def _closest(self, study: Study, limits: dict[str, float]) -> str:
        """Return what comes closest to the first bound, where there is one."""
        name = next(iter(limits))
        at = best(study.table, {}, name, name)
        if at is None:
            return f": none has a {column(name).title}"
        return f"; the closest, {name_at(study.table, at)}, has {_told(study.table, at, [name])}"

    def _other_seeds(self, study: Study, at: int) -> str:
        """Return how many of the other seeds of a run's setting do not reach the same."""
        runs = comparable_runs(study, self.view.quality[0])
        run = study.table["run_id"].iloc[at]
        if "seed" not in study.axes or run not in set(runs["run_id"]):
            return ""
        of_setting = [
            set(group.values()) for group in runs_by_cell(study, runs, "seed").values() if run in group.values()
        ]
        if not of_setting or len(of_setting[0]) < 2:
            return "; its setting has one finished seed"
        theirs = runs[runs["run_id"].isin(of_setting[0])]
        short = int((~meets(theirs, self.view.reach)).sum())
        return f"; {short} of the {len(theirs)} seeds of its setting do not" if short else "; so do all its seeds"

    @cached_property
    def notes(self) -> list[str]:
        """What is to be known of the table: its mark, knee and hypervolume, and speeds that others lowered."""
        names = [*dict.fromkeys([*self.view.quality, *self.view.cost])]
        titles = [column(name).title for name in names]
        on = f"both {titles[0]} and {titles[-1]}" if len(names) == 2 else f"all of {', '.join(titles)}"
        lines = [f"{MARK} on the frontier: no other run beats it on {on}."]
        for task, at in self.knees.items():
            table = self.study.by_task[task].table
            of = f" of {task}" if len(self.study.by_task) > 1 else ""
            lines.append(f"The knee of the frontier{of} is {name_at(table, at)}: {_told(table, at, names)}.")
        for task, found in self.hypervolumes.items():
            of = f" of {task}" if len(self.study.by_task) > 1 else ""
            against = ", ".join(in_words(name, value) for name, value in found.reference.items())
            if found.share is not None:
                lines.append(
                    f"Hypervolume{of}: {found.share:.3f} of the box from the best values to the reference ({against})."
                )
        if DEVICE_BOUND & {*self.names} and bool((crowded(self.table) & is_done(self.table)).any()):
            lines.append(f"{BESIDE} measured while other runs were on the device.")
        if self.study.outside:
            runs = "1 run" if self.study.outside == 1 else f"{self.study.outside} runs"
            lines.append(f"Left out: {runs} in the folder that the sweep no longer has.")
        return lines

    def texts(self, positions: Sequence[int] | np.ndarray) -> dict[str, list[str]]:
        """Return the shown columns of some rows as text, the mark of the frontier first, under the name `frontier`."""
        beside = crowded(self.table).to_numpy()
        found = {"frontier": [MARK if self.marks[at] else "" for at in positions]}
        for name in self.names:
            cells_ = column_texts(self.table, name, positions)
            if name in DEVICE_BOUND and beside.any():
                cells_ = [
                    BESIDE + text if beside[at] and text != NULL else text
                    for text, at in zip(cells_, positions, strict=True)
                ]
            found[name] = cells_
        if "slug" in found:
            named = names_of_rows(self.table)
            found["slug"] = [printable(named[at]) for at in positions]
        return found

    def is_number(self, name: str) -> bool:
        """Whether a column is aligned as numbers are."""
        if name in self.measures or name not in self.table:
            return name in self.measures
        values = self.table[name]
        return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))


def column_texts(table: pd.DataFrame, name: str, positions: Sequence[int] | np.ndarray | None = None) -> list[str]:
    """Return a column (some rows of it) as text, in the one format of the whole column; null is a dash."""
    values = table[name]
    shown = values if positions is None else values.iloc[list(positions)]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return [NULL if pd.isna(value) else printable(str(value)) for value in shown]
    spec = number_format(name, values.dropna().astype(float))
    return [NULL if pd.isna(value) else format_number(float(value), spec) for value in shown]


def split_names(given: str | None) -> tuple[str, ...]:
    """Return `a,b` as names."""
    return tuple(name.strip() for name in (given or "").split(",") if name.strip())


def _bounds(limits: dict[str, float]) -> str:
    return " and ".join(
        f"{column(name).title} of at {'least' if higher_is_better(name) else 'most'} {value:g}"
        for name, value in limits.items()
    )


def _told(table: pd.DataFrame, at: int, names: Sequence[str]) -> str:
    """Return some numbers of a row in words."""
    said = []
    for name in dict.fromkeys(names):
        value = table[name].iloc[at]
        said.append(
            f"no {column(name).title}" if pd.isna(value) else f"{column(name).title} {in_words(name, float(value))}"
        )
    return ", ".join(said)
