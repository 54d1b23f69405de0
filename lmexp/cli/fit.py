"""`lmexp fit`: scaling laws of a study, or of a file of points."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmexp.cli.app import DECIDE, out, print_json, print_line, verb
from lmexp.cli.options import AllRuns, Common, Where
from lmexp.errors import UserError

if TYPE_CHECKING:
    import altair as alt

    from lmexp.analysis.scaling.answers import Answer
    from lmexp.analysis.scaling.curves import Curve
    from lmexp.analysis.scaling.laws import Law
    from lmexp.analysis.scaling.points import Points
    from lmexp.analysis.table import Study
    from lmexp.report.terminal.fit import FitText

TABLE_SUFFIXES = {".csv", ".tsv", ".parquet", ".txt"}
"""Endings of a file of points."""
QUANTITIES = (
    *("params", "tokens", "unique_tokens", "optimizer"),
    *("precision", "weight_bits", "activation_bits", "kv_bits"),
)
"""What a run to predict is described by."""
CURVE_SUFFIXES = {".csv", ".tsv", ".txt", ".jsonl"}
"""Endings of a file that holds a loss curve."""


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


@verb(DECIDE, "lmexp fit isoflop", "lmexp fit points.csv --flops 1e21,1e23")
def fit(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME | FILE",
            help="Sweeps with finished runs, or one .csv, .tsv or .parquet file; for loss curves, runs or files.",
        ),
    ],
    question: QuestionOptions,
    relation: RelationOptions,
    columns: ColumnOptions,
    solver: SolverOptions,
    common: Common,
    charts: Annotated[
        str | None, typer.Option(metavar="FORMATS", help="Also write the charts as files: png,svg,pdf.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="latex", help="Print the laws' numbers as a table for LaTeX instead."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for fit.html and fit.json [default: the sweep's, or for a file the current one]."),
    ] = None,
) -> None:
    """Fit scaling laws: best sizes, tokens and losses for budgets, with intervals, held-out errors and warnings."""
    from lmexp.analysis.scaling.laws import DAMAGE, RELATIONS
    from lmexp.report.charts.export import check_formats
    from lmexp.report.page.fit import write_fit_charts, write_fit_page
    from lmexp.report.terminal.fit import print_fit

    question.check()
    solver.check()
    if form not in (None, "latex"):
        raise UserError(f"--format {form}: the one format is latex; --json prints one document")
    formats = check_formats(charts) if charts is not None else []
    law = question.law_of_one_question()
    relation.check(law)
    if law and columns.weights:
        raise UserError(f"--weights is for laws of the losses of runs: leave it out with --law {law}")
    if law in RELATIONS:
        fitted = _fit_relation(law, names, question, relation, columns, solver, common.output_dir)
    else:
        fit_them = {None: _fit_points, DAMAGE: _fit_damage}.get(law, _fit_curves)
        fitted = fit_them(names, question, columns, solver, common.output_dir)
    if form and fitted.latex is None:
        raise UserError(f"--format latex is for laws with a table of numbers: leave it out with --law {law}")
    folder = output or fitted.folder
    page = write_fit_page(fitted.text, fitted.charts, fitted.document, fitted.name, folder)
    drawn = write_fit_charts(fitted.charts, folder, formats)
    if common.as_json:
        print_json(fitted.document | {"page": str(page), "charts": [str(chart) for chart in drawn]})
        return
    if form and fitted.latex is not None:
        out.print_piece(fitted.latex)
        return
    print_fit(fitted.text, out)
    print_line(f"\nfit: {page}")
    for chart in drawn:
        print_line(str(chart))


@dataclass(frozen=True)
class _Fitted:
    """A fit as it is printed and written."""

    text: "FitText"
    charts: "dict[str, alt.LayerChart]"
    document: dict[str, Any]
    name: str
    folder: Path
    latex: str | None = None
    """Its numbers as a table; None for a fit of loss curves, or of the damage of rounding."""


def _fit_points(
    names: list[str], question: QuestionOptions, columns: ColumnOptions, solver: SolverOptions, output_dir: Path
) -> _Fitted:
    """Fit laws to the points of a file or of sweeps."""
    from lmexp.report.charts.fit import fit_charts
    from lmexp.report.export.fit_document import fit_document
    from lmexp.report.export.fit_latex import fit_latex
    from lmexp.report.terminal.fit import fit_text

    flops, amounts = amounts_in("--flops", question.flops), amounts_in("--at", question.at)
    flops_alone = question.cost in ("flops", "train_flops") or (bool(question.expressions) and not question.names)
    points, name, folder = _points(names, columns, output_dir, flops_alone, question.expressions)
    answer = _answer(points, question, flops, amounts, solver)
    return _Fitted(fit_text(answer), fit_charts(answer), fit_document(answer), name, folder, fit_latex(answer))


def _fit_curves(
    names: list[str], question: QuestionOptions, columns: ColumnOptions, solver: SolverOptions, output_dir: Path
) -> _Fitted:
    """Fit the multi-power law to the loss curves of files or runs, and predict those of --predict."""
    from lmexp.analysis.scaling.multipower import fit_curves
    from lmexp.report.charts.fit_curves import curve_charts
    from lmexp.report.export.fit_curves_document import curves_document
    from lmexp.report.terminal.fit_curves import curves_text

    curves = [curve for name in names for curve in _curves(name, columns.loss, output_dir)]
    others = [curve for name in question.predict or () for curve in _curves(name, columns.loss, output_dir)]
    fitted = fit_curves(curves, solver.delta)
    tested = tuple(fitted.test(curve) for curve in others)
    document = curves_document(fitted, tested)
    return _Fitted(curves_text(fitted, tested), curve_charts(fitted, others), document, ", ".join(names), Path())


def _fit_damage(
    names: list[str], question: QuestionOptions, columns: ColumnOptions, solver: SolverOptions, output_dir: Path
) -> _Fitted:
    """Fit the law of rounded weights to a file, or to the scores of sweeps, and predict the runs of --predict."""
    from lmexp.analysis.scaling.damage import damage_of_csv, damage_of_study, fit_damage
    from lmexp.report.charts.fit_damage import damage_charts
    from lmexp.report.export.fit_damage_document import damage_document
    from lmexp.report.terminal.fit_damage import damage_text

    runs = list(zip(question.predict or (), described_runs("--predict", question.predict), strict=True))
    if columns.scale:
        raise UserError("--scale has no effect with --law damage: write plain numbers and nats")
    if _is_file(names, columns, output_dir):
        file, folder, name = Path(names[0]), Path(), Path(names[0]).name
        points = damage_of_csv(file, columns.parse(), columns.where)
    else:
        if columns.loss:
            raise UserError("--loss is for files with --law damage: the damage of a sweep's runs follows from scores")
        study = _study(names, columns.all_runs, None, output_dir)
        points = damage_of_study(study, columns.parse(), columns.where)
        folder, name = output_dir / "+".join(names), study.name
    fitted = fit_damage(points, solver.delta, solver.bootstraps, solver.seed)
    predicted = [(words, fitted.of_run(run)) for words, run in runs]
    text, document = damage_text(fitted, predicted), damage_document(fitted, predicted)
    return _Fitted(text, damage_charts(fitted), document, name, folder)


def _fit_relation(
    law: str,
    names: list[str],
    question: QuestionOptions,
    relation: RelationOptions,
    columns: ColumnOptions,
    solver: SolverOptions,
    output_dir: Path,
) -> _Fitted:
    """Fit a law of the package `relations` to a file or to sweeps, and predict what was asked for."""
    from lmexp.analysis.scaling.relations.fit import Asked, fit_relation
    from lmexp.analysis.scaling.relations.rows import rows_of_file, rows_of_study
    from lmexp.report.charts.fit_relation import relation_charts
    from lmexp.report.export.fit_latex import relation_latex
    from lmexp.report.export.fit_relation_document import relation_document
    from lmexp.report.terminal.fit_relation import relation_text

    asked = Asked(
        law=law,
        score=relation.score,
        to=relation.to,
        tuned=relation.tuned,
        loss_law=next((name.strip() for name in ",".join(question.law or []).split(",") if name.strip() != law), None),
        runs=tuple(described_runs("--predict", question.predict, (*QUANTITIES, "loss"))),
        budgets=tuple(amounts_in("--flops", question.flops)),
    )
    named = columns.parse() | ({"loss": relation.from_} if relation.from_ else {})
    if relation.from_ and columns.loss:
        raise UserError("--loss and --from are one column here: give one of them")
    if _is_file(names, columns, output_dir):
        file, folder, name = Path(names[0]), Path(), Path(names[0]).name
        rows = rows_of_file(file, named, columns.factors(), columns.where, asked.needs_sizes, asked.columns)
    else:
        if columns.scale:
            raise UserError("--scale is for files: the units of a sweep's records are known")
        study = _study(names, columns.all_runs, columns.where, output_dir)
        rows, folder, name = rows_of_study(study, named, asked.columns), output_dir / "+".join(names), study.name
    fitted = fit_relation(rows, asked, solver.delta, solver.bootstraps, solver.seed)
    text, document = relation_text(fitted), relation_document(fitted)
    return _Fitted(text, relation_charts(fitted), document, name, folder, relation_latex(fitted))


def _curves(name: str, loss: str | None, output_dir: Path) -> "list[Curve]":
    """Return the loss curve of a file or a run, or those of a sweep's runs."""
    from lmexp.analysis.scaling.curves import curve_of_file, curve_of_run
    from lmexp.runs.find import find_run, runs_of, sweep_folder

    if Path(name).suffix.lower() in CURVE_SUFFIXES:
        return [curve_of_file(Path(name), loss)]
    folder = sweep_folder(name, output_dir)
    runs = runs_of(folder) if (folder / "sweep.json").is_file() else [find_run(name, output_dir)]
    return [curve_of_run(run, loss) for run in runs]


