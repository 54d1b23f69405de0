"""lmexp from Python: run and plan studies, read their results, compare them and fit laws to them.

    import lmexp
    lmexp.sweep("demo", ["budget.tokens=100_000"])     # train what is not done yet
    df = lmexp.load("outputs/demo")                    # a pandas DataFrame, a row a run
    df[lmexp.frontier(df, cost="train_flops")]
    lmexp.fit(df)
    lmexp.forecast("outputs/demo", at=[1e13])          # sealed now, scored by lmexp.report once such a run exists

`run`, `sweep`, `plan`, `report`, `versus` and `reproduce` do what the commands of these names do. They take the same
overrides, return typed results, and print nothing unless `verbose=True`. They need no `if __name__ == "__main__"` in a
script. `frontier` and `fit` take any DataFrame that has the columns they need, such as one from your own csv file.

Wrong input raises `lmexp.UserError` with a message of one sentence. Importing this module, `load`, `frontier`, `fit`,
`report` and `versus` import no torch.
"""

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import pandas as pd

from lmexp.analysis.frontier import Names
from lmexp.analysis.frontier import frontier as _frontier
from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.messages import Say, silent
from lmexp.runs.columns import column
from lmexp.runs.columns_text import plain_text

if TYPE_CHECKING:
    from lmexp.analysis.scaling.fit import Fit
    from lmexp.analysis.scaling.relations.relation import Relation
    from lmexp.launch.policy import Policy
    from lmexp.resolve.planned import Sweep
    from lmexp.runs.manifest import LookRule
    from lmexp.runs.share import Pulled, Pushed
    from lmexp.study.evaluations import FailedEvaluation
    from lmexp.study.forecast import SealedForecasts
    from lmexp.study.paper import PaperReport
    from lmexp.study.plan import SweepPlan
    from lmexp.study.report import StudyReport
    from lmexp.study.run import RunResult, SweepResult
    from lmexp.study.versus import VersusReport

Folder = str | PathLike[str]
DEFAULT_FOLDER = "train"
"""The folder of runs that belong to no sweep, as of `lmexp train`."""


def run(
    overrides: Iterable[str] = (),
    *,
    folder: str = DEFAULT_FOLDER,
    output_dir: Folder | None = None,
    config_dir: Folder | None = None,
    policy: "Policy | None" = None,
    trust: Iterable[str] = (),
    verbose: bool = False,
) -> "RunResult":
    """Train one run and return what became of it: `lmexp.run(["model=gpt_nano", "budget.tokens=200_000"])`.

    A run that is done already is not trained again: its result is returned. The training itself happens in a process of
    its own. A run that fails does not raise: see the result's `state` and `reason`.

    Args:
        overrides: Hydra overrides, as after `lmexp train`.
        folder: name of the folder in `output_dir` for a new run.
        output_dir: where runs lie [default: the environment variable LMEXP_OUTPUTS, or `outputs`].
        config_dir: a folder with your own conf/ and sweeps/ [default: the current one, if it has them].
        policy: retries, the time limit and caps on what may be spent [default: none].
        trust: modules or packages whose code somebody else's run or sweep file may name, as with `--trust`. Code that
            your overrides and your own configs name needs no trust.
        verbose: print the plan and the progress to standard error.

    Raises UserError for wrong input, before anything has started, and for overrides that name several runs.
    """
    from lmexp.config.overrides import refuse_axes

    listed = _listed(overrides)
    refuse_axes(listed, "lmexp.sweep")
    with _trusting(trust):
        (result,) = _run(None, listed, folder, output_dir, config_dir, policy, verbose).runs
    return result


