"""Write targets to sources: beam search, of which greedy decoding is the case of one beam.

At each step the `beams` likeliest of all continuations stay; one that has ended is set aside. Targets of unequal
length are compared by log P / ((5 + length) / 6)^length_penalty (Wu et al. 2016, equation 14, without its coverage
penalty), the end token counted in both. A search stops when no open target can still get past the best that has ended,
so that a narrow limit on steps never changes what is found.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


class DecodingState(Protocol):
    """What a model keeps of the sources, and of the targets written so far, of B sequences."""

    def select(self, rows: Tensor) -> None:
        """Keep these of the B sequences, in this order, some several times or not at all: (B',) int64."""


@runtime_checkable
class SourceDecoder(Protocol):
    """A model that reads sources once, and then writes targets token by token."""

    def new_state(self, sources: Tensor, source_valid: Tensor | None, capacity: int) -> DecodingState:
        """Read the sources, (B, S) int64 with (B, S) bool, to write up to `capacity` tokens behind each."""

    def next_logits(self, inputs: Tensor, state: DecodingState) -> Tensor:
        """Score the token that follows `inputs`, which follow those of the state: (B, T) int64 -> (B, vocab_size)."""


@torch.inference_mode()
def decode(
    model: SourceDecoder,
    sources: Tensor,
    source_valid: Tensor | None,
    start: Tensor,
    eos: int,
    limit: int,
    beams: int = 1,
    length_penalty: float = 0.6,
) -> list[list[int]]:
    """Return the best target found for each source, without its end token.

    Among equally good ones the shorter wins, then the one with the better beginning, then with the smaller token.

    Args:
        sources, source_valid: (B, S) int64, and bool, False where a token is padding.
        start: (B,) int64, what stands before each target.
        eos: the token that ends a target.
        limit: the most tokens of a target, the end token included; one that has not ended by then is cut.
        length_penalty: 0 compares probabilities alone, which favours short targets.
    """
    batch, device = len(sources), sources.device
    state = model.new_state(sources, source_valid, limit)
    if beams > 1:
        state.select(torch.arange(batch, device=device).repeat_interleave(beams))
    last = start.repeat_interleave(beams)[:, None]  # (B * K, 1)
    targets = sources.new_empty(batch, beams, 0)  # (B, K, length)
    # All beams of a source begin alike, so only the first counts.
    log_p = torch.full((batch, beams), -torch.inf, device=device)
    log_p[:, 0] = 0.0
    finished: list[list[int]] = [[] for _ in range(batch)]
    best = torch.full((batch,), -torch.inf, device=device)
    longest = _penalty(limit, length_penalty)
    for length in range(1, limit + 1):
        scores = model.next_logits(last, state).float().log_softmax(-1)  # (B * K, V)
        scores = scores.nan_to_num(nan=-torch.inf, neginf=-torch.inf)  # a model that diverged writes nothing
        vocab = scores.shape[-1]
        log_p, chosen = _top((log_p.view(-1, 1) + scores).view(batch, -1), beams)  # (B, K)
        beam, token = chosen // vocab, chosen % vocab
        targets = torch.cat([targets.gather(1, beam[..., None].expand_as(targets)), token[..., None]], dim=-1)

        ended = (token == eos) | (length == limit)
        score, which = (log_p / _penalty(length, length_penalty)).masked_fill(~ended, -torch.inf).max(dim=1)
        for row in (score > best).nonzero().flatten().tolist():
            finished[row] = targets[row, which[row]].tolist()
        best = torch.maximum(best, score)
        log_p = log_p.masked_fill(ended, -torch.inf)
        # A longer target is no likelier, and no length is divided by more than the last.
        if (log_p.max(dim=1).values / longest <= best).all():
            break
        if beams > 1:
            state.select((beam + beams * torch.arange(batch, device=device)[:, None]).flatten())
        last = token.view(-1, 1)
    return [target[:-1] if target and target[-1] == eos else target for target in finished]


def _penalty(length: int, alpha: float) -> float:
    return float(((5 + length) / 6) ** alpha)


def _top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest of each row, falling, and where they are: (B, N) -> twice (B, count). Of equals, the first.

    Which of equals `torch.topk` takes is not said.
    """
    least = values.topk(count, dim=1).values[:, -1:]
    above, equal = values > least, values == least
    room = count - above.sum(dim=1, keepdim=True)
    where = (above | equal & (equal.cumsum(dim=1) <= room)).nonzero()[:, 1].view(len(values), count)
    sorted_values, order = values.gather(1, where).sort(dim=1, descending=True, stable=True)
    return sorted_values, where.gather(1, order)
