"""The accounting of differential privacy: how much noise a run needs for its epsilon, and what it has spent.

Opacus computes both, with the accountant of privacy loss random variables (Gopi et al. 2021, arXiv 2106.02848), which
bounds epsilon closely from above: the Rényi accountant that came before it gives the same noise an epsilon that is 10
to 20 % higher. What it is told is the sampling rate, the noise multiplier and the number of steps.
"""

import warnings
from dataclasses import dataclass
from typing import Any

from lmexp.config.checks import micro_batch, sequences
from lmexp.config.schema import RunConfig
from lmexp.data.feeds import Feed
from lmexp.errors import UserError
from lmexp.models.sample_gradients import SampleGradients
from lmexp.tasks.base import Task
from lmexp.tasks.private import PrivateSteps
from lmexp.train.callbacks import StepCallback
from lmexp.train.progress import Progress

ACCOUNTANT = "prv"
"""The name that Opacus has for it."""
ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64)) + [2**n for n in range(6, 13)]
"""Rényi orders for the first estimate: those of Opacus, and higher ones for small epsilons."""
HALVINGS = 6
"""How often the interval of the search is halved: from a quarter of the noise multiplier to less than 0.5 % of it."""


@dataclass(frozen=True)
class Accounting:
    """What the guarantee of a run depends on."""

    epsilon: float
    """The most that the run may spend."""
    delta: float
    samples: int
    """Sequences of the training text."""
    sample_rate: float
    """Probability with which a step draws each of them."""

    def spent(self, noise_multiplier: float, steps: int) -> float:
        """Return the epsilon of so many steps, an upper bound. Raises UserError if delta is too small to compute it."""
        from opacus.accountants import PRVAccountant

        accountant = PRVAccountant()
        accountant.history = [(noise_multiplier, self.sample_rate, steps)]
        try:
            return float(accountant.get_epsilon(self.delta))
        except ValueError:  # rounding errors would be larger than delta
            raise UserError(
                f"privacy.delta={self.delta:g} is too small: Opacus cannot compute epsilon for it over {steps:,} steps"
            ) from None

    def noise_multiplier(self, steps: int) -> float:
        """Return the least noise multiplier, to half a percent, with which so many steps spend no more than epsilon.

        The search begins at the multiplier of the Rényi accountant, which is a little larger. It does not begin at
        small multipliers, for which the accountant used here is slow. Raises UserError if no noise is enough, and as
        `spent` does.
        """
        from opacus.accountants.utils import get_noise_multiplier

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # that orders at the ends of their list are the best ones
                high = get_noise_multiplier(
                    target_epsilon=self.epsilon, target_delta=self.delta, sample_rate=self.sample_rate, steps=steps,
                    accountant="rdp", epsilon_tolerance=0.01 * self.epsilon, alphas=ORDERS,
                )  # fmt: skip
        except ValueError:
            raise UserError(
                f"privacy.epsilon={self.epsilon:g} cannot be kept over {steps:,} steps: set a larger one or fewer steps"
            ) from None
        while self.spent(high, steps) > self.epsilon:
            high *= 1.1
        low = 0.75 * high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.spent(middle, steps) <= self.epsilon else (middle, high)
        return high


def accounting(config: RunConfig, feed: Feed) -> Accounting:
    """Return what the guarantee of a private run depends on; `feed` is that of its training."""
    privacy, samples = config.privacy, feed.disjoint_sequences
    assert privacy.epsilon is not None, "only private runs are accounted for"
    return Accounting(privacy.epsilon, privacy.delta_for(samples), samples, sequences(config) / samples)


def private_steps(task: Task, noise_multiplier: float) -> PrivateSteps:
    """Return what makes the steps of a task private."""
    config = task.config
    return PrivateSteps(
        gradients=SampleGradients(task.model),
        clip=config.privacy.clip,
        noise_multiplier=noise_multiplier,
        sequences=sequences(config),
        micro=micro_batch(config),
        seed=config.seed,
    )


class Privacy(StepCallback):
    """Keeps in checkpoints what a resumed run must go on with: the same noise, and the count of sequences drawn."""

    def __init__(self, progress: Progress, private: PrivateSteps) -> None:
        super().__init__(progress)
        self.private = private

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"noise_multiplier": self.private.noise_multiplier, "sampled": self.private.sampled}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        self.private.noise_multiplier = float(state_dict["noise_multiplier"])
        self.private.sampled = int(state_dict["sampled"])
