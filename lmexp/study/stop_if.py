"""`--stop-if`: stop a run while it trains, by an expression over its last losses and its predicted final loss."""

from pathlib import Path

import pandas as pd

from lmexp.analysis.filters import matching
from lmexp.analysis.final_loss.predict import FinalLossPredictor, Prediction
from lmexp.analysis.grammar import ColumnNames, names_in, parse
from lmexp.errors import UserError
from lmexp.runs.directory import RunDir
from lmexp.runs.state import PRUNED

NAMES = (
    *("predicted_loss", "predicted_low", "predicted_high"),
    *("loss", "train_loss", "share", "step", "tokens", "flops", "seconds"),
)
"""What an expression may use: the predicted final loss with its interval, and the last values of the curve."""


class StopIf:
    """A rule that stops a run as soon as an expression is true of it; what is not known yet is null, so not true."""

    def __init__(self, expression: str) -> None:
        """Raises UserError for an expression that cannot be read, or that uses nothing of the run."""
        self._expression = expression.strip()
        self.name = f"--stop-if {self._expression!r}"
        of_numbers = pd.DataFrame([dict.fromkeys(NAMES, 1.0)])  # of nulls, nothing would say that `loss` is a number
        try:
            matching(of_numbers, self._expression)
            used = names_in(parse(self._expression, ColumnNames(NAMES)))
        except UserError as problem:
            raise UserError(f"--stop-if: {problem}") from None
        self._used = [name for name in NAMES if name in used]
        if not self._used:
            raise UserError(f"--stop-if: the expression uses none of {', '.join(NAMES)}")
        self._predictors: dict[Path, FinalLossPredictor] = {}
        self._judged: dict[Path, tuple[int, int]] = {}
        """By run: the time and the size of the curve that was judged last."""

    def why(self, run: RunDir, folder: Path) -> str | None:
        """Return why a run should be stopped, or None, also if its curve has not grown since the last call."""
        try:
            file = (run.path / "metrics.jsonl").stat()
        except OSError:
            return None
        stamp = file.st_mtime_ns, file.st_size
        if self._judged.get(run.path) == stamp:
            return None
        self._judged[run.path] = stamp
        values = self._values(run, folder)
        if not matching(pd.DataFrame([values]), self._expression)[0]:
            return None
        known = ", ".join(f"{name} is {values[name]:.4g}" for name in self._used if values[name] is not None)
        return f"{PRUNED}{100 * (values['share'] or 0):.0f} % of its budget: {known}; {self.name}"

    def _values(self, run: RunDir, folder: Path) -> dict[str, float | None]:
        values: dict[str, float | None] = dict.fromkeys(NAMES)
        for point in run.read_curve():
            values |= {name: point[name] for name in NAMES if name in point}
        values["share"] = run.read_state().share
        if any(name.startswith("predicted") for name in self._used):
            made = self._predictors.setdefault(folder, FinalLossPredictor(folder)).predict(run)
            if isinstance(made, Prediction):
                values |= {"predicted_loss": made.loss, "predicted_low": made.low, "predicted_high": made.high}
        return values
