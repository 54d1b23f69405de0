"""Classification: predict one label for a text."""

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor

from lmexp.config.tasks.base import LabelTaskSection
from lmexp.data.example_feeds import Labelled
from lmexp.data.feeds import IGNORED, Feed
from lmexp.data.loading import ValidationBatches
from lmexp.tasks.base import Batch, Task, TaskScores
from lmexp.tasks.metrics import Answers, LabelAnswers
from lmexp.tasks.predictions import Prediction

DIGITS = 6
"""Decimals of a probability in predictions.jsonl."""


class Classify(Task):
    """One label for each text.

    Batches hold `inputs` (B, T) int64, `valid` (B, T) bool, False where a token is padding, and `targets` (B,) int64.
    """

    predicts_text = False

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See Task.predict; N = B."""
        return self.model(batch["inputs"], batch["valid"]), batch["targets"]

    def own_scores(self, feed: Feed, batch: int, answers: Callable[[], Answers]) -> TaskScores:
        """Return accuracy, precision, recall and F1 over all texts, and the confusion matrix.

        Macro means each label's own, averaged over the labels that occur or are guessed; 0 stands for 0 / 0. With one
        label a text, micro F1 equals accuracy. In details, `confusion[i][j]` texts of `labels[i]` were taken for
        `labels[j]`.
        """
        known = answers()
        assert isinstance(known, LabelAnswers)
        labels = labels_of(self)
        cells = known.targets * len(labels) + known.predicted
        confusion = cells.bincount(minlength=len(labels) ** 2).view(len(labels), len(labels))
        details = {"labels": labels, "confusion": confusion.tolist()}
        return TaskScores(scores_of(confusion), details, self._predictions(feed, known))

    def answers(self, feed: Feed, batch: int) -> LabelAnswers:
        """See Task.answers; with the probability of every label."""
        return label_answers(self, feed, batch, all_probabilities=True)

    def _predictions(self, feed: Feed, answers: LabelAnswers) -> Iterator[Prediction]:
        """Yield each text with its label, the predicted one and the probability of every label."""
        labels = labels_of(self)
        texts = cast(Labelled, feed).store.texts(feed.scored)
        rows = zip(answers.targets.tolist(), answers.predicted.tolist(), answers.probabilities.tolist(), strict=True)
        for example, (right, guessed, probabilities) in enumerate(rows):
            shares = {label: round(share, DIGITS) for label, share in zip(labels, probabilities, strict=True)}
            yield Prediction(texts[example], labels[right], labels[guessed], shares)


def scores_of(confusion: Tensor) -> dict[str, float]:
    """Return the scores of a confusion matrix, (labels, labels) int64 with a row for each right label, in float64."""
    counts = confusion.double()
    right, guessed, both = counts.sum(1), counts.sum(0), counts.diagonal()
    is_known = (right + guessed) > 0
    accuracy = float(both.sum() / counts.sum())

    def macro(part: Tensor, whole: Tensor) -> float:
        return float((part / whole.clamp(min=1))[is_known].mean())

    return {
        "accuracy": accuracy,
        "precision_macro": macro(both, guessed),
        "recall_macro": macro(both, right),
        "f1_macro": macro(2 * both, right + guessed),
        "f1_micro": accuracy,
    }


def label_answers(task: Task, feed: Feed, batch: int, all_probabilities: bool) -> LabelAnswers:
    """Return the likeliest label of everything in the scored split that has one, on the CPU.

    `all_probabilities` keeps those of all labels, not only that of the likeliest.
    """
    predicted, right, probabilities, sizes = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
    with task.at_rest():
        for samples in ValidationBatches(feed, batch):
            with task.as_trained():
                logits, targets = task.predict({name: value.to(task.device) for name, value in samples.items()})
            has_target = targets != IGNORED
            guessed, shares = logits[has_target].argmax(-1), logits[has_target].float().softmax(-1)
            predicted.append(guessed.cpu())
            right.append(targets[has_target].cpu())
            probabilities.append((shares if all_probabilities else shares.gather(1, guessed[:, None])[:, 0]).cpu())
            sizes.append(has_target.view(len(samples["targets"]), -1).sum(1).cpu())
    return LabelAnswers(torch.cat(predicted), torch.cat(right), torch.cat(probabilities), torch.cat(sizes))


def labels_of(task: Task) -> list[str]:
    """Return the names of a task's labels, in order."""
    config = task.config.task
    assert isinstance(config, LabelTaskSection)
    return config.known_labels
