"""One command for a machine with a GPU: are its results right, and how fast is it?

    python benchmarks/gpu.py [STEP ...] [--dry] [--json FILE] [--seconds N]

Each step is a process of its own with a time limit, and uses lmexp as a user would. Steps that check results come
first, then those that measure speed. The JSON file is written again after each step, so a machine that is taken away
leaves what was measured so far. A failed check makes the exit code 1; later steps still run. It takes under nine
minutes on one H100 or H200, and needs no network. `--dry` runs the same steps on a CPU with tiny sizes, which shows
that the script works, and says nothing about a GPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
DEFAULT_SECONDS = 530.0
"""Time for all steps together; a step that would start later is left out, and counts as failed."""


@dataclass(frozen=True)
class Step:
    """A step of the benchmark: a function of `gpu_steps`, by the module it lies in."""

    name: str
    module: str
    max_seconds: float
    """The step is ended after this time."""
    beside_others: bool = False
    """Whether it may run beside other steps: it measures no time, no power, and not whether a device is shared."""


STEPS_AT_ONCE = 8
"""How many of the steps that may run beside others do."""
STEPS = [
    Step("device", "machine", 60),
    Step("precisions", "losses", 180, beside_others=True),
    Step("families", "losses", 180, beside_others=True),
    Step("compile", "losses", 200, beside_others=True),
    Step("resume", "stopping", 180, beside_others=True),
    Step("memory_plan", "memory", 200, beside_others=True),
    Step("sharded", "devices", 150, beside_others=True),
    Step("use", "usage", 200, beside_others=True),
    Step("out_of_memory", "memory", 150, beside_others=True),
    Step("judge", "devices", 120, beside_others=True),
    Step("sharing", "devices", 90),
    Step("neighbours", "devices", 60),
    Step("energy", "machine", 60),
    Step("decode", "speed", 90),
    Step("llama_1b", "speed", 180),
    Step("gpt2", "speed", 150),
    Step("gpt2_bare", "speed", 120),
    Step("llama_1b_bare", "speed", 120),
    Step("decode_compiled", "speed", 150),
]


def main() -> int:
    """Run the steps and print one table; return the exit code."""
    options = _options()
    if options.one:
        return _run_here(options.one, Path(options.folder), options.dry)
    import torch

    if not options.dry and not torch.cuda.is_available():
        print("torch finds no GPU here; --dry runs the same steps on the CPU, with tiny sizes", file=sys.stderr)
        return 2
    unknown = [name for name in options.steps if name not in [step.name for step in STEPS]]
    if unknown:
        print(f"unknown step {unknown[0]}: {', '.join(step.name for step in STEPS)}", file=sys.stderr)
        return 2
    chosen = [step for step in STEPS if not options.steps or step.name in options.steps]
    deadline = time.monotonic() + options.seconds
    document: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "dry": options.dry,
        "steps": [],
    }
    with tempfile.TemporaryDirectory(prefix="lmexp-gpu-") as folder:
        for result in _results(chosen, Path(folder), deadline, options.dry):
            document["steps"].append(result)
            Path(options.json).write_text(json.dumps(document, indent=1))
            _print_step(result)
    failed = [result["step"] for result in document["steps"] if not result["ok"]]
    took = time.monotonic() - deadline + options.seconds
    print(f"\n{took:.0f} s; {'failed: ' + ', '.join(failed) if failed else 'all checks passed'}")
    return 1 if failed else 0


def _results(chosen: list[Step], folder: Path, deadline: float, dry: bool) -> Iterator[dict[str, Any]]:
    """Run steps and yield their results: first those that may run beside others, then one at a time."""
    beside = [step for step in chosen if step.beside_others]
    with ThreadPoolExecutor(1 if dry else STEPS_AT_ONCE) as pool:
        running = [pool.submit(_run_step, step, folder, deadline, dry) for step in beside]
        for future in as_completed(running):
            yield future.result()
    for step in chosen:
        if not step.beside_others:
            yield _run_step(step, folder, deadline, dry)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help="which steps to run [default: all]")
    parser.add_argument("--dry", action="store_true", help="run on the CPU, with tiny sizes")
    parser.add_argument("--json", default="gpu.json", help="the file of results [default: gpu.json]")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help=f"[default: {DEFAULT_SECONDS:.0f}]")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a step, in its own process
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run_here(name: str, folder: Path, dry: bool) -> int:
    """Run a step in this process; its rows come to lie in its folder."""
    from importlib import import_module

    from gpu_steps.bench import Bench

    step = next(step for step in STEPS if step.name == name)
    getattr(import_module(f"gpu_steps.{step.module}"), name)(Bench(folder, dry))
    return 0


def _run_step(step: Step, root: Path, deadline: float, dry: bool) -> dict[str, Any]:
    """Run a step in a process of its own, with all that it starts ended at its time limit."""
    folder, left = root / step.name, deadline - time.monotonic()
    folder.mkdir()
    if left < 10:
        return {"step": step.name, "ok": False, "seconds": 0.0, "error": "no time was left", "log": "", "rows": []}
    command = [sys.executable, __file__, "--one", step.name, "--folder", str(folder), *(["--dry"] if dry else [])]
    paths = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    started, log = time.monotonic(), folder / "log.txt"
    error = None
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": paths},
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(min(step.max_seconds * (4 if dry else 1), left))
        except subprocess.TimeoutExpired:
            error = f"it took longer than {time.monotonic() - started:.0f} s"
            _end_with_children(process.pid)
            process.wait()
    if error is None and process.returncode:
        error = f"exit code {process.returncode}"
    rows_file = folder / "rows.json"
    rows = json.loads(rows_file.read_text()) if rows_file.is_file() else []
    return {
        "step": step.name,
        "ok": error is None and all(row["ok"] is not False for row in rows),
        "seconds": round(time.monotonic() - started, 1),
        "error": error,
        "log": _log(folder) if error else None,
        "rows": rows,
    }


def _log(folder: Path) -> str:
    """Return the ends of a step's own log, and of those of its runs that have no record."""
    runs = [path.parent for path in folder.glob("*/*/*/state.json") if not (path.parent / "record.json").is_file()]
    logs = [folder / "log.txt", *(run / "log.txt" for run in runs[:3])]
    return "\n".join(f"{log}:\n{log.read_text()[-1500:]}" for log in logs if log.is_file())


def _end_with_children(pid: int) -> None:
    """End a process and all that it started: runs have sessions of their own."""
    import psutil

    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in family:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue


def _print_step(result: dict[str, Any]) -> None:
    """Print a step's lines of the table."""
    verdict = "ok" if result["ok"] else "FAILED"
    print(f"\n{result['step']}  {verdict}  {result['seconds']} s", flush=True)
    for row in result["rows"]:
        mark = {True: "ok    ", False: "FAILED", None: "      "}[row["ok"]]
        value = row["value"]
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        print(f"  {mark} {row['name']:52} {shown:>14}   {row['wanted']}", flush=True)
    if result["error"]:
        print(f"  {result['error']}; the end of its log:\n{result['log']}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
