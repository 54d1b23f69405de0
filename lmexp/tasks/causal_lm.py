"""Causal language modelling: predict each token from those before it."""

import torch
from torch import Tensor

from lmexp.tasks.base import QUARTERS, Batch, Task


class CausalLM(Task):
    """Next-token prediction.

    Batches hold `inputs` and `targets`, both (B, T) int64, and `documents` where documents are kept apart.
    """

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See Task.predict; N = B * T, and every position has a target."""
        return self._read(batch), batch["targets"].flatten()

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See Task.features."""
        return self._read(batch, features_only=True), batch["targets"].flatten()

    def quarters(self, batch: Batch) -> Tensor | None:
        """See Task.quarters; a subclass that predicts something else has none."""
        if type(self).predict is not CausalLM.predict:
            return None
        rows, length = batch["targets"].shape
        of_position = torch.arange(length, device=batch["targets"].device) * QUARTERS // self.config.model.context
        return of_position.clamp(max=QUARTERS - 1).repeat(rows)

    def _read(self, batch: Batch, **options: bool) -> Tensor:
        """Pass the inputs through the model: (N, V), or what `options` ask for."""
        given = {name: batch[name] for name in ("documents",) if name in batch}
        read: Tensor = self.model(batch["inputs"], **given, **options)
        return read.flatten(0, 1)
