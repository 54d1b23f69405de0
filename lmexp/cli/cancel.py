"""`lmexp cancel`: stop a sweep from another terminal."""

from lmexp.cli.app import WATCH, print_json, print_line, say, verb
from lmexp.cli.options import CommonWithCode, StartedSweep


@verb(WATCH, "lmexp cancel demo")
def cancel(name: StartedSweep, common: CommonWithCode) -> None:
    """Stop a sweep and all its runs, wherever they were started. Each run saves first, and resumes when run again."""
    from lmexp.launch.control import cancel

    cancelled = cancel(common.output_dir / name, say)
    if common.as_json:
        print_json({"sweep": name, "cancelled": [run.name for run in cancelled]})
    else:
        print_line(f"{len(cancelled)} runs cancelled; the same sweep command resumes them")
