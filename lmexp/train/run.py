"""One run, from its config to its final weights and its record.

Training.fit -> final/ -> record.json -> state "done"
"""

from dataclasses import asdict

import torch

from lmexp.config.schema import RunConfig
from lmexp.cost.horizon import horizon
from lmexp.runs.columns import ON_TEST
from lmexp.runs.directory import RunDir
from lmexp.runs.mirrors.mirror import Mirror
from lmexp.runs.mirrors.open import open_mirror
from lmexp.runs.origin import code_version, origin_columns
from lmexp.runs.predictions import write_predictions
from lmexp.runs.record import Row
from lmexp.runs.scores import add_scores
from lmexp.train.checkpoint import last_checkpoint, resumable_progress
from lmexp.train.curve import Diverged
from lmexp.train.progress import Progress
from lmexp.train.results import record_row
from lmexp.train.stopping import Signals, Stopped
from lmexp.train.training import FitResult, Training


def train(run: RunDir, config: RunConfig, started: float, leader: bool, signals: Signals) -> None:
    """Train a run from its last checkpoint, or from the start, and write its final weights and its record.

    Args:
        started: when this process began, in seconds since the epoch; wall_seconds counts from there.
        leader: whether this is the first, or only, process of the run.
        signals: stop the run.

    Raises Diverged, and Stopped after a signal; state.json then has the outcome.
    """
    training = Training(run, config, leader)
    progress = _progress(training)
    mirror = open_mirror(config, run) if leader else Mirror("no")
    if leader:
        _announce(training, progress)
    origin = origin_columns(started)  # now, because the code on the disk may change while the run trains
    exit_code, record = 1, None
    try:
        result = training.fit(progress, mirror, signals, started)
        if leader:
            record = record_row(training, progress, result, origin)
            _finish(training, result, record)
        exit_code = 0
        if torch.distributed.is_initialized():  # a process that just exits may end the others with an error
            torch.distributed.destroy_process_group()
    except (Diverged, Stopped) as end:
        if leader:  # before the mirror closes, because torchrun may not wait for that
            outcome = end.outcome if isinstance(end, Stopped) else "diverged"
            run.update_state(state=outcome, reason=str(end), finished=run.now(), pid=None)
        raise
    finally:
        training.release()
        mirror.finish(record, exit_code)


def _progress(training: Training) -> Progress:
    """Return the progress of the last checkpoint that can be used, or that of a start."""
    run, config, feed = training.run, training.config, training.feed
    progress = training.progress(horizon(config, feed.epoch_tokens, training.device.kind, feed.parts))
    resumed = resumable_progress(run, training.task, training.trainer, training.leader)
    if resumed:
        progress.load_state_dict(resumed)
    progress.code = code_version()
    if training.leader and len(progress.trained_by) > len(progress.earlier_code) > 0:
        print(f"warning: other code or packages trained the first {progress.steps:,} steps; the record names both")
    if training.leader:
        run.keep_curve_up_to(progress.tokens)
    return progress


def _announce(training: Training, progress: Progress) -> None:
    """Print what is about to be trained, and where it resumes."""
    config, length = training.config, progress.length
    budget = f"{length.steps:,} steps" if length.steps is not None else f"{length.seconds:,.0f} seconds of steps"
    print(
        f"{training.run.name}: {training.count.n_params:,} parameters, {budget} of {config.batch.tokens:,} tokens, "
        f"{config.precision.name} on {training.trainer.world_size} x {training.device.name}"
    )
    if progress.steps:
        print(f"resuming after step {progress.steps:,}")


def _finish(training: Training, result: FitResult, record: Row) -> None:
    """Write the task's scores and the record, and say in state.json that the run is done."""
    run, config = training.run, training.config
    if result.scores.scores or result.scores.details:
        add_scores(run, config.task.name, result.scores.scores, result.scores.details)
    write_predictions(run, map(asdict, result.scores.predictions))
    if result.test.scores:
        add_scores(run, f"{config.task.name}{ON_TEST}", result.test.scores, result.test.details)
        write_predictions(run, map(asdict, result.test.predictions), f"{config.task.name}{ON_TEST}")
    run.write_record([record])
    # Before the mirror closes, which may take seconds: the run is done, whatever happens next.
    run.update_state(state="done", finished=run.now(), pid=None)
    last_checkpoint(run).unlink(missing_ok=True)
