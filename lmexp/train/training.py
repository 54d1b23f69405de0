"""The parts that one process of a run trains with, and the training itself.

    open the token store -> task(model) -> Trainer.fit -> scores

`Training` puts the parts together in one place, for a run (`fit`) and for a probe of a few steps (`take_steps`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from lmexp.config.checks import device_share, micro_batch, sequences
from lmexp.config.code import call_target, load_target
from lmexp.config.models.count import ModelCount
from lmexp.config.schema import RunConfig
from lmexp.cost.accounting import Accounting, accounting
from lmexp.cost.contention import CpuWait
from lmexp.cost.device import Device, detect, unsupported_precision
from lmexp.cost.exclusive import lock_devices
from lmexp.cost.flops import count_shared
from lmexp.cost.hardware import hardware_here
from lmexp.cost.horizon import Horizon, horizon
from lmexp.cost.memory_meter import MemoryMeter
from lmexp.cost.step_meter import StepMeter
from lmexp.data.examples import ExampleStore
from lmexp.data.feeds import Feed
from lmexp.data.loading import PrivateBatches, TrainBatches, ValidationBatches
from lmexp.data.membership import membership_texts
from lmexp.data.open_feed import open_feed
from lmexp.data.prepare import AnyStore, prepare
from lmexp.errors import UserError
from lmexp.files import flush_to_disk
from lmexp.models.build import build_model
from lmexp.models.hf import HFModel, HFSeq2Seq
from lmexp.runs.directory import STORES, RunDir
from lmexp.runs.mirrors.mirror import Mirror
from lmexp.tasks.base import Quality, Task, TaskScores
from lmexp.tasks.canaries import score_canaries
from lmexp.tasks.membership import score_membership
from lmexp.train.checkpoint import load_weights, save_final, whole
from lmexp.train.clock import Clock, NextStepTimer
from lmexp.train.compiling import compile_task, compiles
from lmexp.train.curve import Curve
from lmexp.train.dtypes import DtypeReader
from lmexp.train.evaluation import Evaluation
from lmexp.train.float8 import convert
from lmexp.train.heartbeat import heartbeat, repeating
from lmexp.train.micro_batch import limit_memory
from lmexp.train.privacy import Privacy, private_steps
from lmexp.train.products import set_products
from lmexp.train.progress import Progress
from lmexp.train.recompute import recompute_layers
from lmexp.train.saving import Saving
from lmexp.train.skipped_steps import SkippedSteps
from lmexp.train.spending import Spending, Spent, Watch
from lmexp.train.stopping import Signals, local_rank
from lmexp.train.trainer import build_trainer


@dataclass(frozen=True)
class FitResult:
    """What training to the end of a budget yields."""

    quality: Quality
    """Quality on the validation split, over all ranks."""
    scores: TaskScores
    """The task's own scores; none on other ranks than 0."""
    test: TaskScores
    """All scores on the test split, the loss among them; none without such a split, and on other ranks than 0."""
    privacy: TaskScores
    """The scores of canaries; none without canaries, and on other ranks than 0."""
    membership: TaskScores
    """The scores of membership attacks; none if the config asks for none, and on other ranks than 0."""
    dtypes: dict[str, str | None]
    """The types that tensors were stored and multiplied in, by column of the record."""
    spent: Spent
    skipped_steps: int | None
    """Steps that loss scaling skipped; None without it."""
    is_alone: bool
    """Whether nothing else was seen on the devices of any node; see cost/exclusive.py."""
    best_tokens: int | None = None
    """Tokens after which the kept weights were reached, with a patience."""


