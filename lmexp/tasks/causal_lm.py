"""Causal language modelling: predict each token from those before it."""

from torch import Tensor

from lmexp.tasks.base import Batch, Task


class CausalLM(Task):
    """Next-token prediction.

    Batches hold `inputs` and `targets`, both (B, T) int64, and `documents` where documents are kept apart.
    """

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See Task.predict; N = B * T, and every position has a target."""
        given = {name: batch[name] for name in ("documents",) if name in batch}
        logits = self.model(batch["inputs"], **given)  # (B, T, V)
        return logits.flatten(0, 1), batch["targets"].flatten()
