"""The table as files for other programs: `table.csv` for any, `table.parquet` with its types.

Both hold every row and every column under the names of the record. Null is an empty field in CSV.
"""

from io import BytesIO
from pathlib import Path

import pandas as pd

from lmexp.files import write_atomically


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """Write a table as CSV, atomically; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, table.to_csv(index=False, lineterminator="\n"))


def write_parquet(table: pd.DataFrame, file: Path) -> None:
    """Write a table as Parquet, atomically; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = BytesIO()
    table.to_parquet(content, index=False, engine="pyarrow")
    write_atomically(file, content.getvalue())
