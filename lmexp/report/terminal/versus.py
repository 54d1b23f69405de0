"""A comparison of arms, in the terminal."""

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from lmexp.analysis.comparable import SHARED_MARK
from lmexp.analysis.versus.gate import Judgement
from lmexp.analysis.versus.versus import ArmVersus, Speedup, Versus
from lmexp.report.terminal.layout import small_table
from lmexp.runs.columns import column

MAX_SCALES = 30
"""Scales of a cost that are printed."""
MAX_NAMED = 3
"""If more speedups than this are unknown for one reason, they are not named."""
RIGHT = ("speedup", "interval", "per token", "n")
PER_TOKEN = (
    "Per token: what a token costs in the baseline, divided by what it costs in the arm, whatever the quality; in "
    "seconds, the ratio of raw speeds."
)
VERDICTS = {
    "pass": "The gate is passed",
    "fail": "The gate is failed",
    "undecided": "The gate is not passed: the runs do not decide",
}


def print_versus(result: Versus, sentences: list[str], judgement: Judgement | None, console: Console) -> None:
    """Print the arms' speedups as a table each, then what they say, and the gate's verdict."""
    for arm, sentence in zip(result.arms, sentences, strict=True):
        title = f"{arm.arm} against {result.baseline}, at equal {column(result.quality).title}"
        console.print(Text(title, style="bold"))
        headings = ("cost", "scale", "speedup", f"{100 * result.confidence:g} % interval", "per token", "n", "from")
        right = (*RIGHT[:1], headings[3], *RIGHT[2:])
        console.print(small_table(headings, _table(arm), right=right))
        console.print(Text(sentence))
        for note in notes_of(arm):
            console.print(Text(note, style="dim"))
        console.print()
    for note in result.notes:
        console.print(Text(note, style="dim"))
    if judgement is not None:
        console.print(
            Text(f"{VERDICTS[judgement.verdict]}: {judgement.gate.cost} above {judgement.gate.min_speedup:g}.")
        )
        for check in judgement.checks:
            console.print(Text(f"{check.verdict}: {check.arm}, {check.scale}: {check.sentence}"))


def notes_of(arm: ArmVersus) -> list[str]:
    """Return the notes on an arm, each once."""
    notes = [PER_TOKEN] if any(one.overall.raw is not None for one in arm.costs.values()) else []
    notes += [f"Not compared: {name}, because {reason}." for name, reason in arm.left_out.items()]
    if any(one.is_slowed for one in arm.costs.values()):
        notes.append(f"{SHARED_MARK} other work slowed the device down in some runs.")
    notes += _reasons(arm)
    for one in arm.costs.values():
        notes += one.notes
        hidden = len(one.scales) - MAX_SCALES
        if hidden > 0:
            notes.append(
                f"{hidden} more scales of {one.cost} are not shown; --json has them, and --scale puts them together."
            )
    return [*dict.fromkeys([*notes, *arm.notes])]


def _reasons(arm: ArmVersus) -> list[str]:
    """Return why speedups are unknown, each reason once, after the costs and scales that it is about."""
    about: dict[str, list[str]] = {}
    for name, one in arm.costs.items():
        for speedup in one.scales:
            if speedup.value is None and speedup.why is not None:
                about.setdefault(speedup.why, []).append(f"{name}, {speedup.scale}")
    return [f"{'; '.join(where) if len(where) <= MAX_NAMED else 'No speedup'}: {why}" for why, where in about.items()]


def _table(arm: ArmVersus) -> Iterator[tuple[str | None, ...]]:
    for name, one in arm.costs.items():
        mark = SHARED_MARK if one.is_slowed else ""
        shown = one.scales if len(one.scales) > 1 else ()
        for at, speedup in enumerate((one.overall, *shown[:MAX_SCALES])):
            yield (name if at == 0 else "", *_cells(speedup, mark))


def _cells(one: Speedup, mark: str) -> tuple[str | None, ...]:
    return (
        one.scale,
        None if one.value is None else f"{mark}{one.value:.3g}",
        None if one.low is None or one.high is None else f"{one.low:.3g} to {one.high:.3g}",
        None if one.raw is None else f"{mark}{one.raw:.3g}",
        str(one.n),
        one.method,
    )
