"""Stopped and resumed: the run must end as one that nobody disturbed."""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpu_steps.bench import Bench

STOP_AT = 0.3
"""Share of the budget after which the run is asked to stop."""


def resume(bench: Bench) -> None:
    """Send SIGTERM to a run in the middle, run it again, and compare with an undisturbed one."""
    precisions = ["fp32"] if bench.dry else ["fp32", "bf16", "fp16"]
    with ThreadPoolExecutor(len(precisions)) as pool:
        losses = dict(zip(precisions, pool.map(lambda precision: _resume(bench, precision), precisions), strict=True))
    for precision in precisions[1:]:
        bench.near(f"{precision}: loss, against fp32", losses[precision], losses["fp32"], 2e-2)


def _resume(bench: Bench, precision: str) -> float:
    """Return the loss of the run that nobody disturbed."""
    tokens = 256 * 2000  # some seconds even of a CPU, so that the signal comes before the end
    size = ["model=gpt_nano", "model.context=32", "batch.tokens=256", f"budget.tokens={tokens}"]
    words = bench.words(*size, f"precision={precision}")
    pool = ThreadPoolExecutor(1)
    undisturbed = pool.submit(bench.train, f"whole_{precision}", *words)
    outputs = bench.folder / f"stopped_{precision}"
    command = [sys.executable, "-m", "lmexp.cli", "train", "-m", *words, "--output-dir", str(outputs)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    state = _wait_for_share(outputs, STOP_AT, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    said = json.loads(state.read_text())
    bench.check(f"{precision}: state after SIGTERM", said["state"], said["state"] == "cancelled", "cancelled")
    kept = (state.parent / "checkpoints" / "last.ckpt").is_file()
    bench.check(f"{precision}: last.ckpt", str(kept), kept, "True")
    [row] = bench.lmexp("train", "-m", *words, outputs=f"stopped_{precision}")["runs"]
    [whole] = undisturbed.result()
    log = (state.parent / "log.txt").read_text()
    resumed = "resuming after step" in log
    bench.check(f"{precision}: resumed from there", str(resumed), resumed, "True")
    bench.near(f"{precision}: loss", row["loss"], whole["loss"], 5e-3 if precision == "fp32" else 3e-2)
    bench.check(f"{precision}: steps", row["steps"], row["steps"] == whole["steps"], str(whole["steps"]))
    loss: float = whole["loss"]
    return loss


def _wait_for_share(outputs: Path, share: float, process: "subprocess.Popen[str]") -> Path:
    """Return the run's state.json, once it has spent so much of its budget."""
    while process.poll() is None:
        for state in outputs.glob("[!.]*/[!.]*/state.json"):  # a draft is renamed
            try:
                if (json.loads(state.read_text()).get("share") or 0) >= share:
                    return state
            except ValueError:
                continue
        time.sleep(0.05)
    said = process.stderr.read() if process.stderr else ""
    raise RuntimeError(f"it ended before it could be stopped: {said[-1500:]}")
