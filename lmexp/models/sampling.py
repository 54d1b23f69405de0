"""Continue a text: one token after another, drawn from what the model finds likely."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lmexp.models.base import Decoder
from lmexp.models.replay import Step, decoding_step


@torch.inference_mode()
def sample(
    model: nn.Module,
    prompt: list[int],
    count: int,
    context: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[int]:
    """Yield `count` tokens that continue `prompt` (at least one token).

    A model with a cache reads each token once. Past the context every token moves to another position with
    every step, which makes what is cached worthless: from there on the whole context is read again each time.

    Args:
        context: the most tokens the model can look back on; older ones are dropped.
        temperature: divides the logits, finite; 0 always takes the likeliest token.
        top_k: draw from the k likeliest tokens only.
        top_p: of these, from the fewest that together have this probability (Holtzman et al. 2020, section 3.1).
    """
    dice = torch.Generator().manual_seed(seed)
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    tokens = torch.tensor([prompt], device=device)  # (1, T)
    decoder = model if isinstance(model, Decoder) else None
    cache = decoder.new_cache(1, context) if decoder else None
    step: Step | None = None
    for _ in range(count):
        if decoder and cache and tokens.shape[1] <= context:
            if step is None:
                scores: Tensor = model(tokens, cache, last_only=True)
                step = decoding_step(decoder, cache)
            else:
                scores = step(tokens[:, -1:])
        else:
            scores = model(tokens[:, -context:])
        logits = scores[0, -1].cpu().double()  # (V,); drawn on the CPU, by the same dice wherever the model is
        if temperature == 0:
            chosen = logits.argmax().view(1)
        else:
            if top_k is not None and top_k < len(logits):
                logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
            # Less the largest, so that one next to no temperature does not overflow.
            likely = nucleus(((logits - logits.max()) / temperature).softmax(-1), top_p)
            chosen = torch.multinomial(likely, 1, generator=dice)
        tokens = torch.cat([tokens, chosen.view(1, 1).to(device)], dim=1)
        yield int(chosen)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Return probabilities (V,) with 0 for all but the fewest tokens, the likeliest, that together reach `top_p`.

    The one that gets there is among them, so there always is one; of equally likely tokens the first counts first.
    """
    if top_p >= 1:
        return probabilities
    falling, order = probabilities.sort(descending=True, stable=True)
    reached = falling.cumsum(-1) - falling >= top_p  # by those before it
    return torch.zeros_like(probabilities).scatter(-1, order, falling.masked_fill(reached, 0))
