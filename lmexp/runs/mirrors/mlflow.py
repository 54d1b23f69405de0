"""The copy of a run in MLflow."""

import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from lmexp.config.schema import LoggerConfig, RunConfig
from lmexp.runs.directory import RunDir
from lmexp.runs.mirrors.mirror import CONNECT_SECONDS, Copy, Point, final_numbers, flat_config, measured
from lmexp.runs.record import Row


class MLflowCopy(Copy):
    """An MLflow run on the server that `uri` names, or in the run directory's `mlruns`.

    A server gives out ids of its own. The run directory's `.mlflow` notes the run's, so that mirrored again it
    takes its own place, and never that of somebody else's run of the same config.
    """

    PARAMETERS_A_CALL = 100
    PARAMETER_LENGTH = 6000
    TAG_LENGTH = 5000

    def __init__(self, config: RunConfig, run: RunDir) -> None:
        # Read at import or at the first call. Left to the user where the user has set them.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(int(CONNECT_SECONDS / 2)))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        # A folder of files needs no server and no SQLAlchemy; MLflow 3 only opens one when told so.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        who = config.run
        assert who is not None, "a run's config names its run"
        logger = config.logger
        assert isinstance(logger, LoggerConfig), "an outside logger has a class of its own"
        folder = run.path / "mlruns"
        if logger.uri is None:
            shutil.rmtree(folder, ignore_errors=True)
            (folder / ".trash").mkdir(parents=True)  # MLflow makes a store's folders once in a process
        self._client = MlflowClient(tracking_uri=logger.uri or folder.resolve().as_uri())
        self._opened = time.time()
        self._tokens = 0
        tags = {"sweep": who.sweep, "lmexp.run_id": who.id}
        opened = self._client.create_run(self._experiment(logger.project), run_name=who.slug, tags=tags)
        self._id = opened.info.run_id
        self._take_place_of_last(run.path / ".mlflow", who.id)
        self.place = str(folder) if logger.uri is None else f"{logger.uri} {self._id}"
        params = [
            Param(_mlflow_name(key), str(value)[: self.PARAMETER_LENGTH]) for key, value in flat_config(config).items()
        ]
        for start in range(0, len(params), self.PARAMETERS_A_CALL):
            self._client.log_batch(self._id, params=params[start : start + self.PARAMETERS_A_CALL])

    def _take_place_of_last(self, note: Path, run_id: str) -> None:
        """Delete the run that this run's directory made before; a note that names any other run deletes nothing."""
        with suppress(Exception):  # none before, or on another server, or deleted by hand
            earlier = note.read_text()
            if self._client.get_run(earlier).data.tags.get("lmexp.run_id") == run_id:
                self._client.delete_run(earlier)
        note.write_text(self._id)

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        try:  # created first, because two runs that looked first could both find nothing
            made: str = self._client.create_experiment(name)
            return made
        except MlflowException:
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                raise
            known: str = experiment.experiment_id
            return known

    def log(self, point: Point) -> None:
        self._tokens = int(point["tokens"])
        self._log_numbers(measured(point), self._opened + (point.get("seconds") or 0.0))

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

    def _log_numbers(self, numbers: dict[str, float], when: float) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(_mlflow_name(name), value, int(when * 1000), self._tokens) for name, value in numbers.items()]
        self._client.log_batch(self._id, metrics=metrics)


def _mlflow_name(name: str) -> str:
    """Return a name that MLflow takes: letters, digits, `_ - . : /` and spaces, at most 250."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]
