"""The copy of a run in TensorBoard."""

import shutil
import time

from lmexp.config.schema import RunConfig
from lmexp.runs.directory import RunDir
from lmexp.runs.mirrors.mirror import Copy, Point, final_numbers, flat_config, measured
from lmexp.runs.record import Row


class TensorBoardCopy(Copy):
    """An event file in the run directory's `tensorboard`."""

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
        for name, value in measured(point).items():
            self._writer.add_scalar(name, value, self._tokens, when)

    def finish(self, record: Row | None, exit_code: int) -> None:
        try:
            if record:
                self._add_record(final_numbers(record))
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
