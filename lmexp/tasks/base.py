"""What every task has in common: one optimizer step's loss, and one way of measuring quality.

A task owns a plain model and says what is predicted. Quality is summed in float64 over every valid token
of the validation split, over all ranks, and divided once, so that it does not depend on how the split was
cut into batches or spread over processes. (Averaging the batches' means, as `self.log` does, gives another
number for every batch size.)
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from lmexp.config.checks import gathers_in_bf16
from lmexp.config.pieces import rows_at_a_time
from lmexp.config.schema import RunConfig
from lmexp.config.tasks.base import LabelTaskSection
from lmexp.data.feeds import IGNORED, Batch, Feed
from lmexp.data.loading import ValidationBatches
from lmexp.models.base import LanguageModel
from lmexp.models.labels import LabelModel
from lmexp.tasks.cross_entropy import Piece, linear_cross_entropy, piece_of
from lmexp.tasks.metrics import Answers, score
from lmexp.tasks.optim import build_optimizer, can_fuse
from lmexp.tasks.predictions import Prediction
from lmexp.tasks.private import PrivateSteps


@dataclass(frozen=True)
class Quality:
    """Validation quality. `loss` is in nats per target, `bits_per_byte` in bits per UTF-8 byte of text."""

    loss: float
    perplexity: float | None
    """None where targets are labels, not tokens."""
    bits_per_byte: float | None
    accuracy: float
    tokens: int
    word_perplexity: float | None = None
    """exp of the loss per word; None where words are not counted."""
    quarters: tuple[float | None, ...] = ()
    """The loss by quarter of the context, None for one without targets; empty where targets have no place in a text."""

    @classmethod
    def from_sums(
        cls,
        nll: float,
        tokens: int,
        correct: int,
        text_bytes: int | None,
        of_text: bool = True,
        text_words: int | None = None,
    ) -> "Quality":
        """Divide, once: `nll` is the summed negative log-likelihood of `tokens` targets, in nats.

        `of_text` says that these are tokens of a text; `text_words` is the number of words of that text.
        """
        loss = nll / tokens
        return cls(
            loss=loss,
            perplexity=_exp(loss) if of_text else None,
            word_perplexity=_exp(nll / text_words) if text_words else None,
            bits_per_byte=nll / math.log(2) / text_bytes if text_bytes else None,
            accuracy=correct / tokens,
            tokens=tokens,
        )


QUARTERS = 4
MAX_EXPONENT = 690.0
"""A table holds numbers up to 1e300; a perplexity beyond e to the power of this is infinite."""


def _exp(value: float) -> float:
    return math.exp(value) if value <= MAX_EXPONENT else math.inf


def _defined_by(kind: type, name: str) -> type:
    """Return the class that defines a method of `kind`."""
    return next(each for each in kind.__mro__ if name in vars(each))


@dataclass(frozen=True)
class TaskScores:
    """A task's own scores, beside the loss."""

    scores: dict[str, float] = field(default_factory=dict)
    """By metric; where they have no unit, 1 is best."""
    details: dict[str, Any] = field(default_factory=dict)
    """What does not fit into one number, as JSON holds it."""
    predictions: Iterator[Prediction] = field(default=iter(()), compare=False)
    """What was predicted of each example, in the order of the split. They are made while they are read, once."""

    def beside(self, quality: Quality) -> "TaskScores":
        """Return these scores with those that every task has, as far as they are known and finite.

        Of a text without spaces, the perplexity per word is infinite: a paragraph is one word.
        """
        names = ("loss", "perplexity", "word_perplexity", "bits_per_byte", "accuracy")
        common = {name: getattr(quality, name) for name in names}
        known = {name: value for name, value in common.items() if value is not None and math.isfinite(value)}
        return replace(self, scores=known | self.scores)


