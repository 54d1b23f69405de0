"""Quality found out later: the number that training found, on other data, in other precisions."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from lmexp.config.scoring import Scoring
from lmexp.cost.device import detect
from lmexp.errors import UserError
from lmexp.inference import subject
from lmexp.inference.evaluate import evaluate
from lmexp.inference.generate import write
from lmexp.inference.score import score
from lmexp.inference.subject import load_subject
from lmexp.papers.paper import Evaluation
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.directory import RunDir
from lmexp.study.evaluations import evaluate_runs, plan_evaluations
from lmexp.study.run import RunResult
from lmexp.tasks.base import Quality
from lmexp.tasks.causal_lm import CausalLM
from lmexp.train.worker import main

COMMON = ["model.d_model=16", "batch.tokens=768", "budget.tokens=7680", "launcher.threads=1", "trainer.log_every=5"]
RUNS = {
    "lm": ["model=gpt_nano", "model.context=32", "tokenizer=bpe", "tokenizer.vocab_size=300", "data.test=0.1"],
    "masked": ["model=bert_nano", "model.context=32", "task=masked_lm", "tokenizer=wordpiece"],
    "labels": [
        "model=bert_nano",
        "model.context=96",
        "task=classify",
        "data=sentiment",
        "data.count=200",
        "batch.by_length=true",
    ],
    "tags": ["model=gpt_nano", "model.context=96", "task=tag", "data=roles", "data.count=200", "tokenizer=char"],
    "pairs": [
        "model=encdec_nano",
        "model.context=16",
        "task=seq2seq",
        "data=reverse",
        "data.count=300",
        "data.test=0.1",
    ],
}


@pytest.fixture(scope="module")
def outputs(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with a finished run of each kind, each in a folder of its name."""
    outputs = tmp_path_factory.mktemp("outputs")
    for name, words in RUNS.items():
        of_text = [] if "task=classify" in words or "data.count" in " ".join(words) else ["data=text"]
        of_text += [f"data.path={text}", "data.document=paragraph"] if of_text else []
        plain = [] if any(word.startswith("tokenizer") for word in words) else ["tokenizer=byte"]
        size = ["tokenizer.vocab_size=101"] if name == "masked" else []
        (planned,) = resolve_sweep(None, [*COMMON, *of_text, *plain, *words, *size], outputs, name=name).runs
        run = RunDir.create(planned.run.path, planned.config)
        assert main(run.path) == 0, run.read_state().reason
    return outputs


def run_of(outputs: Path, name: str) -> RunDir:
    return RunDir(next((outputs / name).glob("*/config.yaml")).parent)


@pytest.mark.parametrize("name", RUNS)
def test_a_finished_run_has_the_quality_that_its_training_found(outputs: Path, name: str):
    run = run_of(outputs, name)
    before = json.loads((run.path / "record.json").read_text())["rows"][0]
    found = evaluate(str(run.path), [], outputs)
    assert found["scores"]["loss"] == pytest.approx(before["loss"], abs=1e-6)
    assert found["scores"]["accuracy"] == pytest.approx(before["accuracy"], abs=1e-6)
    for metric, value in found["scores"].items():
        if (column := f"score/{before['task']}/{metric}") in before:
            assert value == pytest.approx(before[column], abs=1e-6)
    (row,) = run.read_record()
    assert row[f"score/{before['task']}/loss"] == found["scores"]["loss"]
    assert {name: row[name] for name in before if not name.startswith("score/")} == {
        name: value for name, value in before.items() if not name.startswith("score/")
    }


@pytest.mark.parametrize("name", ["lm", "pairs"])
def test_the_test_split_is_scored_at_the_end_and_by_eval_alike(outputs: Path, name: str):
    run = run_of(outputs, name)
    record = json.loads((run.path / "record.json").read_text())["rows"][0]
    of_test = {column: value for column, value in record.items() if column.startswith(f"score/{record['task']}-test/")}
    assert (
        len(of_test) == {"lm": 5, "pairs": 10}[name] and of_test[f"score/{record['task']}-test/loss"] != record["loss"]
    )
    evaluated = evaluate(str(run.path), [], outputs, scoring=Scoring(split="test"))
    assert evaluated["about"]["test_fingerprint"] == record["test_fingerprint"] != record["validation_fingerprint"]
    for metric, value in evaluated["scores"].items():
        assert value == pytest.approx(of_test[f"score/{record['task']}-test/{metric}"], abs=1e-6)
    assert len(evaluated["scores"]) == len(of_test)
    assert sum("loss" in point for point in run.read_curve()) == sum(
        "perplexity" in point for point in run.read_curve()
    )


def test_a_file_of_text_is_scored_whole_as_the_test_split_under_a_name_of_its_own(outputs: Path, text: Path):
    (text.parent / "few.txt").write_text("one red bird sat on our mat")
    words = [f"data.test_path={text.parent}/few.txt", "data.test=0"]
    evaluated = evaluate(str(run_of(outputs, "lm").path), words, outputs, scoring=Scoring(split="test"))
    fingerprint = evaluated["about"]["test_fingerprint"]
    assert evaluated["name"] == f"causal_lm-on-{fingerprint[:6]}" and evaluated["about"]["split"] == "test"
    with pytest.raises(UserError, match="the data have no test split"):
        evaluate(str(run_of(outputs, "masked").path), [], outputs, scoring=Scoring(split="test"))


