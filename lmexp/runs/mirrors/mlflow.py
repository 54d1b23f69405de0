"""The copy of a run in MLflow."""

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from lmexp.config.schema import LoggerConfig, RunConfig
from lmexp.files import write_atomically
from lmexp.runs.directory import RunDir
from lmexp.runs.links import check_sweep_links
from lmexp.runs.mirrors.mirror import (
    CONNECT_SECONDS,
    Copy,
    Description,
    File,
    Point,
    describe,
    final_numbers,
    measured,
)
from lmexp.runs.record import Row

NOTE = ".mlflow"
"""A file with ids of MLflow runs, one a line. A run directory has that of its run; a sweep's folder has those of the
run that stands for the sweep, one for each server."""


def mlflow_client(uri: str | None, sweep: Path) -> tuple[Any, str]:
    """Return MLflow's client for the server at `uri`, or for the sweep's own `mlruns`, and where that is."""
    # Read at import or at the first call. Left to the user where the user has set them.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(int(CONNECT_SECONDS / 2)))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    # A folder of files needs no server and no SQLAlchemy; MLflow 3 only opens one when told so.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    if uri is not None:
        return MlflowClient(tracking_uri=uri), uri
    check_sweep_links(sweep)
    folder = sweep / "mlruns"
    (folder / ".trash").mkdir(parents=True, exist_ok=True)  # MLflow makes a store's folders once in a process
    return MlflowClient(tracking_uri=folder.resolve().as_uri()), str(folder)


class SweepRun:
    """The run that stands for a sweep in MLflow, the parent of its runs.

    All runs of the sweep share it, also those that start at the same moment: the first of them creates it, under a lock
    in the sweep's folder, and writes its id there. Its status is "running" as long as one of its runs is running. A
    process that was killed cannot say that its run has ended. The next run of the sweep that ends says it instead, or
    else the command.
    """

    def __init__(self, client: Any, folder: Path, project: str, about: Description) -> None:
        self._client, self._folder = client, folder
        with self._lock():
            self.experiment = _experiment(client, project)
            self.id = self._known_id(about.sweep) or self._create(about)

    def _lock(self) -> FileLock:
        return FileLock(self._folder / f"{NOTE}.lock", timeout=3 * CONNECT_SECONDS)

    def _known_id(self, sweep: str) -> str | None:
        for run_id in _lines(self._folder / NOTE):
            with suppress(Exception):  # on another server, or deleted by hand
                run = self._client.get_run(run_id)
                here = run.info.experiment_id == self.experiment and run.info.lifecycle_stage == "active"
                if here and run.data.tags.get("lmexp.sweep") == sweep:
                    return run_id
        return None

    def _create(self, about: Description) -> str:
        tags = {"lmexp.sweep": about.sweep, "job_type": "sweep", **_question(about)}
        run_id: str = self._client.create_run(self.experiment, run_name=about.sweep, tags=tags).info.run_id
        write_atomically(self._folder / NOTE, "\n".join([*_lines(self._folder / NOTE), run_id]) + "\n")
        return run_id

    def open(self) -> None:
        """Mark the sweep as running."""
        with self._lock():
            self._client.update_run(self.id, status="RUNNING")

    def close(self) -> None:
        """Mark the sweep as finished, unless one of its runs is still running; end those whose process is gone."""
        running = f"tags.`mlflow.parentRunId` = '{self.id}' and attributes.status = 'RUNNING'"
        with self._lock():
            alive = False
            for child in self._client.search_runs([self.experiment], running):
                if self._is_lost(child.info.run_id):
                    self._client.set_terminated(child.info.run_id, status="KILLED")
                else:
                    alive = True
            if not alive:
                self._client.set_terminated(self.id)

    def _is_lost(self, child: str) -> bool:
        """Whether no process trains the run whose copy has this id; False if no run directory here has that copy."""
        notes = (note for note in self._folder.glob(f"*/{NOTE}") if child in _lines(note))
        return any(not RunDir(note.parent).look()[1] for note in notes)


