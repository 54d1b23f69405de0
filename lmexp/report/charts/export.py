"""The charts as files for papers and slides: PNG, SVG and PDF, black on white, drawn without a browser."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import vl_convert

from lmexp.analysis.columns import axis_headings
from lmexp.analysis.groups import HALF
from lmexp.analysis.table import Study
from lmexp.config.identity import folder_name
from lmexp.errors import UserError, nearest
from lmexp.files import write_atomically
from lmexp.report.charts.base import CURVES, INK, PAIRS, PAPER, ROWS, X_TITLE
from lmexp.report.charts.curves import CURVE_AXES
from lmexp.report.page.data import page_data, pair_changes
from lmexp.runs.columns import column

FORMATS = ("png", "svg", "pdf")
OF_MEANS = ("scatter", "heat", "curves")
"""The charts that show means over seeds, if cells have seeds."""
WIDTHS = {"single": 3.25, "double": 6.75}
"""Widths of a figure in inches: a column, and the text of two columns, in the style of ICML papers (icml.cc)."""
POINTS_A_PIXEL = 0.64
"""The size of a pixel of the page in a figure: labels of 12 pixels become 7.7 points, titles of 13 become 8.3."""
PPI = 300
"""Pixels an inch of a PNG."""
FIGURE_FONT = "Tinos, 'Times New Roman', Times, serif"
"""Tinos has the metrics of Times, and vl-convert brings it along."""
WIDTH = 720
"""Width of a chart without its axes, in pixels; a PNG has twice as many."""


def check_formats(text: str) -> list[str]:
    """Return the formats in a list such as `png,svg`. Raises UserError for an unknown format."""
    formats = [word.strip().lower() for word in text.split(",") if word.strip()]
    for word in formats or [""]:
        if word not in FORMATS:
            raise UserError(f"--charts knows no format '{word}'.{nearest(word, FORMATS)} There are png, svg and pdf")
    return list(dict.fromkeys(formats))


def check_width(text: str) -> float:
    """Return the width in inches of `single` or `double`. Raises UserError for another word."""
    if text not in WIDTHS:
        raise UserError(f"--width knows no '{text}'.{nearest(text, WIDTHS)} There are single and double")
    return WIDTHS[text]


def write_charts(
    study: Study, folder: Path, quality: str, cost: str, formats: Sequence[str], width: str = "double"
) -> list[Path]:
    """Write every chart of a study into `folder`, atomically, and return the files.

    If rows cannot all be ranked together, each part of the study has its charts in a folder of its own. `width` is one
    of WIDTHS. Raises UserError for another one.
    """
    inches = check_width(width)
    parts = study.rankable(quality)
    if len(parts) > 1:
        return [
            file
            for number, (name, part) in enumerate(parts.items(), start=1)
            for file in write_charts(part, folder / f"{number}-{folder_name(name)}", quality, cost, formats, width)
        ]
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
        figure = _titled(name, spec, study, quality, cost)
        by_seed = any(param.get("value") == "seed" for param in spec.get("params", []))
        given = of_means if name in OF_MEANS and not by_seed else datasets
        for form in formats:
            file = folder / f"{name}.{form}"
            write_atomically(file, as_figure(figure, given, form, inches))
            written.append(file)
    return written


def _objects(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return columns as one object a row, all of them selected."""
    rows = zip(*columns.values(), strict=True)
    return [{"i": i, "selected": True, **dict(zip(columns, row, strict=True))} for i, row in enumerate(rows)]


def drawn(spec: dict[str, Any], datasets: dict[str, list[dict[str, Any]]], form: str) -> bytes:
    """Return a chart in one format. Nothing is downloaded, because the chart has its data."""
    filled = _inked(spec, datasets) | {"width": WIDTH, "autosize": {"type": "pad", "contains": "padding"}}
    if form == "png":
        return vl_convert.vegalite_to_png(filled, scale=2, allowed_base_urls=[])
    if form == "pdf":
        return vl_convert.vegalite_to_pdf(filled, allowed_base_urls=[])
    return vl_convert.vegalite_to_svg(filled, allowed_base_urls=[]).encode()


def _inked(spec: dict[str, Any], datasets: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return a chart with its data, black on white."""
    inked = json.loads(json.dumps(spec).replace(INK, "#000000").replace(f'"{PAPER}"', '"white"'))
    return {**inked, "background": "white", "datasets": {**inked.get("datasets", {}), **datasets}}


def _titled(name: str, spec: dict[str, Any], study: Study, quality: str, cost: str) -> dict[str, Any]:
    """Return a chart with the titles of its axes along the axes, instead of in the places that follow a choice."""
    heads, axes = axis_headings(study.varied), {param["name"]: param.get("value") for param in spec.get("params", [])}
    titles = {
        "scatter": (column(cost).heading, column(quality).heading),
        "curves": (CURVE_AXES["tokens"], "loss (nats)"),
        "heat": (heads.get(axes.get("across") or "", ""), heads.get(axes.get("down") or "", "")),
    }
    if name not in titles:
        return spec
    layers = [layer for layer in spec["layer"] if layer.get("name") != X_TITLE]
    for layer in layers:
        for channel, title in zip(("x", "y"), titles[name], strict=True):
            encoding = layer.get("encoding", {}).get(channel, {})
            if encoding.get("axis"):
                encoding["axis"] |= {"title": title, "titleFontWeight": "normal"}
    mean = {**spec["title"], "text": f"mean {column(quality).heading}"}
    return {**spec, "layer": layers, "title": mean if name == "heat" else None}


def as_figure(spec: dict[str, Any], datasets: dict[str, list[dict[str, Any]]], form: str, inches: float) -> bytes:
    """Return a chart as a figure of a paper: `inches` wide, axes and legends included, in the font of papers."""
    figure = {**spec, "config": {**spec.get("config", {}), "font": FIGURE_FONT}}
    figure["config"]["padding"] = 2
    width = round(inches * 72 / POINTS_A_PIXEL)
    figure = _inked(figure, datasets) | {"width": width, "autosize": {"type": "fit", "contains": "padding"}}
    figure["height"] = min(figure["height"], round(0.75 * width)) + 60
    if form == "png":
        return vl_convert.vegalite_to_png(figure, scale=POINTS_A_PIXEL, ppi=PPI, allowed_base_urls=[])
    svg = vl_convert.vegalite_to_svg(figure, allowed_base_urls=[])
    if form == "pdf":
        return vl_convert.svg_to_pdf(_sized(svg, POINTS_A_PIXEL, ""))
    return _sized(svg, POINTS_A_PIXEL / 72, "in").encode()


def _sized(svg: str, scale: float, unit: str) -> str:
    """Return a drawing with another size, as its root element has it; in a PDF, a unit is a point."""

    def root(found: re.Match[str]) -> str:
        width, height = (f"{float(found[i]) * scale:.4g}{unit}" for i in (2, 3))
        return f'{found[1]} width="{width}" height="{height}"'

    return re.sub(r'(<svg\b[^>]*?) width="([\d.]+)" height="([\d.]+)"', root, svg, count=1)
