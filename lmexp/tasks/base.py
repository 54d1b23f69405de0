"""What every task has in common: one optimizer step's loss, and one way of measuring quality.

A task owns a plain model and says what is predicted. Quality is summed in float64 over every valid token
of the validation split, over all ranks, and divided once, so that it does not depend on how the split was
cut into batches or spread over processes. (Averaging the batches' means, as `self.log` does, gives another
number for every batch size.)
"""

import math
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_class
from torch import Tensor, nn
from torch.nn import functional as F

from lmexp.config.schema import AdamConfig, RunConfig

Batch = dict[str, Tensor]
IGNORED = -100
"""The target where nothing is to be predicted."""


@dataclass(frozen=True)
class Quality:
    """Validation quality. `loss` is in nats per token, `bits_per_byte` in bits per UTF-8 byte of text."""

    loss: float
    perplexity: float
    bits_per_byte: float | None
    accuracy: float
    tokens: int

    @classmethod
    def from_sums(cls, nll: float, tokens: int, correct: int, text_bytes: int | None) -> "Quality":
        """Divide, once: `nll` is the summed negative log-likelihood of `tokens` tokens, in nats."""
        loss = nll / tokens
        return cls(
            loss=loss,
            perplexity=math.exp(loss) if loss < 700 else math.inf,
            bits_per_byte=nll / math.log(2) / text_bytes if text_bytes else None,
            accuracy=correct / tokens,
            tokens=tokens,
        )


class Task(pl.LightningModule):
    """A model, what it is trained to predict, and how well it does."""

    def __init__(self, model: nn.Module, config: RunConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.step_loss: Tensor | None = None
        """Summed loss of the micro-batches of the step under way, detached."""
        self.grad_norm: Tensor | None = None
        """The gradient's global norm at the last step, before clipping."""
        self.dtypes: dict[str, str] = {}
        """What tensors were stored and computed in, as found on the live objects of the first step."""

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits (N, classes) and targets (N,) int64, IGNORED where nothing is to be predicted."""
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the mean loss over the targets of a micro-batch; Lightning averages the micro-batches.

        Micro-batches of a language model hold equally many targets, so the average of their means is the
        mean over the whole step.
        """
        logits, targets = self.predict(batch)
        if not self.dtypes:
            self.dtypes["dtype_compute"] = _name(logits.dtype)
        # In float32 whatever the model computes in: a softmax over thousands of bf16 logits is off by percents.
        loss = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED)
        detached = loss.detach()
        self.step_loss = detached if self.step_loss is None else self.step_loss + detached
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Note what gradients and weights are stored in, once."""
        if "dtype_grads" not in self.dtypes:
            weight = next(weight for weight in self.parameters() if weight.grad is not None)
            assert weight.grad is not None
            self.dtypes |= {"dtype_weights": _name(weight.dtype), "dtype_grads": _name(weight.grad.dtype)}

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *ignored: Any, **also: Any) -> None:
        """Clip the gradient's global norm, and keep it for the curve.

        Lightning's own clipping refuses fused optimizers under autocast, for the sake of loss scaling, which
        only fp16 has; bf16 would lose its fused kernel, and the comparison with fp32 its fairness.
        """
        largest = self.config.optim.grad_clip or math.inf
        self.grad_norm = nn.utils.clip_grad_norm_(self.parameters(), largest)

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch], text_bytes: int | None) -> Quality:
        """Score every target of `batches`, over all ranks, and divide once.

        `text_bytes` is the number of UTF-8 bytes of the text that all ranks together score.
        Works within a Trainer and without one; leaves the module in the mode it was in.
        """
        was_training = self.training
        trainer = self._trainer  # None outside of a Trainer
        computing = trainer.precision_plugin.forward_context if trainer is not None else nullcontext
        wide = torch.float32 if self.device.type == "mps" else torch.float64  # mps has no float64
        sums = torch.zeros(3, dtype=wide, device=self.device)  # nll, targets, correct
        self.eval()
        try:
            for batch in batches:
                with computing():
                    logits, targets = self.predict({k: v.to(self.device) for k, v in batch.items()})
                nll = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="none")
                valid = targets != IGNORED
                correct = (logits.argmax(-1) == targets) & valid
                sums += torch.stack([nll.to(wide).sum(), valid.sum().to(wide), correct.sum().to(wide)])
        finally:
            self.train(was_training)
        if trainer is not None and trainer.world_size > 1:
            sums = trainer.strategy.reduce(sums, reduce_op="sum")
        nll_sum, count, right = sums.tolist()
        return Quality.from_sums(nll_sum, int(count), int(right), text_bytes)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer that the config's `_target_` names.

        Weight decay applies to matrices and embeddings only. The kernels are fused where that is known
        to work: half-precision loss scaling with clipping does not go with them.
        """
        optim = self.config.optim
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        groups = [
            {"params": [w for w in weights if w.ndim >= 2], "weight_decay": optim.weight_decay},
            {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
        ]
        known: dict[str, Any] = {"lr": optim.lr}
        if isinstance(optim, AdamConfig):
            known |= {"betas": optim.betas, "eps": optim.eps}
            known["fused"] = self.config.precision.compute != "fp16" and self.device.type in ("cpu", "cuda")
        else:
            known |= {"momentum": optim.momentum, "nesterov": optim.nesterov}
        optimizer: torch.optim.Optimizer = get_class(optim.target)(groups, **known)
        return optimizer


def _name(dtype: torch.dtype) -> str:
    """Return `float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")
