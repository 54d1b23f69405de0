"""Classification: predict one label for a text."""

from collections.abc import Callable, Iterator

from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from lmexp.config.tasks.base import LabelTaskSection
from lmexp.data.feeds import Feed
from lmexp.data.loading import ValidationBatches
from lmexp.tasks.base import Batch, Task, TaskScores
from lmexp.tasks.metrics import Answers


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
        guessed, right = answers().predicted, answers().targets
        assert isinstance(guessed, Tensor) and isinstance(right, Tensor)
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
            {name: float(value) for name, value in values.items()}, {"labels": labels, "confusion": confusion}
        )


def guesses(task: Task, feed: Feed, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the likeliest labels and the targets of all validation samples, a batch at a time, on the CPU.

    Both have the targets' shape.
    """
    with task.at_rest():
        for samples in ValidationBatches(feed, batch):
            with task.as_trained():
                logits, _ = task.predict({name: tensor.to(task.device) for name, tensor in samples.items()})
            right = samples["targets"]
            yield logits.argmax(-1).cpu().view_as(right), right


def labels_of(task: Task) -> list[str]:
    """Return the names of a task's labels, in order."""
    config = task.config.task
    assert isinstance(config, LabelTaskSection)
    return config.known_labels
