"""The charts as files for papers and slides: PNG, SVG and PDF, black on white, drawn without a browser."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert

from lmexp.analysis.table import Study
from lmexp.errors import UserError, nearest
from lmexp.files import write_atomically
from lmexp.report.charts.base import CURVES, INK, PAIRS, PAPER, ROWS
from lmexp.report.page.data import page_data, pair_changes

FORMATS = ("png", "svg", "pdf")
WIDTH = 720
"""Width of a chart without its axes, in pixels; a PNG has twice as many."""


def check_formats(text: str) -> list[str]:
    """Return the formats in a list such as `png,svg`. Raises UserError for an unknown format."""
    formats = [word.strip().lower() for word in text.split(",") if word.strip()]
    for word in formats or [""]:
        if word not in FORMATS:
            raise UserError(f"--charts knows no format '{word}'.{nearest(word, FORMATS)} There are png, svg and pdf")
    return list(dict.fromkeys(formats))


def write_charts(study: Study, folder: Path, quality: str, cost: str, formats: Sequence[str]) -> list[Path]:
    """Write every chart of a study into `folder`, atomically, and return the files."""
    data = page_data(study, quality, cost)
    names = list(data["rows"])
    columns = zip(*data["rows"].values(), strict=True)
    rows = [{"i": i, "selected": True, **dict(zip(names, row, strict=True))} for i, row in enumerate(columns)]
    datasets = {ROWS: rows, CURVES: data["curves"], PAIRS: pair_changes(data, quality)}
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, spec in data["charts"].items():
        for form in formats:
            file = folder / f"{name}.{form}"
            write_atomically(file, drawn(spec, datasets, form))
            written.append(file)
    return written


def drawn(spec: dict[str, Any], datasets: dict[str, list[dict[str, Any]]], form: str) -> bytes:
    """Return a chart in one format. Nothing is downloaded, because the chart has its data."""
    inked = json.loads(json.dumps(spec).replace(INK, "#000000").replace(f'"{PAPER}"', '"white"'))
    filled = {**inked, "width": WIDTH, "background": "white", "datasets": {**inked.get("datasets", {}), **datasets}}
    filled["autosize"] = {"type": "pad", "contains": "padding"}
    if form == "png":
        return vl_convert.vegalite_to_png(filled, scale=2, allowed_base_urls=[])
    if form == "pdf":
        return vl_convert.vegalite_to_pdf(filled, allowed_base_urls=[])
    return vl_convert.vegalite_to_svg(filled, allowed_base_urls=[]).encode()
