"""`lmexp pull`: finished runs from an address that several people share."""

from typing import Annotated

import typer

from lmexp.cli.app import WATCH, print_json, print_line, say, verb
from lmexp.cli.options import Common
from lmexp.cli.push import Address, Weights


@verb(WATCH, "lmexp pull demo /shared/studies", "lmexp pull demo s3://bucket/studies")
def pull(
    name: Annotated[str, typer.Argument(help="The name of a sweep that somebody has pushed.")],
    address: Address,
    common: Common,
    weights: Weights = False,
) -> None:
    """Copy a sweep's finished runs from a folder or an address, and merge them with those here; none is replaced."""
    from lmexp.runs.find import sweep_folder
    from lmexp.runs.share import pull
    from lmexp.units import bytes_in_words

    result = pull(sweep_folder(name, common.output_dir), address, weights, say)
    if common.as_json:
        print_json(
            {
                "sweep": name,
                "address": address,
                "folder": str(result.folder),
                "pulled": result.pulled,
                "completed": result.completed,
                "present": result.present,
                "begun": result.begun,
                "conflicts": [str(path) for path in result.conflicts],
                "refused": result.refused,
                "forecasts": result.forecasts,
                "n_bytes": result.n_bytes,
            }
        )
    else:
        parts = [
            f"runs pulled: {len(result.pulled)} ({bytes_in_words(result.n_bytes)})",
            f"already here: {len(result.present)}",
            *([f"missing scores or files added: {len(result.completed)}"] if result.completed else []),
            *([f"begun here, left alone: {len(result.begun)}"] if result.begun else []),
            *([f"with another result, kept in conflicts/: {len(result.conflicts)}"] if result.conflicts else []),
            *([f"forecasts: {result.forecasts}"] if result.forecasts else []),
            *([f"refused: {len(result.refused)}"] if result.refused else []),
        ]
        print_line(", ".join(parts))
    if result.refused:
        raise typer.Exit(1)
