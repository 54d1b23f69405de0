"""Training a run: from its config to the row of its record.

    open the token store -> task(model) -> Trainer.fit -> final weights -> figures

The parts are put together in one place, `Training`, for the run itself and for a probe of a few steps.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.utils import get_class
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.utils.data import DataLoader

from lmexp.config.checks import accumulation, micro_batch, sequences, world_size
from lmexp.config.models.count import ModelCount
from lmexp.config.schema import HardwareConfig, RunConfig
from lmexp.cost.device import Device, detect, devices_used, unsupported_precision
from lmexp.cost.energy import open_meter
from lmexp.cost.exclusive import Exclusive
from lmexp.cost.flops import count_run
from lmexp.cost.hardware import fits, hardware_of
from lmexp.cost.horizon import Horizon, horizon
from lmexp.cost.meters import MemoryMeter, StepMeter
from lmexp.data.examples import ExampleStore
from lmexp.data.feeds import Feed, open_feed
from lmexp.data.loading import TrainBatches, ValidationBatches
from lmexp.data.prepare import AnyStore, prepare
from lmexp.errors import UserError
from lmexp.files import flush_to_disk
from lmexp.models.build import build_model
from lmexp.runs.directory import STORES, RunDir
from lmexp.runs.mirrors import Mirror, open_mirror
from lmexp.runs.origin import origin_columns, utc
from lmexp.runs.record import Row, complete, identity_columns
from lmexp.runs.scores import add_scores
from lmexp.tasks.base import Task, TaskScores
from lmexp.train import results
from lmexp.train.callbacks import Clock, Curve, Diverged, Evaluation, Rest, Saving, Spending, Witness
from lmexp.train.checkpoint import last_checkpoint, load_weights, resumable_progress, save_final, whole
from lmexp.train.float8 import convert
from lmexp.train.progress import Progress
from lmexp.train.stopping import Signals, Stopped

HEARTBEAT_SECONDS = 2.0


class Training:
    """What one process of a run trains with."""

    def __init__(self, run: RunDir, config: RunConfig, leader: bool) -> None:
        """Build everything; on several devices each process does, and `leader` is the first of them."""
        self.run, self.config, self.leader = run, config, leader
        self.outputs = run.path.parent.parent
        self.device: Device = detect(config.trainer.accelerator)
        if reason := unsupported_precision(config.precision, self.device):  # on a cluster, known only here
            raise UserError(f"precision={config.precision.name}: {reason}")
        self.hardware = hardware_of(config.hardware, self.device)
        if not fits(self.hardware, self.device):  # a run directory from elsewhere, or an emulated part
            own = HardwareConfig(dollars_per_hour=config.hardware.dollars_per_hour, watts=config.hardware.watts)
            self.hardware = hardware_of(own, self.device)
        place = int(os.environ.get("LOCAL_RANK", "0"))  # which of the visible GPUs is this process's
        self.energy = open_meter(self.device, place, self.hardware.watts, shares_machine=place > 0)
        self.count: ModelCount = count_run(config)
        self.store: AnyStore = prepare(config, self.outputs / STORES)
        self.feed: Feed = open_feed(config, self.store)
        # tf32 is a way of multiplying float32, chosen for the whole process.
        torch.set_float32_matmul_precision("high" if config.precision.compute == "tf32" else "highest")
        self.trainer = build_trainer(config, run)
        self.root_device = self.trainer.strategy.root_device
        self.memory = MemoryMeter(self.root_device)
        self.exclusive = Exclusive(self._places()) if leader else None
        shape = config.model if config.init.run is None else config.model.without_weights()
        model = build_model(shape, config.seed, config.task)
        if config.init.run is not None:
            load_weights(model, Path(config.init.run), config.init.freeze)
        convert(model, config.precision)
        if config.trainer.compile:
            model.compile()
        self.task: Task = get_class(config.task.target)(model, config)
        self.meter = StepMeter(config.batch.tokens, self.root_device)

    def progress(self, length: Horizon) -> Progress:
        """Return the count of a run of this length, at its beginning."""
        return Progress(length, self.config.batch.tokens, sequences(self.config))

    def fit(self, progress: Progress, callbacks: Sequence[pl.Callback], checkpoint: str | None = None) -> None:
        """Train on the text's own order from where `progress` stands; Clock times it, Rest comes last."""
        config, trainer = self.config, self.trainer
        batches = TrainBatches(
            self.feed, progress.sequences, micro_batch(config), trainer.global_rank, trainer.world_size,
            progress.samples,
        )  # fmt: skip
        clock, rest = Clock(progress, self.meter, config, self.memory), Rest(progress, self.meter)
        trainer.callbacks += [clock, *callbacks, rest]  # type: ignore[attr-defined]  # set by a connector
        loader = DataLoader(batches, batch_size=None)
        trainer.fit(self.task, loader, ckpt_path=checkpoint, weights_only=True)

    def judge(self, model: nn.Module) -> TaskScores:
        """Return the task's own scores of the whole model, as one process has it; see `whole`."""
        task = self.task
        if model is not task.model:  # put together out of its parts
            task = get_class(self.config.task.target)(model.to(self.root_device), self.config)
            task.trainer = self.trainer
        return task.judge(self.feed, micro_batch(self.config))

    def release(self) -> bool | None:
        """Give the devices back; return whether nothing else ran on them (the leader knows)."""
        return self.exclusive.release() if self.exclusive else None

    def _places(self) -> str:
        return os.environ.get("CUDA_VISIBLE_DEVICES", "0") if self.root_device.type == "cuda" else "cpu"