def _points(
    names: list[str], columns: ColumnOptions, output_dir: Path, flops_alone: bool, expressions: list[str]
) -> "tuple[Points, str, Path]":
    """Return the points of a file or of sweeps, their name, and the folder for the fit.

    With `flops_alone`, a file may lack parameters and tokens. `expressions` are laws whose columns are read too.
    """
    from lmexp.analysis.scaling.readers import points_of_csv, points_of_study

    if _is_file(names, columns, output_dir):
        file = Path(names[0])
        points = points_of_csv(file, columns.parse(), columns.factors(), columns.where, flops_alone, expressions)
        return points, file.name, Path()
    if columns.scale:
        raise UserError("--scale is for files: the units of a sweep's records are known")
    study = _study(names, columns.all_runs, columns.where, output_dir)
    return points_of_study(study, columns.parse(), expressions=expressions), study.name, output_dir / "+".join(names)


def _is_file(names: list[str], columns: ColumnOptions, output_dir: Path) -> bool:
    """Whether the input is one file of points. Raises UserError for one with --all."""
    is_table = len(names) == 1 and Path(names[0]).suffix.lower() in TABLE_SUFFIXES
    if not is_table or (output_dir / names[0]).is_dir():
        return False
    if columns.all_runs:
        raise UserError("--all is for sweeps; every row of a file is used anyway")
    return True


def _study(names: list[str], all_runs: bool, where: str | None, output_dir: Path) -> "Study":
    """Return the rows of sweeps that an expression keeps. Raises UserError if there are none."""
    from lmexp.analysis.table import load_study
    from lmexp.runs.find import sweep_folder

    study = load_study([sweep_folder(name, output_dir) for name in names], all_runs)
    if where:
        study = study.where(where)
        if study.table.empty:
            raise UserError(f"no row of {study.name} meets --where {where}")
    return study


def _answer(
    points: "Points", question: QuestionOptions, flops: list[float], amounts: list[float], solver: SolverOptions
) -> "Answer":
    from lmexp.analysis.scaling.answers import answer, answer_in_cost

    if question.cost is None:
        return answer(
            points,
            flops,
            question.serve,
            solver.delta,
            solver.bootstraps,
            solver.seed,
            question.wanted(),
            described_runs(
                "--predict", question.predict, QUANTITIES, points.names_of_columns if question.expressions else {}
            ),
            question.irreducible,
            question.parameter or (),
        )
    return answer_in_cost(
        points, question.cost, amounts, solver.delta, solver.bootstraps, solver.seed, question.irreducible
    )


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
