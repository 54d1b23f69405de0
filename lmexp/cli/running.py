"""Verbs that run: train, sweep, retry, and prepare, which comes before them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmexp.cli.app import (
    OUTPUTS,
    RUN,
    AsJson,
    Configs,
    Debug,
    Detach,
    MaxDollars,
    MaxFlops,
    MaxHours,
    OnFailure,
    Outputs,
    Timeout,
    Words,
    app,
    err,
    out,
    print_json,
    say,
    say_all,
)
from lmexp.cli.showing import show_report
from lmexp.errors import UserError

if TYPE_CHECKING:
    from lmexp.launch.policy import Policy
    from lmexp.resolve.planned import Sweep


@app.command(epilog="Example: `lmexp train model=gpt_nano budget.tokens=200_000`", rich_help_panel=RUN)
def train(
    overrides: Words = None,
    multirun: Annotated[
        bool, typer.Option("-m", "--multirun", help="Sweep over overrides with several values, as in a=1,2.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Folder for the runs; `train`, or `multirun` with -m.")] = None,
    on_failure: OnFailure = "continue",
    timeout: Timeout = None,
    max_hours: MaxHours = None,
    max_dollars: MaxDollars = None,
    max_flops: MaxFlops = None,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train one run, or with -m an ad-hoc sweep."""
    from lmexp.config.compose import refuse_axes

    words = overrides or []
    if not multirun:
        refuse_axes(words, "`lmexp train -m`")
    name = name or ("multirun" if multirun else "train")
    policy = _policy(on_failure, timeout, max_hours, max_dollars, max_flops)
    _run(None, words, name, output_dir, config_dir, policy, as_json)


@app.command(
    epilog="Example: `lmexp sweep demo`, or `lmexp sweep demo precision=bf16 budget.tokens=1e6`", rich_help_panel=RUN
)
def sweep(
    name: Annotated[str, typer.Argument(help="A sweep's name (`lmexp list sweeps`), or the path of its file.")],
    overrides: Words = None,
    on_failure: OnFailure = "continue",
    timeout: Timeout = None,
    max_hours: MaxHours = None,
    max_dollars: MaxDollars = None,
    max_flops: MaxFlops = None,
    detach: Detach = False,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run a sweep: check every cell, say the plan, run what is not done, report. Run it again to resume."""
    policy = _policy(on_failure, timeout, max_hours, max_dollars, max_flops)
    if detach:
        from lmexp.resolve.sweep import resolve_sweep

        resolved = resolve_sweep(name, overrides or [], output_dir, config_dir, say=say)  # what is wrong is said here
        _detach(resolved.name, resolved.folder, as_json)
    else:
        _run(name, overrides or [], None, output_dir, config_dir, policy, as_json)


@app.command(epilog="Example: `lmexp retry demo`, or `lmexp retry demo demo/gpt_nano --fresh`", rich_help_panel=RUN)
def retry(
    name: Annotated[str, typer.Argument(help="A sweep that has been started.")],
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Which runs; else all without success.")
    ] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Only runs that are failed, cancelled, oom, diverged or timeout.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, not from the last checkpoint.")] = False,
    on_failure: OnFailure = "continue",
    timeout: Timeout = None,
    max_hours: MaxHours = None,
    max_dollars: MaxDollars = None,
    max_flops: MaxFlops = None,
    output_dir: Outputs = OUTPUTS,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run those of a sweep again that did not succeed, as their directories describe them."""
    from lmexp.launch.control import RETRIED, set_back
    from lmexp.launch.processes import warm_up
    from lmexp.resolve.sweep import resolve_runs

    for word in state or []:
        if word not in RETRIED:
            raise UserError(f"--state {word}: {', '.join(RETRIED)}")
    policy = _policy(on_failure, timeout, max_hours, max_dollars, max_flops)
    chosen = set_back(output_dir / name, output_dir, runs or [], state or RETRIED, fresh)
    if not chosen:
        say("nothing to retry: no run has ended without success")
        if as_json:
            show_report([output_dir / name], as_json=as_json)
        return
    warm_up()
    _run_resolved(resolve_runs(output_dir / name, chosen, say), policy, as_json, [output_dir / name])


@app.command(
    epilog="Example: `lmexp prepare data=text data.path=README.md data.document=line tokenizer=byte`",
    rich_help_panel=RUN,
)
def prepare(
    overrides: Words = None,
    output_dir: Outputs = OUTPUTS,
    config_dir: Configs = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Tokenise a text once, into the token store that runs read."""
    from lmexp.config import paths
    from lmexp.config.compose import Composer, refuse_axes
    from lmexp.data.prepare import prepare
    from lmexp.runs.directory import STORES

    words = overrides or []
    refuse_axes(words, "`lmexp train -m`")
    config = Composer(paths.search_roots(config_dir), words=words).config({})
    store = prepare(config, output_dir / STORES, say)
    found: dict[str, Any] = {"path": str(store.path), "vocab_size": store.vocab_size}
    for split in ("train", "validation"):
        found[split] = {
            "tokens": store.tokens(split),
            "documents": store.documents(split),
            "bytes": store.bytes(split),
        }
    if as_json:
        print_json(found)
    else:
        from lmexp.report.terminal.tables import print_store

        print_store(found, out)


def _run(
    name: str | None,
    words: list[str],
    folder: str | None,
    outputs: Path,
    config_dir: Path | None,
    policy: "Policy",
    as_json: bool,
) -> None:
    """Resolve, say the plan, run, report; exit with 1 when a run failed."""
    from lmexp.study.run import resolve_to_run

    resolved = resolve_to_run(name, words, outputs, config_dir, folder, say)
    _run_resolved(resolved, policy, as_json)


def _run_resolved(resolved: "Sweep", policy: "Policy", as_json: bool, folders: list[Path] | None = None) -> None:
    """Run, report on the folders (those of the runs, if none are given), and name what failed."""
    from lmexp.launch.progress import Progress
    from lmexp.study.plan import plan_resolved
    from lmexp.study.run import run_resolved

    planned = plan_resolved(resolved)
    say_all([*planned.notices, planned.sentence])
    try:
        with Progress(err, resolved) as progress:
            result = run_resolved(resolved, policy, progress, say)
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        raise typer.Exit(130) from None
    show_report(folders or list(result.folders), as_json=as_json)
    for run in result.failures:
        say(f"{run.name} {run.state}: {run.reason}; its log: {run.log}")
    if result.failures:
        raise typer.Exit(1)


def _policy(
    on_failure: str, timeout: str | None, hours: float | None, dollars: float | None, flops: float | None
) -> "Policy":
    from lmexp.launch.policy import Policy, parse_duration, parse_on_failure

    stop, retries = parse_on_failure(on_failure)
    seconds = None if timeout is None else parse_duration(timeout)
    return Policy(stop, retries, seconds, hours, dollars, flops)


def _detach(name: str, folder: Path, as_json: bool) -> None:
    """Start this very command once more, in the background."""
    from lmexp.launch.control import LOG, detach

    pid, code = detach(folder, [word for word in sys.argv[1:] if word not in ("--detach", "--json")])
    if as_json:
        print_json({"sweep": name, "pid": pid, "exit_code": code, "log": str(folder / LOG)})
    elif code is None:
        out.print(f"{name} goes on in the background as process {pid}: `lmexp status {name} --watch`, "
                  f"`lmexp logs {name} -f`, `lmexp cancel {name}`", soft_wrap=True)  # fmt: skip
    else:
        out.print(f"{name} has ended already, with exit code {code}: `lmexp logs {name}`", soft_wrap=True)
    raise typer.Exit(code or 0)
