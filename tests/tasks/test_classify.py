"""Classification: the scores are those of a hand's count, however the texts are cut into batches."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchmetrics.functional import classification

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.tasks.classify import ClassifyConfig
from lmexp.errors import UserError
from lmexp.models.build import build_model
from lmexp.tasks.base import Batch
from lmexp.tasks.classify import Classify
from tests.models.test_bert import padded
from tests.models.test_bert import tiny as tiny_bert
from tests.models.test_gpt import tiny as tiny_gpt
from tests.tasks.held import Held

CONFIG = Composer([paths.shipped_root()]).config({})


def config_of(labels: list[str], **changes: object) -> ClassifyConfig:
    return ClassifyConfig.model_validate({"_target_": "lmexp.tasks.classify.Classify", "labels": labels, **changes})


class Says(nn.Module):
    """Takes a text for the label that its first token is the number of."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        return nn.functional.one_hot(tokens[:, 0], self.count).float()


def task_of(labels: list[str]) -> Classify:
    return Classify(Says(len(labels)), CONFIG.model_copy(update={"task": config_of(labels)}))


def batch_of(guessed: list[int], right: list[int]) -> Batch:
    inputs = torch.tensor(guessed)[:, None].repeat(1, 4)
    return {"inputs": inputs, "valid": torch.ones_like(inputs, dtype=torch.bool), "targets": torch.tensor(right)}


# Ten texts: of 5 that are good 3 are found, of 3 that are bad 2, of 2 that are so-so 1; nothing is odd.
LABELS = ["good", "bad", "so-so", "odd"]
RIGHT = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]
GUESSED = [0, 0, 0, 1, 2, 1, 1, 0, 2, 0]
PRECISION, RECALL = [3 / 5, 2 / 3, 1 / 2], [3 / 5, 2 / 3, 1 / 2]
BY_HAND = {
    "accuracy": 6 / 10,
    "precision_macro": sum(PRECISION) / 3,
    "recall_macro": sum(RECALL) / 3,
    "f1_macro": sum(2 * p * r / (p + r) for p, r in zip(PRECISION, RECALL, strict=True)) / 3,
    "f1_micro": 6 / 10,
}


def test_scores_are_those_counted_by_hand():
    assert task_of(LABELS).judge(Held(batch_of(GUESSED, RIGHT)), 4).scores == pytest.approx(BY_HAND, abs=1e-6)