def train(run: RunDir, config: RunConfig, started: float, leader: bool, signals: Signals) -> None:
    """Train a run from where its last checkpoint stands, and write its final weights and its record.

    Args:
        started: when this process began, seconds since the epoch; wall_seconds counts from there.
        leader: whether this is the first, or only, process of the run.
        signals: what asks it to stop.
    """
    training = Training(run, config, leader)
    trainer, store, meter = training.trainer, training.store, training.meter
    world, rank, count = trainer.world_size, trainer.global_rank, training.count
    progress = training.progress(horizon(config, training.feed.epoch_tokens, training.device.kind))
    resumed = resumable_progress(run, training.task, trainer, leader)
    if resumed:
        progress.load_state_dict(resumed)
    if leader:
        run.keep_curve_up_to(progress.tokens)

    spending = Spending(training.energy, started)
    validation = ValidationBatches(training.feed, micro_batch(config), rank, world)
    mirror = open_mirror(config, run) if leader else Mirror("no")
    curve = Curve(progress, meter, config, run, mirror, count.flops_per_token, signals)
    evaluation = Evaluation(progress, curve, config.evaluation.every, validation, training.feed.text_bytes)
    saving = Saving(progress, curve, config.checkpoint.every, last_checkpoint(run))
    witness = Witness(validation)
    if leader:
        print(
            f"{run.name}: {count.n_params:,} parameters, {_length_in_words(progress)} of "
            f"{config.batch.tokens:,} tokens, {config.precision.name} on {world} x {training.device.name}"
        )
        if progress.steps:
            print(f"resuming after step {progress.steps:,}")
    origin = origin_columns(started)  # of the code that runs, not of what it is when the run ends
    exit_code, record = 1, None
    try:
        with heartbeat(run, progress, curve, spending) if leader else nullcontext():
            callbacks = [curve, evaluation, saving, spending, witness]
            training.fit(progress, callbacks, str(last_checkpoint(run)) if progress.steps else None)
            assert evaluation.quality is not None, "the end of a budget is always scored"
            model = whole(training.task.model, config)
            signals.finishing = True
            judged = training.judge(model) if leader else TaskScores()
        devices = devices_used(training.device.kind, world)
        if leader:
            exclusive = training.exclusive.alone if training.exclusive else None
            record = complete(
                identity_columns(config)
                | results.quality_columns(evaluation.quality)
                | {f"score/{config.task.name}/{metric}": value for metric, value in judged.scores.items()}
                | results.work_columns(config, count, progress, training.feed.epoch_tokens)
                | meter.summary()
                | training.memory.summary()
                | witness.dtypes
                | {
                    "exclusive": exclusive,
                    "compile_seconds": results.compile_seconds(config),
                    "world_size": world,
                    "device_name": training.device.name,
                    "data_fingerprint": store.fingerprint,
                    "tokenizer_fingerprint": store.tokenizer_fingerprint,
                    "finished": utc(time.time()),
                }
                | results.price_columns(spending.spent, training.hardware, devices, progress.tokens)
                | origin
            )
            record |= _utilisation(training, record, exclusive)
            target_tokenizer = None
            if isinstance(store, ExampleStore) and not store.shares_tokenizer:
                target_tokenizer = store.target_tokenizer()
            save_final(run, model, config, store.tokenizer(), target_tokenizer)
            flush_to_disk(*run.final.iterdir(), run.final, run.checkpoints)
            if judged.scores:
                add_scores(run, config.task.name, judged.scores, judged.details)
            run.write_record([record])
            # Said before the mirror closes, which may take seconds: whatever comes now, the run is done.
            run.update_state(state="done", finished=time.time(), pid=None)
            last_checkpoint(run).unlink(missing_ok=True)
        exit_code = 0
        if torch.distributed.is_initialized():  # a process that leaves without a word may take the others with it
            torch.distributed.destroy_process_group()
    except (Diverged, Stopped) as end:
        if leader:  # before the mirror closes: torchrun may not wait for that
            outcome = end.outcome if isinstance(end, Stopped) else "diverged"
            run.update_state(state=outcome, reason=str(end), finished=time.time(), pid=None)
        raise
    finally:
        training.release()
        mirror.finish(record, exit_code)


