"""What is longer than the context: the same targets are scored whatever the context, or the record says that not."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmexp.config import paths
from lmexp.config.checks import sequences
from lmexp.config.compose import Composer
from lmexp.config.models.count import SCORES
from lmexp.config.schema import RunConfig
from lmexp.cost.flops import count_run, count_shared
from lmexp.data.example_feeds import Labelled, Pairs, _overlapping
from lmexp.data.feeds import IGNORED
from lmexp.data.loading import ValidationBatches
from lmexp.data.open_feed import open_feed
from lmexp.data.prepare import prepare
from lmexp.errors import UserError
from lmexp.models.build import build_model
from lmexp.resolve.inputs import with_store
from lmexp.resolve.sweep import resolve_sweep
from lmexp.tasks.tag import Tag

DEV = "Ada B-PER\nLovelace I-PER\nwrote O\nto O\nCharles B-PER\nBabbage I-PER\n\nRome B-LOC\n"
"""Three spans; the second begins at the 22nd byte of the first sentence."""


def config(folder: Path, *words: str) -> RunConfig:
    return Composer([paths.shipped_root()], words=["tokenizer=byte", "data.truncate=true", *words]).config({})


def tagging(folder: Path, context: int) -> tuple[RunConfig, Labelled]:
    """Return the resolved config and the feed of tagging with a context."""
    for name in ("train", "dev"):
        (folder / f"{name}.conll").write_text(DEV)
    data = ["data=tags", f"data.path={folder}/train.conll", f"data.validation_path={folder}/dev.conll"]
    made = config(folder, "task=tag", "model=bert_nano", f"model.context={context}", *data)
    store = prepare(made, folder / "stores")
    made = with_store(made, store)
    return made, Labelled(store, made)


@given(st.integers(0, 300), st.integers(1, 40))
def test_windows_score_each_token_once_in_order_and_see_it(length, room):
    windows = _overlapping(7, length, room)
    assert [token for _, _, first, end in windows for token in range(first, end)] == list(range(length))
    for example, start, first, end in windows:
        assert example == 7 and start <= first <= end <= start + room
        assert start + room <= max(length, room)
    if length > room >= 4:  # but for the ends of the text, a quarter of a window lies on either side
        inside = [(start, first, end) for _, start, first, end in windows[1:-1]]
        assert all(first - start >= room // 4 and start + room - end >= room // 4 for start, first, end in inside)


@pytest.mark.parametrize("context", [4, 16, 64])
def test_every_tag_is_scored_whatever_the_context(tmp_path, context):
    made, feed = tagging(tmp_path, context)
    batches = [*ValidationBatches(feed, 3)]
    targets = np.concatenate([batch["targets"].numpy().ravel() for batch in batches])
    labels = made.task.known_labels
    scored = [labels[i] for i in targets[targets != IGNORED]]
    assert scored == ["B-PER", "I-PER", "O", "O", "B-PER", "I-PER", "B-LOC"]
    assert all(batch["inputs"].shape[1] == context for batch in batches)
    assert feed.targets_cut == 0.0 and feed.cut == {4: 2, 16: 1, 64: 0}[context]  # in training


@pytest.mark.parametrize("context", [16, 64])
def test_spans_are_counted_over_whole_sentences(tmp_path, context):
    made, feed = tagging(tmp_path, context)
    task = Tag(build_model(made.model, 0, made.task), made)
    spans = task.judge(feed, 2).details["spans"]
    assert (spans["PER"]["spans"], spans["LOC"]["spans"]) == (2, 1)
    predictions = list(task.judge(feed, 2).predictions)
    assert [each.gold for each in predictions] == [["B-PER", "I-PER", "O", "O", "B-PER", "I-PER"], ["B-LOC"]]
    assert all(len(each.input) == len(each.guess) == len(each.scores) == len(each.gold) for each in predictions)


def test_targets_of_pairs_that_are_cut_off_are_counted(tmp_path):
    (tmp_path / "a.tsv").write_text("source\ttarget\n" + "ab\tabcdefgh\nab\tabc\n" * 2)
    data = ["data=pairs", f"data.path={tmp_path}/a.tsv", "data.split=tail", "data.validation=0.5"]
    made = config(tmp_path, "task=seq2seq", "model=encdec_nano", "model.context=6", "model.input_context=8", *data)
    store = prepare(made, tmp_path / "stores")
    feed = Pairs(store, with_store(made, store))
    # Of 8 + 3 tokens and two that end them, three are past the five that the context has room for.
    assert feed.targets_cut == pytest.approx(3 / 13) and feed.text_bytes is None


def test_the_tokens_of_a_window_know_their_document(tmp_path):
    (tmp_path / "a.txt").write_text("ab\ncdef\ng\n" * 40)
    data = ["data=text", f"data.path={tmp_path}/a.txt", "data.document=line", "data.split=tail"]
    words = [*data, "model=gpt_nano", "model.context=16", "task.document_masks=true"]
    made = Composer([paths.shipped_root()], words=["tokenizer=byte", *words]).config({})
    store = prepare(made, tmp_path / "stores")
    feed = open_feed(made, store)
    for batch in (feed.batch(0, 4), *feed.validation(np.arange(feed.validation_samples))):
        begins = (batch["inputs"] == store.bos_id).numpy()
        assert begins.any() and (np.diff(batch["documents"].numpy(), axis=1) == begins[:, 1:]).all()
    plain = made.model_copy(update={"task": made.task.model_copy(update={"document_masks": False})})
    assert set(open_feed(plain, store).batch(0, 1)) == {"inputs", "targets"}


@pytest.mark.parametrize(("words", "width"), [(["model=gpt_nano"], 17), (["task=masked_lm", "model=bert_nano"], 16)])
def test_no_token_is_in_two_of_the_sequences_that_privacy_protects(tmp_path, words, width):
    (tmp_path / "a.txt").write_text("".join(chr(33 + i * i % 90) for i in range(2000)))
    data = ["data=text", f"data.path={tmp_path}/a.txt", "data.split=tail", "tokenizer=byte"]
    made = Composer([paths.shipped_root()], words=[*data, *words, "model.context=16"]).config({})
    store = prepare(made, tmp_path / "stores")
    feed, text = open_feed(made, store), store.array("train")
    assert feed.disjoint_sequences == len(text) // width
    batch = feed.disjoint_batch(np.arange(feed.disjoint_sequences), 0)
    tokens = batch["inputs"].numpy() if width == 17 else np.where(
        batch["targets"] == IGNORED, batch["inputs"], batch["targets"]
    )  # fmt: skip
    grid = text[: feed.disjoint_sequences * width].reshape(-1, width)
    assert (tokens == grid[:, :16]).all()
    if width == 17:
        assert (batch["targets"].numpy() == grid[:, 1:]).all()


def test_documents_are_kept_apart_by_families_that_can(tmp_path):
    words = ["task.document_masks=true", "model=lstm_nano", "model.context=32", "batch.tokens=256", "tokenizer=byte"]
    with pytest.raises(UserError, match="document_masks=true works for models of gpt, llama, moe, and lstm"):
        resolve_sweep(None, words, tmp_path)


@pytest.mark.parametrize("task", ["classify", "seq2seq"])
def test_examples_that_share_a_sequence_have_a_part_of_its_width_and_all_their_tokens(tmp_path, task):
    data = {"classify": ["data=sentiment", "model=bert_nano"], "seq2seq": ["data=reverse", "model=encdec_nano"]}[task]
    tokens, context = {"classify": (1536, 96), "seq2seq": (2048, 64)}[task]
    words = [f"task={task}", *data, "data.count=300", f"model.context={context}", f"batch.tokens={tokens}"]
    words.append("batch.by_length=true")
    made = Composer([paths.shipped_root()], words=["tokenizer=char", *words]).config({})
    store = prepare(made, tmp_path / "stores")
    made = with_store(made, store)
    feed = open_feed(made, store)
    slots = sequences(made)
    seen: list[tuple[int, ...]] = []
    steps = feed.epoch_tokens // tokens
    for step in range(steps):
        batch = feed.batch(step * slots, slots)
        side, valid = ("inputs", "valid") if task == "classify" else ("sources", "source_valid")
        rows, width = batch[side].shape
        assert rows * width == slots * context
        assert feed.targets(step * slots, slots) == (batch["targets"] != IGNORED).sum()
        halves = [feed.batch(step * slots + i, slots // 2)[side] for i in (0, slots // 2)]
        assert torch.equal(torch.cat(halves), batch[side])
        seen += [tuple(row[ok].tolist()) for row, ok in zip(batch[side], batch[valid], strict=True)]
    known = [
        tuple(tokens.tolist()) for tokens in map(store.source("train").__getitem__, range(store.documents("train")))
    ]
    known = [(store.bos_id, *tokens) for tokens in known] if task == "classify" else known
    assert not Counter(seen) - Counter(known) and len(known) - len(seen) < slots
    assert len(feed.parts) > 1 and sum(feed.parts.values()) == steps
    counted, whole = count_shared(made, feed.parts), count_run(made)
    scores = [name for name in whole.parts if name in SCORES]
    mean = sum(of_part / number for number, of_part in feed.parts.items()) / steps
    assert all(counted.parts[name] == pytest.approx(mean * whole.parts[name]) for name in scores)


def test_running_text_has_no_lengths(tmp_path):
    with pytest.raises(UserError, match=r"by_length=true is for pairs, labels and tags"):
        resolve_sweep(None, ["batch.by_length=true", "tokenizer=byte"], tmp_path)


def test_a_test_split_without_a_window_is_refused_before_anything_starts(tmp_path: Path):
    (tmp_path / "text.txt").write_text("some words of a text\n" * 500)
    words = ["data=text", f"data.path={tmp_path}/text.txt", "data.split=tail", "data.test=0.002", "tokenizer=byte"]
    with pytest.raises(UserError, match=r"the test split is shorter than model\.context=64"):
        resolve_sweep(None, ["task=masked_lm", "model=bert_nano", "model.context=64", *words], tmp_path)
