"""Classification: predict one label for a text."""

from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from lmexp.config.tasks.base import LabelTaskSection
from lmexp.data.feeds import IGNORED, Feed, Labelled
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
        """Return accuracy, precision, recall and F1 over all texts, by torchmetrics, and the confusion matrix.

        Macro means each label's own, averaged over the labels that occur or are guessed; 0 stands for 0 / 0. With one
        label a text, micro F1 equals accuracy. In details, `confusion[i][j]` texts of `labels[i]` were taken for
        `labels[j]`.
        """
        known = answers()
        assert isinstance(known, LabelAnswers)
        guessed, right = known.predicted, known.targets
        labels = labels_of(self)
        count = len(labels)
        values = {
            "accuracy": multiclass_accuracy(guessed, right, count, average="micro"),
            "precision_macro": multiclass_precision(guessed, right, count, average="macro"),
            "recall_macro": multiclass_recall(guessed, right, count, average="macro"),
            "f1_macro": multiclass_f1_score(guessed, right, count, average="macro"),
            "f1_micro": multiclass_f1_score(guessed, right, count, average="micro"),
        }
        confusion = multiclass_confusion_matrix(guessed, right, count).tolist()
        return TaskScores(
            {name: float(value) for name, value in values.items()},
            {"labels": labels, "confusion": confusion},
            self._predictions(feed, known),
        )

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