def build_trainer(config: RunConfig, run: RunDir) -> pl.Trainer:
    """Return Lightning's Trainer: its own options from the config, the rest set by lmexp."""
    options = config.trainer.model_dump(exclude={"log_every", "compile"})
    if config.trainer.strategy == "fsdp":
        options["strategy"] = ModelParallelStrategy(world_size(config), 1, save_distributed_checkpoint=False)
    # Named, so that inside a Slurm allocation Lightning neither checks its tasks nor requeues it by itself.
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    trainer = pl.Trainer(
        **options,
        plugins=[LightningEnvironment() if alone else TorchElasticEnvironment()],
        precision=config.precision.lightning,
        max_epochs=-1,  # the Clock stops the run when its budget is spent
        accumulate_grad_batches=accumulation(config),
        default_root_dir=run.path,
        logger=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,  # the batches are cut by rank already
    )
    # Signals are lmexp's (stopping.py). Lightning's handler of SIGTERM would talk to the other processes in the
    # middle of a step, and to learn of it all of them would wait for each other, device and all, at every batch.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer


@contextmanager
def heartbeat(run: RunDir, progress: Progress, curve: Curve, spending: Spending) -> Iterator[None]:
    """Say every few seconds, in state.json, that the run is alive and how far it has come."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            tell()
            spending.sample()

    def tell() -> None:
        run.update_state(
            state="running",
            heartbeat=time.time(),
            tokens=progress.tokens,
            share=progress.share,
            train_loss=curve.train_loss,
            tokens_per_second=curve.tokens_per_second,
        )

    tell()
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        tell()


def _utilisation(training: Training, record: Row, exclusive: bool | None) -> Row:
    """Return the columns of MFU; a peak beyond belief is said in the log."""
    found = results.utilisation_columns(
        training.config, training.hardware, training.device, training.outputs, record["tokens_per_second"],
        training.trainer.world_size, may_measure=bool(exclusive),
    )  # fmt: skip
    if (found.get("mfu") or 0) > 1:
        print(f"MFU is {found['mfu']:.2f}: more than the peak ({found['peak_source']}); that peak is too low")
    return found


def _length_in_words(progress: Progress) -> str:
    length = progress.length
    return f"{length.steps:,} steps" if length.steps is not None else f"{length.seconds:,.0f} seconds of steps"
