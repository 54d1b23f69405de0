"""Advice in the terminal: the answer first, what it costs, how sure it is, then the other arms."""

import shlex
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from lmexp.analysis.advice.families import sentences
from lmexp.analysis.columns import format_number
from lmexp.report.terminal.layout import small_table
from lmexp.runs.columns import column
from lmexp.units import duration, listed, printable, si

COST = {"flops": "FLOPs", "hours": "hours", "dollars": "dollars"}

Document = Mapping[str, Any]


def print_advice(document: Document, console: Console) -> None:
    """Print advice: model, tokens, loss, cost, certainty, the command, the other arms, and who cannot answer."""
    best, asked = document["advice"], document["asked"]
    console.print(Text(f"{document['sweep']}: {_question(asked)}", style="bold"))
    console.print()
    first, *others = _answer(best, document["quality"], asked["loss"] is None)
    for line in (first, *_ties(document), *document["noise_unknown"], *others):
        console.print(Text(printable(line)))
    if best["command"] is not None:
        console.print()
        console.print("To run it:")
        console.print(f"  {shlex.join(['lmexp', 'train', *best['command']])}", soft_wrap=True)
    console.print()
    for line in _certainty(best, document):
        console.print(Text(line))
    if len(document["arms"]) > 1:
        console.print()
        console.print(small_table(*_table(document["arms"])))
    for arm in document["refused"]:
        console.print(Text(f"Not answered by {arm['family']} in {arm['precision']}: {arm['reason']}", style="dim"))


def _question(asked: Document) -> str:
    what = f"a loss of {asked['loss']:g}" if asked["loss"] is not None else _amount(asked["unit"], asked["budget"])
    served = f", and {si(asked['served_tokens'])} tokens served" if asked["served_tokens"] else ""
    device = f", on {asked['device']}" if asked["device"] else ""
    least = f", for the fewest {COST[asked['unit']]}" if asked["loss"] is not None else ""
    return f"{what}{served}{device}{least}"


def _answer(best: Document, quality: str, is_budget: bool) -> list[str]:
    size = f"{best['family']} in {best['precision']} with {_range(best['params'])} parameters"
    lines = [f"Train {size} on {_range(best['tokens'])} tokens."]
    name = column(quality).title
    lines.append(f"Expected {name} {_loss(best['loss'])}; the law's floor is {best['floor']:.4g}.")
    lines.append(f"Training takes {_cost(best, 'train')}.")
    if best["serve_flops"] is not None:
        lines.append(f"Serving takes {_cost(best, 'serve')}, at a third of training a token: the forward pass alone.")
    if not is_budget:
        lines.append(f"The cost's interval: {_range(best['cost'])}.")
    if best["peak_memory_gb"] is not None:
        lines.append(f"Peak memory about {si(best['peak_memory_gb'] * 1e9)}B, by this study's runs.")
    if best["tokens_per_second"] is not None:
        lines.append(f"Speed {si(best['tokens_per_second'])} tokens/s on {best['device']}, {best['speed_source']}.")
    else:
        lines.append(f"Its time is {best['speed_source']}.")
    if best["dollars_per_hour"] is not None:
        lines.append(f"Price {best['dollars_per_hour']:.4g} dollars an hour: {best['price_source'] or 'its file'}.")
    shape = best["shape"]
    if shape is not None:
        heads = f", {shape['n_heads']} heads" if shape["n_heads"] else ""
        lines.append(
            f"Nearest shape: {shape['model']}, {shape['n_layers']} layers, width {shape['d_model']}{heads}: "
            f"{si(shape['n_params'])} parameters."
        )
        if shape["nearest_shipped"] not in (None, shape["model"]):
            near = shape["nearest_shipped_params"]
            lines.append(f"The nearest shipped size is {shape['nearest_shipped']}, with {si(near)}.")
    return lines


def _ties(document: Document) -> list[str]:
    """Say which sizes and which arms are tied with the advice."""
    title, noise, sizes = column(document["quality"]).title, document["noise"], document["tied_sizes"]
    lines = []
    if sizes is not None:
        lines.append(
            f"Sizes from {si(sizes['low'])} to {si(sizes['high'])} parameters are within noise of it: on the same "
            f"budget, their {title} is higher by at most {sizes['difference']:.2g}, which is what two runs of one "
            f"setting differ by (95 %, {noise['df']} degrees of freedom, at the sizes of this study)."
        )
    if len(document["arms"]) < 2:
        return lines
    what = title if document["asked"]["loss"] is None else COST[document["asked"]["unit"]]
    others = [f"{arm['family']} in {arm['precision']}" for arm in document["not_told_apart"]]
    if not others:
        return [*lines, f"By the intervals of their {what}, it is told apart from each other arm."]
    return [*lines, f"Tied with it in {what}: {listed(others)}. The data do not say which of them is best."]


