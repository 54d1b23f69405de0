"""Generation: the continuation of a text, the target of a source, or the labels of a text."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch

from lmexp.config.tasks.base import LabelTaskSection
from lmexp.data.example_feeds import ends_of_pairs
from lmexp.data.scripts import WORD
from lmexp.data.tokenizers.base import Tokenizer
from lmexp.errors import UserError
from lmexp.inference.subject import end_ids
from lmexp.models.decoding import SourceDecoder, decode
from lmexp.models.labels import LabelModel
from lmexp.models.sampling import sample
from lmexp.tasks.classify import DIGITS
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
    stop: Sequence[str] | None = None,
    no_stop: bool = False,
) -> Iterator[str]:
    """Yield the text that a model generates, piece by piece.

    A decoder continues `words` by at most `tokens` tokens; see sample. The default of `temperature` is 0.8. The text
    ends where the document does, unless `no_stop`, or before the first of the texts in `stop`.
    An encoder-decoder writes the target for the source `words`, by beam search; with one beam, the default, greedily.
    A model with a head over labels gives the labels of `words`, the most likely first, one on each line, or a tag for
    each word. In a text without spaces, each character of Chinese or Japanese is a word.

    Raises UserError for an encoder, which cannot continue text, and for options that the model does not support.
    """
    config = loaded.config
    drawing = {"--temperature": temperature, "--top-k": top_k, "--top-p": top_p}
    given = [option for option, value in drawing.items() if value is not None]
    stopping = {"--stop": stop or None, "--no-stop": no_stop or None}
    if isinstance(loaded.model, LabelModel):
        _check_labels(drawing | stopping | {"--beams": beams})
        return iter(_labels(loaded, loaded.model, words))
    if config.model.reads == "both_ways":
        raise UserError(f"{config.model.name} is an encoder and cannot continue a text: use `lmexp score`")
    if config.model.reads == "source_to_target":
        if idle := [option for option, value in stopping.items() if value is not None]:
            raise UserError(f"{idle[0]} is for models that continue a text")
        if given:
            raise UserError(f"{given[0]}: an encoder-decoder does not draw its target; --beams widens its search")
        return iter([_target(loaded, words, tokens, 1 if beams is None else beams)])
    if beams is not None:
        raise UserError("--beams is for encoder-decoders; this model draws, by --temperature, --top-k and --top-p")
    _check_drawing(temperature, top_p)
    prompt = [loaded.tokenizer.bos_id, *map(int, loaded.tokenizer.encode(words))]
    heat = 0.8 if temperature is None else temperature
    drawn: Iterable[int] = sample(loaded.model, prompt, tokens, config.model.context, heat, top_k, top_p or 1.0, seed)
    if not no_stop:
        ends = end_ids(loaded)
        drawn = takewhile(lambda token: token not in ends, drawn)
    return _up_to(_as_text(drawn, loaded.tokenizer), [each for each in stop or () if each])


def _check_labels(options: Mapping[str, Any]) -> None:
    """Raise UserError for the first option that is given: a head over labels writes no text."""
    for option, value in options.items():
        if value is not None:
            raise UserError(f"{option}: a model with a head over labels writes no text")


def _check_drawing(temperature: float | None, top_p: float | None) -> None:
    """Raise UserError for a number that no draw can go by."""
    if temperature is not None and not 0 <= temperature < math.inf:
        raise UserError(f"--temperature {temperature:g}: expected a number of at least 0")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"--top-p {top_p:g}: expected a number above 0 and at most 1")


def _up_to(pieces: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """Yield pieces of a text up to the first stop in it; what may be the beginning of one is held back."""
    held = ""
    for piece in pieces:
        held += piece
        places = [place for stop in stops if (place := held.find(stop)) >= 0]
        if places:
            yield held[: min(places)]
            return
        begun = max((n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        ready, held = held[: len(held) - begun], held[len(held) - begun :]
        if ready:
            yield ready
    if held:
        yield held


def predict(loaded: Loaded, words: str, **options: Any) -> dict[str, Any]:
    """Return `input`, `guess` and, of a model with a head over labels, `scores`, as predictions.jsonl has them.

    `options` are those of `write`, and so are the errors.
    """
    if isinstance(loaded.model, LabelModel):
        unused = ("temperature", "top_k", "top_p", "beams", "stop", "no_stop")
        _check_labels(
            {f"--{name.replace('_', '-')}": given for name in unused if (given := options.get(name)) is not False}
        )
        return _predicted(loaded, loaded.model, words)
    return {"input": words, "guess": "".join(write(loaded, words, **options))}


def predict_lines(loaded: Loaded, file: str, lines: Iterable[str], **options: Any) -> Iterator[dict[str, Any]]:
    """Yield what `predict` returns for each line that is not blank. Raises UserError with the number of the line."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield predict(loaded, line, **options)
            except UserError as error:
                raise UserError(f"--file {file}, line {number}: {error}") from None


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


def _labels(loaded: Loaded, model: LabelModel, text: str) -> list[str]:
    """Return lines: the labels of a text with their probabilities, the most likely first; or each word with its tag."""
    known = _predicted(loaded, model, text)
    if isinstance(known["guess"], list):
        return [f"{word}\t{tag}\n" for word, tag in zip(known["input"], known["guess"], strict=True)]
    likely = sorted(((share, label) for label, share in known["scores"].items()), reverse=True)
    return [f"{label}\t{share:.4f}\n" for share, label in likely]


@torch.inference_mode()
def _predicted(loaded: Loaded, model: LabelModel, text: str) -> dict[str, Any]:
    """Return what a model with a head over labels predicts of a text; see `predict`."""
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
    logits = model(torch.tensor([[tokenizer.bos_id, *map(int, ids)]], device=device))[0].float().cpu()
    shares = logits.softmax(-1)  # (labels,), or (1 + tokens, labels)
    if starts is not None:
        of_words = shares[[1 + int(start) for start in starts]].max(-1)
        tags = [labels[i] for i in of_words.indices.tolist()]
        return {"input": words, "guess": tags, "scores": _rounded(of_words.values)}
    return {
        "input": text,
        "guess": labels[int(shares.argmax())],
        "scores": dict(zip(labels, _rounded(shares), strict=True)),
    }


def _rounded(shares: torch.Tensor) -> list[float]:
    return [round(share, DIGITS) for share in shares.tolist()]