def test_other_data_are_cut_by_the_runs_own_tokenizer(outputs: Path, tmp_path: Path):
    (tmp_path / "other.txt").write_text("\n".join(f"one red bird and {i} cats sat on our mat" for i in range(400)))
    words = ["data=text", f"data.path={tmp_path}/other.txt", "data.document=line", "data.validation=0.5"]
    found = evaluate(f"{run_of(outputs, 'lm').path}", words, outputs, scoring=Scoring(name="birds"))
    row = run_of(outputs, "lm").read_record()[0]
    assert row["score/birds/loss"] == found["scores"]["loss"] != row["loss"]
    nameless = evaluate(f"{run_of(outputs, 'lm').path}", words, outputs)["name"]
    assert nameless == f"causal_lm-on-{found['about']['validation_fingerprint'][:6]}"  # not the run's own scores
    assert run_of(outputs, "lm").read_record()[0].get("score/causal_lm/loss") in (None, pytest.approx(row["loss"]))
    assert found["scores"]["bits_per_byte"] > 0 and found["about"]["data"]["path"].endswith("other.txt")


def test_a_file_of_examples_is_scored_whole_also_where_it_lacks_a_label(outputs: Path, tmp_path: Path):
    (tmp_path / "test.csv").write_text("text,label\n" + "the food is good,positive\n" * 3 + "it is bad,negative\n")
    (tmp_path / "one.csv").write_text("text,label\n" + "".join(f"the food is good {i},positive\n" for i in range(30)))
    words = ["data=labels", f"data.path={tmp_path}/test.csv", f"data.validation_path={tmp_path}/one.csv"]
    found = evaluate(f"{run_of(outputs, 'labels').path}", words, outputs, scoring=Scoring(name="mine"))
    assert found["about"]["samples"] == 30
    assert sum(map(sum, found["details"]["confusion"])) == 30 and found["details"]["confusion"][0] == [0, 0]


def test_labels_go_by_their_names_whatever_the_order_in_the_file(outputs: Path, tmp_path: Path):
    run = run_of(outputs, "tags")
    config = run.read_config()
    known = config.task.labels
    assert known[0] == "O" and "B-V" in known
    (tmp_path / "few.conll").write_text("She O\nslept B-V\n\n" * 20 + "He O\nran B-V\n\n" * 20)
    words = ["data=tags", f"data.path={tmp_path}/few.conll", f"data.validation_path={tmp_path}/few.conll"]
    with pytest.raises(UserError, match="is not among"):  # capitals, which its characters do not have
        evaluate(str(run.path), words, outputs, scoring=Scoring(name="few"))
    (tmp_path / "few.conll").write_text("the O\ncook B-V\n\n" * 20)
    found = evaluate(str(run.path), words, outputs, scoring=Scoring(name="few"))
    spans = found["details"]["spans"]
    assert spans["V"]["spans"] == 20 and sum(of["spans"] for of in spans.values()) == 20


def test_fewer_samples_or_another_precision_have_names_of_their_own(outputs: Path):
    path = str(run_of(outputs, "lm").path)
    whole, few = evaluate(path, [], outputs), evaluate(path, [], outputs, scoring=Scoring(examples=3))
    assert few["name"] == "causal_lm-first3" and few["about"]["targets"] == 3 * 32 < whole["about"]["targets"]
    half = evaluate(path, [], outputs, scoring=Scoring(precision="bf16"))
    assert half["name"] == "causal_lm-bf16"
    assert 0 < abs(half["scores"]["loss"] - whole["scores"]["loss"]) < 0.02


def result_of(run: RunDir, state: Literal["done", "failed"] = "done") -> RunResult:
    return RunResult(run.name, run.path, state, None, {}, (), is_failure=state == "failed", failed_metrics={})


def test_evaluations_of_a_paper_are_made_once_and_one_that_fails_leaves_the_others(outputs: Path, tmp_path: Path):
    lm, lines = run_of(outputs, "lm"), []
    broken = RunDir(tmp_path / "broken")
    shutil.copytree(lm.path, broken.path, ignore=shutil.ignore_patterns("scores.json", "*.safetensors"))
    results = [result_of(broken), result_of(run_of(outputs, "masked"), "failed"), result_of(lm)]
    wanted = [Evaluation(precision="bf16", examples=2), Evaluation(name="few", examples=4)]
    failed = evaluate_runs(results, wanted, outputs, None, lines.append)
    assert [(of.run, of.evaluation) for of in failed] == [
        (broken.name, "precision bf16, examples 2"),
        (broken.name, "name few, examples 4"),
    ]
    (row,) = lm.read_record()
    assert row["score/causal_lm-bf16-first2/loss"] > 0 and row["score/few-first4/loss"] > 0
    assert not any("few" in column for row in run_of(outputs, "masked").read_record() for column in row)
    assert [line for line in lines if line.startswith("evaluation 4/4")]
    before = (lm.path / "scores.json").read_bytes()
    lines.clear()
    assert evaluate_runs([result_of(lm)], wanted, outputs, None, lines.append) == () and not lines
    assert (lm.path / "scores.json").read_bytes() == before


