"""The arms that are compared: sets of rows of a study, named by an axis, by expressions, or by sweeps.

    optim                                every value of an axis is an arm
    optim=adamw,muon                     some of its values
    "optim == 'adamw' and optim.lr > 1e-3"    an expression over columns (filters.py)

The first arm is the baseline, unless another is named.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmexp.analysis.arrays import Marks
from lmexp.analysis.columns import axis_headings
from lmexp.analysis.effects.pairing import axis_value, axis_values
from lmexp.analysis.filters import matching
from lmexp.analysis.frontier import is_done
from lmexp.analysis.table import Study
from lmexp.errors import UserError, nearest

_VALUES = re.compile(r"\s*([^\s=<>!'\"`()]+)\s*=\s*([^\s=<>!,]+(?:\s*,\s*[^\s=<>!,]+)*)\s*")
"""An axis and some of its values; anything else with an equals sign is an expression."""
_NAME = re.compile(r"[\w.@/-]+")
"""The name of an axis alone."""


@dataclass(frozen=True, eq=False)
class Arm:
    """One arm."""

    name: str
    rows: Marks
    """(n,) which rows of the study's table are of it."""


def arms_by_sweep(study: Study) -> list[Arm]:
    """Return each sweep of a study as an arm. Raises UserError for a single sweep, and for one without a result."""
    if len(study.members) < 2:
        raise UserError(
            f"{study.name} is one sweep: name its arms with --arms, as in --arms {_example(study)}, or a second sweep"
        )
    ids = study.table["run_id"]
    marks = {name: ids.isin(members).to_numpy(dtype=bool) for name, members in study.members.items()}
    return [
        _checked(Arm(name, rows & is_done(study.table)), f"{name} has no finished run") for name, rows in marks.items()
    ]


def arms_by_words(study: Study, words: Sequence[str]) -> list[Arm]:
    """Return the arms that `--arms` names.

    Raises UserError for an unknown axis or value, an expression that is wrong, an arm without a finished run, and
    fewer than two arms.
    """
    arms = [arm for word in words for arm in _arms_of(study, word)]
    if len(arms) < 2:
        known = f" {study.name} has {arms[0].name}" if arms else ""
        raise UserError(f"--arms {' '.join(words)}: this is one arm, and a comparison takes two.{known}")
    twice = next((arm.name for i, arm in enumerate(arms) if arm.name in [other.name for other in arms[:i]]), None)
    if twice is not None:
        raise UserError(f"--arms names {twice} twice")
    return arms


def with_baseline(arms: Sequence[Arm], name: str | None) -> list[Arm]:
    """Return the arms with the baseline first. Raises UserError if no arm has this name."""
    if name is None:
        return list(arms)
    chosen = [arm for arm in arms if name in (arm.name, arm.name.partition("=")[2])]
    if not chosen:
        known = [arm.name for arm in arms]
        raise UserError(
            f"--baseline {name}: no arm has this name.{nearest(name, known)} The arms are {', '.join(known)}"
        )
    return [chosen[0], *(arm for arm in arms if arm is not chosen[0])]


def _arms_of(study: Study, word: str) -> list[Arm]:
    """Return the arms that one word of `--arms` names."""
    axes = [axis for axis in study.varied if axis != "seed"]
    if match := _VALUES.fullmatch(word):
        axis, values = match.groups()
        return [_of_value(study, _axis(axis, study), value.strip().strip("'\"")) for value in values.split(",")]
    by_heading = {heading: axis for axis, heading in axis_headings(axes).items()}
    word = by_heading.get(word, word)
    if word in axes:
        values = dict.fromkeys(map(axis_value, [*study.axes.get(word, []), *axis_values(study.table[word])]))
        arms = [Arm(_name(word, value, axes), _rows(study, word, str(value))) for value in values if value is not None]
        return [arm for arm in arms if arm.rows.any()]
    if _NAME.fullmatch(word):
        _axis(word, study)
    try:
        rows = matching(study.table, word) & is_done(study.table)
    except UserError as error:
        raise UserError(f"--arms: {error}") from None
    return [_checked(Arm(word.strip(), rows), f"--arms: no finished run of {study.name} meets {word}")]


def _axis(name: str, study: Study) -> str:
    """Return an axis by its name or its heading. Raises UserError if there is none."""
    axes = [axis for axis in study.varied if axis != "seed"]
    if name in axes or name in study.table:
        return name
    by_heading = {heading: axis for axis, heading in axis_headings(axes).items()}
    if name in by_heading:
        return by_heading[name]
    known = f"The axes are {', '.join(axes)}" if axes else "No setting but the seed varies"
    raise UserError(f"--arms: there is no axis '{name}' in {study.name}.{nearest(name, axes)} {known}")


def _of_value(study: Study, axis: str, value: str) -> Arm:
    arm = Arm(_name(axis, value, study.varied), _rows(study, axis, value))
    known = list(dict.fromkeys(str(each) for each in axis_values(study.table[axis]) if each is not None))
    hint = nearest(value, known) if value not in known else ""
    return _checked(
        arm, f"--arms: no finished run of {study.name} has {axis} {value}.{hint} Its values are {', '.join(known)}"
    )


def _rows(study: Study, axis: str, value: str) -> Marks:
    """Return a mask of the finished rows with a value of an axis; numbers may be written in any way."""
    same = np.array(
        [str(each) == value or _number(str(each)) == _number(value) for each in axis_values(study.table[axis])]
    )
    return np.asarray(same & is_done(study.table), dtype=bool)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _name(axis: str, value: object, axes: Sequence[str]) -> str:
    return f"{axis_headings([*axes, axis] if axis not in axes else axes)[axis]}={value}"


def _checked(arm: Arm, otherwise: str) -> Arm:
    if not arm.rows.any():
        raise UserError(otherwise)
    return arm


def _example(study: Study) -> str:
    axes = [axis for axis in study.varied if axis != "seed"]
    return axes[0] if axes else "\"precision == 'bf16'\""
