"""Rebuilding mirrors: each run of a sweep told again, from the files in its run directory, as one clean whole.

A run has one mirror however often it is rebuilt: what lies in its directory is replaced, and on a server it has
the same id (W&B) or takes the place of the run that the directory made before (MLflow).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lmexp.config.failures import explain
from lmexp.config.schema import LoggerConfig, OutsideLogger, RunConfig
from lmexp.config.trust import check_settings
from lmexp.errors import UserError
from lmexp.messages import Say
from lmexp.runs.directory import RunDir
from lmexp.runs.find import runs_of
from lmexp.runs.links import check_sweep_links
from lmexp.runs.mirrors.mirror import File
from lmexp.runs.mirrors.open import add_page, check_logger, has_mirror, open_mirror
from lmexp.runs.mirrors.view import VIEW, save_view, write_view
from lmexp.runs.mirrors.wandb import agents_run
from lmexp.runs.record import Row
from lmexp.runs.state import WAITING

REPORT_PAGE = "report.html"
"""The page that `lmexp report` writes into the folder of a sweep."""


def sync(folder: Path, logger: Mapping[str, Any], say: Say = lambda line: None, with_view: bool = False) -> list[Row]:
    """Rebuild the mirror of each run of the sweep in `folder`, and return a row for each run.

    A row holds `run`, `state`, `mirror` (the logger's name), `result`, `place` (where the mirror is) and `reason`.
    The result is `mirrored`; `offline`, when it was to be online and is on the disk only; `stopped`, when the
    mirror broke; or `skipped`, when there is nothing to show yet. Runs that did not end well are mirrored as
    failed, with what there is of their curve. If `artifacts` has `report`, the last row is that of the report page.

    Args:
        logger: fields of the config's `logger` that are to be others than the run's own.
        say: told of each run when it is through.
        with_view: also write the view that compares the runs in W&B, and save it there if the runs are online. It has
            a row of its own, the last one.

    Raises UserError, before anything is written, when the sweep was not started or no mirror is named.
    """
    if agents_run():
        raise UserError("WANDB_SWEEP_ID is set: a W&B agent's run is one run, and `sync` rebuilds many")
    runs = [run for run in runs_of(folder) if run.path.is_dir()]  # of a sweep that was stopped early, not all are made
    configs = [_with_logger(run.read_config(), logger) for run in runs]
    if not any(has_mirror(config.logger) for config in configs):
        raise UserError(f"the runs of {folder.name} have no mirror; name one, as in --logger wandb")
    for config in configs:
        if "uri" not in logger:  # it is the run's own then, and the run may be anybody's
            check_settings(config.model_dump(mode="json", by_alias=True), "logger")
        check_logger(config.logger)
    rows: list[Row] = []
    unreachable: str | None = None
    for run, config in zip(runs, configs, strict=True):
        if unreachable and _is_online_wandb(config):
            # What could not be reached for one run is not waited for again by each of the others.
            row = rebuild(run, _with_logger(config, {"mode": "offline"}))
            if row["result"] == "mirrored":
                row |= {"result": "offline", "reason": unreachable}
        else:
            row = rebuild(run, config)
            unreachable = row["reason"] if row["result"] == "offline" else unreachable
        rows.append(row)
        say(_line(row))
    if page := _mirror_page(folder, runs, configs, unreachable):
        rows.append(page)
        say(_line(page))
    if with_view:
        rows.append(_mirror_view(folder, configs, unreachable))
        say(_line(rows[-1]))
    return rows


def _mirror_view(folder: Path, configs: list[RunConfig], unreachable: str | None) -> Row:
    """Write the view that compares the runs in W&B, save it there if they are online, and return its row."""
    row: Row = {"run": VIEW, "state": "done", "mirror": "wandb", "result": "skipped", "place": None, "reason": None}
    loggers = [config.logger for config in configs if config.logger.name == "wandb"]
    if not loggers or not isinstance(loggers[0], LoggerConfig):
        return row | {"reason": "a view is for W&B"}
    check_sweep_links(folder)
    try:
        file = write_view(folder.resolve(), loggers[0])
        if loggers[0].mode != "online" or unreachable:
            why = unreachable or "it is saved in W&B with --mode online"
            return row | {"result": "offline", "place": str(file), "reason": why}
        return row | {"result": "mirrored", "place": save_view(file)}
    except Exception as error:
        return row | {"result": "stopped", "reason": explain(error)}


def _mirror_page(folder: Path, runs: list[RunDir], configs: list[RunConfig], unreachable: str | None) -> Row | None:
    """Add the sweep's report page where `logger.artifacts` asks for it, and return its row; None if it does not.

    The config of the first of the sweep's own runs says where it goes.
    """
    own = [pair for pair in zip(runs, configs, strict=True) if pair[0].path.resolve().parent == folder.resolve()]
    asked = [(run, config) for run, config in own if has_mirror(config.logger) and _asks_for_page(config)]
    if not asked:
        return None
    run, config = asked[0]
    if unreachable:
        config = _with_logger(config, {"mode": "offline"})
    file = File("report", f"report-{folder.resolve().name}", folder.resolve() / REPORT_PAGE)
    row: Row = {"run": REPORT_PAGE, "state": "done", "mirror": config.logger.name}
    row |= {"result": "skipped", "place": None, "reason": None}
    if not file.path.is_file():
        return row | {"reason": f"there is none; write it with `lmexp report {folder.name}`"}
    check_sweep_links(folder)
    try:
        place = add_page(config, run, file)
    except Exception as error:
        return row | {"result": "stopped", "reason": explain(error)}
    return row | {"result": "offline" if unreachable else "mirrored", "place": place, "reason": unreachable}


def _asks_for_page(config: RunConfig) -> bool:
    return isinstance(config.logger, LoggerConfig) and "report" in config.logger.artifacts


def _line(row: Row) -> str:
    return f"{row['run']}: {row['result']}{': ' + row['reason'] if row['reason'] else ''}"


def rebuild(run: RunDir, config: RunConfig) -> Row:
    """Rebuild the mirror that `config` names from what the run directory holds; return its row. See `sync`."""
    known, alive = run.look()
    row: Row = {"run": run.path.resolve().name, "state": known.state, "mirror": config.logger.name}
    row |= {"result": "skipped", "place": None, "reason": None}
    if not has_mirror(config.logger):
        return row | {"reason": "it has no mirror"}
    # A run that has just ended is still at work, too: it closes its own mirror.
    lock = None if alive else run.lock()
    if lock is None:
        return row | {"reason": "a process is at work on it"}
    with lock:
        state = row["state"] = "failed" if known.state == "running" else known.state  # its process is gone
        if state in WAITING:
            return row | {"reason": f"it is {state}"}
        record = run.read_record() or run.read_milestones()
        if not record and not run.read_curve():
            return row | {"reason": "it has no curve"}
        mirror = open_mirror(config, run, say=lambda line: None, is_live=False)
        mirror.finish(record[-1] if record else None, 0 if state == "done" else 1)
    if mirror.stopped:
        return row | {"result": "stopped", "reason": mirror.stopped}
    kept = mirror.kept_offline
    return row | {"result": "offline" if kept else "mirrored", "place": mirror.place, "reason": kept}


def check_agent(configs: Sequence[RunConfig], is_search: bool = False) -> None:
    """Raise UserError when a W&B agent asks for one run and the command has several, which would all be that one.

    The `configs` of a search are examples: how many there will be is not known before.
    """
    is_one = len(configs) == 1 and not is_search
    if agents_run() and not is_one and any(config.logger.name == "wandb" for config in configs):
        has = "searches, with a run for each trial" if is_search else f"has {len(configs)}"
        raise UserError(f"a W&B agent's run is one run; this command {has}")


def attach_to_agent(run: RunDir, config: RunConfig, say: Say) -> None:
    """Give the W&B agent that started this process what an earlier command found; without an agent, do nothing.

    To be called for a run that had its result before: nothing trains it, so nothing else fills the agent's run.
    `config` is the run's, with the logger that is asked for now.
    """
    if not agents_run() or config.logger.name != "wandb":
        return
    row = rebuild(run, config)
    say(f"{row['run']} has its result; the W&B agent's run is {row['result']} from it{_why(row)}")


def _why(row: Row) -> str:
    return f" ({row['reason']})" if row["reason"] else ""


def _is_online_wandb(config: RunConfig) -> bool:
    logger = config.logger
    return isinstance(logger, LoggerConfig) and logger.name == "wandb" and logger.mode == "online"


def _with_logger(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    if isinstance(config.logger, OutsideLogger) and "name" not in changes:
        return config
    before = config.logger.model_dump() if isinstance(config.logger, LoggerConfig) else {}
    try:
        logger = LoggerConfig.model_validate(before | dict(changes))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"logger.{first['loc'][0]}={first.get('input')!r}: {first['msg']}") from None
    return config.model_copy(update={"logger": logger})
