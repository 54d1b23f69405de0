"""Generation: the continuation of a text, the target of a source, or the labels of a text."""

import math
from collections.abc import Iterable, Iterator

import torch

from lmexp.config.tasks.base import LabelTaskSection
from lmexp.data.feeds import ends_of_pairs
from lmexp.data.scripts import WORD
from lmexp.data.tokenizers.base import Tokenizer
from lmexp.errors import UserError
from lmexp.models.decoding import SourceDecoder, decode
from lmexp.models.labels import LabelModel
from lmexp.models.sampling import sample
from lmexp.train.checkpoint import Loaded


def write(
    loaded: Loaded,
    words: str,
    tokens: int = 100,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    beams: int | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Yield the text that a model generates, piece by piece.

    A decoder continues `words` by at most `tokens` tokens; see sample. The default of `temperature` is 0.8.
    An encoder-decoder writes the target for the source `words`, by beam search; with one beam, the default, greedily.
    A model with a head over labels gives the labels of `words`, the most likely first, one on each line, or a tag for
    each word. In a text without spaces, each character of Chinese or Japanese is a word.

    Raises UserError for an encoder, which cannot continue text, and for options that the model does not support.
    """
    config = loaded.config
    drawing = {"--temperature": temperature, "--top-k": top_k, "--top-p": top_p}
    given = [option for option, value in drawing.items() if value is not None]
    if isinstance(loaded.model, LabelModel):
        return iter(_labels(loaded, loaded.model, words))
    if config.model.reads == "both_ways":
        raise UserError(f"{config.model.name} is an encoder and cannot continue a text: use `lmexp score`")
    if config.model.reads == "source_to_target":
        if given:
            raise UserError(f"{given[0]}: an encoder-decoder does not draw its target; --beams widens its search")
        return iter([_target(loaded, words, tokens, 1 if beams is None else beams)])
    if beams is not None:
        raise UserError("--beams is for encoder-decoders; this model draws, by --temperature, --top-k and --top-p")
    if temperature is not None and not 0 <= temperature < math.inf:
        raise UserError(f"--temperature {temperature:g}: expected a number of at least 0")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"--top-p {top_p:g}: expected a number above 0 and at most 1")
    prompt = [loaded.tokenizer.bos_id, *map(int, loaded.tokenizer.encode(words))]
    heat = 0.8 if temperature is None else temperature
    drawn = sample(loaded.model, prompt, tokens, config.model.context, heat, top_k, top_p or 1.0, seed)
    return _as_text(drawn, loaded.tokenizer)


def _as_text(ids: Iterable[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the text of tokens one by one; a character of several tokens comes when it is complete."""
    shown, seen = "", list[int]()
    text = ""
    for token in ids:
        seen.append(token)
        text = tokenizer.decode(seen)
        if not text.endswith("\ufffd") and text.startswith(shown):
            yield text[len(shown) :]
            shown = text
    if text.startswith(shown) and text != shown:
        yield text[len(shown) :]


def _target(loaded: Loaded, words: str, tokens: int, beams: int) -> str:
    """Return the target for a source."""
    config, model = loaded.config.model, loaded.model
    assert isinstance(model, SourceDecoder)
    if beams < 1:
        raise UserError(f"--beams {beams}: at least 1")
    start, end, source_end = ends_of_pairs(config, loaded.target_tokenizer.bos_id)
    source = [*map(int, loaded.tokenizer.encode(words)), *([] if source_end is None else [source_end])]
    room, key = config.source_limit
    if not 0 < len(source) <= room:
        raise UserError(f"the source has {len(source)} tokens; the model reads 1 to {key}={room}")
    device = next(model.parameters()).device
    sources, starts = torch.tensor([source], device=device), torch.tensor([start], device=device)
    (written,) = decode(model, sources, None, starts, end, min(tokens, config.context), beams)
    return loaded.target_tokenizer.decode(written)


@torch.inference_mode()
def _labels(loaded: Loaded, model: LabelModel, text: str) -> list[str]:
    """Return lines: the labels of a text with their probabilities, the most likely first; or each word with its tag."""
    task, tokenizer = loaded.config.task, loaded.tokenizer
    assert isinstance(task, LabelTaskSection)
    labels = task.known_labels
    # Spaces, if there are any, separate words; a text without spaces, such as a Chinese one, is split into characters.
    words = text.split() if len(text.split()) > 1 else WORD.findall(text)
    if task.per_token:
        ids, starts = tokenizer.encode_words([words])[0]
    else:
        ids, starts = tokenizer.encode(text), None
    context = loaded.config.model.context
    if not 0 < len(ids) < context:
        raise UserError(f"the text has {len(ids)} tokens; the model reads 1 to {context - 1}")
    device = next(model.parameters()).device
    scores = model(torch.tensor([[tokenizer.bos_id, *map(int, ids)]], device=device))[0].cpu()
    if starts is not None:
        tags = [labels[int(scores[1 + int(start)].argmax())] for start in starts]
        return [f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True)]
    likely = sorted(zip(scores.softmax(-1).tolist(), labels, strict=True), reverse=True)
    return [f"{label}\t{probability:.4f}\n" for probability, label in likely]
