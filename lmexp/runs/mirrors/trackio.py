"""The copy of a run in trackio, which keeps runs in files of its own and shows them in a local page."""

import io
import os
import threading
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from lmexp.config.schema import LoggerConfig, RunConfig
from lmexp.errors import UserError
from lmexp.runs.directory import RunDir
from lmexp.runs.mirrors.mirror import Copy, Point, describe, known
from lmexp.runs.record import Row

FOLDER = ".trackio"
"""The folder of trackio's files, beside the sweeps' folders, so that its page shows all sweeps."""
REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
_IMPORT = threading.Lock()


class TrackioCopy(Copy):
    """A trackio run in the outputs' `.trackio`, or in the folder that the user's TRACKIO_DIR names.

    Its name is that of the run directory, so a run that is mirrored again replaces its earlier copy.
    """

    def __init__(self, config: RunConfig, run: RunDir, is_live: bool = True) -> None:
        logger = config.logger
        assert isinstance(logger, LoggerConfig), "an outside logger has a class of its own"
        if there := [name for name in REMOTE if os.environ.get(name)]:
            raise UserError(f"{there[0]} is set, and lmexp writes only trackio's local files: unset it")
        own = run.path.resolve().parent.parent / FOLDER
        folder = Path(os.environ.get("TRACKIO_DIR") or own)
        self._trackio = _import_trackio(folder)
        about = describe(config, run)
        texts = {"sweep": about.sweep, "question": about.question, "tags": ", ".join(about.tags)}
        self._delete_earlier(logger.project, run.name)
        samples = is_live and logger.system_metrics
        with redirect_stdout(io.StringIO()):  # it prints how to open its page, for every run
            self._run = self._trackio.init(
                project=logger.project,
                name=run.name,
                group=about.sweep,
                config=about.config | known({f"about.{key}": value for key, value in texts.items()}),
                embed=False,
                auto_log_cpu=samples,
                # None samples if there is a GPU and nvidia-ml-py, and is silent if not.
                auto_log_gpu=None if samples else False,
            )
        self._project, self._name, self._step, self._n_points = logger.project, run.name, 0, 0
        self.place = str(folder)

    def _runs(self, project: str) -> list[Any]:
        try:
            return list(self._trackio.Api().runs(project))
        except ValueError:  # there is no such project yet
            return []

    def _delete_earlier(self, project: str, name: str) -> None:
        for run in self._runs(project):
            if run.name == name:
                run.delete()

    def log(self, point: Point) -> None:
        self._step = int(point["step"])
        self._add({name: value for name, value in point.items() if name != "step"})

    def _add(self, values: dict[str, Any]) -> None:
        self._run.log(values, step=self._step)
        self._n_points += 1

    def finish(self, record: Row | None, exit_code: int) -> None:
        import pandas as pd

        try:
            if record:  # one table: each number by itself would be a chart with one point
                rows = [{"column": name, "value": str(value)} for name, value in known(record).items()]
                self._add({"record": self._trackio.Table(dataframe=pd.DataFrame(rows))})
        finally:
            with redirect_stdout(io.StringIO()):
                self._trackio.finish()  # not run.finish(): trackio would then finish it again at exit, and print
        self._check()

    def _check(self) -> None:
        """Raise RuntimeError if points are missing: trackio writes in a thread, which only warns if it fails."""
        from trackio.sqlite_storage import SQLiteStorage

        there = len(SQLiteStorage.get_logs(self._project, self._name, run_id=self._run.id))
        if there < self._n_points:
            raise RuntimeError(f"trackio has stored {there} of {self._n_points} points")


def _import_trackio(folder: Path) -> Any:
    """Import trackio with its files in `folder`. Raises UserError if it was imported with another one."""
    with _IMPORT:
        before = os.environ.get("TRACKIO_DIR")
        os.environ["TRACKIO_DIR"] = str(folder)  # read at import, once in a process
        try:
            import trackio
            from trackio.utils import TRACKIO_DIR
        finally:
            if before is None:
                del os.environ["TRACKIO_DIR"]
    if folder != TRACKIO_DIR:
        raise UserError(f"trackio writes to {TRACKIO_DIR} in this process; use another process for {folder}")
    return trackio
