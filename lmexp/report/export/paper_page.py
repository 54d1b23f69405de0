"""A paper's reproduction as a page of a repository: Markdown with its figures as SVG files beside it.

Every number comes from the runs and from the paper's file, so that no page has one that was copied by hand.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmexp
from lmexp.analysis.frontier import numbers
from lmexp.analysis.table import final_rows
from lmexp.files import write_atomically
from lmexp.papers.drawing import Drawing
from lmexp.papers.evidence import SEED
from lmexp.papers.judge import Judged
from lmexp.papers.overview import counts_in_words
from lmexp.papers.paper import ARITHMETIC, Claim, Paper, PointsSource
from lmexp.papers.reproduction import Reproduction
from lmexp.report.charts.claims import CHART_NOTE, claims_spec
from lmexp.report.charts.export import drawn
from lmexp.report.charts.figure import figure_chart
from lmexp.report.export.markdown import code, escaped, table
from lmexp.report.figure_words import sentences_of
from lmexp.report.terminal.paper import (
    UNCHECKED_NOTE,
    interval_text,
    ours_text,
    outside_bands,
    published_text,
    undrawn,
)
from lmexp.units import counted, duration, plain_number, sentence

HEADINGS = ("claim", "where", "published", "ours", "95 % interval", "band", "verdict")
MAX_VALUES = 12
"""Values of an axis that are listed."""
NUMBERS = ("published", "ours")
_ARXIV = re.compile(r"\d{4}\.\d{4,5}(v\d+)?|[a-z-]+(\.[A-Z]{2})?/\d{7}")


def page_name(result: Reproduction) -> str:
    """Return the name of a paper's page in a folder of many: `chinchilla2022`, or `chinchilla2022-gpu`.

    A paper without a sweep has one page, which is about published points or arithmetic.
    """
    return result.name if result.scale == result.paper.judged_on else f"{result.name}-{result.scale}"


def write_page(result: Reproduction, folder: Path, name: str = "paper", prefix: str = "") -> Path:
    """Write `name`.md into `folder` with the figures beside it, atomically, and return its path.

    The figures are `prefix`figure.svg, `prefix`figure-2.svg and so on, and `prefix`claims.svg.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawings = [one for one in result.drawings if isinstance(one, Drawing)]
    figures = []
    for at, one in enumerate(drawings, 1):
        file = f"{prefix}figure{'' if at == 1 else f'-{at}'}.svg"
        write_atomically(folder / file, _svg(figure_chart(one).to_dict()))
        figures.append((file, one))
    claims = claims_spec(result.judged)
    if claims:
        write_atomically(folder / f"{prefix}claims.svg", _svg(claims))
    text = "\n\n".join(_blocks(result, figures, f"{prefix}claims.svg" if claims else None)) + "\n"
    write_atomically(folder / f"{name}.md", text)
    return folder / f"{name}.md"


def _svg(spec: dict[str, Any]) -> bytes:
    """Return a chart as SVG, black on white; marks have no labels of their own, which would be most of the file."""
    return drawn({**spec, "config": {**spec["config"], "aria": False}}, {}, "svg")


def _blocks(result: Reproduction, figures: list[tuple[str, Drawing]], claims: str | None) -> Iterator[str]:
    """Yield the paragraphs, tables and figures of the page."""
    yield f"# {escaped(result.paper.title)}"
    yield source(result.paper)
    if result.question:
        yield escaped(result.question)
    yield f"{_runs(result)} The verdicts: {counts_in_words(result.verdicts)}."
    for file, drawing in figures:
        yield f"![{escaped(drawing.figure.title)}]({file})"
        yield " ".join(map(escaped, sentences_of(drawing)))
    yield table(HEADINGS, [_row(one) for one in result.judged], NUMBERS)
    if any(not one.claim.checked for one in result.judged):
        yield escaped(UNCHECKED_NOTE)
    yield from map(escaped, outside_bands(result))
    yield from map(escaped, [*result.paper.notes_at(result.scale), *undrawn(result)])
    if claims:
        yield f"![Each claim with its band]({claims})"
        yield CHART_NOTE
    if open_claims := [f"- {code(one.claim.name)}: {escaped(sentence(one.why))}" for one in result.judged if one.why]:
        yield "## What is open"
        yield "\n".join(open_claims)
    yield "## How to repeat it"
    yield f"```console\n$ lmexp reproduce {result.name}{_option(result)}\n```"
    yield _rests_on(result)
    yield table(("claim", "expression"), [[code(one.claim.name), code(one.claim.value)] for one in result.judged])


