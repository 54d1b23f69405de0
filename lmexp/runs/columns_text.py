"""The list of all columns as text: docs/columns.md, and a part of the docstring of `lmexp.load`."""

from lmexp.runs.columns import FAMILIES, SECTIONS


def markdown() -> str:
    """Return docs/columns.md: one table for each section."""
    lines = [
        "# Columns of a record",
        "",
        "The columns of record.json, table.csv, table.parquet, W&B and `lmexp.load`, in their order. A value that was",
        "not measured is null, never 0. [numbers.md](numbers.md) explains how the values are measured. `make columns`",
        "writes this file from `lmexp/runs/columns.py`.",
    ]
    for section, columns in {**SECTIONS, "scores and parts": tuple(FAMILIES.values())}.items():
        lines += ["", f"## {section.capitalize()}", "", "| column | unit | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{column.name}` | {column.unit} | {column.meaning} |" for column in columns]
    return "\n".join(lines) + "\n"


def plain_text() -> str:
    """Return the same for a docstring: one line for each column, under the name of its section."""
    lines = []
    for section, columns in {**SECTIONS, "scores and parts": tuple(FAMILIES.values())}.items():
        lines.append(f"{section}:")
        lines += [f"    {c.name}{f' [{c.unit}]' if c.unit else ''}: {c.meaning}" for c in columns]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(), end="")