def sweep(
    name: str | None,
    overrides: Iterable[str] = (),
    *,
    folder: str | None = None,
    output_dir: Folder | None = None,
    config_dir: Folder | None = None,
    policy: "Policy | None" = None,
    seeds: str | None = None,
    difference: float | None = None,
    cap: int | None = None,
    quality: str | None = None,
    trust: Iterable[str] = (),
    verbose: bool = False,
) -> "SweepResult":
    """Run the sweep of this name, or what is not done of it, and return what became of each of its runs.

    Every cell is checked before the first run starts. A run that fails is a result with `state` and `reason`, and the
    others go on; so look at `result.failures`. Ctrl-C saves the runs; calling it again resumes them.
    `lmexp.load(*result.folders)` returns the records.

    Args:
        name: a sweep's name (`lmexp list sweeps`) or the path of its file. With None, the overrides alone describe the
            sweep: `lmexp.sweep(None, ["model=gpt_nano", "model.n_layers=1,2"])`.
        overrides: Hydra overrides, as after `lmexp sweep`; one with several values is an axis.
        folder: name of the sweep's folder in `output_dir` [default: the sweep's name; `multirun` without one].
        seeds: "auto" adds seeds to the arms that may be the best, until the others are shown to be worse or a
            difference is ruled out; docs/sweeps.md describes the rule. [default: as many as the sweep says]
        difference: with seeds="auto", the smallest difference that matters, in the unit of the quality.
        cap: with seeds="auto", the most seeds of an arm [default: 10].
        quality: with seeds="auto", the column that arms are compared by [default: loss].
        output_dir, config_dir, policy, trust, verbose: as for `run`.

    Raises UserError for wrong input, before anything has started.
    """
    listed, folder = _listed(overrides), folder or (None if name else "multirun")
    with _trusting(trust):
        from lmexp.study.seeds import look_rule

        rule = look_rule(seeds, difference, cap, quality)
        return _run(name, listed, folder, output_dir, config_dir, policy, verbose, rule)


def plan(
    name: str,
    overrides: Iterable[str] = (),
    *,
    measure: bool = False,
    on: str | None = None,
    devices: int | None = None,
    mfu: float | None = None,
    output_dir: Folder | None = None,
    config_dir: Folder | None = None,
    trust: Iterable[str] = (),
    verbose: bool = False,
) -> "SweepPlan":
    """Return what each run of a sweep will take: parameters, FLOPs and memory.

    The result has a row for each run (`table`, `rows`) and the sums (`total`). Nothing is trained, but a text that is
    not in the token store yet is tokenised. With `measure`, a few steps of each distinct shape are trained, which takes
    some seconds each; then seconds, kWh and dollars are known too. `on="h100_sxm"` plans for hardware that is not here
    (`lmexp list hardware`): `devices` of it [default: 1], at an assumed `mfu` [default: 0.4].

    The other arguments are those of `sweep`. Raises UserError for wrong input.
    """
    from lmexp.config.paths import search_roots
    from lmexp.cost.elsewhere import hardware_elsewhere
    from lmexp.study.plan import plan_sweep

    outputs, configs = _outputs(output_dir), _path(config_dir)
    with _trusting(trust):
        elsewhere = hardware_elsewhere(on, devices, mfu, search_roots(configs))
        return plan_sweep(name, _listed(overrides), outputs, configs, measure, _say(verbose), elsewhere)


