"""A differentially private optimizer step (DP-SGD, Abadi et al. 2016, algorithm 1).

the sequences that the step drew -> micro-batches -> the gradient of each sequence, clipped -> their sum
-> once a step: Gaussian noise -> divided by the expected number of sequences -> the optimizer, whichever it is
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lmexp.data.feeds import IGNORED, Batch
from lmexp.models.sample_gradients import SampleGradients

if TYPE_CHECKING:
    from lmexp.tasks.base import Task

NOISE = 3
"""Makes the random numbers of the noise differ from those of dropout, which also come from the seed and the step."""


@dataclass
class PrivateSteps:
    """What a task takes private steps with."""

    gradients: SampleGradients
    clip: float
    """The most that the norm of a sequence's gradient may be."""
    noise_multiplier: float
    """The noise's standard deviation as a multiple of `clip`."""
    sequences: int
    """Expected sequences of a step."""
    micro: int
    """The most sequences that pass through the model at a time."""
    seed: int
    step: int = 0
    """The step under way, counted from 0."""
    sampled: int = 0
    """Sequences that steps have drawn so far."""

    def add_gradients(self, task: "Task", batch: Batch) -> Tensor | None:
        """Add up the clipped gradients of a step's sequences; return their loss per target. None: there were none."""
        self.step = int(batch["step"])
        nll = targets = None
        size = len(batch["targets"])
        self.sampled += size
        for first in range(0, size, self.micro):
            part = {name: each[first : first + self.micro] for name, each in batch.items() if each.ndim}
            with self.gradients.recording(len(part["targets"])), task.as_trained():
                each, counts = sequence_nll(task, part)
            self.gradients.add_clipped(each / counts, self.clip)
            nll = each.detach().sum() if nll is None else nll + each.detach().sum()
            targets = counts.sum() if targets is None else targets + counts.sum()
        return None if nll is None or targets is None else nll / targets

    def finish(self, task: "Task") -> None:
        """Add the step's noise to the sum of gradients, and divide by the expected number of sequences."""
        generator = torch.Generator(task.device)
        sequence = np.random.SeedSequence([self.seed, self.step], spawn_key=(NOISE,))
        generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        std = self.noise_multiplier * self.clip
        for weight in task.parameters():
            if not weight.requires_grad:
                continue
            noise = torch.randn(weight.shape, generator=generator, device=weight.device, dtype=torch.float32)
            summed = 0.0 if weight.grad is None else weight.grad
            weight.grad = ((summed + std * noise) / self.sequences).to(weight.dtype)


def sequence_nll(task: "Task", batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the summed negative log-likelihood of each sequence's targets, in nats, and their number: (B,) each."""
    logits, targets = task.predict(batch)
    each = F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="none")
    shape = (len(batch["targets"]), -1)
    return each.view(shape).sum(1), (targets.view(shape) != IGNORED).sum(1)
