"""The charts as files for papers and slides: PNG, SVG and PDF, black on white, drawn without a browser."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import vl_convert

from lmexp.analysis.groups import HALF
from lmexp.analysis.table import Study
from lmexp.errors import UserError, nearest
from lmexp.files import write_atomically
from lmexp.report.charts.base import CURVES, INK, PAIRS, PAPER, ROWS
from lmexp.report.page.data import page_data, pair_changes

FORMATS = ("png", "svg", "pdf")
OF_MEANS = ("scatter", "curves")
"""The charts that show means over seeds, if cells have seeds."""
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
    rows, means = _objects(data["rows"]), data["means"]
    datasets = {ROWS: rows, CURVES: data["curves"], PAIRS: pair_changes(data, quality)}
    of_means = datasets
    if means:
        halves = {name + HALF: values for name, values in means["half"].items()}
        ranks = {
            name: [data["rows"][name][members[0]] for members in means["members"]]
            for name in set(data["rank_fields"].values())
        }
        of_means = datasets | {ROWS: _objects(means["rows"] | halves | ranks), CURVES: means["curves"]}
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, spec in data["charts"].items():
        for form in formats:
            file = folder / f"{name}.{form}"
            write_atomically(file, drawn(spec, of_means if name in OF_MEANS else datasets, form))
            written.append(file)
    return written


def _objects(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return columns as one object a row, all of them selected."""
    rows = zip(*columns.values(), strict=True)
    return [{"i": i, "selected": True, **dict(zip(columns, row, strict=True))} for i, row in enumerate(rows)]


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