def report(
    *folders: Folder,
    quality: Names = (),
    cost: Names = (),
    where: str | None = None,
    all_runs: bool = False,
    reach: Mapping[str, float] | None = None,
    under: Mapping[str, float] | None = None,
    group_by: str | None = None,
    charts: Iterable[str] = (),
    width: str = "double",
    publish: Folder | None = None,
) -> "StudyReport":
    """Compare the runs of one or several sweeps, and write report.html, table.csv and table.parquet beside them.

    `lmexp.report("outputs/demo", cost="train_flops").findings` is what the study says, as sentences. The result
    also has the `table`, the `frontier`, the means over seeds (`groups`), the `answers` to `reach` and `under`, and the
    files that were written.

    Args:
        folders: the folders of sweeps, which may still be running.
        quality: one column or several [default: bits_per_byte if tokenizers differ, or else loss].
        cost: one column or several, such as `["dollars", "peak_memory_gb"]` [default: what the design
            varies: FLOPs, dollars or train_seconds].
        where: keep only these rows, as in "n_layers >= 4 and model != 'gpt_nano'".
        all_runs: also include runs in a sweep's folder that its last command no longer contained.
        reach: name the cheapest run that reaches this, as in `{"loss": 3.0}`.
        under: name the best run within these limits, as in `{"dollars": 2}`.
        group_by: expressions to take means by, as in "model,precision" [default: all axes but the seed].
        charts: also write the charts as files of these formats: "png", "svg", "pdf".
        width: how wide these are: "single" (3.25 inches, a column of a paper) or "double" (6.75 inches).
        publish: also write a folder of this name for any web server; see docs/share.md.

    Raises UserError for a folder that holds no runs, for a wrong column, expression or format, and for a folder to
    publish in that holds something else.
    """
    from lmexp.report.charts.export import check_formats, check_width
    from lmexp.report.options import ViewOptions
    from lmexp.report.view import StudyView
    from lmexp.study.report import write_report_files

    formats = check_formats(",".join(_listed(charts))) if charts else []
    check_width(width)
    paths = _folders(folders, "report")
    study = load_study(paths, all_runs)
    options = ViewOptions(
        quality=_names(quality),
        cost=_names(cost),
        where=where,
        group_by=group_by,
        reach=dict(reach or {}),
        under=dict(under or {}),
    )
    written = write_report_files(study, StudyView.of(study, options), paths, formats, width)
    if publish is None:
        return written
    from lmexp.study.publish import publish_study

    chosen = written.view.options
    published = publish_study(paths, Path(publish), chosen.quality[0], chosen.cost[0], all_runs)
    return replace(written, published=published)


def push(folder: Folder, address: Folder, *, weights: bool = False, verbose: bool = False) -> "Pushed":
    """Copy a sweep's finished runs to a folder or an address: `lmexp.push("outputs/demo", "s3://bucket/studies")`.

    What is there is not copied again, and nothing there is replaced. With `weights`, final weights are copied too.
    The result says which runs were `pushed`, which were `present`, and which have other results there (`conflicts`).
    Raises UserError for an address that cannot be used, and for a folder without runs.
    """
    from lmexp.runs.share import push

    return push(Path(folder), os.fspath(address), weights, _say(verbose))


def pull(folder: Folder, address: Folder, *, weights: bool = False, verbose: bool = False) -> "Pulled":
    """Merge a sweep's finished runs at an address into its folder, which may be new; no run here is replaced.

    The result says which runs were `pulled`, and which were `refused`, with the reason. Another result of a run that
    is finished here is kept beside it: see `conflicts`, and docs/share.md. `weights` copies final weights too.
    Raises UserError for an address that cannot be used, or has no runs of this sweep.
    """
    from lmexp.runs.share import pull

    return pull(Path(folder), os.fspath(address), weights, _say(verbose))


