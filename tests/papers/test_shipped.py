"""The papers that lmexp ships: every scale composes, and every claim names functions, laws and columns that exist."""

import re

import pandas as pd
import pytest

from lmexp.config import paths
from lmexp.config.cells import expand
from lmexp.config.checks import check_config
from lmexp.config.compose import Composer
from lmexp.config.overrides import split_words
from lmexp.errors import UserError
from lmexp.papers.evidence import Evidence
from lmexp.papers.expressions import estimate
from lmexp.papers.paper import paper_files, read_paper
from lmexp.runs.columns import COLUMNS
from lmexp.runs.mirrors.mirror import flat_config

ROOTS = [paths.shipped_root()]
PAPERS = {name: read_paper(file) for name, file in paper_files(ROOTS).items()}
SCALES = [(name, scale) for name, paper in PAPERS.items() for scale in paper.scales]


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_every_scale_of_a_paper_composes(name: str, scale: str):
    file = paper_files(ROOTS)[name]
    of_sweep, of_runs = split_words(PAPERS[name].overrides(scale))  # type: ignore[arg-type]
    expansion = expand(Composer(ROOTS, file, of_sweep).sweep_spec(), of_runs)
    composer = Composer(ROOTS, file, expansion.fixed)
    for cell in expansion.cells:
        check_config(composer.config(cell))


@pytest.mark.parametrize("name", PAPERS)
def test_a_claim_names_only_what_exists(name: str):
    composer = Composer(ROOTS, paper_files(ROOTS)[name])
    cell = expand(composer.sweep_spec(), []).cells[0]
    keys = flat_config(composer.config(cell))  # without those that are null, such as an axis can be
    known = {*COLUMNS, *keys, *cell, *paths.groups(ROOTS), "unit", "run_id"}
    row = Evidence(pd.DataFrame({column: [None] for column in sorted(known)}), ("seed",), "one row")
    for claim in PAPERS[name].claims:
        try:
            estimate(claim.value, row)
        except UserError as problem:  # one row without numbers is too few for a law, which is no fault of the claim
            assert not re.search(r"there is no (column|function|law|parameter)|Did you mean", str(problem)), claim.name
