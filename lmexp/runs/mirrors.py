"""Mirrors: copies of a run's curve and record in W&B, TensorBoard or MLflow.

The files in the run directory are the truth, and a mirror may fail without harm: at its first failure it
says so in one line and is silent from then on. A mirror is always one whole: opened on a resumed run, it
drops what an earlier attempt left in the run directory and is first told the curve so far. So `sync` is
nothing but opening a mirror on a finished run and finishing it (sync.py).

All three show the curve against tokens. Only rank 0 opens a mirror.
"""

import importlib.util
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lmexp.config.schema import LoggerConfig, RunConfig
from lmexp.errors import UserError, reason_of
from lmexp.runs.directory import RunDir
from lmexp.runs.record import Row

T = TypeVar("T")
Point = Mapping[str, Any]
Say = Callable[[str], None]

TITLES = {"wandb": "W&B", "tensorboard": "TensorBoard", "mlflow": "MLflow"}
AXES = ("tokens", "step", "flops", "seconds")
"""What a point is plotted against; the rest of it is what was found there."""
CONNECT_SECONDS = 10.0
"""How long a mirror may wait for its server before the first step."""
UPLOAD_SECONDS = 20.0
"""How long W&B may go on uploading after the last step; what is left lies on the disk for `wandb sync`."""
HAS_PASSWORD = re.compile(r"//[^/\s]*:(?!\d*/).*@")
"""In an address, as in http://me:secret@host; nothing but digits between a colon and a slash is a port."""


def _print(line: str) -> None:
    print(line, flush=True)


class Copy(Protocol):
    """One library's copy of a run. Any of its methods may raise anything."""

    place: str
    """Where it is: a folder or an address."""
    kept_offline: str | None
    """Why it is on the disk only, where it was asked to be online."""

    def log(self, point: Point) -> None:
        """Add a point of the curve."""

    def finish(self, record: Row | None, exit_code: int) -> None:
        """Add the record, if there is one, and close."""


