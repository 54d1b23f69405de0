"""A causal model of lmexp with the interface of lm-eval.

lm-eval needs three things from a model: the probability of a text after another one, the probability of a text by
itself, and a continuation of a text. Two choices: every text starts with the token that starts a document, as in
training (lm-eval's own models do this with add_bos_token=True), and a text longer than the context is cut on the left.
"""

import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from lmexp.errors import UserError
from lmexp.inference.subject import end_ids
from lmexp.messages import Say
from lmexp.models.base import LanguageModel
from lmexp.models.sampling import sample
from lmexp.train.checkpoint import Loaded

IS_HERE = find_spec("lm_eval") is not None
if IS_HERE:
    from lm_eval.api.model import LM
else:
    LM = object

SEED = 1234
"""The seed of lm-eval, for the examples in prompts and for sampling."""
BATCH = 16
"""Sequences in a batch."""
DEFAULT_NEW_TOKENS = 256
"""New tokens for a task that sets no number; the default of lm-eval."""
PROGRESS_SECONDS = 10.0
"""Seconds between two messages on progress."""


class Window(NamedTuple):
    """A sequence whose last tokens are scored, each after all earlier ones."""

    owner: int
    """The position of its request."""
    tokens: list[int]
    scored: int
    """How many tokens at the end are scored: at least one, and never the first."""


@dataclass(frozen=True)
class Writing:
    """How a task wants texts to be generated."""

    until: tuple[str, ...]
    """Strings that end a text; it is cut before the first one."""
    most: int
    """New tokens at most."""
    temperature: float
    """0 always takes the most likely token."""
    top_k: int | None
    top_p: float

    @classmethod
    def of(cls, wanted: dict[str, Any]) -> "Writing":
        """Read `generation_kwargs` as lm-eval does. Raises UserError for an option that is not supported."""
        known = {key: value for key, value in wanted.items() if value is not None}
        until = known.pop("until", ())
        counts = [known.pop(key, None) for key in ("max_gen_toks", "max_new_tokens", "max_tokens")]
        counts += [known.pop("max_completion_tokens", None), DEFAULT_NEW_TOKENS]
        draws = known.pop("do_sample", None)
        temperature = float(known.pop("temperature", 1.0 if draws else 0.0))
        top_k, top_p = int(known.pop("top_k", 0)), float(known.pop("top_p", 1.0))
        if known.get("num_beams") == 1:
            del known["num_beams"]
        if known:
            raise UserError(f"generation_kwargs.{next(iter(known))} is not supported")
        if not 0 < top_p <= 1 or temperature < 0 or top_k < 0:
            raise UserError(f"generation_kwargs: temperature={temperature:g}, top_k={top_k}, top_p={top_p:g}")
        return cls(
            until=tuple(text for text in ([until] if isinstance(until, str) else until) if text),
            most=int(next(count for count in counts if count is not None)),
            temperature=0.0 if draws is False else temperature,
            top_k=top_k or None,
            top_p=top_p,
        )


