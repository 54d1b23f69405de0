"""Tagging: spans by the rules of CoNLL's scorer, counted over sentences, wherever their words' tokens stand."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_f1_score

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.tasks.tag import TagConfig
from lmexp.models.build import build_model
from lmexp.tasks.base import IGNORED, Batch
from lmexp.tasks.metrics import LabelAnswers
from lmexp.tasks.spans import Found, count_spans, spans, total
from lmexp.tasks.tag import Tag, word_scores
from tests.models.test_bert import padded
from tests.models.test_bert import tiny as tiny_bert
from tests.tasks.held import Held

CONFIG = Composer([paths.shipped_root()]).config({})
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("", []),
        ("O O", []),
        ("B-PER", [("PER", 0, 1)]),
        ("O B-PER I-PER O", [("PER", 1, 3)]),
        ("B-PER I-PER", [("PER", 0, 2)]),
        ("B-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("B-PER I-PER B-PER I-PER", [("PER", 0, 2), ("PER", 2, 4)]),
        ("B-PER B-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)]),
        # Not IOB2, but a model may say so: an I after something else begins a span.
        ("I-PER", [("PER", 0, 1)]),
        ("O I-PER I-PER", [("PER", 1, 3)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)]),
        ("B-PER O I-PER", [("PER", 0, 1), ("PER", 2, 3)]),
        ("I-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        # Semantic roles have hyphens of their own.
        ("B-C-ARG1 I-C-ARG1 B-ARG1", [("C-ARG1", 0, 2), ("ARG1", 2, 3)]),
    ],
)
def test_spans_are_those_of_conlls_scorer(tags: str, expected: list):
    assert spans(tags.split()) == expected


@pytest.mark.parametrize("tag", ["PER", "S-PER", "E-PER", "B", "B-", "o", "O-PER"])
def test_a_tag_of_another_scheme_is_refused(tag: str):
    with pytest.raises(ValueError, match=f"'{tag}' is no IOB2 tag"):
        spans(["O", tag])


def test_a_span_counts_where_its_type_and_both_its_ends_are_right():
    right = ["B-PER", "I-PER", "O", "B-LOC", "O", "B-PER"]
    for guessed, both in {
        "B-PER I-PER O B-LOC O B-PER": 3,
        "B-PER O O B-LOC O B-PER": 2,  # too short
        "B-PER I-PER I-PER B-LOC O B-PER": 2,  # too long
        "B-PER I-PER O B-PER O B-PER": 2,  # of another type
        "O B-PER O B-LOC O B-PER": 2,  # begins too late
        "O O O O O O": 0,
    }.items():
        assert total(count_spans([(right, guessed.split())]).values()).both == both


def test_spans_of_one_sentence_are_not_found_in_another():
    sentences = [(["B-PER", "O"], ["O", "O"]), (["O", "O"], ["B-PER", "O"])]
    assert count_spans(sentences) == {"PER": Found(right=1, guessed=1, both=0)}


def test_a_span_ends_with_its_sentence():
    tags = ["B-PER"], ["I-PER"]
    assert count_spans((row, row) for row in tags) == {"PER": Found(2, 2, 2)}


def test_what_cannot_be_divided_is_0():
    nothing = Found(0, 0, 0)
    assert (nothing.precision, nothing.recall, nothing.f1) == (0, 0, 0)


TAGS = st.lists(st.sampled_from(["O", "O", "B-A", "I-A", "B-B", "I-B", "B-R-A", "I-R-A"]), min_size=1, max_size=12)


@settings(max_examples=200)
@given(sentences=st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=5))
def test_scores_are_those_of_seqeval(sentences: list):
    metrics = pytest.importorskip("seqeval.metrics.sequence_labeling")
    pairs = [(a[: len(b)], b[: len(a)]) for a, b in sentences]
    right, guessed = ([pair[side] for pair in pairs] for side in (0, 1))
    found = count_spans(pairs)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(right, guessed, average="micro", zero_division=0)
    ours = total(found.values())
    assert (ours.precision, ours.recall, ours.f1) == pytest.approx((precision, recall, f1))
    each = metrics.precision_recall_fscore_support(right, guessed, average=None, zero_division=0)
    assert [f.f1 for f in found.values()] == pytest.approx(list(each[2]))
    assert [f.right for f in found.values()] == list(each[3])


# the task


class Says(nn.Module):
    """Takes each position for the tag that its token is the number of."""

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        return nn.functional.one_hot(tokens, len(LABELS)).float()


def task_of(model: nn.Module) -> Tag:
    config = TagConfig.model_validate({"_target_": "lmexp.tasks.tag.Tag", "labels": LABELS})
    return Tag(model, CONFIG.model_copy(update={"task": config}))


# Right and guessed tags of four sentences: 4 PER of which 2 are found among 3; 2 LOC of which 1 among 3.
SENTENCES = [
    ("B-PER I-PER O", "B-PER I-PER O"),
    ("O B-LOC B-PER O O", "O B-LOC B-LOC O O"),
    ("B-PER O B-LOC I-LOC", "B-PER O B-LOC O"),
    ("B-PER I-PER", "O I-PER"),
]
PRECISION, RECALL = 3 / 6, 3 / 6
PER = {"precision": 2 / 3, "recall": 2 / 4, "f1": 4 / 7, "spans": 4, "guessed": 3}
LOC = {"precision": 1 / 3, "recall": 1 / 2, "f1": 2 / 5, "spans": 2, "guessed": 3}


def batch_of(sentences: list[tuple[str, str]]) -> Batch:
    """Each word takes two tokens after one that begins the text; the second one's guess is to be ignored."""
    inputs = torch.full((len(sentences), 12), LABELS.index("B-PER"))
    targets, valid = torch.full_like(inputs, IGNORED), torch.zeros_like(inputs, dtype=torch.bool)
    for row, (right, guessed) in enumerate(sentences):
        for word, tags in enumerate(zip(right.split(), guessed.split(), strict=True)):
            targets[row, 1 + 2 * word], inputs[row, 1 + 2 * word] = (LABELS.index(tag) for tag in tags)
        valid[row, : 1 + 2 * len(right.split())] = True
    return {"inputs": inputs, "valid": valid, "targets": targets}


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_scores_are_those_counted_by_hand_however_sentences_are_cut_into_batches(batch: int):
    scores = task_of(Says()).judge(Held(batch_of(SENTENCES)), batch).scores
    assert scores == pytest.approx({"span_precision": PRECISION, "span_recall": RECALL, "span_f1": 1 / 2})


