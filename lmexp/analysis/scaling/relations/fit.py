"""Fits a relation by its name: the one entry for the command line and for Python."""

from dataclasses import dataclass

from lmexp.analysis.scaling.laws import RELATIONS, chinchilla, law_named
from lmexp.analysis.scaling.relations import best_values, downstream, loss_to_loss
from lmexp.analysis.scaling.relations.relation import Relation
from lmexp.analysis.scaling.relations.rows import Rows
from lmexp.errors import UserError, nearest


@dataclass(frozen=True)
class Asked:
    """Which relation to fit, on which columns, and what to predict."""

    law: str
    score: str | None = None
    """For downstream: the column of the score."""
    to: str | None = None
    """For loss_to_loss: the column of the loss to predict; the known one is the loss of the points."""
    tuned: str | None = None
    """For learning_rate and batch_size: the column of what was tried."""
    loss_law: str | None = None
    """For downstream: the law of the loss [default: chinchilla]."""
    runs: tuple[dict[str, float | str], ...] = ()
    """Runs to predict, by params and tokens, or by loss."""
    budgets: tuple[float, ...] = ()
    """Training FLOPs to predict for."""

    def __post_init__(self) -> None:
        """Raise UserError for an unknown law, and for a run that is described by what the law does not have."""
        if self.law not in RELATIONS:
            raise UserError(
                f"there is no relation '{self.law}'.{nearest(self.law, RELATIONS)} There are {', '.join(RELATIONS)}"
            )
        known = {"downstream": ("params", "tokens", "loss"), "loss_to_loss": ("loss",)}.get(
            self.law, ("params", "tokens")
        )
        for run in self.runs:
            if strange := next((name for name in run if name not in known), None):
                raise UserError(f"--predict {strange}=: the law {self.law} takes {', '.join(f'{k}=' for k in known)}")
            if "loss" in run and len(run) > 1:
                raise UserError("--predict: give the loss of a run, or its params and tokens, not both")
        if self.law == "loss_to_loss" and self.budgets:
            raise UserError("--flops: the law loss_to_loss knows no budgets; --predict loss=2.9 gives a loss")

    @property
    def needs_sizes(self) -> bool:
        """Whether a table must say the sizes of its runs."""
        return self.law in best_values.USUAL

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns and axes that may vary without a warning, because the law is about them."""
        if self.law not in best_values.USUAL:
            return ()
        return (
            *(name for names in best_values.USUAL.values() for name in names),
            *((self.tuned,) if self.tuned else ()),
        )


def fit_relation(
    rows: Rows, asked: Asked, delta: float | None = None, bootstraps: int = 1000, seed: int = 0
) -> Relation:
    """Fit a relation to rows, and return what it says. `delta` is that of the law of the loss in downstream.

    Raises UserError if the rows do not have its columns, or do not determine it.
    """
    runs = [{name: float(value) for name, value in run.items()} for run in asked.runs]
    if asked.law == downstream.NAME:
        if asked.score is None:
            raise UserError("downstream needs the column of the score")
        law = law_named(asked.loss_law) if asked.loss_law else chinchilla
        if not law.has_optimum:
            raise UserError(f"downstream takes a law of parameters and tokens, such as chinchilla, not {law.name}")
        fitted, errors = downstream.fit_downstream(rows, asked.score, law, delta, bootstraps, seed)
        return downstream.relation(fitted, errors, runs, asked.budgets, seed)
    if asked.law == loss_to_loss.NAME:
        if asked.to is None:
            raise UserError("loss_to_loss needs the column of the loss to predict")
        source = rows.loss_name
        between, held = loss_to_loss.fit_loss_to_loss(rows, source, asked.to, bootstraps, seed)
        return loss_to_loss.relation(between, held, [run["loss"] for run in runs if "loss" in run], seed)
    best = best_values.fit_best_values(asked.law, rows, asked.tuned, bootstraps, seed)
    return best_values.relation(best, runs, asked.budgets)
