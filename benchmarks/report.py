"""What a report over 10,000 records takes, phase by phase: CPU seconds of one process, and its peak memory.

Writes a study of as many run directories (four sizes, depths, precisions and tokens, the rest seeds), then loads it,
finds the frontier, the findings and the groups, and renders tables and the page: python benchmarks/report.py [RECORDS]
"""

import io
import itertools
import json
import math
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from lmexp.analysis.findings import findings
from lmexp.analysis.table import Study, load_study
from lmexp.report.export.formats import rendered
from lmexp.report.options import ViewOptions
from lmexp.report.page.html import write_report
from lmexp.report.terminal.study import print_study
from lmexp.report.view import StudyView
from lmexp.runs.record import complete

RECORDS = 10_000
MODELS, LAYERS, PRECISIONS, TOKENS = (
    ("tiny", "mini", "small", "base"),
    (2, 4, 8, 16),
    ("fp32", "bf16", "fp16", "fp8"),
    (1, 2, 4, 8),
)


def write_study(folder: Path, records: int) -> None:
    """Write the run directories and the manifest, without the care that real runs take."""
    rng = random.Random(0)
    cells = []
    settings = list(itertools.product(MODELS, LAYERS, PRECISIONS, TOKENS))
    for i in range(records):
        (model, layers, precision, millions), seed = settings[i % len(settings)], i // len(settings)
        name = f"{model}-l{layers}-{precision}-t{millions}-s{seed}"
        width = 64 << MODELS.index(model)
        n_params, tokens = 12 * layers * width**2, millions * 10**6
        loss = 1.7 + 40 * n_params**-0.3 + 80 * tokens**-0.28 + rng.gauss(0, 0.004)
        seconds = 6 * n_params * tokens / (2e11 if precision == "fp32" else 4e11) * rng.uniform(0.98, 1.02)
        row = complete(
            {
                "run_id": f"{i:06d}", "sweep": "big", "slug": name, "model": model, "task": "causal_lm",
                "precision": precision, "seed": seed, "unit": f"{i:06d}", "n_params": n_params, "n_layers": layers,
                "d_model": width, "loss": loss, "perplexity": math.exp(loss), "bits_per_byte": loss / 1.6,
                "accuracy": 0.6 - loss / 10, "tokens": tokens, "train_flops": 6.0 * n_params * tokens,
                "tokens_per_second": tokens / seconds, "train_seconds": seconds, "dollars": seconds / 1800,
                "peak_memory_gb": 0.1 + n_params * 16 / 1e9, "exclusive": True, "device_name": "cpu",
                "git_sha": "0" * 40, "git_dirty": False, "data_fingerprint": "d", "tokenizer_fingerprint": "t",
                "schema_version": 1,
            }
        )  # fmt: skip
        run = folder / name
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("")
        (run / "state.json").write_text('{"state": "done", "attempts": 1}')
        (run / "record.json").write_text(json.dumps({"schema_version": 1, "rows": [row]}))
        values = {
            "model": model,
            "model.n_layers": layers,
            "precision": precision,
            "budget.tokens": tokens,
            "seed": seed,
        }
        cells.append({"run_id": row["run_id"], "path": name, "values": values})
    axes = {axis: list(dict.fromkeys(cell["values"][axis] for cell in cells)) for axis in cells[0]["values"]}
    (folder / "sweep.json").write_text(json.dumps({"schema_version": 1, "name": "big", "axes": axes, "cells": cells}))


def measured(what: str, call: Callable[[], Any]) -> Any:
    """Call, and print the CPU seconds it took and the peak memory of the process so far."""
    start = time.process_time()
    result = call()
    taken = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{what:<42} {taken:7.2f} s CPU   peak so far {peak:5.2f} GB", flush=True)
    return result


def main() -> None:
    """Measure each phase."""
    records = int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "big"
        write_study(folder, records)
        study: Study = measured(f"load {records:,} records", lambda: load_study([folder]))
        costs = ("train_seconds", "dollars", "peak_memory_gb")
        measured("frontier, loss against three costs", lambda: StudyView.of(study, ViewOptions(cost=costs)).marks)
        measured("findings", lambda: findings(study))
        measured("groups over seeds", lambda: StudyView.of(study, ViewOptions()).groups)
        measured(
            "filter", lambda: study.where("n_layers >= 4 and precision in ['fp32', 'bf16'] and tokens / n_params > 2")
        )
        console = Console(width=120, file=io.StringIO())
        measured(
            "the terminal's report, all of it",
            lambda: print_study(StudyView.of(study, ViewOptions(reach={"loss": 3.0})), console),
        )
        for name in ("csv", "md", "json"):
            measured(f"--format {name}", lambda name=name: rendered(StudyView.of(study, ViewOptions()), name))
        measured("report.html", lambda: write_report(study, folder))


if __name__ == "__main__":
    main()
