"""A differentially private optimizer step (DP-SGD, Abadi et al. 2016, algorithm 1).

the sequences that the step drew -> micro-batches -> the gradient of each sequence, clipped -> their sum
-> once a step: Gaussian noise -> divided by the expected number of sequences -> the optimizer, whichever it is
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lmexp.data.feeds import Batch
from lmexp.models.sample_gradients import SampleGradients

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

    def add_gradients(self, batch: Batch, nll_of: Callable[[Batch], tuple[Tensor, Tensor]]) -> Tensor | None:
        """Add up the clipped gradients of a step's sequences; return their loss per target. None: there were none.

        `nll_of` returns the summed negative log-likelihood of each sequence's targets, and their number: (B,) each.
        """
        self.step = int(batch["step"])
        nll = targets = None
        size = len(batch["targets"])
        self.sampled += size
        for first in range(0, size, self.micro):
            part = {name: each[first : first + self.micro] for name, each in batch.items() if each.ndim}
            with self.gradients.recording(len(part["targets"])):
                each, counts = nll_of(part)
            self.gradients.add_clipped(each / counts, self.clip)
            nll = each.detach().sum() if nll is None else nll + each.detach().sum()
            targets = counts.sum() if targets is None else targets + counts.sum()
        return None if nll is None or targets is None else nll / targets

    def finish(self, weights: Iterable[nn.Parameter], device: torch.device) -> None:
        """Add the step's noise to the sum of gradients, and divide by the expected number of sequences."""
        generator = torch.Generator(device)
        sequence = np.random.SeedSequence([self.seed, self.step], spawn_key=(NOISE,))
        generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        std = self.noise_multiplier * self.clip
        for weight in weights:
            if not weight.requires_grad:
                continue
            noise = torch.randn(weight.shape, generator=generator, device=weight.device, dtype=torch.float32)
            summed = 0.0 if weight.grad is None else weight.grad
            weight.grad = ((summed + std * noise) / self.sequences).to(weight.dtype)
