"""One run, from its config to its final weights and its record.

Training.fit -> final/ -> record.json -> state "done"

A run with milestones trains a trunk, whose learning rate does not depend on where the run ends. It goes from milestone
to milestone, each time with a Trainer of its own, and exactly as a separate run would that ends there:

    from trunk.ckpt, which the previous milestone has left, or from the start
    -> along the trunk to the branch, where trunk.ckpt is replaced
    -> through the cool-down to the milestone, whose row goes into milestones.json

The last milestone is the end of the run. The rows in milestones.json say which milestone is next, and last.ckpt says on
the way to which milestone it was saved, so a run that is killed anywhere goes on exactly there.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lmexp.config.schema import RunConfig
from lmexp.cost.horizon import horizon
from lmexp.files import digest_of
from lmexp.runs.columns import MEMBERSHIP, ON_TEST, PRIVACY
from lmexp.runs.directory import WEIGHTS, RunDir
from lmexp.runs.mirrors.mirror import Mirror
from lmexp.runs.mirrors.open import open_mirror
from lmexp.runs.origin import code_version, origin_columns
from lmexp.runs.predictions import write_predictions
from lmexp.runs.record import Row
from lmexp.runs.scores import add_scores
from lmexp.train.checkpoint import last_checkpoint, resumable_progress, trunk_checkpoint
from lmexp.train.curve import Diverged
from lmexp.train.micro_batch import forget_training
from lmexp.train.progress import Progress
from lmexp.train.results import record_row
from lmexp.train.spending import Watch
from lmexp.train.stopping import Signals, Stopped
from lmexp.train.training import FitResult, Training


def train(run: RunDir, config: RunConfig, watch: Watch, leader: bool, signals: Signals) -> None:
    """Train a run from its last checkpoint, or from the start, and write its final weights and its record.

    Args:
        watch: counts the time and the energy of this process.
        leader: whether this is the first, or only, process of the run.
        signals: stop the run.

    Raises Diverged, and Stopped after a signal; state.json then has the outcome.
    """
    reached = len(run.read_milestones())  # every process reads it before the leader can write a further row
    files = [last_checkpoint(run), trunk_checkpoint(run)]
    while not _train_to_next(run, config, watch, leader, signals, reached, files):
        reached, files = reached + 1, [trunk_checkpoint(run)]
        watch.restart()
        forget_training(config)
    if torch.distributed.is_initialized():  # a process that just exits may end the others with an error
        torch.distributed.destroy_process_group()


def _train_to_next(
    run: RunDir, config: RunConfig, watch: Watch, leader: bool, signals: Signals, reached: int, files: list[Path]
) -> bool:
    """Train to the next milestone, or to the end of a run without any, and return whether the run has ended.

    Args:
        reached: number of milestones that the run has reached.
        files: where the state of the run may be; the first one that can be used counts.
    """
    training = Training(run, config, leader, watch)
    progress, checkpoint = _progress(training, reached, files)
    mirror = open_mirror(config, run) if leader else Mirror("no")
    if leader:
        _announce(training, progress)
    origin = origin_columns(watch.began)  # now, because the code on the disk may change while the run trains
    exit_code, record = 1, None
    try:
        result = training.fit(progress, checkpoint, mirror, signals)
        if leader:
            row = record_row(training, progress, result, origin)
            if progress.is_last:
                row["weights_sha256"] = digest_of(run.final / WEIGHTS).hex()
                record = row
                _finish(training, result, row)
            else:
                run.write_milestones([*run.read_milestones(), row])
        exit_code = 0
    except (Diverged, Stopped) as end:
        if leader:  # before the mirror closes, because torchrun may not wait for that
            outcome = end.outcome if isinstance(end, Stopped) else "diverged"
            run.update_state(state=outcome, reason=str(end), finished=run.now(), pid=None)
        raise
    finally:
        training.release()
        mirror.finish(record, exit_code)
    return progress.is_last


def _progress(training: Training, reached: int, files: list[Path]) -> tuple[Progress, Path | None]:
    """Return the progress of the first checkpoint that can be used, with its file, or that of a start."""
    run, config, feed = training.run, training.config, training.feed
    length = horizon(config, feed.epoch_tokens, training.device.kind, feed.parts)
    progress, checkpoint = training.progress(length, reached), None
    for file in files:
        resumed = resumable_progress(file, training.task, training.trainer, training.leader)
        if resumed and _leads_on(progress, file == trunk_checkpoint(run), resumed):
            progress.load_state_dict(resumed)
            feed.order.method = progress.order
            checkpoint = file
            break
    progress.code = code_version()
    if training.leader and len(progress.trained_by) > len(progress.earlier_code) > 0:
        print(f"warning: other code or packages trained the first {progress.steps:,} steps; the record names both")
    if training.leader:
        run.keep_curve_up_to(progress.tokens)
    return progress, checkpoint


def _leads_on(progress: Progress, is_trunk: bool, resumed: dict[str, Any]) -> bool:
    """Whether a checkpoint is on the way to the next milestone; last.ckpt may still be of the one before."""
    if not is_trunk:
        return int(resumed.get("reached", 0)) == progress.reached
    return progress.milestone is not None and progress.milestone.can_follow(int(resumed["steps"]))


def _announce(training: Training, progress: Progress) -> None:
    """Print what is about to be trained, and where it resumes."""
    config, length = training.config, progress.length
    budget = f"{length.steps:,} steps" if length.steps is not None else f"{length.seconds:,.0f} seconds of steps"
    print(
        f"{training.run.name}: {training.count.n_params:,} parameters, {budget} of {config.batch.tokens:,} tokens, "
        f"{config.precision.name} on {training.trainer.world_size} x {training.device.name}"
    )
    if progress.milestone:
        print(f"milestone {progress.reached + 1} of {len(length.milestones)}, at step {progress.steps_to_end:,}")
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
    for name, leaks in ((PRIVACY, result.privacy), (MEMBERSHIP, result.membership)):
        if leaks.scores:
            add_scores(run, name, leaks.scores, leaks.details)
    run.write_record([*run.read_milestones(), record])
    # Before the mirror closes, which may take seconds: the run is done, whatever happens next.
    run.update_state(state="done", finished=run.now(), pid=None)
    for file in (last_checkpoint(run), trunk_checkpoint(run)):
        file.unlink(missing_ok=True)
