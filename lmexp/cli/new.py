"""`lmexp new`: a commented sweep file to edit."""

from typing import Annotated

import typer

from lmexp.cli.app import RUN, out, print_json, verb
from lmexp.cli.options import AsJson, ConfigDir, Debug


@verb(RUN, "lmexp new mine --from demo")
def new(
    name: Annotated[str, typer.Argument(help="Name of the new sweep.")],
    source: Annotated[str, typer.Option("--from", metavar="SWEEP", help="Sweep to copy (`lmexp list sweeps`).")] = (
        "demo"
    ),
    config_dir: ConfigDir = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write sweeps/NAME.yaml, a copy of another sweep with comments on what to edit."""
    from lmexp.config.new_sweep import new_sweep

    written = new_sweep(name, source, config_dir)
    if as_json:
        print_json({"sweep": name, "file": str(written)})
        return
    out.print_line(f"{written}: edit it, then `lmexp plan {name}` and `lmexp sweep {name}`")
