"""`lmexp reproduce`: run what a paper claims, and judge the claims."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmexp.cli.app import DECIDE, out, print_json, print_line, say, say_all, verb
from lmexp.cli.options import CommonWithConfigs, PolicyOptions
from lmexp.cli.running import end_with_failures, run_with_progress

if TYPE_CHECKING:
    from lmexp.study.evaluations import FailedEvaluation


@verb(DECIDE, "lmexp reproduce markov", "lmexp reproduce markov --no-run", "lmexp reproduce forecast2026 --points FILE")
def reproduce(
    name: Annotated[str, typer.Argument(help="A paper's name (`lmexp list papers`), or the path of its file.")],
    common: CommonWithConfigs,
    policy: PolicyOptions,
    scale: Annotated[
        str,
        typer.Option(help="cpu: minutes on two cores; gpu: hours on one GPU; paper: the published sizes and budgets."),
    ] = "cpu",
    page: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write the page NAME.md with its figures into this folder."),
    ] = None,
    no_run: Annotated[
        bool, typer.Option("--no-run", help="Train and evaluate nothing: judge the runs that are there.")
    ] = False,
    points: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Train nothing: judge the claims about the paper's published data, in this file or folder.",
        ),
    ] = None,
) -> None:
    """Reproduce a paper: train and evaluate what is missing, and say of each claim whether it is borne out."""
    from lmexp.config.paths import search_roots
    from lmexp.papers.paper import find_paper, scale_named
    from lmexp.papers.reproduction import judge_at_once, judge_paper, sweep_folder
    from lmexp.report.terminal.paper import print_paper
    from lmexp.study.paper import write_paper_files

    wanted = scale_named(scale)
    short, file, paper = find_paper(name, search_roots(common.config_dir))
    judged, result = judge_at_once(short, paper, wanted, points, common.output_dir), None
    failed: tuple[FailedEvaluation, ...] = ()
    if page is not None:
        page.mkdir(parents=True, exist_ok=True)  # before the runs, since it may be impossible
    if judged is None:
        overrides = paper.overrides(wanted)
        if not no_run:
            from lmexp.study.evaluations import evaluate_runs, plan_evaluations
            from lmexp.study.run import resolve_to_run

            folder = sweep_folder(short, wanted)
            resolved = resolve_to_run(str(file), overrides, common.output_dir, common.config_dir, folder, say)
            what_follows = plan_evaluations(resolved, paper.evaluations, common.config_dir)
            result = run_with_progress(resolved, policy.parse(), what_follows)
            try:
                failed = evaluate_runs(result.runs, paper.evaluations, common.output_dir, common.config_dir, say)
            except KeyboardInterrupt:
                say("stopped; the same command makes the evaluations that are missing")
                raise typer.Exit(130) from None
            if not any(run.state == "done" for run in result.runs):
                end_with_failures(result, is_one_run=True)  # there is nothing to judge
        judged = judge_paper(short, paper, wanted, common.output_dir)
    report = write_paper_files(judged, page)
    if common.as_json:
        print_json(judged.document() | {"page": str(report.page), "markdown": str(report.markdown)})
    else:
        print_paper(judged, out)
        print_line(f"\npaper: {report.page}\npaper: {report.markdown}")
    say_all(map(str, failed))
    if result is not None:
        end_with_failures(result)
    if failed:
        raise typer.Exit(1)
    report.check_judged()
