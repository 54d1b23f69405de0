"""A plan in the terminal: what each run takes, and all of them together."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from rich.console import Console
from rich.text import Text

from lmexp.analysis.columns import distinguishing_axes
from lmexp.config.sweeps import Choices, SearchAxis, SearchSpec
from lmexp.cost.elsewhere import MIN_PARAMS
from lmexp.planning.plan import GIVE_WAY, PLAN_COLUMNS, PLAN_COLUMNS_ELSEWHERE, search_totals, totals
from lmexp.report.terminal.layout import column_widths, columns_to_hide, empty_table, small_table
from lmexp.runs.record import Row
from lmexp.units import counted, duration, si


def plan_sentence(name: str, rows: Sequence[Row]) -> str:
    """Return a plan in one line; what is not known of every run is not in it."""
    runs = counted(len(rows), "run")
    said = [f"{runs} of {_range('n_params', rows)} parameters", *_sums(totals(rows))]
    return f"{name}: {', '.join(said)}{' in all' if len(rows) > 1 else ''}{_milestones(rows)}"


def _milestones(rows: Sequence[Row]) -> str:
    """Return how many rows the runs yield, and what they save against separate runs; empty without milestones."""
    ends = [(row.get("milestones") or [row["tokens"]], row["flops_per_token"]) for row in rows]
    if not any("milestones" in row for row in rows) or any(None in tokens for tokens, _ in ends):
        return ""
    separate = sum(sum(tokens) * each for tokens, each in ends)
    share = totals(rows)["train_flops"] / separate
    return f"; {sum(len(tokens) for tokens, _ in ends)} rows for {share:.2f} of the FLOPs of separate runs"


def search_sentence(name: str, search: SearchSpec, rows: Sequence[Row]) -> str:
    """Return the plan of a search in one line, from the corners of its space that take the least and the most work."""
    space = [f"{key.rsplit('.', 1)[-1]} {_extent(axis)}" for key, axis in search.space.items()]
    trials = counted(search.trials, "trial")
    most = ", ".join(_sums(search_totals(rows, search)))
    what = f"{trials} by {search.sampler} over {', '.join(space)}, of {_range('n_params', rows)} parameters"
    return f"{name}: {what}{f'; at most {most} in all' if most else ''}"


def _extent(axis: SearchAxis) -> str:
    return "/".join(map(str, axis.choices)) if isinstance(axis, Choices) else f"{axis.low} to {axis.high}"


def _range(key: str, rows: Sequence[Row]) -> str:
    sizes = sorted({row[key] for row in rows})
    return si(sizes[0]) if len(sizes) == 1 else f"{si(sizes[0])} to {si(sizes[-1])}"


def _sums(total: Row) -> list[str]:
    said = []
    if total["tokens"] is not None:
        said.append(f"{si(total['tokens'])} tokens, {si(total['train_flops'])} FLOPs")
    if total["train_seconds"] is not None:
        said.append(f"{_time(total['train_seconds'])} of training steps")
    units = {"energy_kwh": "kWh", "dollars": "dollars"}
    said += [f"{_amount(total[key])} {unit}" for key, unit in units.items() if total[key]]
    return said


def print_plan(rows: Sequence[Row], console: Console) -> None:
    """Print a plan: a row a run, counts with SI prefixes, then the totals.

    Columns that nothing is known of are left out. Nothing is cut off: where the terminal is too narrow, some of
    what a run takes goes, and is named; the axes and the totals stay.
    """
    _print_rows(rows, console)
    console.print(plan_sentence("total", rows))
    _print_unknown(rows, console)


def print_search_plan(name: str, search: SearchSpec, rows: Sequence[Row], console: Console) -> None:
    """Print the plan of a search: the corners of its space that take the least and the most work, and its bound."""
    _print_rows(rows, console)
    console.print(search_sentence(name, search, rows))
    _print_unknown(rows, console)


def _print_rows(rows: Sequence[Row], console: Console) -> None:
    columns = PLAN_COLUMNS_ELSEWHERE if any("fits" in row for row in rows) else PLAN_COLUMNS
    headings = {key: title for key, title in columns.items() if any(row.get(key) is not None for row in rows)}
    axes = list(dict.fromkeys(key for row in rows for key in takewhile(lambda key: key not in PLAN_COLUMNS, row)))
    axes = distinguishing_axes(axes, rows)
    texts = {axis: [_swept(row.get(axis)) for row in rows] for axis in axes}
    texts |= {key: [_figure(key, row.get(key)) for row in rows] for key in headings}
    estimated = [row["memory_source"] == "estimated" for row in rows]
    texts["peak_memory_gb"] = [
        f"{'~' * is_rough}{text}" for is_rough, text in zip(estimated, texts["peak_memory_gb"], strict=True)
    ]
    titles = {axis: axis.rsplit(".", 1)[-1] for axis in axes} | headings
    gap = 2 if console.width > 90 else 1
    hidden = columns_to_hide(column_widths(titles, texts), gap, GIVE_WAY, console.width)
    table = empty_table(gap)
    shown = {key: cells for key, cells in texts.items() if key not in hidden}
    for key in shown:
        table.add_column(Text(titles[key]), justify="left" if key in axes else "right", overflow="fold")
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*map(Text, cells))
    console.print(table)
    if any(estimated) and "peak_memory_gb" in shown:
        console.print("~ is a rough estimate: the model has no formula for its memory.")
    if any(row["may_be_compiled"] for row in rows) and "peak_memory_gb" in shown:
        console.print("Memory is that of eager training; compiled runs take as much, or less.")
    if hidden:
        console.print(f"Not shown at this width: {', '.join(hidden)}; --json has them.")


def _print_unknown(rows: Sequence[Row], console: Console) -> None:
    if all(row["train_seconds"] is None for row in rows):
        console.print("No time yet: `lmexp plan NAME --measure` trains a few steps of each shape to know it.")
    elif any(row["train_seconds"] is None for row in rows):
        console.print("Some shapes were not measured: --measure does that.")


def _figure(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if key == "fits":
        return "yes" if value else "no"
    if key == "gpus":
        return _span(value)
    if key == "steps":
        return f"{value:,}"
    if key == "train_hours":
        return _time(3600 * value)
    if key in ("energy_kwh", "dollars"):
        return _amount(value)
    if key == "lr_by_rule":
        return f"{value:.3g}"
    if key == "train_seconds":
        return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
    return f"{si(value * 1e9)}B" if key.endswith("_gb") else si(value)


def _time(seconds: float) -> str:
    return "<1 s" if 0 < seconds < 1 else duration(seconds)


def _amount(value: float) -> str:
    """Return kWh or dollars with three digits. Amounts that would need an exponent are too small to matter."""
    return "<0.0001" if 0 < value < 1e-4 else f"{value:.3g}"


def _span(gpus: Sequence[str]) -> str:
    """Return indices in a row as 0-7, others as 0,2."""
    numbers = [int(gpu) for gpu in gpus]
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ",".join(gpus)


def print_assumptions(assumed: Row, rows: Sequence[Row], console: Console) -> None:
    """Print what the seconds and dollars of a plan for other hardware rest on, and what does not fit there."""
    name, devices, mfu = assumed["hardware"], assumed["devices"], assumed["mfu"]
    there = f"{devices} x {name}" if devices > 1 else name
    if assumed["clock_seconds"] is not None:
        together = assumed["runs_at_a_time"]
        at_a_time = f", {together} run{'s' if together > 1 else ''} at a time" if len(rows) > 1 else ""
        console.print(f"On {there}{at_a_time}: {_time(assumed['clock_seconds'])} on the clock, assumed.")
        if assumed["devices_in_use"] < devices:
            idle = devices - assumed["devices_in_use"]
            console.print(
                f"{counted(idle, 'device', 'stays', of=devices)} idle; trainer.devices sets how many a run takes."
            )
    for row in rows:
        if not row["fits"]:
            console.print(_misfit(row), soft_wrap=True)
    peaks = ", ".join(f"{si(peak)}FLOP/s in {precision}" for precision, peak in assumed["peak_flops"].items())
    price = assumed["dollars_per_hour"]
    paid = "no price is known" if price is None else f"{price:g} dollars per device hour ({assumed['price_source']})"
    console.print(
        f"Assumed: an MFU of {mfu:g} of the dense peak, {peaks} ({assumed['peak_source']}); {paid}. Starting, "
        "evaluation and checkpoints come on top."
    )
    if assumed["mfu_is_default"] and min(row["n_params"] for row in rows) < MIN_PARAMS:
        console.print(
            f"An MFU of {mfu:g} is that of models of {si(MIN_PARAMS)} parameters or more in bf16. Smaller ones reach "
            "less: --mfu sets another, and --measure on that machine measures it."
        )


def _misfit(row: Row) -> str:
    """Return which run does not fit, and what would make it fit."""
    values = takewhile(lambda pair: pair[0] != "n_params", row.items())
    name = " ".join(f"{key}={_swept(value)}" for key, value in values)
    devices = row["devices"]
    told = f"{name} does not fit on {devices} device{'s' if devices > 1 else ''} as it is"
    needed = row["devices_needed"]
    if needed is None:
        return (
            f"{told}, nor with trainer.strategy=fsdp and activation checkpointing on any of 2, 4, 8, ... 1024 "
            "devices that can share its batch evenly."
        )
    return f"{told}; it fits on {needed} device{'s' if needed > 1 else ''} with {' '.join(row['fits_with'])}."


def _swept(value: Any) -> str:
    """Return a swept value; large numbers with an SI prefix, as in 10.0T; a dash for null."""
    if value is None:
        return "–"
    is_large = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 1e5
    return si(float(value)) if is_large else str(value)


def print_affordable(affordable: dict[str, Any], runs: int, console: Console) -> None:
    """Print what of a sweep fits under a cap: each proposal with its plan's totals and its command."""
    if affordable["fits"]:
        console.print(f"All of it fits: {affordable['share']:.0%} of the cap.")
        return
    console.print(f"Not all of it fits: it takes {affordable['share']:.3g} times the cap.")
    for proposal in affordable["proposals"]:
        console.print()
        if proposal["kind"] == "trials":
            console.print(f"{counted(proposal['trials'], 'trial', 'fits')} even if each costs the most that one can:")
        elif proposal["kind"] == "scale":
            console.print(f"All {runs} runs fit on {proposal['factor']:.3g} of their budgets: {_said(proposal)}:")
        else:
            gone = "; ".join(f"{axis} {', '.join(map(_swept, v))}" for axis, v in proposal["dropped"].items())
            kept = f"{counted(proposal['runs'], 'run', 'fits', of=runs)} unchanged, without {gone}: {_said(proposal)}:"
            console.print(kept)
        console.print(f"  {proposal['command']}", soft_wrap=True)