def _option(result: Reproduction) -> str:
    if result.source is not None:
        return f" --points {'FOLDER' if result.source.is_folder else 'FILE'}"
    return "" if result.scale in ("cpu", ARITHMETIC) else f" --scale {result.scale}"


def source(paper: Paper) -> str:
    """Return the authors and the year, with a link to arXiv."""
    link = ""
    if paper.arxiv:
        words = f"arXiv {escaped(paper.arxiv)}"
        link = f", [{words}](https://arxiv.org/abs/{paper.arxiv})" if _ARXIV.fullmatch(paper.arxiv) else f", {words}"
    return f"{escaped(paper.authors)}, {paper.year}{link}."


def published_cells(claim: Claim) -> list[str]:
    """Return the cells of a claim's row that the paper's file gives: claim, where, published and band."""
    words = f"{code(claim.name)}: {escaped(claim.claim)}"
    return [words, escaped(claim.where), escaped(published_text(claim) or ""), claim.band_in_words]


def _row(one: Judged) -> list[str]:
    claim, where, published, band = published_cells(one.claim)
    return [claim, where, published, ours_text(one) or "", interval_text(one) or "", band, one.verdict]


def _runs(result: Reproduction) -> str:
    """Return how many runs there are, and what they vary; or how many published points there are."""
    if result.source is not None or result.scale == ARITHMETIC:
        return f"{result.basis[:1].upper()}{result.basis[1:]}."
    table, varied = result.evidence.table, []
    for axis in result.evidence.axes:
        values = sorted(table[axis].dropna().unique().tolist(), key=lambda value: (isinstance(value, str), value))
        if axis != SEED and len(values) > 1:
            listed = ", ".join(_text(value) for value in values[:MAX_VALUES])
            varied.append(f"{code(axis)} ({listed}{', …' if len(values) > MAX_VALUES else ''})")
    seeds = int(table[SEED].nunique()) if SEED in table else 1
    varied += [f"{seeds} seeds"] * (seeds > 1)
    words = f"{', '.join(varied[:-1])} and {varied[-1]}" if len(varied) > 1 else "".join(varied)
    evaluated = "; ".join(code(one.in_words) for one in result.paper.evaluations)
    also = f" Each was evaluated afterwards: {evaluated}." if evaluated else ""
    also += f" {result.others_in_words}." if result.without_result else ""
    return f"{_count(result)} at scale {result.scale}{f' vary {words}' if words else ''}.{also}"


def _rests_on(result: Reproduction) -> str:
    """Return what the runs took, where the published points are, or that there is neither; and who judged when."""
    if result.source is not None:
        return _source_of_points(result, result.source)
    if result.scale == ARITHMETIC:
        judged = f"lmexp {lmexp.__version__} computed the numbers on {result.date}"
        return f"{judged}. The claims and their bands are in {code(f'{result.name}.yaml')}."
    return _effort(result)


def _source_of_points(result: Reproduction, source: PointsSource) -> str:
    """Return where the published points are, how their columns map, and when and by which version they were judged."""
    mapped = [f"{code(theirs)} is {code(ours)}" for ours, theirs in source.columns.items() if ours != theirs]
    mapped += [f"{code(ours)} is its number times {factor:g}" for ours, factor in source.scale.items()]
    parts = [f"The data is {escaped(source.where_to_get)}."]
    parts += [f"Its columns have other names in lmexp: {', '.join(mapped)}."] * bool(mapped)
    parts += [f"Only rows with {code(source.rows)} are used."] if source.rows else []
    parts.append(f"lmexp {lmexp.__version__} judged it on {result.date}.")
    return f"{' '.join(parts)} The claims and their bands are in {code(f'{result.name}.yaml')}."


def _effort(result: Reproduction) -> str:
    """Return what the runs took and on which machine, and when and by which version they were judged."""
    runs = final_rows(result.evidence.table)
    seconds = float(numbers(runs, "wall_seconds").sum())
    machines = list(dict.fromkeys(runs["device_name"].dropna().tolist()))
    ended = max(runs["finished"].dropna().tolist(), default="")[:10]
    took = f"{_count(result)} took {duration(seconds)}, added up"
    took += f", on {' and '.join(map(escaped, machines))}" if machines else ""
    took += f"; the last one ended on {ended}" if ended else ""
    judged = f"lmexp {lmexp.__version__} judged them on {result.date}"
    return f"{took}. {judged}. The sweep, the claims and their bands are in {code(f'{result.name}.yaml')}."


def _count(result: Reproduction) -> str:
    return counted(result.runs, "run")


def _text(value: object) -> str:
    """Return a value of an axis: 16, 100k, cosine."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return plain_number(value)
    return escaped(str(value))
