"""`lmexp retry`: run those runs of a sweep again that ended without success."""

from typing import Annotated

import typer

from lmexp.cli.app import RUN, say, verb
from lmexp.cli.options import CommonWithCode, PolicyOptions, StartedSweep
from lmexp.cli.reporting import show_report
from lmexp.cli.running import run_and_report
from lmexp.errors import UserError


@verb(RUN, "lmexp retry demo", "lmexp retry demo demo/gpt_nano --fresh")
def retry(
    name: StartedSweep,
    common: CommonWithCode,
    policy: PolicyOptions,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Runs to retry [default: all that ended without success]."),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(help="Retry only runs in this state: failed, cancelled, oom, diverged or timeout."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of from the last checkpoint.")] = False,
) -> None:
    """Train those runs of a sweep again that did not succeed, using only their directories."""
    from lmexp.launch.control import RETRIED, set_back
    from lmexp.launch.processes import warm_up
    from lmexp.resolve.sweep import resolve_runs
    from lmexp.runs.find import sweep_folder

    for wanted in state or []:
        if wanted not in RETRIED:
            raise UserError(f"--state {wanted}: choose among {', '.join(RETRIED)}")
    parsed, folder = policy.parse(), sweep_folder(name, common.output_dir)
    chosen = set_back(folder, common.output_dir, runs or [], state or RETRIED, fresh)
    if not chosen:
        say("nothing to retry: no run has ended without success; `lmexp sweep` starts what is still queued")
        if common.as_json:
            show_report([folder], as_json=True)
        return
    warm_up()
    run_and_report(resolve_runs(folder, chosen, say), parsed, common.as_json, [folder])