@given(st.integers(2, 6), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
@settings(max_examples=30)
def test_scores_are_those_of_torchmetrics(count: int, answers: list[tuple[int, int]]):
    right, guessed = (torch.tensor([pair[side] % count for pair in answers]) for side in (0, 1))
    ours = task_of([str(i) for i in range(count)]).judge(Held(batch_of(guessed.tolist(), right.tolist())), 7)
    theirs = {
        "accuracy": classification.multiclass_accuracy(guessed, right, count, average="micro"),
        "precision_macro": classification.multiclass_precision(guessed, right, count, average="macro"),
        "recall_macro": classification.multiclass_recall(guessed, right, count, average="macro"),
        "f1_macro": classification.multiclass_f1_score(guessed, right, count, average="macro"),
        "f1_micro": classification.multiclass_f1_score(guessed, right, count, average="micro"),
    }
    assert ours.scores == pytest.approx({name: float(value) for name, value in theirs.items()}, abs=1e-6)
    assert ours.details["confusion"] == classification.multiclass_confusion_matrix(guessed, right, count).tolist()
    assert ours.scores["accuracy"] == (guessed == right).sum().item() / len(right)  # to the last digit


def test_precision_and_recall_are_not_each_other():
    # Two labels: all but one are taken for the first. Precision (2/3, 1), recall (1, 1/2), F1 (4/5, 2/3).
    scores = task_of(["no", "yes"]).judge(Held(batch_of([0, 0, 0, 1], [0, 0, 1, 1])), 4).scores
    macro = {"precision_macro": 5 / 6, "recall_macro": 3 / 4, "f1_macro": 11 / 15}
    assert scores == pytest.approx({"accuracy": 3 / 4, "f1_micro": 3 / 4, **macro}, abs=1e-6)


def test_the_confusion_matrix_has_a_row_for_each_right_label():
    details = task_of(LABELS).judge(Held(batch_of(GUESSED, RIGHT)), 4).details
    assert details == {"labels": LABELS, "confusion": [[3, 1, 1, 0], [1, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]}
    assert json.loads(json.dumps(details)) == details


@pytest.mark.parametrize("batch", range(1, 12))
def test_scores_do_not_depend_on_the_batches(batch: int):
    feed = Held(batch_of(GUESSED, RIGHT))
    judged = task_of(LABELS).judge(feed, batch)
    assert judged.scores == pytest.approx(BY_HAND, abs=1e-6)
    assert judged.details == task_of(LABELS).judge(feed, 10).details


def test_weights_of_labels_multiply_the_training_loss_and_not_that_of_validation():
    task = Classify(
        Says(4), CONFIG.model_copy(update={"task": config_of(LABELS, class_weights={"bad": 3.0, "odd": 0.5})})
    )
    batch = batch_of(GUESSED, RIGHT)
    logits, targets = task.predict(batch)
    each = nn.functional.cross_entropy(logits, targets, reduction="none")
    expected = (each * torch.tensor([1.0, 3.0, 1.0, 0.5])[targets]).sum()
    assert torch.allclose(task.step_nll(logits, targets), expected)
    assert task.evaluate([batch], None) == task_of(LABELS).evaluate([batch], None)


def test_balanced_weights_have_a_mean_of_1_and_labels_that_are_not_there_are_refused():
    def resolved(weights: object) -> object:
        section = ClassifyConfig.model_validate({"_target_": "lmexp.tasks.classify.Classify", "class_weights": weights})
        return section.with_labels(["a", "b", "c"], lambda: [60, 30, 10]).class_weights

    balanced = resolved("balanced")
    assert balanced == pytest.approx({"a": 100 / 180, "b": 100 / 90, "c": 100 / 30})
    assert resolved({"b": 2.0}) == {"b": 2.0} and resolved(None) is None
    with pytest.raises(UserError, match=r"task\.class_weights\.bb: the data have no such label"):
        resolved({"bb": 2.0})
    for wrong in ("balance", {"a": 0}, {"a": True}):
        with pytest.raises(ValueError, match="class_weights"):
            resolved(wrong)


def test_scoring_is_without_dropout_and_leaves_the_model_as_it_was():
    config = config_of(LABELS)
    model = build_model(tiny_bert(dropout=0.5), 0, config)
    task = Classify(model, CONFIG.model_copy(update={"task": config})).train()
    inputs = torch.randint(61, (64, 16), generator=torch.Generator().manual_seed(0))
    batch = {"inputs": inputs, "valid": torch.ones_like(inputs, dtype=torch.bool), "targets": inputs[:, 0] % 4}
    first, again = task.judge(Held(batch), 7), task.judge(Held(batch), 7)
    assert first == again and task.training
    assert first.scores["accuracy"] == pytest.approx(task.evaluate([batch], None).accuracy, abs=1e-6)


@pytest.mark.parametrize(
    ("family", "pooling"),
    [
        ("bert", None),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in (("bert", "mean"), ("gpt", None), ("gpt", "mean"))),
    ],
)
def test_a_label_is_learnt_from_texts_of_unequal_lengths(family: str, pooling: str | None):
    config = config_of(["without", "with"], pooling=pooling)
    model = build_model({"bert": tiny_bert(dropout=0.0), "gpt": tiny_gpt()}[family], 0, config)
    task = Classify(model, CONFIG.model_copy(update={"task": config}))
    dice = torch.Generator().manual_seed(0)
    # Whether token 7 is somewhere in the text. The padding is that token too, so reading it would mislead.
    inputs = torch.randint(8, 60, (64, 16), generator=dice)
    valid = padded(torch.randint(4, 17, (64,), generator=dice).tolist(), 16)
    right = torch.arange(64) % 2
    inputs[right.bool(), torch.randint(1, 4, (32,), generator=dice)] = 7
    inputs[~valid] = 7
    batch = {"inputs": inputs, "valid": valid, "targets": right, "step_targets": torch.tensor(64)}
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for step in range(300):
        loss = task.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert task.judge(Held(batch), 50).scores["f1_macro"] == 1
