"""`lmexp list`: what there is to choose from."""

from typing import Annotated

import typer

from lmexp.cli.app import LOOK, out, print_json, verb
from lmexp.cli.options import OUTPUTS, AsJson, ConfigDir, Debug, OutputDir
from lmexp.config import paths
from lmexp.config.yaml_files import yaml_text
from lmexp.errors import UserError, nearest

SWEEPS, PAPERS = "sweeps", "papers"
UNCOUNTABLE = ("data", "hardware")


def kinds(groups: set[str]) -> dict[str, str]:
    """Return the groups of configs by the plural that lists them."""
    return {group if group in UNCOUNTABLE else f"{group}s": group for group in sorted(groups)}


SHIPPED = ", ".join([*kinds(paths.groups([paths.shipped_root()])), SWEEPS, PAPERS])


@verb(LOOK, "lmexp list models", "lmexp list sweeps --show demo", name="list")
def list_choices(
    kind: Annotated[str, typer.Argument(help=f"What to list: {SHIPPED}.")],
    show: Annotated[
        str | None, typer.Option(metavar="NAME", help="Print the file of this choice instead, such as that of a sweep.")
    ] = None,
    config_dir: ConfigDir = None,
    output_dir: OutputDir = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List all choices of one kind, one line each."""
    from lmexp.report.terminal.lists import print_list

    roots = paths.search_roots(config_dir)
    groups = kinds(paths.groups(roots))
    if kind == PAPERS and show is None:
        from lmexp.papers.overview import in_words, overview

        papers = overview(roots, output_dir)
        if as_json:
            print_json(papers)
        else:
            print_list({name: in_words(paper) for name, paper in papers.items()}, out)
        return
    if kind in (SWEEPS, PAPERS):
        from lmexp.papers.paper import paper_files

        files = paper_files(roots) if kind == PAPERS else paths.sweep_files(roots)
    elif kind in groups:
        files = paths.group_choices(groups[kind], roots)
    else:
        known = [*groups, SWEEPS, PAPERS]
        raise UserError(f"there is no list of {kind}.{nearest(kind, known)} Choices: {', '.join(known)}")
    if show is not None:
        if show not in files:
            raise UserError(f"there is no '{show}' in {kind}.{nearest(show, files)} `lmexp list {kind}` shows them")
        text = yaml_text(files[show])
        print_json({"name": show, "file": str(files[show]), "text": text}) if as_json else out.print_piece(text)
        return
    folder = paths.SWEEPS if kind == SWEEPS else f"{paths.CONF}/{groups[kind]}"
    several = paths.clashes(roots)
    notes = {name: " (in several plug-ins)" for name in files if f"{folder}/{name}.yaml" in several}
    choices = {name: paths.first_comment(file) + notes.get(name, "") for name, file in files.items()}
    if as_json:
        print_json(choices)
    else:
        print_list(choices, out)