def versus(
    *folders: Folder,
    arms: Iterable[str] = (),
    baseline: str | None = None,
    quality: str | None = None,
    cost: Names = (),
    scale: str | None = None,
    best: str | None = None,
    where: str | None = None,
    all_runs: bool = False,
    confidence: float | None = None,
    gate: Folder | None = None,
) -> "VersusReport":
    """Say how much less cost arms need than a baseline for the same quality, like `lmexp versus`.

    `lmexp.versus("outputs/study", arms=["optim=adamw,muon"]).table` is a DataFrame with a row for each arm, cost and
    scale: the `speedup` with its interval from `low` to `high`, and `raw`, that per token. The result also has
    `sentences` and, with a gate, `passes`.

    Args:
        folders: the folders of sweeps; without `arms`, each is an arm, and the first is the baseline.
        arms: an axis ("optim"), some of its values ("optim=adamw,muon"), or an expression for each arm.
        baseline: the arm to compare the others with [default: the first].
        quality: the column that must be equal [default: bits_per_byte if tokenizers differ, or else loss].
        cost: one cost or several: "flops", "seconds", "dollars", "kwh", "tokens" [default: all that the runs have].
        scale: an axis by whose values speedups are given [default: every cell by itself].
        best: an axis, such as "optim.lr", of which each arm takes its best value in each cell.
        where: keep only these rows, as in "n_layers >= 4".
        all_runs: also include runs in a sweep's folder that its last command no longer contained.
        confidence: of the intervals [default: 0.95].
        gate: a YAML file with min_speedup and more, see docs/versus.md.

    Raises UserError for wrong input, and for arms that do not compare.
    """
    from lmexp.analysis.versus.gate import read_gate
    from lmexp.study.versus import compare

    return compare(
        _folders(folders, "versus"),
        arms=_listed(arms),
        baseline=baseline,
        quality=quality,
        costs=_names(cost),
        scale=scale,
        best=best,
        where=where,
        all_runs=all_runs,
        confidence=confidence,
        gate=None if gate is None else read_gate(Path(gate)),
    )


def reproduce(
    name: str,
    *,
    scale: str = "cpu",
    run: bool = True,
    points: Folder | None = None,
    output_dir: Folder | None = None,
    config_dir: Folder | None = None,
    policy: "Policy | None" = None,
    trust: Iterable[str] = (),
    verbose: bool = False,
) -> "PaperReport":
    """Run what is missing of a paper's experiment, judge its claims, and write the page and its figures.

    `lmexp.reproduce("markov").claims` is a DataFrame with a row for each claim: its verdict, our value with its 95 %
    interval, the band, and what the paper says. The result also has the `table` of the runs, their `folder`, and the
    files `page` and `markdown`. A run that fails does not raise: the claims about it are not judged. Nor does an
    evaluation that the paper needs of a run: see the result's `failed_evaluations`.

    Args:
        name: a paper's name (`lmexp list papers`) or the path of its file.
        scale: "cpu" takes minutes on two cores, "gpu" hours on one GPU, "paper" has the published sizes and budgets.
        run: with False, nothing is trained or evaluated, and the claims are judged on the runs that are there.
        points: the file or folder with the paper's published data; nothing is trained, and the claims about this data
            are judged.
        output_dir, config_dir, policy, trust, verbose: as for `run`.

    Raises UserError for wrong input, if there are no finished runs, and if no claim can be judged; the
    page, which is written all the same, says what is there and what is missing then.
    """
    from lmexp.config.paths import search_roots
    from lmexp.papers.paper import find_paper, scale_named
    from lmexp.papers.reproduction import judge_at_once, judge_paper, sweep_folder
    from lmexp.study.evaluations import evaluate_runs, plan_evaluations
    from lmexp.study.paper import write_paper_files

    short, file, paper = find_paper(name, search_roots(_path(config_dir)))
    wanted = scale_named(scale)
    if at_once := judge_at_once(short, paper, wanted, _path(points), _outputs(output_dir)):
        report = write_paper_files(at_once)
        report.check_judged()
        return report
    overrides = paper.overrides(wanted)
    outputs, configs = _outputs(output_dir), _path(config_dir)
    failed: tuple[FailedEvaluation, ...] = ()
    if run:
        with _trusting(trust):
            resolved = _resolve(str(file), overrides, sweep_folder(short, wanted), output_dir, config_dir, verbose)
            what_follows = plan_evaluations(resolved, paper.evaluations, configs)
            runs = _run_resolved(resolved, policy, verbose, what_follows).runs
            failed = evaluate_runs(runs, paper.evaluations, outputs, configs, _say(verbose))
    report = write_paper_files(judge_paper(short, paper, wanted, outputs))
    report.check_judged()
    return replace(report, failed_evaluations=failed)


