"""`lmexp cancel`: stop a sweep from another terminal."""

from lmexp.cli.app import WATCH, print_json, print_line, say, verb
from lmexp.cli.options import CommonWithCode, StartedSweep
from lmexp.units import counted


@verb(WATCH, "lmexp cancel demo")
def cancel(name: StartedSweep, common: CommonWithCode) -> None:
    """Stop a sweep and all its runs, wherever they were started. Each run saves first, and resumes when run again."""
    from lmexp.launch.control import cancel
    from lmexp.runs.find import sweep_folder

    stopped = cancel(sweep_folder(name, common.output_dir), say)
    never_started = [run.name for run in stopped if run.read_state().never_started]
    cancelled = [run.name for run in stopped if run.name not in never_started]
    if common.as_json:
        print_json({"sweep": name, "cancelled": cancelled, "never_started": never_started})
        return
    if not stopped:
        print_line(f"nothing to cancel: no run of {name} trains or waits")
        return
    rest = f", {len(never_started)} had not started" if never_started else ""
    print_line(f"{counted(len(cancelled), 'run')} cancelled{rest}; the same sweep command continues from here")
