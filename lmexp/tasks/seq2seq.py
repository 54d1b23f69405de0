"""Sequence to sequence: predict a target text from a source text, and write it."""

from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from lmexp.config.tasks.seq2seq import Seq2SeqConfig
from lmexp.data.example_feeds import Pairs
from lmexp.data.feeds import IGNORED, Feed
from lmexp.models.decoding import SourceDecoder, decode
from lmexp.tasks.base import Batch, Task, TaskScores
from lmexp.tasks.metrics import Answers
from lmexp.tasks.predictions import Prediction


class Seq2Seq(Task):
    """The next token of a target, from its source and the target so far, whatever was predicted of that.

    Batches hold `sources` (B, S) int64, `source_valid` (B, S) bool, False where a token is padding, `inputs` and
    `targets`, both (B, T) int64; an input is the token before its target, the first what starts a target.
    """

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See Task.predict; N = B * T."""
        logits = self.model(batch["sources"], batch["source_valid"], batch["inputs"])  # (B, T, V)
        return logits.flatten(0, 1), batch["targets"].flatten()

    def step_nll(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See Task.step_nll; with label smoothing: a share of each target goes to all tokens alike."""
        smoothing = self.options.label_smoothing
        return F.cross_entropy(
            logits.float(), targets, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing
        )

    def own_scores(self, feed: Feed, batch: int, answers: Callable[[], Answers]) -> TaskScores:
        """Return texts.scores of the targets that are written to sources, and how these come about.

        In details also the first ten, each with its source and its reference.
        """
        from lmexp.tasks import texts  # takes seconds, which only who writes pays

        assert isinstance(feed, Pairs)
        written, references = answers().predicted, answers().targets
        assert isinstance(written, list) and isinstance(references, list)
        sources = feed.store.texts(feed.scored)[:10]
        shown = [
            {"source": source, "written": text, "reference": reference}
            for source, text, reference in zip(sources, written, references, strict=False)
        ]
        about = texts.details(references) | {"texts": len(written), "first": shown}
        return TaskScores(texts.scores(written, references), about, _predictions(feed, written, references))

    def answers(self, feed: Feed, batch: int) -> Answers:
        """Write targets to the first `task.scored` sources, and return them with their references."""
        assert isinstance(feed, Pairs)
        tokenizer, count = feed.store.target_tokenizer(), min(self.options.scored, feed.validation_samples)
        written: list[str] = []
        for first in range(0, count, batch):
            samples = feed.gather(feed.scored, np.arange(first, min(first + batch, count)))
            written += map(tokenizer.decode, self.generate(samples, feed.end, feed.room + 1))
        return Answers(written, list(feed.store.references(feed.scored)[:count]))

    def generate(self, batch: Batch, eos: int, limit: int) -> list[list[int]]:
        """Write a target to each source of a batch: its tokens, without `eos`, which ends it.

        `limit` is the most tokens, the end included. `targets` are not looked at.
        """
        assert isinstance(self.model, SourceDecoder)
        sources, valid, start = (batch[key].to(self.device) for key in ("sources", "source_valid", "inputs"))
        beams, penalty = self.options.beams, self.options.length_penalty
        with self.at_rest(), self.as_trained():
            return decode(self.model, sources, valid, start[:, 0], eos, limit, beams, penalty)

    @property
    def options(self) -> Seq2SeqConfig:
        """The task's part of the config."""
        options = self.config.task
        assert isinstance(options, Seq2SeqConfig)
        return options


def _predictions(feed: Pairs, written: list[str], references: list[str]) -> Iterator[Prediction]:
    """Yield each source with its reference, the text that was written to it, and that text's own scores."""
    from lmexp.tasks import texts

    sources = feed.store.texts(feed.scored)
    for example, (text, reference) in enumerate(zip(written, references, strict=True)):
        yield Prediction(sources[example], reference, text, texts.scores_of_one(text, reference))
