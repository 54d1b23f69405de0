"""A paper's claims and their verdicts, in the terminal."""

import math

from rich.console import Console
from rich.text import Text

from lmexp.papers.judge import Judged
from lmexp.papers.overview import counts_in_words
from lmexp.papers.paper import Claim, Paper
from lmexp.papers.reproduction import Reproduction, Undrawn
from lmexp.report.terminal.layout import small_table
from lmexp.units import listed, sentence

HEADINGS = ("claim", "published", "ours", "95 % interval", "band", "verdict")
TEXT_HEADINGS = ("claim", "verdict")
UNCHECKED_NOTE = "* a published number that nobody has compared with the paper itself"


def print_paper(result: Reproduction, console: Console) -> None:
    """Print what the paper is, its claims as a table, and what would decide those that are open."""
    console.print(Text(f"{result.paper.title}. {source_of(result.paper)}"), soft_wrap=True)
    console.print(Text(f"{result.basis}: {counts_in_words(result.verdicts)}\n"))
    for one in result.judged:
        console.print(Text(claim_sentence(one)), soft_wrap=True)
    console.print()
    console.print(small_table(HEADINGS, map(claim_texts, result.judged), right=("published", "ours")))
    for note in notes_of(result):
        console.print(Text(f"\n{note}"), soft_wrap=True)


def source_of(paper: Paper) -> str:
    """Return the authors of a paper, its year and its number at arXiv."""
    return f"{paper.authors}, {paper.year}.{f' arXiv {paper.arxiv}.' if paper.arxiv else ''}"


def notes_of(result: Reproduction) -> list[str]:
    """Return what would decide the open claims, the paper's notes, why a figure is missing, and what marks mean."""
    notes = [sentence(f"{one.claim.name}: {one.why}") for one in result.judged if one.why]
    notes += [*result.paper.notes_at(result.scale), *undrawn(result)]
    if any(not one.claim.checked for one in result.judged):
        notes.append(UNCHECKED_NOTE)
    return notes + outside_bands(result)


def outside_bands(result: Reproduction) -> list[str]:
    """Return which published numbers lie outside their own bands, as a sentence if there are any."""
    names = [one.claim.name for one in result.judged if one.claim.is_published_outside]
    if not names:
        return []
    which = f"number of {names[0]} lies" if len(names) == 1 else f"numbers of {listed(names)} lie"
    return [f"The published {which} outside the band. A verdict follows from the band and our number alone."]


def undrawn(result: Reproduction) -> list[str]:
    """Return why figures are missing."""
    return [
        f"{one.figure.title}: not drawn, because {sentence(one.why)}"
        for one in result.drawings
        if isinstance(one, Undrawn)
    ]


def claim_sentence(one: Judged) -> str:
    """Return what a claim says and where the paper says it."""
    return f"{one.claim.name}: {one.claim.claim} ({one.claim.where})"


def claim_texts(one: Judged) -> list[str | None]:
    """Return the cells of a claim's row; None for what is not known."""
    claim = one.claim
    return [claim.name, published_text(claim), ours_text(one), interval_text(one), claim.band_in_words, one.verdict]


def published_text(claim: Claim) -> str | None:
    """Return the published number, marked if nobody has compared it with the paper; None if there is none."""
    published = f"{claim.published:g}" if isinstance(claim.published, int | float) else claim.published
    return published if published is None or claim.checked else f"{published}*"


def ours_text(one: Judged) -> str | None:
    """Return our number; None if the runs give none."""
    is_exact = one.ours.low == one.ours.value == one.ours.high
    digits = 6 if one.claim.by == "value" or is_exact else 4
    return None if math.isnan(one.ours.value) else f"{one.ours.value:.{digits}g}"


def interval_text(one: Judged) -> str | None:
    """Return the interval of our number; None if the runs give none, or if arithmetic gives the number itself."""
    low, high = one.ours.low, one.ours.high
    if low == one.ours.value == high:
        return None
    return f"{low:.4g} to {high:.4g}" if math.isfinite(high - low) else None
