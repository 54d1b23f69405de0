"""`lmexp doctor`: what this machine can do."""

from lmexp.cli.app import LOOK, err, out, print_json, say, verb
from lmexp.cli.options import Common


@verb(LOOK, "lmexp doctor")
def doctor(common: Common) -> None:
    """Show what this machine has, how fast it multiplies matrices, and what cannot be measured here."""
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
