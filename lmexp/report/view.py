"""A study with the choices of a user: what is shown of it, the same in the terminal, in every format and in Python."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lmexp.analysis.arrays import Marks
from lmexp.analysis.columns import in_words
from lmexp.analysis.comparable import SHARED_MARK, crowded
from lmexp.analysis.effects.power import Detection, seeds_to_show
from lmexp.analysis.effects.ties import FrontierTies, about_frontier, frontier_ties, tied_with
from lmexp.analysis.filters import grouping
from lmexp.analysis.forecasts.score import Score, scores_of
from lmexp.analysis.frontier import frontier, is_done, numbers
from lmexp.analysis.groups import default_grouping, group_numbers, grouped
from lmexp.analysis.hypervolume import Hypervolume, hypervolume
from lmexp.analysis.rankable import rank_groups
from lmexp.analysis.select import knee
from lmexp.analysis.table import Study, name_at, names_of_rows
from lmexp.config.tasks import tasks
from lmexp.errors import UserError, nearest
from lmexp.report.answers import best_within_limits, cheapest_that_reaches, row_in_words
from lmexp.report.options import ViewOptions
from lmexp.report.texts import FRONTIER_MARK, NULL, TIED_MARK, column_texts, frontier_text
from lmexp.runs.columns import COLUMNS, DEVICE_BOUND, column, higher_is_better
from lmexp.units import counted, printable

TIED_NOTE = "{mark} tied: its seeds do not tell its setting from one that costs no more."
GROUP, _RANK, _TIED = "\0group", "\0rank", "\0tied"
"""Columns of this view alone; no name of a user's begins like them."""
TIED_WITH = "tied_with"
"""The column that names the setting that costs no more and cannot be told apart; see effects/ties.py."""
MEASURES = tuple(column.name for column in COLUMNS.values() if column.terminal_rank)
"""The columns of the record that a table in the terminal has without being asked for, if they were measured."""
SCORES = tuple(
    f"score/{task.model_fields['name'].default}/{task.main_score}" for task in tasks() if task.main_score is not None
)
"""The main score of each task, which is shown beside the loss; table.csv has all scores."""


