"""The accounting of differential privacy: how much noise a run needs for its epsilon, and what it has spent.

Opacus computes both, with the accountant of privacy loss random variables (Gopi et al. 2021, arXiv 2106.02848), which
bounds epsilon closely from above: the Rényi accountant that came before it gives the same noise an epsilon that is 10
to 20 % higher. What it is told is the sampling rate, the noise multiplier and the number of steps. It is imported only
for private runs.
"""

import warnings
from dataclasses import dataclass
from functools import lru_cache

from lmexp.config.checks import sequences
from lmexp.config.schema import RunConfig
from lmexp.errors import UserError

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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of logarithms of 0, and of orders; the bound holds
                return float(accountant.get_epsilon(self.delta))
        except ValueError:  # rounding errors would be larger than delta
            raise UserError(
                f"privacy.delta={self.delta:g} is too small: Opacus cannot compute epsilon for it over {steps:,} steps"
            ) from None

    @lru_cache  # noqa: B019  the cells of a sweep share a few settings, and each takes up to two seconds
    def enough_noise(self, steps: int) -> float:
        """Return a noise multiplier with which so many steps spend no more than epsilon, a little above the least one.

        It is that of the Rényi accountant. Raises UserError if no noise is enough, and as `spent` does.
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
        return high

    def noise_multiplier(self, steps: int) -> float:
        """Return the least noise multiplier, to half a percent, with which so many steps spend no more than epsilon.

        The search does not begin at small multipliers, for which the accountant used here is slow. Raises UserError as
        `enough_noise` does.
        """
        high = self.enough_noise(steps)
        low = 0.75 * high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.spent(middle, steps) <= self.epsilon else (middle, high)
        return high


def accounting(config: RunConfig, samples: int) -> Accounting:
    """Return what the guarantee of a private run depends on; `samples` are the sequences of its training text."""
    privacy = config.privacy
    assert privacy.epsilon is not None, "only private runs are accounted for"
    return Accounting(privacy.epsilon, privacy.delta_for(samples), samples, sequences(config) / samples)
