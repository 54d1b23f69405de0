"""`lmexp push`: finished runs to an address that several people share."""

from dataclasses import asdict
from typing import Annotated

import typer

from lmexp.cli.app import WATCH, print_json, print_line, say, verb
from lmexp.cli.options import Common, StartedSweep

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="A folder, or an address such as s3://bucket/studies.")]
Weights = Annotated[bool, typer.Option("--weights", help="Also copy the final weights.")]


@verb(WATCH, "lmexp push demo /shared/studies", "lmexp push demo s3://bucket/studies")
def push(name: StartedSweep, address: Address, common: Common, weights: Weights = False) -> None:
    """Copy a sweep's finished runs to a folder or an address, from which others pull them."""
    from lmexp.runs.find import sweep_folder
    from lmexp.runs.share import push
    from lmexp.units import bytes_in_words

    result = push(sweep_folder(name, common.output_dir), address, weights, say)
    if common.as_json:
        print_json({"sweep": name, "address": address, **asdict(result)})
        return
    print_line(
        f"runs pushed: {len(result.pushed)} ({bytes_in_words(result.n_bytes)}), already there: {len(result.present)}, "
        f"not finished: {result.unfinished}" + (f", forecasts: {result.forecasts}" if result.forecasts else "")
    )
