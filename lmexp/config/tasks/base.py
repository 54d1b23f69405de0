"""What the section of every task has, and says of the task; the tasks' own modules lie beside this one."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field

from lmexp.config.base import Positive, Section
from lmexp.config.models.base import Reads
from lmexp.config.models.count import LabelHead
from lmexp.errors import UserError, nearest

Holds = Literal["text", "pairs", "labels", "tags"]
"""What a data source holds: running text, pairs of texts, texts with one label each, sentences with tagged words."""
Pooling = Literal["first", "last", "mean"]
"""Which hidden states a head over labels reads a sequence's label off."""


class MetricConfig(Section):
    """A score of the user's own: a function of predictions and targets, or a class like torchmetrics' Metric.

    All other keys are arguments: of the function beside those two, or of the class.
    """

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    target: str = Field(alias="_target_")
    name: str | None = None
    """The metric's name in `score/<task>/<name>`; null means the last part of `_target_`, in small letters."""

    @property
    def label(self) -> str:
        """The metric's name, resolved."""
        return self.name or self.target.rsplit(".", 1)[-1].lower()

    @property
    def arguments(self) -> dict[str, Any]:
        """The other keys."""
        return dict(self.model_extra or {})


class TaskSection(Section):
    """A task's part of the config, and all that is to be known of the task without torch."""

    reads: ClassVar[tuple[Reads, ...]] = ("left_to_right",)
    """How a model may read to be fit for the task, the usual way first."""
    holds: ClassVar[Holds] = "text"
    """What the task's data are."""
    head: ClassVar[Literal["vocabulary", "labels"]] = "vocabulary"
    """What the model scores: the tokens of its vocabulary, or labels of the data."""
    has_loss_of_each_sequence: ClassVar[bool] = False
    """Whether the loss is a sum over training sequences of a text, each with as many targets, as privacy needs it."""
    main_score: ClassVar[str | None] = None
    """The one of the task's own scores that tables show beside the loss; null: it has none."""

    target: str = Field(alias="_target_")
    name: str
    """The task's name, as in tables and in `score/<name>/<metric>`."""
    metrics: list[MetricConfig] = []
    """Scores of your own, computed at the end of training and by `lmexp eval`."""

    @property
    def hidden_share(self) -> float | None:
        """Share of a text's tokens that are hidden from the model and predicted; None: each predicts the next."""
        return None

    @property
    def predicts_next(self) -> bool:
        """Whether the model gives the probability of a text, token after token, each from those before it."""
        is_text = self.holds == "text" and self.head == "vocabulary"
        return is_text and self.reads == ("left_to_right",) and self.hidden_share is None

    @property
    def masks_documents(self) -> bool:
        """Whether the documents of a sequence do not see each other."""
        return False

    def label_head(self) -> LabelHead | None:
        """Return the head over labels that the model needs; None: one over its vocabulary."""
        return None

    def with_labels(self, labels: list[str], counts: Callable[[], list[int]]) -> Self:
        """Fill in the labels of the training split. Raises UserError when there are too few for the task.

        `counts` returns how many targets of the training split have each label.
        """
        return self


class LabelTaskSection(TaskSection):
    """A task whose model scores labels: one for a whole text, or one for each position."""

    reads: ClassVar[tuple[Reads, ...]] = ("both_ways", "left_to_right")
    holds: ClassVar[Holds] = "labels"
    head: ClassVar[Literal["vocabulary", "labels"]] = "labels"
    per_token: ClassVar[bool] = False
    """Whether each position has a label of its own."""

    labels: list[str] | None = None
    """The labels of the training split, in order; filled in when the config is resolved."""
    class_weights: Literal["balanced"] | dict[str, Positive] | None = None
    """What the training loss of each label is multiplied by; a label that is not named has 1. `balanced` weighs each
    label inversely to its count in the training split, with a mean of 1 over its targets, and is resolved to numbers.
    The validation loss has no weights."""

    @property
    def known_labels(self) -> list[str]:
        """The labels, which must be resolved. Raises ValueError when they are not."""
        if self.labels is None:
            raise ValueError("the labels must be resolved before a model is built or counted")
        return self.labels

    def label_head(self) -> LabelHead:
        """See TaskSection."""
        return LabelHead(len(self.known_labels), self.per_token)

    def with_labels(self, labels: list[str], counts: Callable[[], list[int]]) -> Self:
        """See TaskSection; weights become numbers. Raises UserError also for a weight of a label that is not there."""
        if len(labels) < 2:
            raise UserError(f"all examples have the label {labels[0]!r}: there is nothing to tell apart")
        weights = self.class_weights
        if weights == "balanced":
            each = [max(count, 1) for count in counts()]
            mean = sum(each) / len(labels)
            weights = {label: mean / count for label, count in zip(labels, each, strict=True)}
        for label in weights or ():
            if label not in labels:
                raise UserError(f"task.class_weights.{label}: the data have no such label.{nearest(label, labels)}")
        return self.model_copy(update={"labels": list(labels), "class_weights": weights})

    def weights_of_labels(self) -> list[float]:
        """Return the weight of each label, in their order; the weights must be resolved."""
        assert isinstance(self.class_weights, dict), "weights are resolved with the labels"
        return [self.class_weights.get(label, 1.0) for label in self.known_labels]

    def pooling_of(self, reads: Reads) -> Pooling | None:
        """Return which states of a model that reads so a text's label is read off; None: each position its own."""
        if self.per_token:
            return None
        return "first" if reads == "both_ways" else "last"
