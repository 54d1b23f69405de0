"""Masked language modelling: predict tokens that are hidden, from all others."""

import torch
from torch import Tensor

from lmexp.models.base import LanguageModel
from lmexp.tasks.base import Batch, Task


class MaskedLM(Task):
    """The tokens at hidden positions (Devlin et al. 2018, section 3.1).

    Batches hold `inputs` (B, T) int64, with the mask or another token where one is hidden, and `targets` (B, T)
    int64, IGNORED where nothing is to be predicted.
    """

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See Task.predict; N = B * T: every position is scored, as its FLOPs are counted."""
        logits = self.model(batch["inputs"])  # (B, T, V)
        return logits.flatten(0, 1), batch["targets"].flatten()

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See Task.features."""
        return self.model(batch["inputs"], features_only=True).flatten(0, 1), batch["targets"].flatten()


@torch.no_grad()
def pseudo_log_likelihood(
    model: LanguageModel, tokens: list[int], mask_id: int, bos_id: int, batch: int = 64
) -> list[float]:
    """Return the log-probability of each token given all others, in nats.

    Each is hidden in turn (Salazar et al. 2020, section 2.1); the sum is the sentence's pseudo-log-likelihood.

    Args:
        model: one that sees both ways; it is left in the mode it was in.
        tokens: the sentence; `bos_id`, which begins a document, is put before it and not scored.
        mask_id: the token that stands in for the hidden one.
        batch: how many copies of the sentence are read at a time; changes nothing but time and memory.

    Raises ValueError when the sentence, `bos_id` included, is longer than the model's context.
    """
    device = next(model.parameters()).device
    sentence = torch.tensor([bos_id, *tokens], device=device)
    hidden_positions = torch.arange(1, len(sentence), device=device)
    was_training = model.training
    model.eval()
    scores: list[float] = []
    try:
        for positions in hidden_positions.split(batch):
            rows = torch.arange(len(positions), device=device)
            inputs = sentence.repeat(len(positions), 1)  # (B, T)
            inputs[rows, positions] = mask_id
            logits = model.logits(model.hidden(inputs)[rows, positions])  # (B, V)
            each = logits.float().log_softmax(-1).gather(1, sentence[positions, None])
            scores += each.flatten().tolist()
    finally:
        model.train(was_training)
    return scores
