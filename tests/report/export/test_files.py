"""CSV and Parquet hold every row and column, null as null."""

import pandas as pd
import pytest

from lmexp.analysis.table import load_study
from lmexp.report.export.files import write_csv, write_parquet
from tests.report.synthetic import write_study


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return load_study([write_study(tmp_path_factory.mktemp("outputs"))]).table


def test_csv_holds_all_columns_and_leaves_null_empty(table, tmp_path):
    write_csv(table, tmp_path / "new" / "table.csv")
    text = (tmp_path / "new" / "table.csv").read_text()
    assert text.splitlines()[0].split(",") == list(table)
    back = pd.read_csv(tmp_path / "new" / "table.csv")
    assert back["loss"].tolist()[:8] == table["loss"].tolist()[:8] and back["loss"].isna().sum() == 2
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["table.csv"]


def test_parquet_keeps_types(table, tmp_path):
    write_parquet(table, tmp_path / "table.parquet")
    back = pd.read_parquet(tmp_path / "table.parquet")
    assert list(back) == list(table)
    assert str(back["seed"].dtype) == "Int64" and back["loss"].isna().sum() == 2
