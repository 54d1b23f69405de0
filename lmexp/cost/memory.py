"""Memory that a run's tensors take, from the config alone."""

from dataclasses import dataclass

from lmexp.config.schema import AdamConfig, RunConfig
from lmexp.cost.flops import count_model

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training holds throughout; activations come on top."""

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """Their sum, in bytes."""
        return self.weights + self.gradients + self.optimizer


def estimate_memory(config: RunConfig) -> MemoryEstimate:
    """Return the bytes of weights, gradients and optimizer state of a run.

    Adam keeps two moments for each parameter, SGD one with momentum and none without.
    """
    count, precision = count_model(config.model).n_params, config.precision
    moments = 2 if isinstance(config.optim, AdamConfig) else int(config.optim.momentum > 0)
    return MemoryEstimate(
        weights=count * BYTES[precision.weights],
        gradients=count * BYTES[precision.gradients],
        optimizer=count * moments * BYTES[precision.optimizer],
    )