class MLflowCopy(Copy):
    """An MLflow run on the server that `uri` names, or in the sweep's `mlruns`, below the run of its sweep.

    The server chooses the id, and the run directory's `.mlflow` keeps it. So if the run is mirrored again, the new copy
    replaces this one, and never somebody else's run of the same config.
    """

    PARAMETERS_A_CALL = 100
    PARAMETER_LENGTH = 6000
    TAG_LENGTH = 5000

    def __init__(self, config: RunConfig, run: RunDir) -> None:
        logger = config.logger
        assert isinstance(logger, LoggerConfig), "an outside logger has a class of its own"
        self._client, store = mlflow_client(logger.uri, run.path.parent)
        from mlflow.entities import Param

        about = describe(config, run)
        self._opened = time.time()
        self._tokens = 0
        self._sweep = SweepRun(self._client, run.path.parent, logger.project, about)
        self._sweep.open()
        tags = {"sweep": about.sweep, "lmexp.run_id": about.id, "mlflow.parentRunId": self._sweep.id}
        tags |= {"tags": ", ".join(about.tags), "job_type": about.job_type, **_question(about)}
        opened = self._client.create_run(self._sweep.experiment, run_name=about.name, tags=tags)
        self._id = opened.info.run_id
        self._replace_earlier(run.path / NOTE, about.id, None if logger.uri else Path(store))
        self.place = store if logger.uri is None else f"{logger.uri} {self._id}"
        params = [Param(_mlflow_name(key), str(value)[: self.PARAMETER_LENGTH]) for key, value in about.config.items()]
        for start in range(0, len(params), self.PARAMETERS_A_CALL):
            self._client.log_batch(self._id, params=params[start : start + self.PARAMETERS_A_CALL])

    def _replace_earlier(self, note: Path, run_id: str, store: Path | None) -> None:
        """Delete the earlier copy of this run, whose id is in the file `note`. An id of any other run deletes nothing.

        MLflow keeps the files of a run that it deletes. In the sweep's own store, these are deleted as well.
        """
        for earlier_id in _lines(note):
            with suppress(Exception):  # on another server, or deleted by hand
                earlier = self._client.get_run(earlier_id)
                if earlier.data.tags.get("lmexp.run_id") != run_id:
                    continue
                self._client.delete_run(earlier_id)
                if store and re.fullmatch("[0-9a-f]{32}", earlier_id) and earlier.info.experiment_id.isdigit():
                    shutil.rmtree(store / earlier.info.experiment_id / earlier_id)
        write_atomically(note, f"{self._id}\n")

    def log(self, point: Point) -> None:
        self._tokens = int(point["tokens"])
        self._log_numbers(measured(point), self._opened + (point.get("seconds") or 0.0))

    def add_file(self, file: File, record: Row) -> None:
        add_mlflow_file(self._client, self._id, file)

    def finish(self, record: Row | None, exit_code: int) -> None:
        from mlflow.entities import RunTag

        try:
            if record:
                self._log_numbers(final_numbers(record), time.time())
                texts = {name: value for name, value in record.items() if isinstance(value, str)}
                tags = [RunTag(_mlflow_name(k), v[: self.TAG_LENGTH]) for k, v in texts.items()]
                self._client.log_batch(self._id, tags=tags)
        finally:
            self._client.set_terminated(self._id, status="FINISHED" if exit_code == 0 else "FAILED")
            self._sweep.close()

    def _log_numbers(self, numbers: dict[str, float], when: float) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(_mlflow_name(name), value, int(when * 1000), self._tokens) for name, value in numbers.items()]
        self._client.log_batch(self._id, metrics=metrics)


def end_lost_mlflow_runs(config: RunConfig, run: RunDir) -> None:
    """Mark in MLflow the runs of a sweep whose process was killed. Raises what MLflow raises.

    `config` is that of any run of the sweep, which lies in the directory `run`.
    """
    logger, folder = config.logger, run.path.parent
    assert isinstance(logger, LoggerConfig), "an outside logger has a class of its own"
    client, _ = mlflow_client(logger.uri, folder)
    SweepRun(client, folder, logger.project, describe(config, run)).close()


def add_mlflow_page(logger: LoggerConfig, folder: Path, about: Description, page: File) -> str:
    """Add the report page of the sweep in `folder` to the sweep's run; return the store. Raises what MLflow raises."""
    client, store = mlflow_client(logger.uri, folder)
    sweep = SweepRun(client, folder, logger.project, about)
    add_mlflow_file(client, sweep.id, page)
    sweep.close()
    return store


def add_mlflow_file(client: Any, run_id: str, file: File) -> None:
    """Add a file or a folder to the artifacts of an MLflow run, in a folder that its kind names."""
    add = client.log_artifacts if file.path.is_dir() else client.log_artifact
    add(run_id, str(file.path), artifact_path=file.kind)


def _experiment(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    try:  # created first, because two runs that looked first could both find nothing
        made: str = client.create_experiment(name)
        return made
    except MlflowException:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise
        known: str = experiment.experiment_id
        return known


def _question(about: Description) -> dict[str, str]:
    """Return the tag that MLflow shows as the description of a run."""
    return {"mlflow.note.content": about.question} if about.question else {}


def _lines(note: Path) -> list[str]:
    try:
        return note.read_text().split()
    except (OSError, ValueError):
        return []


def _mlflow_name(name: str) -> str:
    """Return a name that MLflow takes: letters, digits, `_ - . : /` and spaces, at most 250."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]
