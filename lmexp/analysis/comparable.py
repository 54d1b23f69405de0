"""What rows must have in common to compare, and where they do not: texts, tokens, devices, code, conventions.

A mixture is said, never averaged away: groups are split by what makes a number mean something else, and name what
else they mix.
"""

from dataclasses import dataclass

import pandas as pd

from lmexp.analysis.frontier import is_done
from lmexp.cost.contention import MAX_WAIT_FRACTION
from lmexp.runs.columns import DEVICE_BOUND
from lmexp.units import counted

SPLITTING = ("task", "data_fingerprint", "tokenizer_fingerprint", "targets_cut", "device_name", "schema_version")
"""Rows that differ in one of these are never averaged: their losses, or their seconds, are of different things."""
_SAID = {
    "device_name": ("devices", "speeds, seconds, memory and energy do not compare"),
    "schema_version": ("versions of the record", "its columns may mean different things, FLOPs among them"),
    "code": ("versions of the code", "a change of it may lie behind a difference"),
    "packages": ("sets of packages", "speeds and losses may differ by them"),
    "peak_source": ("sources of peaks", "MFU is not held against the same"),
    "energy_source": ("sources of energy", "counted and estimated kWh do not compare"),
}
SHARED_MARK = "~"
"""Stands before a number that was measured while other work slowed the device down."""
MAX_NAMED = 3
"""If there are more values than this, only their number is reported."""


@dataclass(frozen=True)
class Mixture:
    """Something in which rows differ that should be alike."""

    column: str
    """A column of the record, or `code`: git_sha with a + if there were uncommitted changes."""
    counts: dict[str, int]
    """Rows of each value, the most frequent first."""
    matters: str

    @property
    def sentence(self) -> str:
        """The mixture as a sentence."""
        named = ", ".join(f"{value}: {counted(n, 'row')}" for value, n in self.counts.items())
        those = f" ({named})" if len(self.counts) <= MAX_NAMED else ""
        return f"The rows are of {len(self.counts)} {_SAID[self.column][0]}{those}: {self.matters}."


def mixtures(table: pd.DataFrame) -> list[Mixture]:
    """Return in what the finished rows differ; what is not known of a row is not held against it.

    Texts and tokenizers are not among it: findings.py speaks of them first.
    """
    done = table[is_done(table)]
    differing = []
    for column, (_, matters) in _SAID.items():
        values = code(done) if column == "code" else done.get(column)
        counts = {} if values is None else values.dropna().astype(str).value_counts().to_dict()
        if len(counts) > 1:
            differing.append(Mixture(column, {str(value): int(n) for value, n in counts.items()}, matters))
    return differing


def code(table: pd.DataFrame) -> pd.Series | None:
    """Return the commit of each row in seven digits, with a + for uncommitted changes."""
    if "git_sha" not in table:
        return None
    dirty = table["git_dirty"].fillna(False).astype(bool) if "git_dirty" in table else False
    return table["git_sha"].astype("string").str[:7] + pd.Series(dirty, index=table.index).map({True: "+", False: ""})


def crowded(table: pd.DataFrame) -> pd.Series:
    """Return for each row whether other work slowed its device down: another run of lmexp, or programs on its cores."""
    beside = pd.Series(False, index=table.index)
    if "exclusive" in table:
        beside |= (table["exclusive"] == False).fillna(False).astype(bool)  # noqa: E712  null is not False
    if "cpu_wait_fraction" in table:
        beside |= pd.to_numeric(table["cpu_wait_fraction"]).gt(MAX_WAIT_FRACTION).fillna(False).astype(bool)
    return beside


def slowed(table: pd.DataFrame, measure: str) -> pd.Series:
    """Return for each row whether its `measure` depends on the speed of a device that other work slowed down."""
    return crowded(table) & (measure in DEVICE_BOUND)
