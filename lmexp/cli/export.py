"""`lmexp export`: a finished run as a folder that transformers loads."""

from pathlib import Path
from typing import Annotated

import typer

from lmexp.cli.app import USE, print_json, print_line, say, verb
from lmexp.cli.options import CommonWithCode


@verb(USE, "lmexp export train/gpt_nano my_model")
def export(
    run: Annotated[str, typer.Argument(help="A finished run: its directory, or a part of its name.")],
    folder: Annotated[Path, typer.Argument(help="Folder to create.")],
    common: CommonWithCode,
) -> None:
    """Write a finished run as a folder of the transformers library: weights, config and tokenizer."""
    from lmexp.inference.import_export import class_named, export_run

    path = export_run(run, folder, common.output_dir, say)
    # AutoModel would load the folder without its head, and say so only in a warning.
    loader = class_named(path)
    if common.as_json:
        print_json({"run": run, "folder": str(path), "class": loader})
    else:
        print_line(f"{path}: for {loader} and AutoTokenizer of transformers")