def load(*folders: Folder, where: str | None = None, all_runs: bool = False) -> pd.DataFrame:
    """Return the rows of one or several sweeps as a DataFrame: `lmexp.load("outputs/demo", where="n_layers >= 4")`.

    A row is a finished run, or one of its milestones, or a run that has no result (its `state` says why). Columns are
    of pandas' nullable types: what was not measured is `<NA>`, never 0. After the columns of the record come `state`,
    `reason` and the other swept axes, under their names in the sweep (`model.n_layers`, `optim.lr`).

    `df.attrs` holds `name`, `question`, `axes` (the values of each swept axis), `units` and `meanings` (by column).
    `where` is an expression as for `lmexp report --where`. With `all_runs`, runs in a sweep's folder
    that its last command no longer contained are included too. Raises UserError for a folder that holds no runs.

    The columns, with their units:

    {columns}
    """
    study = load_study(_folders(folders, "load"), all_runs)
    study = study if where is None else study.where(where)
    table = study.table.reset_index(drop=True)
    table.attrs = {
        "name": study.name,
        "question": study.question,
        "axes": study.axes,
        "units": {str(name): column(str(name)).unit for name in table if column(str(name)).unit},
        "meanings": {str(name): column(str(name)).meaning for name in table if column(str(name)).meaning},
    }
    return table


if load.__doc__:  # Python drops docstrings when it is run with -OO
    load.__doc__ = load.__doc__.replace("{columns}", indent(plain_text(), "    ").strip())


def frontier(
    df: pd.DataFrame,
    quality: Names = "loss",
    cost: Names = "train_seconds",
    maximize: Iterable[str] = (),
    minimize: Iterable[str] = (),
) -> pd.Series:
    """Return for each row whether no other beats it on all of the columns `quality` and `cost`; index it: `df[...]`.

    Each column has its own good direction: less of a loss, of seconds and of what is not known, more of accuracy, F1,
    BLEU, scores and tokens per second; `maximize` and `minimize` name columns to be taken otherwise. Rows with a null
    or infinite number are not on it, nor, where there is a `state`, rows that are not done; where there is a `task`,
    each has a frontier of its own. A single lucky run may be on it: the column `tied_with` of `lmexp.report(...).table`
    says which are within noise of a setting that costs no more. Raises UserError for a column that is missing or holds
    no numbers.
    """
    turned = dict.fromkeys(maximize, True) | dict.fromkeys(minimize, False)
    names = [quality] if isinstance(quality, str) else list(quality)
    names += [cost] if isinstance(cost, str) else list(cost)
    strange = [name for name in turned if name not in names]
    if strange:
        raise UserError(f"{', '.join(strange)} is neither a quality nor a cost here: those are {', '.join(names)}")
    return _frontier(df, quality, cost, turned=turned)


def fit(data: "pd.DataFrame | Folder", columns: Mapping[str, str] | None = None, **options: Any) -> "Fit":
    """Fit scaling laws to a DataFrame, a csv of points, or the folder of a sweep, and return the fit.

    It takes the columns params (or n_params), loss, and tokens or flops; `columns` maps these to names of your own, as
    in `columns={"params": "size"}`, and `weights` to the column with the weight of each row. `options` go to
    lmexp.analysis.scaling.fit.fit: `laws`, `delta`, `bootstraps`, `seed`, `irreducible` (E, or a pair of bounds), and
    `parameters` (bounds of a law's). A law may be an expression, as in `laws=["loss = E + A*params^-alpha"]`.
    Parameters and tokens are numbers, FLOPs are FLOPs, the loss is in nats per token. Raises UserError for points that
    no law can be fitted to.
    """
    from lmexp.analysis.scaling.fit import fit as fit_points
    from lmexp.analysis.scaling.own_law import is_expression
    from lmexp.analysis.scaling.readers import points_of_csv, points_of_frame, points_of_study

    own = [law for law in options.get("laws", ()) if is_expression(law)]
    if isinstance(data, pd.DataFrame):
        return fit_points(points_of_frame(data, columns, expressions=own), **options)
    path = Path(data)
    if path.is_dir():
        return fit_points(points_of_study(load_study([path]), columns, expressions=own), **options)
    return fit_points(points_of_csv(path, columns, expressions=own), **options)