def _certainty(best: Document, document: Document) -> list[str]:
    beyond = best["beyond"]
    called = {"compute": "compute", "params": "size", "tokens": "number of tokens"}
    far = [f"{times:.3g} times in {called[name]}" for name, times in beyond.items() if times > 1.005]
    lines = [f"From {best['rows']} rows ({best['units']} independent) by the law {best['law']}{_error(best)}."]
    lines.append(f"Beyond the rows: {', '.join(far)}." if far else "Inside what the rows cover.")
    if len(best["laws"]) > 1:
        said = [
            f"{law['law']} {'never' if law['params'] is None else si(law['params'])}"
            + ("" if law["loss"] is None else f" at {law['loss']:.4f}")
            for law in best["laws"]
        ]
        lines.append(f"Parameters and loss by each law: {'; '.join(said)}.")
    return lines + [f"Mind: {warning.removesuffix('.')}." for warning in dict.fromkeys(best["warnings"])]


def _error(best: Document) -> str:
    error = best["holdout_error"]
    return ", which was not tested on larger runs" if error is None else f", off by {error:.2%} on larger runs held out"


def _table(arms: list[Document]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    headings = ("family", "precision", "params", "tokens", "loss", "FLOPs", "hours", "dollars", "law")
    rows = [
        (
            arm["family"],
            arm["precision"],
            si(arm["params"]["value"]),
            si(arm["tokens"]["value"]),
            _loss(arm["loss"]),
            si(arm["train_flops"]),
            *(None if arm[f"train_{unit}"] is None else f"{arm[f'train_{unit}']:.3g}" for unit in ("hours", "dollars")),
            arm["law"],
        )
        for arm in arms
    ]
    return headings, rows


def _cost(best: Document, what: str) -> str:
    parts = [_amount(unit, value) for unit in COST if (value := best[f"{what}_{unit}"]) is not None]
    return ", ".join(parts)


def _amount(unit: str, value: float) -> str:
    if unit == "hours":
        return duration(3600 * value) if value < 100 else f"{value:,.0f} hours"
    return f"{si(value)} FLOPs" if unit == "flops" else f"{value:.3g} dollars"


def _range(estimate: Document) -> str:
    low, high = (None if estimate[end] is None else si(estimate[end]) for end in ("low", "high"))
    if low is None:
        return f"{si(estimate['value'])} (interval unknown)"
    return f"{si(estimate['value'])} ({low} to {high or 'any'})"


def _loss(estimate: Document) -> str:
    value = format_number(estimate["value"], ".4f")
    if estimate["low"] is None or estimate["high"] is None:
        return value
    return f"{value} ({estimate['low']:.4f} to {estimate['high']:.4f})"


def print_guide(document: Document, console: Console) -> None:
    """Print a guide: which family for a purpose and why, and what the study's rows say."""
    console.print(Text(f"{document['for']}: {document['what']} (task={document['task']})", style="bold"))
    console.print()
    for family in document["families"]:
        console.print(Text(f"{family['family']}: {family['why']}."))
        console.print(Text(f"  {family['source']}", style="dim"))
    console.print()
    console.print(f"To try it: {document['command']}", soft_wrap=True)
    console.print()
    study = document["study"]
    if study is not None and study["families"]:
        quality = study["quality"]
        most = si(study["most_flops"])
        best = "best setting" if study["noise"] else "best run"
        console.print(Text(f"{study['name']}, each family's {best} of at most {most} FLOPs:"))
        rows = [
            (run["family"], run["setting"] or run["slug"], f"{run[quality]:.4f}", run["seeds"],
             None if run["n_params"] is None else si(run["n_params"]),
             si(run["train_flops"]), None if run["train_seconds"] is None else duration(run["train_seconds"]))
            for run in study["families"]
        ]  # fmt: skip
        headings = ("family", "setting" if study["noise"] else "run", column(quality).short, "seeds", "params")
        console.print(small_table((*headings, "FLOPs", "time"), rows))
    for line in sentences(document):
        console.print(Text(line))
