"""The papers that lmexp ships: every scale composes, and every claim and figure fits the table that its runs will make.

Nothing is trained and no text is read, so that a mistake in a file is found before hours of runs.
"""

import re
from functools import cache

import pandas as pd
import pytest

from lmexp.analysis.filters import matching
from lmexp.analysis.grammar import ColumnNames, names_in, parse
from lmexp.analysis.table import plain
from lmexp.config import paths
from lmexp.config.cells import expand
from lmexp.config.checks import check_config
from lmexp.config.compose import Composer, Values
from lmexp.config.overrides import split_words
from lmexp.errors import UserError
from lmexp.papers.drawing import draw
from lmexp.papers.evidence import Evidence
from lmexp.papers.expressions import ClaimReader, estimate, in_each_row
from lmexp.papers.held_out import CURVE
from lmexp.papers.judge import judge
from lmexp.papers.paper import ARITHMETIC, POINTS, SCALES, Scale, paper_files, read_paper
from lmexp.resolve.run import init_name
from lmexp.runs.columns import COLUMNS
from lmexp.runs.manifest import INIT

ROOTS = [paths.shipped_root()]
PAPERS = {name: read_paper(file) for name, file in paper_files(ROOTS).items()}
AT_SCALES = [(name, scale) for name, paper in PAPERS.items() for scale in SCALES if scale in paper]
LARGER = [(name, scale) for name, scale in AT_SCALES if scale != "cpu"]  # tests/config composes cells at scale cpu
WITH_POINTS = [name for name, paper in PAPERS.items() if POINTS in paper]
OF_LAWS = [name for name, paper in PAPERS.items() if ARITHMETIC in paper]
LAST_DIGITS = {"sardana2023": {"trained_70b"}}
"""The claims of arithmetic that are contradicted, by one unit of the last published digit; all others are borne out."""
TASKS = "|".join(sorted(file.stem for file in (ROOTS[0] / "conf" / "task").glob("*.yaml")))
SCORE = re.compile(rf"score/(?:{TASKS})(?:-int8|-int4|-test)?/\w+")
"""Columns of scores that runs get, by training or by `lmexp eval`."""


@cache
def cells_at(name: str, scale: Scale) -> tuple[Composer, list[Values]]:
    """Return what composes a paper's cells at a scale, and the cells."""
    file = paper_files(ROOTS)[name]
    of_sweep, of_runs = split_words(PAPERS[name].overrides(scale))
    expansion = expand(Composer(ROOTS, file, of_sweep).sweep_spec(), of_runs)
    return Composer(ROOTS, file, expansion.fixed), expansion.cells


def table_of(cells: list[Values], texts: list[str]) -> pd.DataFrame:
    """Return a row for each cell: its values of the axes, and an invented one for every other column of a record."""
    scores = {score for text in texts for score in SCORE.findall(text)}
    record = {name: "some text" if column.is_text else 1.0 for name, column in COLUMNS.items()}
    chains = [cell["init.pretrain"] for cell in cells if cell.get("init.pretrain")]
    cells = [cell | {INIT: init_name(cell.get("init.pretrain", {}), chains)} for cell in cells] if chains else cells
    axes = dict.fromkeys(key for cell in cells for key in cell)
    values = [{key: plain(cell.get(key)) for key in axes} for cell in cells]
    return pd.DataFrame([{**record, **dict.fromkeys(scores, 1.0), **row} for row in values])


def check_claim(expression: str, table: pd.DataFrame) -> None:
    """Raise UserError for what no run can mend: unknown names, and a comparison of a text with a number."""
    reader = ClaimReader(Evidence(table, (), ""), expression)
    calls = reader.calls(reader.parse())
    assert calls, f"{expression}: it is the same whatever the runs give"
    for call in calls:
        function = reader.function(call)
        assert len(call.arguments) >= len(function.arguments), f"{expression}: write {function.signature}"
        for argument in (*call.arguments, *(value for _, value in call.options)):
            reader.read(argument)
    try:
        estimate(expression, Evidence(table.head(1), ("seed",), "one row"))
    except UserError as problem:  # one row is too few for a law, which is no fault of the claim
        assert not re.search(r"there is no (column|function|law|parameter)|Did you mean", str(problem)), str(problem)


@pytest.mark.parametrize(("name", "scale"), LARGER)
def test_the_first_and_the_last_cell_of_every_scale_compose(name: str, scale: Scale):
    composer, cells = cells_at(name, scale)
    for cell in {id(cell): cell for cell in (cells[0], cells[-1])}.values():
        check_config(composer.config(cell))


@pytest.mark.parametrize(("name", "scale"), AT_SCALES)
def test_claims_and_figures_fit_the_table_of_their_runs(name: str, scale: Scale):
    paper = PAPERS[name]
    claims, figures = paper.claims_at(scale), paper.figure if scale == "cpu" else []
    assert claims, "no claim is tested at this scale"
    texts = [claim.value for claim in claims] + [f"{figure.x} {figure.y} {figure.by}" for figure in figures]
    table = table_of(cells_at(name, scale)[1], texts)
    for claim in claims:
        check_claim(claim.value, table)
    for figure in figures:
        for expression in filter(None, (figure.x, figure.y, figure.by)):
            in_each_row(expression, table)
        if figure.where:
            matching(table, figure.where)


@pytest.mark.parametrize("name", [name for name, paper in PAPERS.items() if paper.has_sweep])
def test_scores_in_other_precisions_come_from_the_evaluations_of_the_paper(name: str):
    paper = PAPERS[name]
    texts = [claim.value for claim in paper.claims] + [f"{figure.x} {figure.y}" for figure in paper.figure]
    named = {kind for text in texts for kind in re.findall(r"score/[a-z_0-9]+-(int8|int4)/", text)}
    assert named == {one.precision for one in paper.evaluations}


@pytest.mark.parametrize("name", WITH_POINTS)
def test_claims_on_published_points_name_functions_and_laws_that_exist(name: str):
    for claim in PAPERS[name].claims_at(POINTS):  # which columns the file has is known to its source alone
        named = names_in(parse(claim.value, ColumnNames(()), ClaimReader.grammar))
        check_claim(claim.value, pd.DataFrame({column: ["some text" if column == CURVE else None] for column in named}))


@pytest.mark.parametrize("name", OF_LAWS)
def test_arithmetic_gives_the_published_numbers(name: str):
    paper, nothing = PAPERS[name], Evidence(pd.DataFrame(), (), "no rows")
    verdicts = {one.claim.name: one.verdict for one in judge(paper.claims, nothing)}
    assert {claim for claim, verdict in verdicts.items() if verdict == "contradicted"} == LAST_DIGITS[name]
    assert set(verdicts.values()) == {"borne out", "contradicted"}
    for figure in paper.figure:
        draw(figure, nothing)
