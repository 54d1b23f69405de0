"""A study as one JSON document, for other programs."""

import math
from typing import Any

from lmexp.analysis.findings import findings
from lmexp.analysis.frontier import frontier
from lmexp.analysis.table import Study


def study_document(study: Study, quality: str, cost: str) -> dict[str, Any]:
    """Return the study's question, findings, axes, rows (under the record's names) and frontier."""
    on_frontier = frontier(study.table, quality, cost)
    rows = study.table.to_dict(orient="records")
    return {
        "name": study.name,
        "question": study.question,
        "findings": findings(study, quality, cost),
        "axes": study.axes,
        "quality": quality,
        "cost": cost,
        "frontier": [row["run_id"] for row, on in zip(rows, on_frontier, strict=True) if on],
        "runs": [{str(name): _plain(value) for name, value in row.items()} for row in rows],
        "skipped": [cell.model_dump() for cell in study.skipped],
    }


def _plain(value: Any) -> Any:
    """Return a cell as JSON has it: numpy's numbers as Python's, what is missing as null."""
    if hasattr(value, "item"):
        value = value.item()
    if value is None or value != value or str(value) == "<NA>":
        return None
    return None if isinstance(value, float) and not math.isfinite(value) else value
