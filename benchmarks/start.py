"""What starting a run costs: forked from the warm server, and as a fresh process; in turn, medians and ratio.

Both train the same run of 8 steps. Its own clock (wall_seconds of the record) is subtracted, so what is
left is what the way of starting adds: python benchmarks/start.py
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from lmexp.launch.local import Place, start, warm_up
from lmexp.launch.resolve import resolve_sweep
from lmexp.runs.directory import RunDir

PAIRS = 5
WORDS = [
    "model=gpt_nano", "model.context=32", "tokenizer=byte", "batch.tokens=256", "budget.tokens=2048",
    "data=text", "data.document=line",
]  # fmt: skip


def added_seconds(run: RunDir, forked: bool) -> float:
    """Start a run, wait for it, and return the seconds beyond those that it counts itself."""
    began = time.perf_counter()
    if forked:
        handle = start(run, 1, Place(devices=(), threads=1))
        while handle.exit_code() is None:
            time.sleep(0.005)
    else:
        subprocess.run([sys.executable, "-m", "lmexp.worker", str(run.path)], check=True, capture_output=True)
    return time.perf_counter() - began - run.read_record()[0]["wall_seconds"]


def main() -> None:
    """Time both ways in turn."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("\n".join(f"line {i} of a text that nobody will read" for i in range(500)))
        words = [*WORDS, f"data.path={text}", f"seed=range({2 * PAIRS + 1})"]
        runs = [
            RunDir.create(planned.run.path, planned.config)
            for planned in resolve_sweep(None, words, Path(folder) / "outputs").runs
        ]
        warm_up()
        added_seconds(runs.pop(), forked=True)  # waits for the server's import
        forked, fresh = [], []
        for _ in range(PAIRS):
            forked.append(added_seconds(runs.pop(), forked=True))
            fresh.append(added_seconds(runs.pop(), forked=False))
    print(f"forked: median {median(forked):.3f} s    fresh process: median {median(fresh):.3f} s")
    print(f"ratio of medians, fresh over forked: {median(fresh) / median(forked):.0f}")


if __name__ == "__main__":
    main()
