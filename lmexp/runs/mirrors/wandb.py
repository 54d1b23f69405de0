"""The copy of a run in W&B."""

import os
import shutil
from pathlib import Path
from typing import Any

from lmexp.config.schema import LoggerConfig, RunConfig
from lmexp.errors import reason_of
from lmexp.messages import Say
from lmexp.runs.directory import RunDir
from lmexp.runs.mirrors.mirror import AXES, CONNECT_SECONDS, Copy, Point, flat_config, known, print_line
from lmexp.runs.record import Row

UPLOAD_SECONDS = 20.0
"""How long W&B may go on uploading after the last step; what is left lies on the disk for `wandb sync`."""


def agents_run() -> str | None:
    """Return the id of the run that a W&B agent wants filled, where one started this process."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


class WandbCopy(Copy):
    """A W&B run, offline unless asked for online; online falls back to offline.

    It bears the run's own id, so a run that is mirrored again is the same run on the server. Under a W&B agent
    it is the agent's run instead: the sweep waits for the loss of that one.
    """

    kept_offline: str | None = None

    def __init__(self, config: RunConfig, run: RunDir, say: Say = print_line) -> None:
        # Before the import, which reads them. Left to the user where the user has set them.
        os.environ.setdefault("WANDB_SILENT", "true")  # also keeps it from asking for a key in a terminal
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        assert isinstance(config.logger, LoggerConfig), "an outside logger has a class of its own"
        self._config, self._logger, self._folder = config, config.logger, run.path
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
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric="tokens")

    def _open(self, mode: str) -> Any:
        import wandb

        shutil.rmtree(self._folder / "wandb", ignore_errors=True)
        config, who = self._config, self._config.run
        assert who is not None, "a run's config names its run"
        own = {"project": self._logger.project, "entity": self._logger.entity, "group": who.sweep, "id": who.id}
        return wandb.init(
            mode=mode,  # type: ignore[arg-type]
            dir=self._folder,
            name=who.slug,
            config=flat_config(config),
            **({} if agents_run() else own),  # type: ignore[arg-type]
            settings=wandb.Settings(
                silent=True,
                console="off",  # standard output is the run's log, and ours
                init_timeout=CONNECT_SECONDS,
                finish_timeout=UPLOAD_SECONDS,
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
                x_disable_meta=True,
                x_disable_stats=True,  # its sampling would compete with what is being measured
                x_save_requirements=False,
            ),
        )

    @property
    def _folder_of_run(self) -> str:
        return str(Path(self._run.dir).parent)

    def _end_service(self) -> None:
        """End the process that writes and uploads: until then it holds the run's id, and may yet write."""
        import wandb

        wandb.teardown()

    def log(self, point: Point) -> None:
        # Without step=: W&B drops what it takes for a step back, and counts by itself what comes.
        self._run.log(known(point))

    def finish(self, record: Row | None, exit_code: int) -> None:
        try:
            self._run.summary.update(known(record or {}))
        finally:
            self._run.finish(exit_code=exit_code)
            self._end_service()  # finish() returns a little before the file is whole