def _said(proposal: dict[str, Any]) -> str:
    return ", ".join(_sums(proposal["total"]))


ANSWERS = {"params": "best size", "tokens": "best tokens", "loss": "loss there"}


def print_simulation(simulation: dict[str, Any], console: Console) -> None:
    """Print how wide the intervals of an assumed law would be on a design, what weakens it, and a cheaper design."""
    console.print()
    console.print(
        f"If {simulation['formula']} holds ({simulation['source']}) and a loss is off by {simulation['noise']:.2%}, "
        + (
            "these runs cannot tell it:"
            if simulation["refusals"]
            else f"these runs tell, with the best of {si(simulation['target_flops'])} FLOPs:"
        ),
    )
    if simulation["widths"] is not None:
        rows = [
            (
                ANSWERS.get(name, name),
                _number(width["value"]),
                "any" if width["high"] is None else f"{_number(width['low'])} to {_number(width['high'])}",
                None if width["rehearsed"] is None else f"{width['rehearsed']:.2f}x",
                None if width["covered"] is None else f"{width['covered']} of {simulation['rehearsals']}",
            )
            for name, width in simulation["widths"].items()
        ]
        console.print(small_table(("", "assumed", "95 % interval", "rehearsed", "held"), rows))
        console.print(
            "Intervals by the information of the design; rehearsed: the width that the real fit and bootstrap gave on "
            "drawn losses, over that; held: how often its interval had the truth in it."
        )
        if simulation["rehearsals"] < simulation["asked_rehearsals"]:
            console.print(f"Of {simulation['asked_rehearsals']} rehearsals the fit refused the others.")
    if simulation["law_warning"]:
        console.print(f"warning: {simulation['law_warning']}")
    for reason in simulation["refusals"]:
        console.print(f"`fit` would refuse: {reason}")
    for reason in simulation["warnings"]:
        console.print(f"`fit` would warn: {reason}")
    cheaper = simulation["cheaper"]
    if cheaper is not None:
        less = 1 - cheaper["total"]["train_flops"] / cheaper["flops_before"]
        console.print()
        console.print(
            f"Equally narrow intervals for {less:.0%} fewer FLOPs, with {cheaper['dropped']} runs fewer and "
            f"{cheaper['added']} others: {_said(cheaper)}:"
        )
        console.print(f"  {cheaper['command']}", soft_wrap=True)
        if cheaper["rehearsed_widest"] is not None:
            console.print(
                f"Rehearsed as well: its widest interval is {cheaper['rehearsed_widest']:.2f} times that of the design "
                "as it stands."
            )
    elif not simulation["refusals"]:
        console.print("No cheaper set of runs was found that tells as much.")


def _number(value: float) -> str:
    return si(value) if abs(value) >= 1000 else f"{value:.4g}"
