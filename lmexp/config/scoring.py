"""What `lmexp eval` measures: in which precision, on which samples, and the name of the scores."""

import re
from dataclasses import asdict, dataclass
from typing import get_args

from lmexp.config.base import Compute
from lmexp.config.data import SPLITS, Split
from lmexp.errors import UserError, nearest

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
FLOATS: tuple[str, ...] = tuple(kind for kind in get_args(Compute) if kind != "fp8")
"""Precisions that the weights of a finished model can be cast to."""
INTEGERS = ("int8", "int4")
"""Precisions that its weights can be rounded to."""


@dataclass(frozen=True)
class Scoring:
    """What is scored, and how."""

    name: str | None = None
    """The scores are called `score/<name>/<metric>` [default: the name of the task, with `-test` for the test split; if
    that is not the run's own split, with the first digits of the hash of the data]."""
    predicts: str | None = None
    """What a pretrained model predicts: causal, masked or seq2seq [default: as its config says]."""
    precision: str | None = None
    """One of FLOATS or INTEGERS, to which the weights are converted [default: float32, as they are stored]."""
    examples: int | None = None
    """Score only the first samples of the split, this many [default: all]."""
    split: Split = "validation"

    def check(self) -> None:
        """Raise UserError for a name that cannot be part of a column name, or an unknown value."""
        check_name(self.name)
        precisions = [*FLOATS, *INTEGERS]
        for option, value, choices in (
            ("precision", self.precision, precisions),
            ("split", self.split, SPLITS[1:]),
        ):
            if value is not None and value not in choices:
                raise UserError(f"--{option} {value}: expected one of {', '.join(choices)}.{nearest(value, choices)}")
        if self.examples is not None and self.examples < 1:
            raise UserError(f"--examples {self.examples}: at least 1")

    def request(self, words: list[str]) -> dict[str, object]:
        """Return what was asked for beside the defaults, with overrides of `data` and `task`: kept with the scores."""
        changed = {key: value for key, value in asdict(self).items() if value != getattr(Scoring, key)}
        return changed | ({"overrides": list(words)} if words else {})


def check_name(name: str | None) -> None:
    """Raise UserError for a name that cannot be part of a column name."""
    if name is not None and not NAME.fullmatch(name):
        raise UserError(f"--as {name}: use small letters, digits, and . _ - between them, as in --as news")