def test_details_name_each_type():
    details = task_of(Says()).judge(Held(batch_of(SENTENCES)), 4).details
    assert list(details["spans"]) == ["LOC", "PER"]
    assert details["spans"]["PER"] == pytest.approx(PER)
    assert details["spans"]["LOC"] == pytest.approx(LOC)
    assert json.loads(json.dumps(details)) == details


def test_the_loss_is_of_words_alone():
    quality = task_of(Says()).evaluate([batch_of(SENTENCES)], None)
    assert quality.tokens == 14
    assert quality.accuracy == 11 / 14


def test_spans_are_learnt_from_sentences_of_unequal_lengths():
    config = TagConfig.model_validate({"_target_": "lmexp.tasks.tag.Tag", "labels": LABELS})
    task = task_of(build_model(tiny_bert(dropout=0.0), 0, config))
    dice = torch.Generator().manual_seed(0)
    # A name is two words, the first of 10 to 19; what it names is said by the second, below 40 or not.
    inputs = torch.randint(20, 60, (64, 16), generator=dice)
    valid = padded(torch.randint(4, 17, (64,), generator=dice).tolist(), 16)
    inputs[torch.arange(64), torch.randint(1, 3, (64,), generator=dice)] = torch.randint(10, 20, (64,), generator=dice)
    begins = (inputs[:, :-1] < 20) & valid[:, :-1]
    kind = 2 * (inputs[:, 1:] >= 40)
    targets = torch.zeros_like(inputs)
    targets[:, :-1][begins] = 1 + kind[begins]
    targets[:, 1:][begins] = 2 + kind[begins]
    targets = targets.masked_fill(~valid, IGNORED)
    batch = {"inputs": inputs, "valid": valid, "targets": targets, "step_targets": valid.sum()}
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    for step in range(150):
        loss = task.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert task.judge(Held(batch), 50).scores["span_f1"] == 1


def test_tags_of_single_words_have_an_accuracy_and_the_mean_f1_of_tags():
    right, guessed = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 2, 2, 0])
    nothing = torch.zeros(0)
    answers = LabelAnswers(predicted=guessed, targets=right, probabilities=nothing, sizes=nothing)
    scores, details = word_scores(answers, ["ADJ", "NOUN", "VERB", "X"])
    expected = multiclass_f1_score(guessed, right, 3, average=None)
    assert scores["tag_accuracy"] == pytest.approx(4 / 6)
    assert scores["tag_f1_macro"] == pytest.approx(float(expected.mean()))
    assert [of["f1"] for of in details["tags"].values()] == pytest.approx(expected.tolist())
    assert details["tags"]["VERB"] | {"f1": 0} == {"precision": 1.0, "recall": 2 / 3, "f1": 0, "words": 3, "guessed": 2}
