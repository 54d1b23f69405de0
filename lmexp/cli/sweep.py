"""`lmexp sweep`: run a sweep, in the foreground or in the background."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lmexp.cli.app import RUN, print_json, print_line, say, verb
from lmexp.cli.options import CommonWithConfigs, Overrides, PolicyOptions, SeedOptions, SweepName
from lmexp.cli.running import run_and_report, run_looks_and_report


@verb(
    RUN,
    "lmexp sweep demo",
    "lmexp sweep demo precision=bf16 budget.tokens=1e6",
    "lmexp sweep demo --seeds auto --difference 0.01",
)
def sweep(
    name: SweepName,
    common: CommonWithConfigs,
    policy: PolicyOptions,
    seeds: SeedOptions,
    overrides: Overrides = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Run in the background, even after the terminal closes.")
    ] = False,
) -> None:
    """Run a sweep: check every cell, print the plan, run what is not done, report. Run it again to resume."""
    from lmexp.resolve.sweep import resolve_sweep
    from lmexp.study.run import resolve_to_run
    from lmexp.study.seeds import check_policy, resolve_with_looks

    parsed, rule, overrides = policy.parse(), seeds.parse(), overrides or []
    if rule:
        check_policy(parsed)
    if detach:  # resolve here too, so that wrong input is reported before anything starts
        if rule:
            resolved = resolve_with_looks(name, overrides, rule, common.output_dir, common.config_dir, say=say)
        else:
            resolved = resolve_sweep(name, overrides, common.output_dir, common.config_dir, say=say)
        _detach(resolved.name, resolved.folder, common.as_json)
    if rule:
        resolved = resolve_with_looks(name, overrides, rule, common.output_dir, common.config_dir, say=say)
        run_looks_and_report(resolved, parsed, common.as_json)
        return
    resolved = resolve_to_run(name, overrides, common.output_dir, common.config_dir, None, say)
    run_and_report(resolved, parsed, common.as_json)


def _detach(name: str, folder: Path, as_json: bool) -> None:
    """Start this very command once more, in the background, and exit."""
    from lmexp.launch.control import LOG, detach

    pid, code = detach(folder, [word for word in sys.argv[1:] if word not in ("--detach", "--json")])
    if as_json:
        print_json({"sweep": name, "pid": pid, "exit_code": code, "log": str(folder / LOG)})
    elif code is None:
        print_line(
            f"{name} runs in the background as process {pid}: `lmexp status {name} --watch`, "
            f"`lmexp logs {name} -f`, `lmexp cancel {name}`"
        )
    else:
        print_line(f"{name} has already ended, with exit code {code}: `lmexp logs {name}`")
    raise typer.Exit(code or 0)