def test_ctrl_c_stops_the_evaluations_of_a_paper(outputs: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CausalLM, "evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_runs([result_of(run_of(outputs, "lm"))], [Evaluation(examples=1)], outputs)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task=tagg"], "task"),
        (["task=tag", "data=roles"], "has no head for task=tag"),
        (["model=gpt_nano"], "the model stays what it is"),
    ],
)
def test_an_evaluation_that_the_runs_of_a_paper_cannot_have_is_refused_before_they_start(
    text: Path, tmp_path: Path, words: list[str], said: str
):
    of_run = [
        "model=gpt_nano",
        "model.context=32",
        "tokenizer=byte",
        "data=text",
        f"data.path={text}",
        "data.split=tail",
    ]
    sweep = resolve_sweep(None, [*COMMON, *of_run], tmp_path, name="new")
    with pytest.raises(UserError, match=f"paper.evaluations.1: .*{said}"):
        plan_evaluations(sweep, [Evaluation(precision="int8"), Evaluation(overrides=words)])
    (sentence,) = plan_evaluations(sweep, [Evaluation(precision="int8")])
    assert sentence == "then 1 evaluation, one after another on this machine: of each run 1 (precision int8)"
    assert not sweep.runs[0].run.path.exists()


WRONG = {
    "another head": ("labels", ["task=tag", "data=roles"], {}, "has no head for task=tag"),
    "no head over labels": ("lm", ["task=classify", "data=sentiment"], {}, "has no head for task=classify"),
    "data of another kind": ("lm", ["data=roles"], {}, "task=causal_lm needs text"),
    "a label that it does not know": ("labels", ["data=labels", "data.path={folder}/odd.csv"], {}, "the label odd"),
    "another model": ("lm", ["model=gpt2"], {}, "the model stays what it is"),
    "no such key": ("lm", ["data.cont=3"], {}, "data.cont"),
    "no such precision": ("lm", [], {"precision": "int9"}, "Did you mean 'int8'"),
    "a name that no column can have": ("lm", [], {"name": "a/b"}, "small letters"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_scored_is_said_in_one_line_and_leaves_nothing(outputs: Path, tmp_path: Path, case: str):
    name, words, options, said = WRONG[case]
    (tmp_path / "odd.csv").write_text(
        "text,label\n" + "".join(f"food {i} is good,odd\nbad {i},negative\n" for i in range(99))
    )
    run = run_of(outputs, name)
    before = (run.path / "scores.json").read_bytes() if (run.path / "scores.json").exists() else None
    with pytest.raises(UserError, match=said) as caught:
        evaluate(str(run.path), [word.format(folder=tmp_path) for word in words], outputs, scoring=Scoring(**options))
    assert "\n" not in str(caught.value)
    assert before == ((run.path / "scores.json").read_bytes() if before is not None else None)


def test_damaged_scores_are_left_alone_and_hide_nothing(outputs: Path):
    run = run_of(outputs, "masked")
    (run.path / "scores.json").write_text('{"torn": ')
    assert run.read_record()[0]["loss"] > 0
    with pytest.raises(UserError, match=r"scores\.json cannot be read"):
        evaluate(str(run.path), [], outputs)
    assert (run.path / "scores.json").read_text() == '{"torn": '
    (run.path / "scores.json").unlink()


class Seen(Exception):
    """Where the first tokens that a model looks up are."""


@pytest.mark.parametrize("name", ["lm", "labels", "pairs"])
@pytest.mark.parametrize("use", [write, score])
def test_a_model_is_used_on_the_best_device(
    outputs: Path, name: str, use: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    if (name, use) == ("labels", score):
        return  # refused before anything is read
    elsewhere = dataclasses.replace(detect("cpu"), kind="meta")  # type: ignore[arg-type]
    monkeypatch.setattr(subject, "detect", lambda accelerator: elsewhere)
    loaded = load_subject(str(run_of(outputs, name).path), outputs)

    def look_up(table: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        raise Seen(given[0].device.type)

    for layer in loaded.model.modules():
        if isinstance(layer, torch.nn.Embedding):
            layer.register_forward_pre_hook(look_up)
    with pytest.raises(Seen, match="meta"):
        "".join(use(loaded, "one cat", **({"source": "a b"} if (name, use) == ("pairs", score) else {})))


@pytest.mark.parametrize(("precision", "rounds"), [(None, False), ("fp32", False), ("tf32", True)])
def test_eval_multiplies_as_its_precision_says(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, precision: str | None, rounds: bool
):
    seen = []
    original = CausalLM.evaluate

    def noting(self: CausalLM, *arguments: Any) -> Quality:
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return original(self, *arguments)

    monkeypatch.setattr(CausalLM, "evaluate", noting)
    evaluate(str(run_of(outputs, "lm").path), [], outputs, scoring=Scoring(name="flags", precision=precision))
    assert seen == [("high", True) if rounds else ("highest", False)]
