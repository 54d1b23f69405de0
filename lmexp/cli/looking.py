"""Verbs that tell what there is: list and doctor."""

from enum import StrEnum
from typing import Annotated

import typer

from lmexp.cli.app import LOOK, OUTPUTS, AsJson, Configs, Debug, Outputs, app, err, out, print_json


class Kind(StrEnum):
    """What `lmexp list` can list."""

    models = "models"
    data = "data"
    tokenizers = "tokenizers"
    tasks = "tasks"
    optims = "optims"
    schedules = "schedules"
    budgets = "budgets"
    precisions = "precisions"
    hardware = "hardware"
    loggers = "loggers"
    sweeps = "sweeps"


@app.command("list", epilog="Example: `lmexp list models`", rich_help_panel=LOOK)
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List what there is to choose from, each with one line."""
    from lmexp.config import paths
    from lmexp.report.terminal.tables import print_list

    roots = paths.search_roots(config_dir)
    group = kind.value.removesuffix("s")
    files = paths.sweep_files(roots) if kind is Kind.sweeps else paths.group_choices(group, roots)
    found = {name: paths.first_comment(file) for name, file in files.items()}
    if as_json:
        print_json(found)
    else:
        print_list(found, out)


@app.command(epilog="Example: `lmexp doctor`", rich_help_panel=LOOK)
def doctor(output_dir: Outputs = OUTPUTS, as_json: AsJson = False, debug: Debug = False) -> None:
    """Say what this machine has, how fast it multiplies, and what cannot be measured here."""
    from lmexp.cost.doctor import examine
    from lmexp.report.terminal.doctor import print_doctor

    with err.status("measuring"):
        found = examine(output_dir)
    if as_json:
        print_json(found)
    else:
        print_doctor(found, out)