@dataclass(frozen=True)
class StudyView:
    """The part of a study that is shown. Everything is computed when it is first read."""

    study: Study
    options: ViewOptions

    @classmethod
    def of(cls, study: Study, options: ViewOptions | None = None) -> "StudyView":
        """Return the rows of a study that `options.where` keeps, with the default quality if none is chosen.

        Raises UserError for a column that is missing, and for an expression that is wrong or keeps no row.
        """
        options = options or ViewOptions()
        part = study if options.where is None else study.kept(options.where)
        quality, cost = options.quality or (part.default_quality,), options.cost or (part.default_cost,)
        view = cls(part, replace(options, quality=quality, cost=cost))
        view.check()
        return view

    def check(self) -> None:
        """Compute everything that can fail. Raises UserError, before anything is written."""
        for part in (self.marks, self.names, self.order, self.answers):
            assert part is not None
        if self.options.group_by and self.groups is None:
            raise UserError("there is nothing to group: no run has finished")

    @property
    def table(self) -> pd.DataFrame:
        """All rows and columns."""
        return self.study.table

    @cached_property
    def parts(self) -> dict[str, Study]:
        """The parts of the study whose rows may be ranked together by the chosen qualities, by name."""
        return self.study.rankable(self.options.quality)

    # which columns

    @cached_property
    def measures(self) -> list[str]:
        """The columns of results that are shown by default."""
        table, options = self.table, self.options
        if options.group_by and options.columns:
            return list(dict.fromkeys([*options.quality, *options.columns, *options.cost]))
        measured = [name for name in (*SCORES, *MEASURES) if name in table and table[name].notna().any()]
        return list(dict.fromkeys([options.quality[0], *measured, *options.quality, *options.cost]))

    @cached_property
    def names(self) -> list[str]:
        """The columns that are shown: the chosen ones, else the axes (or the run's name), the measures and the state.

        Raises UserError for a chosen column that is missing.
        """
        study, table = self.study, self.table
        if self.options.columns:
            for name in self.options.columns:
                if name not in table:
                    raise UserError(f"there is no column '{name}'.{nearest(name, map(str, table.columns))}")
            return list(dict.fromkeys(self.options.columns))
        settings = study.varied or ["slug"]
        if len(study.tasks) > 1 and "task" not in settings:
            settings = ["task", *settings]
        state = [] if bool(is_done(table).all()) else ["state"]
        return list(dict.fromkeys([*settings, *self.measures, *state]))

    def is_number(self, name: str) -> bool:
        """Whether a column is aligned as numbers are."""
        if name in self.measures or name not in self.table:
            return name in self.measures
        values = self.table[name]
        return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))

    # which rows

    @cached_property
    def order(self) -> np.ndarray:
        """The positions of all rows: by task, then by the sort column with the best first; rows without one last.

        Rows that cannot be ranked together by the sort column stand apart.
        """
        sort = self.options.sort or self.options.quality[0]
        tasks = pd.factorize(self.table["task"])[0]
        task = np.where(tasks < 0, tasks.max(initial=0) + 1, tasks)
        column_values = self.table.get(sort)
        is_text = column_values is not None and not pd.api.types.is_numeric_dtype(column_values)
        if column_values is not None and is_text and column_values.notna().any():
            ranks = column_values.astype(str).rank(method="dense").where(column_values.notna(), np.inf)
            return np.lexsort((ranks.to_numpy(dtype=float), task))
        values = numbers(self.table, sort)
        losses = np.where(np.isnan(values), np.inf, -values if higher_is_better(sort) else values)
        groups = np.where(np.isnan(values), len(values), rank_groups(self.table, sort))
        return np.lexsort((losses, groups, task))

    @cached_property
    def first(self) -> np.ndarray:
        """The positions that a terminal shows: the first `top` rows in order, and at most as many of the frontier."""
        top = self.options.top
        if not top or len(self.order) <= top:
            return self.order
        on_frontier = np.flatnonzero(self.marks[self.order])
        return self.order[np.union1d(np.arange(top), on_frontier[:top])]

    @cached_property
    def marks(self) -> Marks:
        """Which rows are on the frontier."""
        return frontier(self.table, self.options.quality, self.options.cost).to_numpy(dtype=bool)

    @cached_property
    def ties(self) -> dict[str, FrontierTies | None]:
        """What is tied on the frontier of each part of the study; None if the seeds do not say."""
        return {name: frontier_ties(part, self.options.quality, self.options.cost) for name, part in self.parts.items()}

    @cached_property
    def tied_with(self) -> pd.Series:
        """For each row the setting that costs no more and that its own is tied with; null if there is none."""
        tied = pd.Series(None, index=self.table.index, dtype="string")
        for name, ties in self.ties.items():
            if ties is not None:
                part = tied_with(self.parts[name].table, ties)
                tied[part.index] = part
        return tied

    @property
    def group_by(self) -> str | None:
        """The expressions that rows are grouped by: the chosen ones, else all axes but the seed if seeds repeat."""
        return self.options.group_by or default_grouping(self.study)

    @cached_property
    def groups(self) -> pd.DataFrame | None:
        """The means over seeds, sorted as the rows are, those that cannot be ranked together apart; None if none.

        `frontier` says which are on the frontier of the means. If each group is one setting, `tied_with` names the one
        that it is tied with.
        """
        groups = self.means(self.measures)
        if groups is None:
            return None
        sort = self.options.sort
        by = sort if sort is not None and sort in groups else self.options.quality[0]
        is_descending = bool(pd.api.types.is_numeric_dtype(groups[by])) and higher_is_better(by)
        groups = groups.sort_values(by, ascending=not is_descending, kind="stable", ignore_index=True)
        if by in self.measures and self.group_by is not None:
            number = group_numbers(self.table, self.group_by)
            rank_of = dict(zip(number, rank_groups(self.table, by), strict=True))
            groups = groups.sort_values(GROUP, key=lambda of: of.map(rank_of), kind="stable", ignore_index=True)
        return groups.drop(columns=GROUP)

    def means(self, measures: Sequence[str]) -> pd.DataFrame | None:
        """Return the means of some columns over seeds, as `groups` has them, in order of the table.

        The column GROUP has the number of each group, as `group_numbers` has it. None if there is nothing to group.
        """
        if self.group_by is None or not self.table["state"].eq("done").any():
            return None
        quality = self.options.quality
        # Means of numbers that are equal within a group: its number, and which rows may be ranked together.
        names, tied = np.unique(self.tied_with.fillna("").to_numpy(dtype=str), return_inverse=True)
        own: dict[str, Any] = {GROUP: group_numbers(self.table, self.group_by)}
        own |= {_RANK: rank_groups(self.table, quality), _TIED: tied}
        keys = grouping(self.table, self.group_by)
        measures = [name for name in measures if name not in keys]
        groups = grouped(self.table.assign(**own), self.group_by, [*measures, *own])
        rank, number = groups[_RANK].to_numpy(), groups[_TIED].to_numpy()
        groups[GROUP] = groups[GROUP].astype(int)
        extra = [name for name in groups if str(name) != GROUP and str(name).startswith(tuple(own))]
        groups = groups.drop(columns=extra)
        marks = pd.Series(False, index=groups.index)
        for each in np.unique(rank):
            marks[rank == each] = frontier(groups[rank == each], quality, self.options.cost)
        groups.insert(0, "frontier", marks)
        if self.options.group_by is None:
            of_group = [names[int(at)] or None for at in number]
            groups.insert(1, TIED_WITH, pd.Series(of_group, index=groups.index, dtype="string"))
        return groups

    # what there is to say

    @cached_property
    def answers(self) -> list[str]:
        """The answers to `reach`, `under` and `detect`, as sentences."""
        answers = []
        for name, study in self.parts.items():
            prefix = f"{name}: " if len(self.parts) > 1 else ""
            if self.options.reach:
                answers.append(prefix + cheapest_that_reaches(study, self.options))
            if self.options.under:
                answers.append(prefix + best_within_limits(study, self.options))
        return answers + (self.detection.sentences if self.detection else [])

    @cached_property
    def forecasts(self) -> list[Score]:
        """The sealed forecasts of the study's sweeps, each with its run if that exists; see scores_of."""
        folders = self.study.folders
        return scores_of(folders, folders[0].resolve().parent) if folders else []

    @cached_property
    def detection(self) -> Detection | None:
        """How many seeds it takes to show the difference `options.detect`; None if there is no such option."""
        if self.options.detect is None:
            return None
        return seeds_to_show(self.study, self.options.quality[0], self.options.detect, self.options.cost[0])

    @cached_property
    def hypervolumes(self) -> dict[str, Hypervolume]:
        """The hypervolume of each part's frontier, if the frontier has two or three columns."""
        quality, cost = self.options.quality, self.options.cost
        if len({*quality, *cost}) not in (2, 3):
            return {}
        volumes = {name: hypervolume(study.table, quality, cost) for name, study in self.parts.items()}
        return {name: volume for name, volume in volumes.items() if volume is not None}

    @cached_property
    def knees(self) -> dict[str, int]:
        """The position of the knee in each part's own table, if its frontier has one."""
        quality, cost = self.options.quality, self.options.cost
        if len({*quality, *cost}) != 2:
            return {}
        knees = {name: knee(study.table, quality[0], cost[0]) for name, study in self.parts.items()}
        return {name: at for name, at in knees.items() if at is not None}

    @cached_property
    def notes(self) -> list[str]:
        """What explains the table: its marks, the knee and the hypervolume, and what was left out."""
        names = [*dict.fromkeys([*self.options.quality, *self.options.cost])]
        titles = [column(name).title for name in names]
        on = f"both {titles[0]} and {titles[-1]}" if len(names) == 2 else f"all of {', '.join(titles)}"
        other = "no other run" if len(self.parts) < 2 else "no other run that it compares with"
        notes = [f"{FRONTIER_MARK} on the frontier: {other} beats it on {on}."]
        if self.has_ties:
            notes.append(TIED_NOTE.format(mark=TIED_MARK))
        notes += self.about_ties
        for part, at in self.knees.items():
            table = self.parts[part].table
            values = row_in_words(table, at, names)
            notes.append(f"The knee of the frontier{self._of(part)} is {name_at(table, at)}: {values}.")
        for part, volume in self.hypervolumes.items():
            reference = ", ".join(in_words(name, value) for name, value in volume.reference.items())
            if volume.share is not None:
                notes.append(
                    f"Hypervolume{self._of(part)}: {volume.share:.3f} of the box from the best values to the "
                    f"reference ({reference})."
                )
        if DEVICE_BOUND & {*self.names} and bool((crowded(self.table) & is_done(self.table)).any()):
            notes.append(f"{SHARED_MARK} measured while other work was on the device.")
        if self.study.outside:
            runs = counted(self.study.outside, "run")
            notes.append(
                f"Left out: {runs} in the folder that the last sweep command no longer contained; --all includes them."
            )
        return [*notes, *self.study.about_conflicts]

    @property
    def has_ties(self) -> bool:
        """Whether a row is tied with a setting that costs no more."""
        return bool(self.tied_with.notna().any())

    @cached_property
    def about_ties(self) -> list[str]:
        """What is tied on the frontier of each part, as sentences; if that is not known, why, and how to know it."""
        quality, cost = self.options.quality, self.options.cost
        return [
            f"{part}: {sentence}" if len(self.parts) > 1 else sentence
            for part, ties in self.ties.items()
            for sentence in about_frontier(self.parts[part], quality, cost, ties)
        ]

    def _of(self, part: str) -> str:
        return f" of {part}" if len(self.parts) > 1 else ""

    def texts(self, positions: Sequence[int] | np.ndarray) -> dict[str, list[str]]:
        """Return the shown columns of some rows as text; the first, `frontier`, has the mark."""
        is_shared = crowded(self.table).to_numpy()
        marks = zip(self.marks[positions], self.tied_with.notna().to_numpy()[positions], strict=True)
        texts = {"frontier": [frontier_text(on, tied) for on, tied in marks]}
        for name in self.names:
            column_text = column_texts(self.table, name, positions)
            if name in DEVICE_BOUND and is_shared.any():
                column_text = [
                    SHARED_MARK + text if is_shared[at] and text != NULL else text
                    for text, at in zip(column_text, positions, strict=True)
                ]
            texts[name] = column_text
        if "slug" in texts:
            names = names_of_rows(self.table)
            texts["slug"] = [printable(names[at]) for at in positions]
        return texts
