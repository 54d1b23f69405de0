"""`lmexp import`: a folder of transformers as a finished run."""

from pathlib import Path
from typing import Annotated

import typer

from lmexp.cli.app import USE, print_json, print_line, verb
from lmexp.cli.options import Common


@verb(USE, "lmexp import my_model", name="import")
def import_(
    folder: Annotated[
        Path, typer.Argument(help="Folder of the transformers library with safetensors: gpt2, llama, bert and similar.")
    ],
    common: Common,
    name: Annotated[str | None, typer.Option("--as", help="Name of the model [default: the folder's name].")] = None,
) -> None:
    """Import a folder of the transformers library as a finished run, imported/NAME, for `eval`, `bench` or init.run."""
    from lmexp.config.scoring import check_name
    from lmexp.inference.import_export import import_run

    check_name(name)
    run = import_run(folder, common.output_dir, name)
    if common.as_json:
        print_json({"run": run.name, "path": str(run.path)})
    else:
        print_line(str(run.path))
