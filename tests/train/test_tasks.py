"""Every task and family as a run: its scores in the record, the same wherever it is trained or goes on."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir
from lmexp.tasks.spans import count_spans, total
from lmexp.train.worker import main
from tests.command import start_process
from tests.train import disturbed
from tests.train.test_ranks import column
from tests.train.test_sharded import FSDP
from tests.train.together import train_together

COMMON = [
    "model.d_model=16",
    "batch.tokens=1536",
    "budget.tokens=15360",  # 10 steps
    "trainer.log_every=1",
    "launcher.threads=1",
    "tokenizer=char",
]
TASKS = {
    "classify": ["task=classify", "data=sentiment", "data.count=200", "model=bert_nano", "model.context=96"],
    "tag": ["task=tag", "data=roles", "data.count=200", "model=lstm_nano", "model.context=96"],
    "seq2seq": ["task=seq2seq", "data=reverse", "data.count=400", "model=encdec_nano", "model.context=16"],
    "recurrent seq2seq": [
        "task=seq2seq", "data=reverse", "data.count=400", "model=lstm_encdec_nano", "model.context=16",
    ],
    "masked_lm": ["task=masked_lm", "model=bert_nano", "model.context=32"],
    "moe": [
        "model=moe_nano", "model.context=32", "data=markov", "data.alphabet=5", "data.documents=300",
        "data.document_length=60",
    ],
    "hf": [
        "model=hf_config", "model.model_type=gpt2", "model.context=32", "+model.config.n_embd=16",
        "+model.config.n_layer=1", "+model.config.n_head=2",
    ],
}  # fmt: skip
SCORES = {
    "classify": {"accuracy", "precision_macro", "recall_macro", "f1_macro", "f1_micro"},
    "tag": {"span_precision", "span_recall", "span_f1"},
    "seq2seq": {"bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match"},
}
Train = Callable[..., RunDir]


@pytest.fixture(scope="module")
def train(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train what TASKS names with these overrides; the same only once."""
    done: dict[tuple[str, ...], RunDir] = {}

    def run(name: str, *words: str) -> RunDir:
        key = (name, *words)
        if key not in done:
            done[key] = made = make(text, tmp_path_factory.mktemp("tasks"), name, *words)
            if "trainer.devices=2" in words:
                train_together(made.path)
            else:
                assert main(made.path) == 0, made.read_state().reason
        return done[key]

    return run


def make(text: Path, folder: Path, name: str, *words: str) -> RunDir:
    given = [word for word in COMMON if name != "hf" or not word.startswith("model.")]
    of_text = [] if "data=" in " ".join(TASKS[name]) else ["data=text", f"data.path={text}", "data.document=paragraph"]
    (planned,) = resolve_sweep(None, [*given, *of_text, *TASKS[name], *words], folder / "outputs").runs
    return RunDir.create(planned.run.path, planned.config)


@pytest.mark.parametrize("name", SCORES)
def test_the_record_holds_the_tasks_scores_and_the_folder_their_details(train: Train, name: str):
    run = train(name)
    (row,) = run.read_record()
    scores = {key.split("/")[-1]: value for key, value in row.items() if key.startswith(f"score/{name}/")}
    assert set(scores) == SCORES[name] and all(0 <= value <= 100 for value in scores.values())
    kept = json.loads((run.path / "scores.json").read_text())[name]
    assert kept["scores"] == pytest.approx(scores) and kept["details"]
    if name == "classify":  # of one label a text, the share of right ones by two ways of counting
        assert scores["accuracy"] == row["accuracy"] == kept["scores"]["accuracy"]  # to the last digit
        assert row["majority_accuracy"] <= row["bag_of_words_accuracy"] <= 1


