"""The options of `lmexp fit`, by what they are about, and how they are read and checked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import typer

from lmexp.cli.options import AllRuns, Where
from lmexp.errors import UserError

if TYPE_CHECKING:
    from lmexp.analysis.scaling.laws import Law

QUANTITIES = (
    *("params", "tokens", "unique_tokens", "optimizer"),
    *("precision", "weight_bits", "activation_bits", "kv_bits"),
)
"""What a run to predict is described by."""


@dataclass(frozen=True)
class LawOptions:
    """Which laws to fit."""

    law: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Laws to fit: overtraining, repeated or optimizers, multipower for loss curves, damage for weights "
            "that are rounded after training, downstream for a score, learning_rate or batch_size for the best one, or "
            "loss_to_loss for two texts; or your own, such as 'loss = E + A*params^-alpha' "
            "[default: chinchilla,extra,kaplan].",
        ),
    ] = None

    def laws(self) -> "list[Law]":
        """Return the laws to fit. Raises UserError for a name that is no law of the losses of runs."""
        from lmexp.analysis.scaling.laws import DEFAULT_LAWS, law_named

        names = [name.strip() for name in ",".join(self.law or []).split(",") if name.strip()]
        return [law_named(name) for name in names] or list(DEFAULT_LAWS)


@dataclass(frozen=True)
class QuestionOptions(LawOptions):
    """What to predict from the fit."""

    parameter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=BOUNDS",
            help="A parameter of your own --law: fixed (beta=0.3), bounded (beta=0.1:1), of any sign (c=:), or with a "
            "start (beta=0.1:0.3:1). Can be repeated [default: above 0].",
        ),
    ] = None
    flops: Annotated[
        list[str] | None,
        typer.Option(
            help="Budgets to predict the best model for, such as 1e18,1e20 [default: 1 and 10 times the largest run]."
        ),
    ] = None
    serve: Annotated[
        float | None,
        typer.Option(metavar="TOKENS", help="Also find the cheapest model when this many tokens will be served."),
    ] = None
    predict: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN",
            help="Also predict the loss of this run, such as params=1.4e9,tokens=9e11; with --law multipower a file of "
            "step, lr and loss, or a run; with --law downstream or loss_to_loss also loss=2.9. Can be repeated.",
        ),
    ] = None
    cost: Annotated[
        str | None,
        typer.Option(
            help="Instead: fit the loss as a function of a cost: train_flops, train_seconds, dollars or energy_kwh."
        ),
    ] = None
    irreducible: Annotated[
        str | None,
        typer.Option(
            metavar="E",
            help="The irreducible loss E of all laws that have one: a number that is known (1.69), bounds (1.5:1.8, or "
            "one of both), or `floor` for the known floor of the text [default: 0 or more, fitted].",
        ),
    ] = None
    at: Annotated[
        list[str] | None, typer.Option(help="With --cost: the amounts to predict the loss for, such as 3600,36000.")
    ] = None

    @property
    def expressions(self) -> list[str]:
        """The laws that are expressions."""
        return [text for text in self.law or [] if "=" in text]

    @property
    def names(self) -> list[str]:
        """The laws that are given by their names."""
        named = ",".join(text for text in self.law or [] if "=" not in text)
        return [name.strip() for name in named.split(",") if name.strip()]

    def wanted(self) -> "list[Law | str]":
        """Return the laws to fit, as laws or expressions. Raises UserError for a name that is no law."""
        from lmexp.analysis.scaling.laws import DEFAULT_LAWS, law_named

        return [*map(law_named, self.names), *self.expressions] or list(DEFAULT_LAWS)

    def check(self) -> None:
        """Raise UserError for options that cannot be combined."""
        if self.cost is None and self.at:
            raise UserError("--at gives amounts of a --cost; budgets in FLOPs are --flops")
        if self.parameter and not self.expressions:
            raise UserError("--parameter is of a --law that is an expression, such as 'loss = E + A*params^-alpha'")
        if self.cost is not None and (self.flops or self.law or self.predict or self.serve is not None):
            raise UserError(
                "--cost fits the loss against one cost: --flops, --serve, --law and --predict need a fit without it"
            )
        if self.serve is not None and not 0 < self.serve < 1e30:
            raise UserError(f"--serve {self.serve:g}: give a number of tokens above 0")

    def law_of_one_question(self) -> str | None:
        """Return the law if --law names one that is not of the losses of runs, else None.

        Raises UserError if another option does not go with it.
        """
        from lmexp.analysis.scaling.laws import ONE_QUESTION, RELATIONS

        names = [*self.names, *self.expressions]
        name = next((name for name in names if name in ONE_QUESTION), None)
        if name is None:
            return None
        others = len(names) > (2 if name == "downstream" else 1)
        if others or (self.flops and name not in RELATIONS) or self.serve is not None or self.irreducible:
            raise UserError(
                f"--law {name} is about {ONE_QUESTION[name]}: other laws, --flops, --serve and --irreducible need a "
                "fit of runs' losses"
            )
        return name


@dataclass(frozen=True)
class StudyColumns:
    """Which rows of a study to fit, and the names of the columns that hold them."""

    params: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column with the number of parameters.")] = None
    tokens: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column with the training tokens.")] = None
    compute: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column with the training FLOPs [default: 6 x parameters x tokens]."),
    ] = None
    loss: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column with the loss.")] = None
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column that says which rows are one run, such as branches of a trunk; `row` if every row is one "
            "[default: unit, run_id, run or name].",
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column with the weight of each row in the fit, such as a number of seeds or an inverse variance; 0 "
            "leaves a row out [default: all rows weigh the same].",
        ),
    ] = None
    where: Where = None
    all_runs: AllRuns = False

    def parse(self) -> dict[str, str]:
        """Return the given names by what they hold."""
        names = {
            "params": self.params,
            "tokens": self.tokens,
            "flops": self.compute,
            "loss": self.loss,
            "unit": self.unit,
            "weights": self.weights,
        }
        return {key: name for key, name in names.items() if name}


@dataclass(frozen=True)
class ColumnOptions(StudyColumns):
    """The same, for a study or a file."""

    scale: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FACTOR",
            help="For a file: factors that give plain numbers and nats, such as params=1e6,tokens=1e9; 1 takes a "
            "column as it is, however unlikely.",
        ),
    ] = None

    def factors(self) -> dict[str, float]:
        """Return the factors of --scale by quantity. Raises UserError for a quantity or a factor that is none."""
        from lmexp.analysis.select import parse_limits

        factors = parse_limits(self.scale or (), "--scale")
        for name, factor in factors.items():
            if name not in ("params", "tokens", "flops", "loss") or factor <= 0:
                raise UserError(f"--scale {name}={factor:g}: a factor above 0 of params, tokens, flops or loss")
        return factors


@dataclass(frozen=True)
class RelationOptions:
    """The columns of a law that relates others than size and loss."""

    score: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="With --law downstream: column with the score, such as score/tag/span_f1."),
    ] = None
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="COLUMN", help="With --law loss_to_loss: column with the known loss [default: the loss]."
        ),
    ] = None
    to: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="With --law loss_to_loss: column with the loss to predict.")
    ] = None
    tuned: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="With --law learning_rate or batch_size: column with what was tried [default: optim.lr, batch_tokens, "
            "or another usual name].",
        ),
    ] = None

    def check(self, law: str | None) -> None:
        """Raise UserError if a column is given that the law does not have, or a needed one is missing."""
        given = {"--score": self.score, "--from": self.from_, "--to": self.to, "--tuned": self.tuned}
        takes = {
            "downstream": ("--score",),
            "loss_to_loss": ("--from", "--to"),
            "learning_rate": ("--tuned",),
            "batch_size": ("--tuned",),
        }
        for option, column in given.items():
            if column is not None and option not in takes.get(law or "", ()):
                laws = " or ".join(name for name, options in takes.items() if option in options)
                raise UserError(f"{option} {column}: this option goes with --law {laws}")
        if law == "downstream" and self.score is None:
            raise UserError("--law downstream needs --score COLUMN, the score that follows from the loss")
        if law == "loss_to_loss" and self.to is None:
            raise UserError("--law loss_to_loss needs --to COLUMN, the loss to predict; --from names the known one")


@dataclass(frozen=True)
class SolverOptions:
    """How the laws are fitted."""

    delta: Annotated[
        float | None,
        typer.Option(
            help="Where the Huber loss turns linear; Chinchilla used 1e-3, and 1e-6 or less gives least absolute "
            "deviations [default: computed from the residuals]."
        ),
    ] = None
    bootstraps: Annotated[
        int, typer.Option(min=100, max=10_000, help="Number of bootstrap refits for the confidence intervals.")
    ] = 1000
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0

    def check(self) -> None:
        """Raise UserError for a delta out of range."""
        if self.delta is not None and not 0 < self.delta < 1e3:
            raise UserError(f"--delta {self.delta:g}: give a number above 0, such as 1e-3")


def amounts_in(option: str, values: list[str] | None) -> list[float]:
    """Return the numbers of an option that can be repeated, or given as a list with commas."""
    amounts = []
    for text in ",".join(values or []).split(","):
        if not text.strip():
            continue
        try:
            amount = float(text)
        except ValueError:
            amount = 0.0
        if not 0 < amount < 1e40:
            raise UserError(f"{option} {text.strip()}: give a number above 0, such as 1e21")
        amounts.append(amount)
    return amounts


def _number_of(option: str, text: str) -> float:
    """Return a number of any sign. Raises UserError if it is none."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{option}{text}: give a number")
    return number


def described_runs(
    option: str,
    texts: list[str] | None,
    quantities: tuple[str, ...] = QUANTITIES,
    columns: Mapping[str, str] = MappingProxyType({}),
) -> list[dict[str, float | str]]:
    """Return what is known of runs that are described as `params=1e9,tokens=2e10`, by some quantities.


    `columns` are the names that a law of the user's may take, each with the column that it stands for. Raises UserError
    for a quantity or a number that is none.
    """
    runs = []
    for text in texts or ():
        run: dict[str, float | str] = {}
        for word in text.split(","):
            name, _, value = (part.strip() for part in word.partition("="))
            known = dict.fromkeys((*quantities, *columns))
            if name not in known or not value:
                raise UserError(f"{option} {word}: give {', '.join(f'{key}=' for key in known)} of a run")
            if name not in quantities:
                name = columns[name]
                if name not in quantities:
                    run[name] = _number_of(f"{option} {name}=", value)
                    continue
            run[name] = value if name in ("optimizer", "precision") else amounts_in(f"{option} {name}=", [value])[0]
        runs.append(run)
    return runs