class Training:
    """What one process of a run trains with."""

    def __init__(self, run: RunDir, config: RunConfig, leader: bool, watch: Watch) -> None:
        """Build all parts, in each process of the run; `leader` is the first of them, `watch` counts what it spends.

        Raises UserError if this device cannot run the precision, or the data cannot be prepared.
        """
        self.run, self.config, self.leader, self.watch = run, config, leader, watch
        self.outputs = run.path.parent.parent
        self.device: Device = detect(config.trainer.accelerator)
        if reason := unsupported_precision(config.precision, self.device):  # on a cluster it is only known here
            raise UserError(f"precision={config.precision.name}: {reason}")
        self.device_share = device_share(config, self.device.kind)
        limit_memory(self.device, self.device_share)
        self.hardware = hardware_here(config.hardware, self.device)
        self.store: AnyStore = prepare(config, self.outputs / STORES)
        self.feed: Feed = open_feed(config, self.store)
        self.count: ModelCount = count_shared(config, self.feed.parts)
        self.test_feed: Feed | None = open_feed(config, self.store, "test") if "test" in self.store.splits else None
        set_products(config.precision.compute)
        self.trainer = build_trainer(config, run)
        self.root_device = self.trainer.strategy.root_device
        self.memory = MemoryMeter(self.root_device)
        self.cpu_wait = CpuWait()
        first_here = local_rank() == 0  # of this node
        self.exclusive = lock_devices(self.root_device.type, config.trainer.devices) if first_here else None
        self.task: Task = load_target(config.task.target, "task")(_model(config), config)
        self.accounting: Accounting | None = None
        """What privacy is accounted for by; None without privacy."""
        if config.privacy.is_on:
            self.accounting = accounting(config, self.feed.disjoint_sequences)
            steps = horizon(config, self.feed.epoch_tokens, self.device.kind, self.feed.parts).steps
            assert steps is not None, "a private run has a number of steps that is known from the start"
            self.task.private = private_steps(self.task, self.accounting.noise_multiplier(steps))
        recompute_layers(self.task.model, config.trainer.activation_checkpointing)
        self.compiles = compiles(config, self.device.kind)
        if self.compiles:
            compile_task(self.task)
        self.meter = StepMeter(config.batch.tokens, self.root_device)

    def progress(self, length: Horizon, reached: int = 0) -> Progress:
        """Return the progress of a run of this length, at its start; `reached` milestones are behind."""
        return Progress(length, self.config.batch.tokens, sequences(self.config), reached, self.feed.order.method)

    def fit(self, progress: Progress, checkpoint: Path | None, mirror: Mirror, signals: Signals) -> FitResult:
        """Train to the end of the budget or to the next milestone, and score the model.

        Args:
            progress: how far the run is; it counts on.
            checkpoint: the state of that progress; None at the start of the run.
            mirror: gets the points of the curve.
            signals: stop the run.

        Raises Diverged, and Stopped after a signal.
        """
        config = self.config
        validation = self._scored_batches(self.feed)
        of_test = self.test_feed
        test = None if of_test is None else (self._scored_batches(of_test), of_test.text_bytes, of_test.text_words)
        curve = Curve(progress, self.meter, config, self.run, mirror, self.count.flops_per_token, signals)
        sizes = self.feed.text_bytes, self.feed.text_words
        every, patience = config.evaluation.every, config.evaluation.patience
        evaluation = Evaluation(progress, curve, every, validation, *sizes, patience, test)
        saving = Saving(progress, self.meter, self.run, signals, config.checkpoint.every)
        spending = Spending(self.watch, self.device_share)
        dtypes, skipped = DtypeReader(validation), SkippedSteps(progress)
        beating = heartbeat(self.run, progress, curve, self._sample) if self.leader else repeating(self._sample)
        with beating:
            callbacks = [call_target(section, "callback") for section in config.callbacks]
            self.take_steps(progress, [*callbacks, curve, skipped, evaluation, saving, spending, dtypes], checkpoint)
            assert evaluation.quality is not None, "the end of a budget, like a milestone, is always evaluated"
            model = whole(self.task.model, config)
            is_alone = self._is_alone()
            signals.finishing = progress.is_last
            scores = on_test = privacy = membership = TaskScores()
            if self.leader:
                if progress.is_last:
                    self._save_weights(model)  # before judging, which may fail: the weights are then kept all the same
                scores = self._judge(model, self.feed)
                if self.test_feed is not None and evaluation.test_quality is not None:
                    on_test = self._judge(model, self.test_feed).beside(evaluation.test_quality)
                privacy, membership = self._leaks(self._whole_task(model))
        best_tokens = None if evaluation.best is None else evaluation.best.tokens
        return FitResult(
            evaluation.quality,
            scores,
            on_test,
            privacy,
            membership,
            dtypes.dtypes,
            spending.spent,
            skipped.count,
            is_alone,
            best_tokens,
        )

    def _scored_batches(self, feed: Feed) -> ValidationBatches:
        """Return this rank's share of the split that a feed scores."""
        return ValidationBatches(feed, micro_batch(self.config), self.trainer.global_rank, self.trainer.world_size)

    def take_steps(self, progress: Progress, callbacks: Sequence[pl.Callback], checkpoint: Path | None = None) -> None:
        """Train in the order of the data, from where `progress` is, until a callback stops the Trainer.

        Clock comes before `callbacks` and times each step; NextStepTimer comes after them.
        """
        config, trainer = self.config, self.trainer
        batches: TrainBatches | PrivateBatches
        if self.task.private is not None:
            batches = PrivateBatches(self.feed, progress.sequences, config.seed, progress.steps)
            callbacks = [*callbacks, Privacy(progress, self.task.private)]
        else:
            batches = TrainBatches(
                self.feed, progress.sequences, micro_batch(config), trainer.global_rank, trainer.world_size,
                progress.samples,
            )  # fmt: skip
        clock, timer = Clock(progress, self.meter, config, self.memory), NextStepTimer(progress, self.meter)
        trainer.callbacks += [clock, *callbacks, timer]  # type: ignore[attr-defined]  # set by a connector
        loader = DataLoader(batches, batch_size=None)
        trainer.fit(self.task, loader, ckpt_path=checkpoint, weights_only=True)

    def _save_weights(self, model: nn.Module) -> None:
        """Write final/: the weights, with the config and the tokenizers that their use takes."""
        run, store, target_tokenizer = self.run, self.store, None
        if isinstance(store, ExampleStore) and not store.shares_tokenizer:
            target_tokenizer = store.target_tokenizer()
        save_final(run, model, self.config, store.tokenizer(), target_tokenizer)
        flush_to_disk(*run.final.iterdir(), run.final, run.checkpoints)

    def _judge(self, model: nn.Module, feed: Feed) -> TaskScores:
        """Return the task's own scores of a model with all its weights; see `whole`."""
        return self._whole_task(model).judge(feed, micro_batch(self.config))

    def _leaks(self, task: Task) -> tuple[TaskScores, TaskScores]:
        """Return the scores of canaries and of membership attacks; each is empty if the config does not ask for it."""
        config, store, tokenizer = self.config, self.store, self.store.tokenizer()
        of_canaries = score_canaries(task, config.data.canaries, tokenizer)
        count = config.evaluation.membership
        if not count:
            return of_canaries, TaskScores()
        texts = membership_texts(store, config.model.context, count)
        return of_canaries, score_membership(task, texts, tokenizer)

    def _whole_task(self, model: nn.Module) -> Task:
        """Return the task with a model that has all its weights, on the device; see `whole`."""
        task = self.task
        if model is not task.model:  # a sharded model was put together from its parts
            task = load_target(self.config.task.target, "task")(model, self.config)
            task.trainer = self.trainer
        # Lightning has moved the weights to the CPU, and a new task reports the CPU wherever its weights are.
        return task.to(self.root_device)

    def _sample(self) -> None:
        """Look at what goes on beside the training; the heartbeat calls this every few seconds."""
        self.watch.energy.sample()  # a counter that wraps around must be read more often than every few minutes
        if self.exclusive is not None:
            self.exclusive.look()

    def _is_alone(self) -> bool:
        """Whether nothing else has been seen on the devices of any node; collective, call on every rank."""
        shared = torch.tensor(float(self.exclusive is not None and not self.exclusive.alone), device=self.root_device)
        if self.trainer.world_size > 1:
            shared = self.trainer.strategy.reduce(shared, reduce_op="sum")
        return not shared

    def release(self) -> bool | None:
        """Release the devices of this node; return whether nothing else was seen on them.

        None for others than the first process of the node.
        """
        return self.exclusive.release() if self.exclusive else None


def _model(config: RunConfig) -> nn.Module:
    """Return the model of a run: with its first weights, in its precision."""
    from_run = config.init.run
    shape = config.model if from_run is None else config.model.without_weights()
    model = build_model(shape, config.seed, config.task)
    if isinstance(model, HFModel | HFSeq2Seq) and model.drawn:
        print(f"{model.config.pretrained} has no weights for its head over the vocabulary: it starts fresh", flush=True)
    if from_run is not None:
        load_weights(model, Path(from_run), config.init.freeze)
    convert(model, config.precision)
    return model
