"""What the steps share: where runs lie, how lmexp is called, and the rows of the table."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    value: float | int | str | None
    wanted: str
    """What the value is held against, in words."""
    ok: bool | None
    """Whether it is as wanted; None where it is only shown."""


class Bench:
    """A step's folder, the device it runs on, and what it found."""

    def __init__(self, folder: Path, dry: bool) -> None:
        self.folder, self.dry = folder, dry
        self.kind = "cpu" if dry else "cuda"
        self.rows: list[Row] = []
        self._lock = threading.Lock()
        self.text = folder / "text.txt"
        lines = 4_000 if dry else 40_000
        self.text.write_text("\n".join(f"line {i} of a text, {i * i % 9973} and {i * 31 % 101}" for i in range(lines)))

    # the table

    def show(self, name: str, value: float | int | str | None, wanted: str = "") -> None:
        """Add a line that nothing is held against."""
        self._add(Row(name, value, wanted, None))

    def check(self, name: str, value: float | int | str | None, ok: bool, wanted: str) -> None:
        """Add a line that is right or wrong."""
        self._add(Row(name, value, wanted, bool(ok)))

    def near(self, name: str, value: float, reference: float, tolerance: float) -> None:
        """Check that a value is as close to a reference as `tolerance`."""
        self.check(name, value, abs(value - reference) <= tolerance, f"{reference:.6g} +- {tolerance:g}")

    def _add(self, row: Row) -> None:
        """Add a line, and write all of them: a step that is ended keeps what it found."""
        with self._lock:  # some steps do several things side by side
            self.rows.append(row)
            (self.folder / "rows.json").write_text(json.dumps([asdict(each) for each in self.rows]))

    # runs

    def words(self, *words: str, on: str | None = None) -> list[str]:
        """Return overrides of a short run on the step's text, on this device or on `cpu`."""
        common = ["tokenizer=byte", "data=text", f"data.path={self.text}", "data.document=line", "evaluation.every=1"]
        # On the CPU several runs go side by side: their steps are too small for many threads.
        beside = ["launcher.slots=6", "launcher.threads=2"] if on == "cpu" and not self.dry else []
        place = [f"trainer.accelerator={on or self.kind}", "trainer.compile=false"]
        return [*common, *beside, "checkpoint.every=1", *place, *words]

    def lmexp(self, *words: str, outputs: str = "outputs") -> Any:
        """Call a verb with --json and return its document; raise RuntimeError where it fails."""
        done = self.run_command(*words, "--json", "--output-dir", str(self.folder / outputs))
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr[-1500:]}")
        return json.loads(done.stdout)

    def run_command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run `lmexp` with these words in a process of its own, in the step's folder."""
        command = [sys.executable, "-m", "lmexp.cli", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder)

    def train(self, name: str, *words: str) -> list[Record]:
        """Train the runs that these overrides describe, in a folder of outputs of this name; return their rows."""
        document = self.lmexp("train", "-m", "--name", name, *words, outputs=name)
        rows: list[Record] = document["runs"]
        for row in rows:
            if row["state"] != "done":
                raise RuntimeError(f"{name}: {row['slug']} is {row['state']}: {row['reason']}")
        return rows

    def train_together(self, calls: dict[str, list[str]]) -> dict[str, list[Record]]:
        """Call `train` for each name and its overrides, side by side; return the rows by name."""
        with ThreadPoolExecutor(len(calls)) as pool:
            done = {name: pool.submit(self.train, name, *words) for name, words in calls.items()}
        return {name: future.result() for name, future in done.items()}

    def train_here(self, *words: str, strategy: str | None = None) -> tuple[Record | None, Any, str]:
        """Train one run in this process; return its record (None where it has none), its state, and its log.

        `strategy` is set past the checks of a config, which refuse to share weights with nobody.
        """
        from lmexp.config.identity import run_id
        from lmexp.resolve.sweep import resolve_sweep
        from lmexp.runs.directory import RunDir
        from lmexp.train import worker

        [planned] = resolve_sweep(None, list(words), self.folder / "here").runs
        config, path = planned.config, planned.run.path
        if strategy is not None:
            config = config.model_copy(update={"trainer": config.trainer.model_copy(update={"strategy": strategy})})
            assert config.run is not None
            config = config.model_copy(update={"run": config.run.model_copy(update={"id": run_id(config)})})
            path = path.with_name(f"{strategy}-{run_id(config)}")
        run, log = RunDir(path), StringIO()
        if not path.exists():
            RunDir.create(path, config)
        with redirect_stdout(log):
            worker.main(run.path)
        sys.stdout.write(log.getvalue())
        records = run.read_record()
        return (records[0] if records else None), run.read_state(), log.getvalue()

    def curve(self, name: str, row: Record) -> list[dict[str, float]]:
        """Return the points of a run's curve."""
        file = next((self.folder / name).glob(f"*/*{row['run_id']}/metrics.jsonl"))
        return [json.loads(line) for line in file.read_text().splitlines()]
