"""The copy of a run in TensorBoard."""

import shutil
import time
from collections.abc import Mapping
from typing import Any

from lmexp.config.schema import RunConfig
from lmexp.runs.directory import RunDir
from lmexp.runs.mirrors.mirror import Copy, Point, describe, final_numbers, measured
from lmexp.runs.record import Row


class TensorBoardCopy(Copy):
    """An event file in the run directory's `tensorboard`.

    The HParams tab shows a run as one session: the config and the record are its hparams, the curves its metrics. A
    number of the record is no metric, because TensorBoard draws a chart for each of these, here with a single point.
    """

    def __init__(self, config: RunConfig, run: RunDir) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / "tensorboard"
        self.place = str(folder)
        shutil.rmtree(folder, ignore_errors=True)
        about = describe(config, run)
        self._config = about.config
        self._opened = time.time()
        self._tokens = 0
        self._writer = SummaryWriter(str(folder))
        self._add_table("config", self._config)
        texts = {"sweep": about.sweep, "question": about.question, "tags": ", ".join(about.tags)}
        self._add_table("about", texts | {"job_type": about.job_type})

    def _add_table(self, name: str, values: Mapping[str, Any]) -> None:
        rows = "\n".join(f"| {key} | {value} |" for key, value in values.items())
        self._writer.add_text(name, f"| key | value |\n| --- | --- |\n{rows}", self._tokens)

    def log(self, point: Point) -> None:
        self._tokens = int(point["tokens"])
        when = self._opened + (point.get("seconds") or 0.0)  # so that relative time is the run's own
        for name, value in measured(point).items():
            self._writer.add_scalar(name, value, self._tokens, when)

    def finish(self, record: Row | None, exit_code: int) -> None:
        try:
            self._add_session(final_numbers(record or {}), exit_code)
        finally:
            self._writer.close()

    def _add_session(self, numbers: dict[str, float], exit_code: int) -> None:
        """Write the run's row of the HParams tab, which compares runs."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2, metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
        from torch.utils.tensorboard.summary import hparams

        if numbers:
            self._add_table("record", numbers)
        plain = {
            key: value if isinstance(value, bool | int | float) else str(value) for key, value in self._config.items()
        }
        # Not SummaryWriter.add_hparams: it would put the row into a second run, in a folder of its own. And no list of
        # the experiment's columns: TensorBoard takes that of one run for all, but if there is none, it collects the
        # hparams of all sessions, and every curve is a metric.
        _, start, _ = hparams(plain | numbers, {})
        end = HParamsPluginData()
        end.session_end_info.status = api_pb2.STATUS_SUCCESS if exit_code == 0 else api_pb2.STATUS_FAILURE
        about_end = metadata.create_summary_metadata(end)
        file = self._writer._get_file_writer()
        file.add_summary(start)
        file.add_summary(Summary(value=[Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=about_end)]))