class Mirror:
    """A copy of a run that cannot harm it; without a copy, nothing."""

    stopped: str | None = None
    """Why it stopped, where it did."""

    def __init__(self, title: str, copy: Callable[[], Copy] | None = None, say: Say = _print) -> None:
        self._title, self._say = title, say
        self._copy = self._guarded(copy) if copy else None

    @property
    def place(self) -> str | None:
        """Where the copy is, if there is one: a folder or an address."""
        return self._copy.place if self._copy else None

    @property
    def kept_offline(self) -> str | None:
        """Why the copy is on the disk only, where it was asked to be online."""
        return self._copy.kept_offline if self._copy else None

    def log(self, point: Point) -> None:
        """Add a point of the curve, as it is in metrics.jsonl."""
        copy = self._copy
        if copy and self.stopped is None:
            self._guarded(lambda: copy.log(point))

    def finish(self, record: Row | None, exit_code: int) -> None:
        """Add the record, if the run has one, and close with the process's exit code.

        A mirror that stopped is closed too: W&B would otherwise do it, slowly, when the process ends.
        """
        copy = self._copy
        if copy:
            self._guarded(lambda: copy.finish(record, exit_code))

    def _guarded(self, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except Exception as error:
            if self.stopped is None:
                self.stopped = reason_of(error)
                self._say(f"the {self._title} mirror stopped: {self.stopped}; the run goes on")
            return None


def check_logger(logger: LoggerConfig) -> None:
    """Raise UserError when the mirror needs a package that is not installed, or its address holds a password.

    To be called before any run starts. W&B comes with lmexp.
    """
    if logger.uri and HAS_PASSWORD.search(logger.uri):
        raise UserError(
            "logger.uri holds a password, which would stand in the config.yaml of every run: leave it out, and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if logger.name in ("tensorboard", "mlflow") and not importlib.util.find_spec(logger.name):
        raise UserError(f"logger={logger.name} needs the package {logger.name}: pip install 'lmexp[{logger.name}]'")


def agents_run() -> str | None:
    """Return the id of the run that a W&B agent wants filled, where one started this process."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def open_mirror(config: RunConfig, run: RunDir, say: Say = _print) -> Mirror:
    """Open the mirror that the config names, and tell it the curve so far. Never raises an Exception.

    A run that resumes drops the points after its checkpoint first (`RunDir.keep_curve_up_to`).
    `say` is told, in one line, when the mirror stops or has to stay offline.
    """
    logger = config.logger
    if logger.name == "none" or (logger.name == "wandb" and logger.mode == "disabled"):
        return Mirror(logger.name)
    kinds: dict[str, Callable[[RunConfig, RunDir], Copy]] = {
        "wandb": lambda config, run: WandbCopy(config, run, say),
        "tensorboard": TensorBoardCopy,
        "mlflow": MLflowCopy,
    }

    def copy_so_far() -> Copy:
        copy = kinds[logger.name](config, run)
        for point in run.read_curve():
            copy.log(point)
        return copy

    return Mirror(TITLES[logger.name], copy_so_far, say)


class WandbCopy:
    """A W&B run, offline unless asked for online; online falls back to offline.

    It bears the run's own id, so a run that is mirrored again is the same run on the server. Under a W&B agent
    it is the agent's run instead: the sweep waits for the loss of that one.
    """

    kept_offline: str | None = None

    def __init__(self, config: RunConfig, run: RunDir, say: Say = _print) -> None:
        # Before the import, which reads them. Left to the user where the user has set them.
        os.environ.setdefault("WANDB_SILENT", "true")  # also keeps it from asking for a key in a terminal
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._config, self._folder = config, run.path
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
        own = {"project": config.logger.project, "entity": config.logger.entity, "group": who.sweep, "id": who.id}
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
        self._run.log(_known(point))

    def finish(self, record: Row | None, exit_code: int) -> None:
        try:
            self._run.summary.update(_known(record or {}))
        finally:
            self._run.finish(exit_code=exit_code)
            self._end_service()  # finish() returns a little before the file is whole


class TensorBoardCopy:
    """An event file in the run directory's `tensorboard`."""

    kept_offline: str | None = None

    def __init__(self, config: RunConfig, run: RunDir) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / "tensorboard"
        self.place = str(folder)
        shutil.rmtree(folder, ignore_errors=True)
        self._config = flat_config(config)
        self._opened = time.time()
        self._tokens = 0
        self._writer = SummaryWriter(str(folder))
        rows = "\n".join(f"| {key} | {value} |" for key, value in self._config.items())
        self._writer.add_text("config", f"| key | value |\n| --- | --- |\n{rows}")

    def log(self, point: Point) -> None:
        self._tokens = int(point["tokens"])
        when = self._opened + (point.get("seconds") or 0.0)  # so that relative time is the run's own
        for name, value in _findings(point).items():
            self._writer.add_scalar(name, value, self._tokens, when)

    def finish(self, record: Row | None, exit_code: int) -> None:
        try:
            if record:
                self._add_record(_final_numbers(record))
        finally:
            self._writer.close()

    def _add_record(self, metrics: dict[str, float]) -> None:
        """Write the row for the HParams tab, which compares runs: config beside record."""
        from torch.utils.tensorboard.summary import hparams

        plain = {
            key: value if isinstance(value, bool | int | float) else str(value) for key, value in self._config.items()
        }
        # Not add_hparams: it would put the row into a second run, in a folder of its own.
        file = self._writer._get_file_writer()
        for summary in hparams(plain, metrics):
            file.add_summary(summary)
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, self._tokens)


class MLflowCopy:
    """An MLflow run on the server that `uri` names, or in the run directory's `mlruns`.

    A server gives out ids of its own. The run directory's `.mlflow` notes the run's, so that mirrored again it
    takes its own place, and never that of somebody else's run of the same config.
    """

    kept_offline: str | None = None
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
        folder = run.path / "mlruns"
        if config.logger.uri is None:
            shutil.rmtree(folder, ignore_errors=True)
            (folder / ".trash").mkdir(parents=True)  # MLflow makes a store's folders once in a process
        self._client = MlflowClient(tracking_uri=config.logger.uri or folder.resolve().as_uri())
        self._opened = time.time()
        self._tokens = 0
        tags = {"sweep": who.sweep, "lmexp.run_id": who.id}
        opened = self._client.create_run(self._experiment(config.logger.project), run_name=who.slug, tags=tags)
        self._id = opened.info.run_id
        self._take_place_of_last(run.path / ".mlflow")
        self.place = str(folder) if config.logger.uri is None else f"{config.logger.uri} {self._id}"
        params = [
            Param(_mlflow_name(key), str(value)[: self.PARAMETER_LENGTH]) for key, value in flat_config(config).items()
        ]
        for start in range(0, len(params), self.PARAMETERS_A_CALL):
            self._client.log_batch(self._id, params=params[start : start + self.PARAMETERS_A_CALL])

    def _take_place_of_last(self, note: Path) -> None:
        with suppress(Exception):  # none before, or on another server, or deleted by hand
            self._client.delete_run(note.read_text())
        note.write_text(self._id)

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        try:  # created first, because two runs that looked first could both find nothing
            made: str = self._client.create_experiment(name)
            return made
        except MlflowException:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            known: str = found.experiment_id
            return known

    def log(self, point: Point) -> None:
        self._tokens = int(point["tokens"])
        self._log_numbers(_findings(point), self._opened + (point.get("seconds") or 0.0))

    def finish(self, record: Row | None, exit_code: int) -> None:
        from mlflow.entities import RunTag

        try:
            if record:
                self._log_numbers(_final_numbers(record), time.time())
                texts = {name: value for name, value in record.items() if isinstance(value, str)}
                tags = [RunTag(_mlflow_name(k), v[: self.TAG_LENGTH]) for k, v in texts.items()]
                self._client.log_batch(self._id, tags=tags)
        finally:
            self._client.set_terminated(self._id, status="FINISHED" if exit_code == 0 else "FAILED")

    def _log_numbers(self, numbers: dict[str, float], when: float) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(_mlflow_name(name), value, int(when * 1000), self._tokens) for name, value in numbers.items()]
        self._client.log_batch(self._id, metrics=metrics)


def flat_config(config: RunConfig) -> dict[str, Any]:
    """Return a config with dotted keys, without what is null."""

    def leaves(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{prefix}{key}.")
            elif value is not None:
                yield prefix + key, value

    return dict(leaves(config.model_dump(mode="json", by_alias=True)))


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is null."""
    return {name: value for name, value in values.items() if value is not None}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Keep the numbers."""
    return {
        name: value for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _findings(point: Point) -> dict[str, float]:
    """Keep the numbers of a point that are not axes."""
    return {name: value for name, value in _numbers(point).items() if name not in AXES}


def _final_numbers(record: Row) -> dict[str, float]:
    """Keep the numbers of a record, under names of their own: the curve has a `loss` too."""
    return {f"record/{name}": value for name, value in _numbers(record).items()}


def _mlflow_name(name: str) -> str:
    """Return a name that MLflow takes: letters, digits, `_ - . : /` and spaces, at most 250."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]