class Task(pl.LightningModule):
    """A model, what it is trained to predict, and how well it does.

    A task derives from this and defines `predict`; one with scores of its own defines `own_scores` too. A task of the
    user's own also has a class attribute `Config`: its section, which derives from lmexp.config.tasks.base.TaskSection.
    """

    predicts_text: ClassVar[bool] = True
    """Whether the targets are tokens of a text; else they are labels, which have no perplexity."""

    def __init__(self, model: LanguageModel | LabelModel, config: RunConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.step_loss: Tensor | None = None
        """This process's part of the loss of the step under way, detached."""
        self.grad_norm: Tensor | None = None
        """The gradient's global norm at the last step, before clipping."""
        self.lr: float | None = None
        """The schedule's learning rate for the current step."""
        self.class_weights: Tensor | None = None
        """What the training loss of each label is multiplied by: (labels,) float32; None means 1."""
        self.piece: Piece = piece_of
        """What computes the loss of some tokens; a compiled copy if training is compiled."""
        self.compiled_for: int | None = None
        """How many sequences the batches of the compiled graphs have, if the model was compiled for one shape."""
        self.private: PrivateSteps | None = None
        """What steps are made private with; None without privacy."""
        self._drawn: Batch | None = None
        """The batch of the private step under way."""
        if isinstance(config.task, LabelTaskSection) and config.task.class_weights is not None:
            self.class_weights = torch.tensor(config.task.weights_of_labels())

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits (N, classes) and targets (N,) int64, IGNORED where nothing is to be predicted."""
        raise NotImplementedError(f"{type(self).__name__} does not define `predict`")

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what the model's output layer multiplies, (N, C), and the targets that `predict` returns.

        A task that defines this need not hold the logits of a whole micro-batch; see `_pieces`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `features`")

    def quarters(self, batch: Batch) -> Tensor | None:
        """Return in which quarter of the context each target is, 0 to 3, in the order of `predict`: (N,) int64.

        None: the targets are not those of a text, one after another.
        """
        return None

    def judge(self, feed: Feed, batch: int) -> TaskScores:
        """Return the task's own scores and the user's metrics over the split that `feed` scores, in batches of `batch`.

        The whole model must be here, in one process.
        """
        metrics = self.config.task.metrics
        answers = cache(lambda: self.answers(feed, batch))
        judged = self.own_scores(feed, batch, answers)
        if not metrics:
            return judged
        scores, failed = score(metrics, answers())
        details = judged.details | ({"failed_metrics": failed} if failed else {})
        return replace(judged, scores=judged.scores | scores, details=details)

    def own_scores(self, feed: Feed, batch: int, answers: Callable[[], Answers]) -> TaskScores:
        """Return the scores that the task has by itself; a language model has none besides its loss.

        `answers` computes the task's answers when it is first called, and then keeps them.
        """
        return TaskScores()

    def answers(self, feed: Feed, batch: int) -> Answers:
        """Return the likeliest class of every target of the scored split, and the target, on the CPU: (N,) each."""
        predicted, right = [], []
        with self.at_rest():
            for samples in ValidationBatches(feed, batch):
                with self.as_trained(), self._without_new_graph(samples):
                    for logits, targets in self._logits(self._to_device(samples)):
                        has_target = targets != IGNORED
                        predicted.append(logits.argmax(-1)[has_target].cpu())
                        right.append(targets[has_target].cpu())
        return Answers(torch.cat(predicted), torch.cat(right))

    def step_nll(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the summed negative log-likelihood of a micro-batch's targets, as training has it; see `predict`."""
        # In float32 whatever the model computes in: a softmax over thousands of bf16 logits is off by percents.
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        return F.cross_entropy(logits.float(), targets, weights, ignore_index=IGNORED, reduction="sum")

    def _pieces(self, batch: Batch) -> tuple[nn.Linear, int] | None:
        """Return the output layer, and how many targets of a batch are scored at a time; None: all at once.

        They are taken in pieces if their logits would be large, the model makes them with a linear layer, and no
        subclass has its own predictions or its own loss without defining `features` too.
        """
        kind, layer = type(self), self.model.output_layer if isinstance(self.model, LanguageModel) else None
        if layer is None or self.class_weights is not None or kind.step_nll is not Task.step_nll:
            return None
        if _defined_by(kind, "features") is not _defined_by(kind, "predict"):
            return None
        rows = rows_at_a_time(layer.out_features, self.device.type)
        is_compiled = self.piece is not piece_of
        return (layer, rows) if batch["targets"].numel() > rows or (is_compiled and self.training) else None

    def batch_nll(self, batch: Batch) -> Tensor:
        """Return the summed negative log-likelihood of a micro-batch's targets, as training has it."""
        pieces = self._pieces(batch)
        if pieces is None:
            return self.step_nll(*self.predict(batch))
        (layer, rows), (features, targets) = pieces, self.features(batch)
        return linear_cross_entropy(features, layer.weight, layer.bias, targets, rows, self.piece)

    def sequence_nll(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the summed negative log-likelihood of each sequence's targets, and their number: (B,) each."""
        with self.as_trained():
            logits, targets = self.predict(batch)
            each = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="none")
        shape = (len(batch["targets"]), -1)
        return each.view(shape).sum(1), (targets.view(shape) != IGNORED).sum(1)

    def _logits(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the logits (N, classes) and the targets (N,) of a batch, in as many pieces as memory asks for."""
        pieces = self._pieces(batch)
        if pieces is None:
            yield self.predict(batch)
            return
        (layer, rows), (features, targets) = pieces, self.features(batch)
        for part, right in zip(features.split(rows), targets.split(rows), strict=True):
            yield layer(part), right

    def _without_new_graph(self, batch: Batch) -> AbstractContextManager[Any]:
        """Return the context in which a batch of another shape than the compiled one runs without a graph."""
        is_odd = self.compiled_for not in (None, len(batch["targets"]))
        return torch.compiler.set_stance("force_eager") if is_odd else nullcontext()

    def _to_device(self, batch: Batch) -> Batch:
        return {name: value.to(self.device) for name, value in batch.items()}

    def configure_model(self) -> None:
        """Leave each process its part of every weight, where the strategy is to shard them.

        The layers are gathered one by one, forward and backward; what is outside of them (embeddings, head) stays
        gathered in between. All processes must pass through the model equally often.

        In mixed bf16, layers are gathered in bf16 and their gradients added up in float32. That halves the traffic of
        weights, and autocast does not keep a copy of each layer's weights from the forward to the backward pass.
        Matrices multiply the same values as with ddp; norms' weights are rounded, as the results of norms are.
        """
        trainer = self._trainer
        if trainer is None or not isinstance(trainer.strategy, ModelParallelStrategy):
            return
        if isinstance(self.model, FSDPModule):  # Lightning may ask again
            return
        mesh = trainer.strategy.device_mesh["data_parallel"]
        narrow = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        policy = narrow if gathers_in_bf16(self.config) else MixedPrecisionPolicy()
        for layer in self.model.layers():
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(self.model, mesh=mesh)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return a micro-batch's part of the step's loss: the mean over all targets of the optimizer step.

        `step_targets` counts those over all its micro-batches and processes, so each target weighs the same
        wherever it was computed. Means of means would not do that where batches differ in their targets.
        `step_loss`, which the curve shows, is that alone; a model's auxiliary loss trains, and is not shown.
        """
        if self.private is not None:  # `backward` does it all: Lightning drops gradients in between
            self._drawn = batch
            return torch.zeros((), device=self.device)
        loss = self.batch_nll(batch) / batch["step_targets"]
        detached = loss.detach()
        self.step_loss = detached if self.step_loss is None else self.step_loss + detached
        trainer = self._trainer
        # Lightning divides by the micro-batches, and gradients are averaged over processes: undone here.
        loss = loss if trainer is None else loss * (trainer.accumulate_grad_batches * trainer.world_size)
        # Not undone here: what keeps experts balanced is a mean over micro-batches and processes, each its own.
        auxiliary = self.model.auxiliary_loss()
        return loss if auxiliary is None else loss + auxiliary

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute the gradients of a micro-batch; of a private step, the sum of its sequences' clipped gradients."""
        if self.private is None:
            super().backward(loss, *args, **kwargs)
            return
        assert self._drawn is not None, "a training step comes before its backward pass"
        self.step_loss, self._drawn = self.private.add_gradients(self._drawn, self.sequence_nll), None

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Take a step, then drop the gradients.

        Lightning drops them only after the next forward pass, whose activations would then lie beside them.
        """
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *ignored: Any, **also: Any) -> None:
        """Clip the gradient's global norm, and keep it for the curve.

        Lightning's own clipping refuses fused optimizers under autocast, for the sake of loss scaling, which
        only fp16 has; bf16 would lose its fused kernel, and the comparison with fp32 its fairness. A private step gets
        its noise first, so that this changes nothing about its privacy.
        """
        if self.private is not None:
            self.private.finish(self.parameters(), self.device)
        weights = list(self.parameters())
        norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        self.grad_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm  # over all shards
        nn.utils.clip_grads_with_norm_(weights, self.config.optim.grad_clip or math.inf, self.grad_norm)

    def evaluate(self, batches: Iterable[Batch], text_bytes: int | None, text_words: int | None = None) -> Quality:
        """Score every target of `batches`, over all ranks, and divide once.

        `text_bytes` and `text_words` are the UTF-8 bytes and the words of the text that all ranks together score.
        Works within a Trainer and without one; leaves the module in the mode it was in.
        """
        trainer = self._trainer  # None outside of a Trainer
        wide = torch.float32 if self.device.type == "mps" else torch.float64  # mps has no float64
        sums = torch.zeros(3 + 2 * QUARTERS, dtype=wide, device=self.device)
        behind = self._behind(batches)
        with self.at_rest():
            for batch in batches:
                sums += self._score(batch, wide)
            for _ in range(behind):  # weights are gathered from all ranks for as long as one has batches left
                self._score(batch, wide)
        if isinstance(self.model, FSDPModule):
            self.model.reshard()  # what stays gathered for a backward pass
        if trainer is not None and trainer.world_size > 1:
            sums = trainer.strategy.reduce(sums, reduce_op="sum")
        nll_sum, count, right, *by_quarter = sums.tolist()
        quality = Quality.from_sums(nll_sum, int(count), int(right), text_bytes, self.predicts_text, text_words)
        nlls, counts = by_quarter[:QUARTERS], by_quarter[QUARTERS:]
        if any(counts):
            means = (nll / count if count else None for nll, count in zip(nlls, counts, strict=True))
            return replace(quality, quarters=tuple(means))
        return quality

    def _score(self, batch: Batch, wide: torch.dtype) -> Tensor:
        """Return a batch's summed negative log-likelihood, its targets and how many of them were the likeliest.

        The first two follow again for each quarter of the context, all likelihoods first: (3 + 2 * QUARTERS,).
        """
        sums = torch.zeros(3 + 2 * QUARTERS, dtype=wide, device=self.device)
        with self.as_trained(), self._without_new_graph(batch):
            batch = self._to_device(batch)
            quarters = self.quarters(batch)
            for logits, targets in self._logits(batch):
                nll = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="none")
                valid = targets != IGNORED
                correct = (logits.argmax(-1) == targets) & valid
                sums[:3] += torch.stack([nll.to(wide).sum(), valid.sum().to(wide), correct.sum().to(wide)])
                if quarters is not None:
                    inside = quarters[: len(targets)] == torch.arange(QUARTERS, device=self.device)[:, None]
                    quarters = quarters[len(targets) :]
                    sums[3:] += torch.cat([nll.to(wide).where(inside, 0.0).sum(1), (inside & valid).sum(1).to(wide)])
        return sums

    def as_trained(self) -> AbstractContextManager[Any]:
        """Return the context in which the model computes in what it was trained in; outside of a Trainer, as it is."""
        trainer = self._trainer
        return trainer.precision_plugin.forward_context() if trainer is not None else nullcontext()

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Put the module into evaluation mode, without gradients, and back into the mode it was in."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)

    def _behind(self, batches: Iterable[Batch]) -> int:
        """Return how many batches more than this rank another has, where ranks share the weights."""
        if self._trainer is None or not isinstance(self.model, FSDPModule):
            return 0
        mine = sum(1 for _ in batches)
        most = torch.tensor(mine, device=self.device)
        return int(self._trainer.strategy.reduce(most, reduce_op="max")) - mine

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer that the config names."""
        config = self.config
        fuse = can_fuse(config.precision.compute, self.device)
        return build_optimizer(self.parameters(), config.optim, fuse, self.model.layers(), config.model.width_multiple)