def fit_relation(
    data: "pd.DataFrame | Folder",
    law: str,
    *,
    score: str | None = None,
    to: str | None = None,
    tuned: str | None = None,
    loss_law: str | None = None,
    runs: Iterable[Mapping[str, float | str]] = (),
    budgets: Iterable[float] = (),
    columns: Mapping[str, str] | None = None,
    **options: Any,
) -> "Relation":
    """Fit a law of something else than the loss of a size, as `lmexp fit --law downstream` and its like do.

    `lmexp.fit_relation(df, "learning_rate").formulas` holds the numbers with their intervals, `predictions` what was
    predicted, and `warnings` what to know before they are used.

    Args:
        data: a DataFrame, a csv of points, or the folder of a sweep.
        law: downstream, learning_rate, batch_size or loss_to_loss.
        score: for downstream, the column of the score.
        to: for loss_to_loss, the column of the loss to predict; the known one is the loss.
        tuned: for learning_rate and batch_size, the column of what was tried [default: a usual name].
        loss_law: for downstream, the law of the loss [default: chinchilla].
        runs: runs to predict, as in `{"params": 1e7, "tokens": 1e9}` or `{"loss": 2.9}`.
        budgets: training FLOPs to predict for.
        columns: columns for params, tokens, flops, loss and unit, as for `fit`.
        options: `delta`, `bootstraps` and `seed`.

    Raises UserError for a table without these columns, or one that does not determine the law.
    """
    from lmexp.analysis.scaling.relations import fit as relations
    from lmexp.analysis.scaling.relations.rows import rows_of_file, rows_of_frame, rows_of_study

    asked = relations.Asked(law, score, to, tuned, loss_law, tuple(map(dict, runs)), tuple(budgets))
    if isinstance(data, pd.DataFrame):
        rows = rows_of_frame(data, columns, needs_sizes=asked.needs_sizes, in_law=asked.columns)
    elif Path(data).is_dir():
        rows = rows_of_study(load_study([Path(data)]), columns, asked.columns)
    else:
        rows = rows_of_file(Path(data), columns, needs_sizes=asked.needs_sizes, in_law=asked.columns)
    return relations.fit_relation(rows, asked, **options)


def forecast(
    folder: Folder,
    at: Iterable[float] = (),
    runs: Iterable[Mapping[str, float | str]] = (),
    *,
    laws: Iterable[str] = (),
    columns: Mapping[str, str] | None = None,
    where: str | None = None,
    all_runs: bool = False,
    delta: float | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
    trust: Iterable[str] = (),
) -> "SealedForecasts":
    """Seal predictions of runs that do not exist yet: `lmexp.forecast("outputs/scaling", at=[1e12])`.

    Each is written to a file in the sweep's folder `forecasts`, which is never replaced. `result.forecasts` holds the
    predictions with their intervals, and `result.files` the files. Once a run of that size is recorded,
    `lmexp.report(folder).forecasts` says how far off the forecast was.

    Args:
        folder: the folder of a sweep with finished runs.
        at: budgets in FLOPs, whose best run is forecast.
        runs: runs to forecast, as in `{"params": 1e7, "tokens": 1e9}`.
        laws: names of laws [default: chinchilla, extra and kaplan]; the one that predicts held-out runs best is used.
        columns: columns for params, tokens, flops and loss, as for `fit`.
        where, all_runs: which rows to fit, as for `report`.
        delta, bootstraps, seed: as for `fit`.
        trust: as for `run`.

    Raises UserError if no law can be fitted, and if a run of that size has finished or begun. Nothing is written then.
    """
    from lmexp.analysis.forecasts.make import FitOptions
    from lmexp.analysis.scaling.laws import DEFAULT_LAWS, law_named
    from lmexp.study.forecast import seal_forecasts

    budgets = [float(flops) for flops in at]
    if wrong := [flops for flops in budgets if not 0 < flops < math.inf]:
        raise UserError(f"at holds {wrong[0]:g}: a budget in FLOPs is a number above 0")
    options = FitOptions(
        laws=[law_named(name) for name in _listed(laws)] or DEFAULT_LAWS,
        columns=dict(columns or {}),
        where=where,
        all_runs=all_runs,
        delta=delta,
        bootstraps=bootstraps,
        seed=seed,
    )
    with _trusting(trust):
        return seal_forecasts(Path(folder), budgets, [dict(run) for run in runs], options)


