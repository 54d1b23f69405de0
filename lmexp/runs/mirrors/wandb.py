"""The copy of a run in W&B."""

import os
import shutil
from pathlib import Path
from typing import Any

from lmexp.config.schema import LoggerConfig, RunConfig
from lmexp.errors import reason_of
from lmexp.messages import Say
from lmexp.runs.directory import RunDir
from lmexp.runs.mirrors.mirror import (
    AXES,
    CONNECT_SECONDS,
    Copy,
    File,
    Point,
    best_of,
    describe,
    known,
    numbers,
    print_line,
)
from lmexp.runs.record import Row

UPLOAD_SECONDS = 20.0
"""How long W&B may go on uploading after the last step; what is left lies on the disk for `wandb sync`."""
TAG_LENGTH = 64
"""The longest tag that W&B takes."""


def agents_run() -> str | None:
    """Return the id of the run that a W&B agent wants filled, where one started this process."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def import_wandb() -> Any:
    """Import W&B so that it prints nothing, asks for no key in a terminal, and reports none of its errors.

    It reads this from the environment, at import. What the user has set there stays.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


class WandbCopy(Copy):
    """A W&B run, offline unless asked for online; online falls back to offline.

    It bears the run's own id, so a run that is mirrored again is the same run on the server. Under a W&B agent
    it is the agent's run instead: the sweep waits for the loss of that one.
    """

    kept_offline: str | None = None

    def __init__(self, config: RunConfig, run: RunDir, say: Say = print_line, is_live: bool = True) -> None:
        """Open the copy.

        Args:
            is_live: whether this process trains the run now. If it does, W&B samples the machine and collects what is
                printed from now on. If not, samples of the machine would say nothing about the run, and all that it
                printed is in log.txt.
        """
        assert isinstance(config.logger, LoggerConfig), "an outside logger has a class of its own"
        self._logger, self._folder, self._is_live = config.logger, run.path, is_live
        self._description = describe(config, run)
        if config.logger.mode == "online":
            try:
                self._run = self._open("online")
            except Exception as error:
                self._end_service()
                self._run = self._open("offline")
                self.kept_offline = f"W&B could not be reached ({reason_of(error)})"
                say(f"{self.kept_offline}: this run is kept offline, and `wandb sync {self._folder_of_run}` uploads it")
        else:
            self._run = self._open("offline")
        self.place = self._run.url or self._folder_of_run
        for axis in AXES:
            if axis != "step":  # that is W&B's own `_step`
                self._run.define_metric(axis, hidden=True)  # no chart of its own
        self._defined: set[str] = set()
        if config.logger.console:
            self._run.write_logs(run.read_log())

    def _open(self, mode: str) -> Any:
        wandb = import_wandb()
        shutil.rmtree(self._folder / "wandb", ignore_errors=True)
        about = self._description
        own = {"project": self._logger.project, "entity": self._logger.entity, "group": about.sweep, "id": about.id}
        return wandb.init(
            mode=mode,
            dir=self._folder,
            name=about.name,
            config=about.config,
            tags=[tag[:TAG_LENGTH] for tag in about.tags],
            notes=about.question,
            job_type=about.job_type,
            **({} if agents_run() else own),
            settings=_settings(
                # "wrap" sees what Python prints, and leaves the file descriptors, which are the run's log, alone.
                console="wrap" if self._is_live and self._logger.console else "off",
                x_disable_stats=not (self._is_live and self._logger.system_metrics),
            ),
        )

    @property
    def _folder_of_run(self) -> str:
        return str(Path(self._run.dir).parent)

    def _end_service(self) -> None:
        """End the process that writes and uploads: until then it holds the run's id, and may yet write."""
        import_wandb().teardown()

    def log(self, point: Point) -> None:
        values = {name: value for name, value in point.items() if name != "step"}
        for name in values.keys() - self._defined - set(AXES):
            best = best_of(name)
            self._run.define_metric(name, step_metric="tokens", summary=f"{best},last" if best else "last")
            self._defined.add(name)
        # An evaluation after an optimizer step has the same step, and W&B joins the two in one row.
        self._run.log(values, step=int(point["step"]))

    def add_file(self, file: File, record: Row) -> None:
        _log_artifact(self._run, file, numbers(record))

    def finish(self, record: Row | None, exit_code: int) -> None:
        try:
            self._run.summary.update(known(record or {}))
        finally:
            self._run.finish(exit_code=exit_code)
            self._end_service()  # finish() returns a little before the file is whole


def add_wandb_page(logger: LoggerConfig, folder: Path, page: File) -> str:
    """Put the report page of the sweep in `folder` into a W&B run of its own; return the run's address or folder.

    The run bears the sweep's name, so that a further page is a new version in the same run. Raises what W&B raises.
    """
    wandb = import_wandb()
    shutil.rmtree(folder / "wandb", ignore_errors=True)
    run = wandb.init(
        mode=logger.mode,
        dir=folder,
        project=logger.project,
        entity=logger.entity,
        id=page.name,
        name=page.name,
        group=folder.name,
        job_type="report",
        settings=_settings(console="off", x_disable_stats=True),
    )
    try:
        _log_artifact(run, page, {})
    finally:
        run.finish()
        wandb.teardown()
    return str(run.url or Path(run.dir).parent)


def _log_artifact(run: Any, file: File, metadata: dict[str, float]) -> None:
    wandb = import_wandb()
    artifact = wandb.Artifact(file.name, type=file.kind, metadata=metadata)
    # Not copied to W&B's cache in the user's home: it is read where it is, at the end of the run or by `wandb sync`.
    add = artifact.add_dir if file.path.is_dir() else artifact.add_file
    add(str(file.path), policy="immutable", skip_cache=True)
    run.log_artifact(artifact)


def _settings(**of_run: Any) -> Any:
    return import_wandb().Settings(
        silent=True,
        init_timeout=CONNECT_SECONDS,
        finish_timeout=UPLOAD_SECONDS,
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_meta=True,  # names the host, the user and the command line
        x_save_requirements=False,
        **of_run,
    )