class HarnessModel(LM):  # type: ignore[misc,unused-ignore]
    """A causal model of lmexp with the interface of lm-eval.

    Requests are lm-eval's Instances, and answers are in their order.
    """

    def __init__(self, loaded: Loaded, batch: int = BATCH, say: Say = lambda line: None) -> None:
        """Raises UserError for a model that does not predict each token from those before it."""
        super().__init__()
        config = loaded.config
        if not (
            config.model.reads == "left_to_right"
            and config.task.head == "vocabulary"
            and isinstance(loaded.model, LanguageModel)
        ):
            raise UserError(
                f"lm-eval's tasks need a model that predicts each token from those before it, and this one "
                f"is of model={config.model.name} task={config.task.name}"
            )
        self.model: LanguageModel = loaded.model
        self.tokenizer = loaded.tokenizer
        self.context, self.batch, self.say = config.model.context, batch, say
        self.ends: Set[int] = end_ids(loaded)
        """Tokens that end a generated text."""
        self._device = next(loaded.model.parameters()).device

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return how likely each continuation is after its context: the log-probability, and whether all its tokens
        are the model's first choice.
        """
        pairs = [self.encode_pair(*request.args) for request in requests]
        windows = [w for owner, pair in enumerate(pairs) for w in self._windows(owner, *pair)]
        long = sum(len(context) + len(text) > self.context + 1 for context, text in pairs)
        if long:
            self.say(f"lm-eval: {long:,} of {len(pairs):,} texts are cut on the left to a context of {self.context}")
        return self._scores(windows, len(pairs))

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each text as a document: every token once, with as much before it as fits."""
        start = [self.tokenizer.bos_id]
        texts = [self._encode(request.args[0]) for request in requests]
        windows = [w for owner, text in enumerate(texts) for w in self._windows(owner, start, text)]
        return [total for total, _ in self._scores(windows, len(texts))]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the text that the model generates after each context."""
        written, progress = [], self._progress(len(requests), "texts")
        for place, request in enumerate(requests):
            context, wanted = request.args
            written.append(self._write(context, Writing.of(wanted), SEED + place))
            progress(1)
        return written

    def encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Return the tokens of a context, which begins a document, and of what follows it.

        As in lm-eval, spaces between the two belong to the continuation, and its tokens are those that it has in the
        whole: the first may be another than by itself.
        """
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        before = self._encode(context)
        after = self._encode(context + continuation)[len(before) :]
        if not after:  # one token spells both
            after = self._encode(continuation)
        return [self.tokenizer.bos_id, *before], after

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text).tolist()
        return ids

    def _windows(self, owner: int, context: list[int], continuation: list[int]) -> Iterator[Window]:
        """Cut a continuation into parts that fit, each with as much of what is before it as fits too."""
        tokens = context + continuation
        for end in range(len(context), len(tokens), self.context):
            stop = min(end + self.context, len(tokens))
            yield Window(owner, tokens[max(0, stop - self.context - 1) : stop], stop - end)

    @torch.inference_mode()
    def _scores(self, windows: list[Window], count: int) -> list[tuple[float, bool]]:
        """Return for each of `count` owners the sum of its windows, and whether all tokens are the first choice."""
        totals, greedy = [0.0] * count, [True] * count
        progress = self._progress(len(windows), "sequences")
        by_length = sorted(windows, key=lambda window: -len(window.tokens))  # little padding, and the largest first
        for start in range(0, len(by_length), self.batch):
            group = by_length[start : start + self.batch]
            # Padding comes last, where no token that is scored looks.
            inputs = torch.zeros(len(group), len(group[0].tokens) - 1, dtype=torch.int64)
            for row, window in zip(inputs, group, strict=True):
                row[: len(window.tokens) - 1] = torch.tensor(window.tokens[:-1])
            hidden = self.model.hidden(inputs.to(self._device))  # (B, T, C)
            for states, window in zip(hidden, group, strict=True):
                length, scored = len(window.tokens) - 1, window.scored
                scores = self.model.logits(states[length - scored : length]).float()  # (scored, V)
                targets = torch.tensor(window.tokens[-scored:], device=self._device)
                likely = scores.log_softmax(-1).gather(-1, targets.unsqueeze(-1))
                totals[window.owner] += float(likely.cpu().sum(dtype=torch.float64))
                greedy[window.owner] &= bool((scores.argmax(-1) == targets).all())
            progress(len(group))
        return list(zip(totals, greedy, strict=True))

    def _write(self, context: str, how: Writing, seed: int) -> str:
        """Continue a context until the model ends the document, the text holds what ends it, or there is enough.

        As in lm-eval, a prompt leaves room for what is written; where the whole context has not that much, the prompt
        keeps the context, and its oldest tokens make way one by one.
        """
        prompt = [self.tokenizer.bos_id, *self._encode(context)]
        if len(prompt) + how.most > self.context:
            prompt = prompt[-(self.context - how.most if how.most < self.context else self.context) :]
        ids: list[int] = []
        for token in sample(self.model, prompt, how.most, self.context, how.temperature, how.top_k, how.top_p, seed):
            if token in self.ends:
                break
            ids.append(token)
            if how.until and any(stop in self.tokenizer.decode(ids) for stop in how.until):
                break
        text = self.tokenizer.decode(ids)
        return text[: min((text.find(stop) for stop in how.until if stop in text), default=None)]

    def _progress(self, total: int, what: str) -> Callable[[int], None]:
        """Return a function that counts what is done and reports it from time to time."""
        done, said = 0, time.monotonic()

        def add(more: int) -> None:
            nonlocal done, said
            done += more
            if time.monotonic() - said > PROGRESS_SECONDS and done < total:
                said = time.monotonic()
                self.say(f"lm-eval: {done:,} of {total:,} {what}")

        return add