def _run(
    name: str | None,
    overrides: list[str],
    folder: str | None,
    output_dir: Folder | None,
    config_dir: Folder | None,
    policy: "Policy | None",
    verbose: bool,
    looks: "LookRule | None" = None,
) -> "SweepResult":
    """Resolve and run, with the plan and the progress on standard error if `verbose`."""
    if looks is None:
        return _run_resolved(_resolve(name, overrides, folder, output_dir, config_dir, verbose), policy, verbose)
    from lmexp.study.seeds import check_policy, cost_of_looks, resolve_with_looks, run_with_looks

    check_policy(policy)
    say = _say(verbose)
    resolved = resolve_with_looks(name, overrides, looks, _outputs(output_dir), _path(config_dir), folder, say)
    for line in cost_of_looks(resolved) if verbose else []:
        say(line)
    return run_with_looks(resolved, lambda batch: _run_resolved(batch, policy, verbose), say)


def _resolve(
    name: str | None,
    overrides: list[str],
    folder: str | None,
    output_dir: Folder | None,
    config_dir: Folder | None,
    verbose: bool,
) -> "Sweep":
    from lmexp.study.run import resolve_to_run

    return resolve_to_run(name, overrides, _outputs(output_dir), _path(config_dir), folder, _say(verbose))


def _run_resolved(
    resolved: "Sweep", policy: "Policy | None", verbose: bool, what_follows: Iterable[str] = ()
) -> "SweepResult":
    """Run a sweep; with `verbose`, its plan, which ends with these sentences, and the progress are printed."""
    from lmexp.study.run import run_resolved

    say = _say(verbose)
    if not verbose:
        return run_resolved(resolved, policy)
    from lmexp.launch.progress import SweepProgress
    from lmexp.study.plan import plan_resolved
    from lmexp.terminal import Terminal

    planned = plan_resolved(resolved)
    for line in [*planned.notices, planned.sentence, *what_follows]:
        say(line)
    with SweepProgress(Terminal(stderr=True), resolved) as progress:
        return run_resolved(resolved, policy, progress, say)


def _trusting(names: Iterable[str]) -> AbstractContextManager[None]:
    """Return a context in which code of these names may be imported."""
    from lmexp.config.trust import trusting

    return trusting(_listed(names))


def _say(verbose: bool) -> Say:
    """Return what prints a line of progress: to standard error, or nowhere."""
    if not verbose:
        return silent
    from lmexp.terminal import Terminal

    return Terminal(stderr=True).print_line


def _listed(words: Iterable[str]) -> list[str]:
    """Return overrides, formats or names as a list. Raises UserError for one string, whose letters nobody means."""
    if isinstance(words, str):
        raise UserError(f"{words!r} is one string where a list is needed: [{words!r}]")
    return [str(word) for word in words]


def _names(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _outputs(output_dir: Folder | None) -> Path:
    return Path(output_dir or os.environ.get("LMEXP_OUTPUTS") or "outputs")


def _path(folder: Folder | None) -> Path | None:
    return None if folder is None else Path(folder)


def _folders(folders: Iterable[Folder], caller: str) -> list[Path]:
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise UserError(f'{caller} takes the folder of a sweep, as in lmexp.{caller}("outputs/demo")')
    return paths
