"""`lmexp doctor`: what this machine can do, or whether a run still is what its record says."""

from collections import Counter
from dataclasses import asdict
from typing import Annotated

import typer

from lmexp.cli.app import LOOK, err, out, print_json, say, verb
from lmexp.cli.options import CommonWithCode


@verb(LOOK, "lmexp doctor", "lmexp doctor --run gpt_nano-fp32")
def doctor(
    common: CommonWithCode,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Instead, check a finished run: are its data, code, packages and weights still those of its record? "
            "Exits with 1 if something differs or could not be checked, such as weights that are not here.",
        ),
    ] = None,
) -> None:
    """Show what this machine has, how fast it multiplies matrices, and what cannot be measured here."""
    if run is not None:
        _check_run(run, common)
        return
    from lmexp.cost.contention import busy_warning
    from lmexp.cost.device import cores, detect
    from lmexp.cost.doctor import examine
    from lmexp.report.terminal.doctor import print_doctor

    if detect().kind == "cpu" and (warning := busy_warning(1, cores(), cores(), "OMP_NUM_THREADS")):
        say(warning)
    with err.status("measuring"):
        findings = examine(common.output_dir)
    if common.as_json:
        print_json(findings)
    else:
        print_doctor(findings, out)


def _check_run(name: str, common: CommonWithCode) -> None:
    """Print whether a run can still be traced. Exits with 1 if something differs or could not be checked."""
    from lmexp.report.terminal.provenance import print_provenance
    from lmexp.resolve.provenance import trace
    from lmexp.runs.find import find_run

    run = find_run(name, common.output_dir, is_finished=True)
    with err.status("reading the data and the weights"):
        checks = trace(run, common.output_dir)
    counts = Counter(check.result for check in checks)
    failed = {"differs": counts["differs"], "not_checked": counts["not checked"]}
    if common.as_json:
        print_json({"run": str(run.path), **failed, "checks": [asdict(check) for check in checks]})
    else:
        print_provenance([asdict(check) for check in checks], out)
    if any(failed.values()):
        raise typer.Exit(1)