@pytest.mark.parametrize("name", SCORES)
def test_predictions_lead_to_the_scores(train: Train, name: str):
    run = train(name)
    (row,) = run.read_record()
    lines = [json.loads(line) for line in (run.path / "predictions.jsonl").read_text().split("\n")[:-1]]
    if name == "classify":
        assert [max(line["scores"], key=line["scores"].get) for line in lines] == [line["guess"] for line in lines]
        right = [line["guess"] == line["gold"] for line in lines]
        assert sum(right) / len(lines) == pytest.approx(row["accuracy"])
        nll = [-math.log(line["scores"][line["gold"]]) for line in lines]
        assert sum(nll) / len(lines) == pytest.approx(row["loss"], abs=1e-4)
        assert all(line["input"].endswith(".") for line in lines)
    elif name == "tag":
        assert all(len({len(of) for of in line.values()}) == 1 and line["input"][-1] == "." for line in lines)
        found = total(count_spans((line["gold"], line["guess"]) for line in lines).values())
        assert found.f1 == pytest.approx(row["score/tag/span_f1"])
    else:
        assert len(lines) == min(200, len(lines)) and all(line["gold"] == line["input"][::-1] for line in lines)
        exact = [line["scores"]["exact_match"] for line in lines]
        assert sum(exact) / len(lines) == pytest.approx(row["score/seq2seq/exact_match"])


def test_labels_have_no_perplexity_and_a_text_has_no_scores_besides_its_loss(train: Train):
    label, text = train("tag").read_record()[0], train("moe").read_record()[0]
    assert label["perplexity"] is None and label["bits_per_byte"] is None and label["loss"] > 0
    assert text["perplexity"] > 1 and not any(name.startswith("score/") for name in text)
    assert label["loss_floor"] is None and 0.5 < text["loss_floor"] < text["loss"]  # its process is known
    assert train("masked_lm").read_record()[0]["bits_per_byte"] is None  # only some tokens are predicted


@pytest.mark.parametrize(
    "name",
    [
        "seq2seq",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("recurrent seq2seq", "tag", "masked_lm", "moe")),
    ],
)
def test_a_run_that_stops_and_goes_on_is_an_undisturbed_one(train: Train, text: Path, tmp_path: Path, name: str):
    whole = train(name)
    parts = make(text, tmp_path, name)
    start_process(disturbed.main, parts.path, "a signal", 0, 4).join(120)
    assert parts.read_state().state != "done"
    assert main(parts.path) == 0
    assert column(parts.path, "train_loss") == column(whole.path, "train_loss")
    assert parts.read_record()[0]["loss"] == whole.read_record()[0]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seq2seq", "recurrent seq2seq", "tag"])
def test_weights_shared_by_two_processes_train_and_score_as_those_of_one(train: Train, name: str):
    alone, shared = train(name, "model.dropout=0"), train(name, "model.dropout=0", *FSDP)
    one, two = alone.read_record()[0], shared.read_record()[0]
    assert column(shared.path, "train_loss") == pytest.approx(column(alone.path, "train_loss"), rel=1e-5)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    task = name.split()[-1]
    for metric in SCORES[task]:
        assert two[f"score/{task}/{metric}"] == pytest.approx(one[f"score/{task}/{metric}"], abs=1e-6)


def test_short_examples_that_share_sequences_cost_what_is_computed(train: Train):
    (alone,), (shared,) = train("tag").read_record(), train("tag", "batch.by_length=true").read_record()
    assert shared["tokens"] == alone["tokens"] and shared["epochs"] > 1.2 * alone["epochs"]
    assert shared["train_flops"] == pytest.approx(shared["flops_per_token"] * shared["tokens"])
    # An LSTM's depend on the length only because its first step multiplies no state.
    assert 0.999 * alone["flops_per_token"] < shared["flops_per_token"] < alone["flops_per_token"]


@pytest.mark.parametrize("words", [(), ("batch.by_length=true",)])
def test_batches_of_unequal_targets_weigh_every_target_alike(train: Train, words: tuple[str, ...]):
    """Sentences differ in words: a mean of means over micro-batches would differ from the mean."""
    whole, cut = train("tag", *words), train("tag", "batch.micro=4", *words)
    assert column(cut.path, "train_loss") == pytest.approx(column(whole.path, "train_loss"), rel=1e-5)
    assert torch.tensor(column(cut.path, "grad_norm")).allclose(
        torch.tensor(column(whole.path, "grad_norm")), rtol=1e-3
    )
