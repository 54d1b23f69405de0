"""A causal model scored on tasks of lm-eval, the evaluation harness of EleutherAI."""

import contextlib
import logging
import math
import os
import random
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from lmexp.errors import UserError, reason_of
from lmexp.inference.harness import model as harness_model
from lmexp.inference.harness.model import IS_HERE, SEED, HarnessModel
from lmexp.inference.harness.tasks import check_code, entries, load, local
from lmexp.messages import Say
from lmexp.train.checkpoint import Loaded

RESAMPLES = 1000
"""Bootstrap samples for the standard errors of metrics that are not means."""


def evaluate(
    loaded: Loaded, tasks: list[str], folder: Path | None, limit: int | None, trust_code: bool, say: Say
) -> dict[str, dict[str, float]]:
    """Return the scores of a causal model on tasks of lm-eval and the members of groups: {task: {metric: value}}.

    A metric has its plain name, as in `acc` and `acc_stderr`; where a task extracts answers in several ways, their
    names follow, as in `exact_match-strict-match`. What is no finite number is left out.

    Args:
        tasks: names of tasks, groups or tags.
        folder: of task files of the user's own, `*.yaml`, which come before lm-eval's of the same name. Their data
            files are looked for beside the task file, then in the working directory, and always read anew.
        limit: how many documents of each task, from the first on; None: all.
        trust_code: whether what task files hold of Python, or fetch from the hub, may run.

    Raises UserError.
    """
    if not IS_HERE:
        raise UserError("eval --lm-eval needs lm-eval: pip install 'lmexp[eval]'")
    names = [name for name in dict.fromkeys(tasks) if name]
    if not names:
        raise UserError("--lm-eval: the name of a task is missing")
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: at least 1")
    model = HarnessModel(loaded, say=say)
    with _quiet(), tempfile.TemporaryDirectory(prefix="lmexp-lm-eval-") as cache:
        from lm_eval.tasks import TaskManager

        known = entries(names, folder, say)
        for name, entry in known.items():
            check_code(name, entry, folder, trust_code)
        manager = TaskManager(include_defaults=False)
        manager.task_index.update({name: local(entry, Path(cache), trust_code) for name, entry in known.items()})
        with _sandbox(trust_code):
            loaded_tasks = load(manager, names)
            for name, task in loaded_tasks["tasks"].items():
                say(f"lm-eval: {name}, {min(len(task.eval_docs), limit or math.inf):,} documents")
            results = _run(model, names, loaded_tasks, limit, trust_code)
    scores = {name: _by_plain_name(metrics) for name, metrics in results["results"].items()}
    return {name: metrics for name, metrics in scores.items() if metrics}


def _run(
    model: HarnessModel, names: list[str], loaded_tasks: dict[str, Any], limit: int | None, trust_code: bool
) -> dict[str, Any]:
    """Return the results of lm-eval. Raises UserError for an error in a task."""
    from lm_eval import evaluator

    _seed()
    try:
        results: dict[str, Any] = evaluator.evaluate(
            model,
            loaded_tasks,
            limit=limit,
            bootstrap_iters=RESAMPLES,
            log_samples=False,
            confirm_run_unsafe_code=trust_code,
        )
    except Exception as error:
        if isinstance(error, UserError) or _is_ours(error):
            raise
        raise UserError(f"lm-eval fails on {', '.join(names)}: {reason_of(error)}") from error
    return results


def _is_ours(error: Exception) -> bool:
    """Whether an error was raised by the model, and not by the templates or the data of a task."""
    return any(
        frame.f_code.co_filename == harness_model.__file__ for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _by_plain_name(metrics: dict[str, Any]) -> dict[str, float]:
    """Return the finite metrics of lm-eval, with the name of the filter only if several filters have a metric."""
    pairs = [(*key.split(",", 1), value) for key, value in metrics.items() if "," in key]
    numbers = [
        (metric, way, float(value))
        for metric, way, value in pairs
        if isinstance(value, int | float | np.number) and math.isfinite(value)
    ]
    ways = {metric: {way for other, way, _ in numbers if other == metric} for metric, _, _ in numbers}
    plain = {}
    for metric, way, value in numbers:
        plain[metric if way == "none" or len(ways[metric]) == 1 else f"{metric}-{way}"] = value
    return plain


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress log messages and progress bars of lm-eval and its libraries, and send their output to stderr."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled
    from tqdm import tqdm

    had_bars, before, begin = is_progress_bar_enabled(), logging.root.manager.disable, tqdm.__init__

    def hidden(bar: Any, *words: Any, **options: Any) -> None:
        begin(bar, *words, **options | {"disable": True})

    logging.disable(logging.WARNING)
    disable_progress_bar()
    # The bootstrap would start a process for each core, whatever the share of this one.
    environment = mock.patch.dict(os.environ, {"DISABLE_MULTIPROC": "1"})
    try:
        with mock.patch.object(tqdm, "__init__", hidden), environment, contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(before)
        if had_bars:
            enable_progress_bar()


@contextlib.contextmanager
def _sandbox(trust_code: bool) -> Iterator[None]:
    """Let templates access only the document that they are filled with, unless they are trusted."""
    from jinja2.sandbox import SandboxedEnvironment
    from lm_eval import utils

    if trust_code:
        yield
        return
    safe = SandboxedEnvironment(
        loader=utils.env.loader, undefined=utils.env.undefined, keep_trailing_newline=utils.env.keep_trailing_newline
    )
    safe.filters |= utils.env.filters
    with mock.patch.object(utils, "env", safe):
        yield


def _seed() -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
