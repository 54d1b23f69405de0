"""What a model writes: the rest of a text, the target of a source, or the labels of one."""

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
    """Yield what a model writes, piece by piece, as it comes.

    A decoder continues `words`, by at most `tokens` tokens; see sample. `temperature` is 0.8 unless it is given.
    An encoder-decoder writes the target of the source `words`, by beam search, greedily with one beam (the default).
    A model with a head over labels gives the likeliest labels of `words`, one a line, or a tag for each word; without
    any space, each character of Chinese or Japanese is one.

    Raises UserError for an encoder, which continues nothing, and for options that do not go with the model.
    """
    config = loaded.config
    drawing = {"--temperature": temperature, "--top-k": top_k, "--top-p": top_p}
    given = [option for option, value in drawing.items() if value is not None]
    if isinstance(loaded.model, LabelModel):
        return iter(_labels(loaded, loaded.model, words))
    if config.model.reads == "both_ways":
        raise UserError(f"{config.model.name} sees both ways and continues no text: `lmexp score` says what it thinks")
    if config.model.reads == "source_to_target":
        if given:
            raise UserError(f"{given[0]}: an encoder-decoder writes its likeliest target; --beams widens the search")
        return iter([_target(loaded, words, tokens, 1 if beams is None else beams)])
    if beams is not None:
        raise UserError("--beams is for encoder-decoders; this model draws, by --temperature, --top-k and --top-p")
    if temperature is not None and not 0 <= temperature < math.inf:
        raise UserError(f"--temperature {temperature:g}: a number from 0 on")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"--top-p {top_p:g}: more than 0, and 1 at most")
    prompt = [loaded.tokenizer.bos_id, *map(int, loaded.tokenizer.encode(words))]
    heat = 0.8 if temperature is None else temperature
    drawn = sample(loaded.model, prompt, tokens, config.model.context, heat, top_k, top_p or 1.0, seed)
    return _as_text(drawn, loaded.tokenizer)


def _as_text(ids: Iterable[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the text of ids as they come; a character can take several, and is given out once it is whole."""
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
    """Return the target that is written to a source."""
    config, model = loaded.config.model, loaded.model
    assert isinstance(model, SourceDecoder)
    if beams < 1:
        raise UserError(f"--beams {beams}: at least 1")
    start, end, source_end = ends_of_pairs(config, loaded.target_tokenizer.bos_id)
    source = [*map(int, loaded.tokenizer.encode(words)), *([] if source_end is None else [source_end])]
    room, key = config.source_limit
    if not 0 < len(source) <= room:
        raise UserError(f"the source has {len(source)} tokens; from 1 to {key}={room} can be read")
    sources, starts = torch.tensor([source]), torch.tensor([start])
    (written,) = decode(model, sources, None, starts, end, min(tokens, config.context), beams)
    return loaded.target_tokenizer.decode(written)


@torch.inference_mode()
def _labels(loaded: Loaded, model: LabelModel, text: str) -> list[str]:
    """Return lines: a text's labels with their probabilities, the likeliest first; or each word with its tag."""
    task, tokenizer = loaded.config.task, loaded.tokenizer
    assert isinstance(task, LabelTaskSection)
    labels = task.known_labels
    # Who puts spaces says what the words are; a text of Chinese or Japanese without any is cut into characters.
    words = text.split() if len(text.split()) > 1 else WORD.findall(text)
    if task.per_token:
        ids, starts = tokenizer.encode_words([words])[0]
    else:
        ids, starts = tokenizer.encode(text), None
    context = loaded.config.model.context
    if not 0 < len(ids) < context:
        raise UserError(f"the text has {len(ids)} tokens; from 1 to {context - 1} can be read")
    scores = model(torch.tensor([[tokenizer.bos_id, *map(int, ids)]]))[0]
    if starts is not None:
        tags = [labels[int(scores[1 + int(start)].argmax())] for start in starts]
        return [f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True)]
    likely = sorted(zip(scores.softmax(-1).tolist(), labels, strict=True), reverse=True)
    return [f"{label}\t{probability:.4f}\n" for probability, label in likely]
