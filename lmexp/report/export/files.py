"""The table as files for other programs: `table.csv` for any program, `table.parquet` with types.

Both have every row and every column, under the names of the record. Null is an empty field in CSV. Names come from
configs, and spreadsheets read a text that begins with = + - or @ as a formula, so in CSV such a text gets an apostrophe
in front, as spreadsheets write it themselves. Numbers are never changed, and Parquet has every text as it is.
"""

from io import BytesIO
from pathlib import Path

import pandas as pd

from lmexp.files import write_atomically

FORMULA = r"^\s*[=+\-@\t\r]"


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """Write a table as CSV, atomically; create its folder if missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, csv_text(table))


def csv_text(table: pd.DataFrame) -> str:
    """Return a table as CSV in which no text is a formula."""
    safe = table.copy(deep=False)
    for at, name in enumerate(table.columns):
        values = table.iloc[:, at]
        if not pd.api.types.is_numeric_dtype(values) and values.notna().any():
            words = values.astype("string")
            numeric = pd.to_numeric(words, errors="coerce").notna()
            formula = words.str.contains(FORMULA, na=False, regex=True) & ~numeric
            if formula.any():
                safe[name] = words.where(~formula, "'" + words)
    safe.columns = pd.Index([f"'{name}" if str(name)[:1] in "=+-@\t\r" and str(name) else name for name in safe])
    return safe.to_csv(index=False, lineterminator="\n")


def write_parquet(table: pd.DataFrame, file: Path) -> None:
    """Write a table as Parquet, atomically; create its folder if missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, parquet_bytes(table))


def parquet_bytes(table: pd.DataFrame) -> bytes:
    """Return a table as Parquet."""
    content = BytesIO()
    table.to_parquet(content, index=False, engine="pyarrow")
    return content.getvalue()
