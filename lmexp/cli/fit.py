"""`lmexp fit`: scaling laws of a study, or of a file of points."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmexp.cli.app import DECIDE, out, print_json, print_line, verb
from lmexp.cli.fit_options import (
    QUANTITIES,
    ColumnOptions,
    QuestionOptions,
    RelationOptions,
    SolverOptions,
    amounts_in,
    described_runs,
)
from lmexp.cli.options import Common
from lmexp.errors import UserError

if TYPE_CHECKING:
    import altair as alt

    from lmexp.analysis.scaling.answers import Answer
    from lmexp.analysis.scaling.curves import Curve
    from lmexp.analysis.scaling.points import Points
    from lmexp.analysis.table import Study
    from lmexp.report.terminal.fit import FitText

TABLE_SUFFIXES = {".csv", ".tsv", ".parquet", ".txt"}
"""Endings of a file of points."""
CURVE_SUFFIXES = {".csv", ".tsv", ".txt", ".jsonl"}
"""Endings of a file that holds a loss curve."""


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
    return study.kept(where) if where else study


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
