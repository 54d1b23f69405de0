"""The `privacy` section: differentially private training, and what its guarantee depends on besides the config.

The unit of the guarantee is one training sequence. The training text is cut into sequences on a fixed grid, and no
token is in two of them. Each optimizer step takes each sequence with the same probability (Poisson sampling), clips the
gradient of each sequence, and adds Gaussian noise to their sum (Abadi et al. 2016, algorithm 1).
"""

from typing import Annotated

from pydantic import Field

from lmexp.config.base import Section

DELTA_EXPONENT = 1.1
"""Unless delta is set, it is 1 / (training sequences) ** 1.1, which is less than 1 / (training sequences)."""


class PrivacyConfig(Section):
    """Differentially private training (DP-SGD); off unless `epsilon` is set."""

    epsilon: Annotated[float, Field(ge=0.05, le=100)] | None = None
    """The most that the whole run may spend; null means training without privacy."""
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Probability that the guarantee of epsilon does not hold; null means 1 / (training sequences) ** 1.1."""
    clip: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    """What the norm of the gradient of one sequence is clipped to; the loss of a sequence is the mean over its
    targets. Beyond these bounds the noise, or its square in Adam, leaves the range of fp32."""

    @property
    def is_on(self) -> bool:
        """Whether the run is trained with differential privacy."""
        return self.epsilon is not None

    def delta_for(self, samples: int) -> float:
        """Return the delta of a run whose training text has so many sequences."""
        return samples**-DELTA_EXPONENT if self.delta is None else self.delta
