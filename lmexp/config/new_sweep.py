"""A new sweep file: a copy of another one, with comments on what to edit."""

import re
from pathlib import Path
from typing import Any

from lmexp.config.paths import CONF, SWEEPS, find_sweep, search_roots, sweep_files
from lmexp.config.yaml_files import read_yaml, shown, without_key, yaml_text
from lmexp.errors import UserError
from lmexp.files import write_new

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
PAPER = "paper"
HINTS = {
    "question": "what you want to know; the report begins with its answer",
    "grid": "the axes: every combination of their values is a cell; a group (`lmexp list models`) or any key",
    "zip": "axes of equal length whose values go together",
    "points": "further cells, each written out",
    "seeds": "how many seeds each cell gets, 1 if missing; 2 or more tell differences from noise",
    "search": "let Optuna choose the cells instead of a grid",
    "budget": "what one run may spend: tokens, flops, tokens_per_param, epochs, seconds or dollars",
    "batch": "tokens: of one optimizer step, over all devices; a multiple of model.context",
    "model": "what all runs have in common, such as n_layers, d_model and context",
    "tokenizer": "vocab_size of bpe or wordpiece: a number, or auto, which fits a short text too",
    "optim": "lr is the peak learning rate; lr: auto computes it for large decoders",
    "data": "what is read (docs/data.md)",
}
"""What the keys of a sweep file are for, in the order in which the header names them."""
OWN_TEXT = (
    "Your own text: put `defaults: [{override /data: text}, _self_]` at the top, and below it",
    "`data: {path: my_text.txt, document: line}`. A short text supports a small vocabulary only: set",
    "`tokenizer: {vocab_size: auto}`, or remove what is set below.",
)


def new_sweep(name: str, source: str, config_dir: Path | None = None) -> Path:
    """Write `sweeps/NAME.yaml` as a copy of the sweep `source`, and return its path.

    It is written into the folder of the user's own configs: `config_dir`, or else the current folder. A copy of a
    paper's sweep has the runs but not the paper's claims, which hold for the paper's own runs only.

    Raises UserError if the name is taken or has other characters than NAME allows, if there is no such source, or if
    the source is not YAML.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"'{name}' is no name for a sweep: use letters, digits, - and _")
    has_configs = config_dir is not None and any((config_dir / part).is_dir() for part in (CONF, SWEEPS))
    roots = search_roots(config_dir if has_configs else None)
    known = sweep_files(roots)
    if name in known:
        raise UserError(f"there is a sweep '{name}' already, {known[name]}; choose another name")
    _, file = find_sweep(source, roots)
    written = (config_dir or Path()) / SWEEPS / f"{name}.yaml"
    try:
        text = without_key(yaml_text(file), PAPER)
    except ValueError:
        raise UserError(
            f"{shown(file)}: other keys use a part of `{PAPER}` by an anchor, so a copy without it is not possible; "
            "write out what they use"
        ) from None
    content = _with_header(name, source, text, read_yaml(file))
    written.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_new(written, content)
    except FileExistsError:
        raise UserError(f"{written} exists already; choose another name") from None
    return written


def _with_header(name: str, source: str, text: str, content: Any) -> str:
    """Return the text of a sweep file, which holds `content`, with comments on what to edit after its first comment."""
    lines = text.splitlines()
    first = [lines.pop(0)] if lines and lines[0].startswith("#") else [f"# A sweep from {source}"]
    top = content if isinstance(content, dict) else {}
    study = top.get("sweep")
    keys = {*top, *(study if isinstance(study, dict) else ())}
    hints = {key: hint for key, hint in HINTS.items() if key in keys}
    width = max(map(len, hints), default=0)
    header = [
        *first,
        "#",
        f"# Written by `lmexp new {name} --from {source}`. Edit it, then: lmexp plan {name}, lmexp sweep {name}, "
        f"lmexp report {name}.",
        "# Every key can also be set on the command line: lmexp plan " + name + " budget.tokens=100_000",
        "#",
        *(f"#   {key:<{width}}  {hint}" for key, hint in hints.items()),
        *([] if "data" in keys or "/data" in text else [f"# {line}" for line in OWN_TEXT]),
        "",
    ]
    return "\n".join([*header, *lines]) + "\n"
