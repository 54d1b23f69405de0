"""Whole tasks of lm-eval on models of ours, in a folder of the user's own: the scores are as counted by hand."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")


from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.data.tokenizers.lossless import ByteTokenizer
from lmexp.errors import UserError
from lmexp.inference.harness import run as by_harness
from lmexp.inference.harness import tasks
from lmexp.inference.harness.model import HarnessModel
from lmexp.inference.harness.run import evaluate
from lmexp.train.checkpoint import Loaded
from tests.inference.harness_models import by_hand, loaded_of, requests, windowed


@pytest.fixture
def loaded(config) -> Loaded:
    return loaded_of(config, ByteTokenizer())


CHOICES = """
task: colours
dataset_path: json
dataset_kwargs:
  data_files: {test: colours.jsonl}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
QUESTIONS = [
    {"question": f"the {thing} is", "choices": ["red", "almost blue", "green"], "answer": number % 3}
    for number, thing in enumerate(["cat", "old house", "sky", "grass", "stone", "bird", "mat"])
]


def write_task(folder: Path, text: str = CHOICES, rows: list[dict[str, Any]] = QUESTIONS, name: str = "task") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(text)
    (folder / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(loaded: Loaded, names: list[str], folder: Path | None, limit: int | None = None, trust: bool = False):
    said: list[str] = []
    return evaluate(loaded, names, folder, limit, trust, said.append), said


def right_answers(loaded: Loaded, rows: list[dict[str, Any]], by_length: bool) -> float:
    right = 0
    for row in rows:
        prompt = [loaded.tokenizer.bos_id, *row["question"].encode()]
        totals = [by_hand(loaded, prompt, list(f" {choice}".encode()))[0] for choice in row["choices"]]
        if by_length:
            totals = [total / len(choice) for total, choice in zip(totals, row["choices"], strict=True)]
        right += totals.index(max(totals)) == row["answer"]
    return right / len(rows)


def test_a_task_of_ones_own_has_the_accuracy_that_is_counted_by_hand(
    loaded: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = write_task(tmp_path / "tasks")
    found, said = run(loaded, ["colours"], folder)
    acc, acc_norm = (right_answers(loaded, QUESTIONS, by_length) for by_length in (False, True))
    assert found["colours"]["acc"] == pytest.approx(acc)
    assert found["colours"]["acc_norm"] == pytest.approx(acc_norm)
    assert 0 < acc < 1
    assert found["colours"]["acc_stderr"] == pytest.approx(math.sqrt(acc * (1 - acc) / (len(QUESTIONS) - 1)))
    assert said == ["lm-eval: colours, 7 documents"]
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == ""

    # Only the first few; and data that have changed are read anew.
    found, said = run(loaded, ["colours"], folder, limit=3)
    assert found["colours"]["acc"] == pytest.approx(right_answers(loaded, QUESTIONS[:3], False))
    assert said == ["lm-eval: colours, 3 documents"]
    changed = [row | {"answer": (row["answer"] + 1) % 3} for row in QUESTIONS]
    write_task(folder, rows=changed)
    found, _ = run(loaded, ["colours"], folder)
    assert found["colours"]["acc"] == pytest.approx(right_answers(loaded, changed, False))
    assert found["colours"]["acc"] != pytest.approx(acc)
    assert not (tmp_path / "cache").exists()
    assert not list(Path(os.environ["TMPDIR"]).glob("lmexp-lm-eval-*"))


PERPLEXITY = """
task: lines
dataset_path: json
dataset_kwargs: {data_files: colours.jsonl}
test_split: train
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{choices[1]}}"
metric_list:
  - {metric: word_perplexity}
  - {metric: byte_perplexity}
  - {metric: bits_per_byte}
"""
WRITTEN = """
task: written
dataset_path: json
dataset_kwargs: {data_files: colours.jsonl}
test_split: train
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{question}}"
generation_kwargs: {max_gen_toks: 4, until: ["x"]}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
filter_list:
  - {name: strict, filter: [{function: take_first}]}
  - {name: loose, filter: [{function: remove_whitespace}, {function: take_first}]}
"""
LAST_WORD = """
task: last_word
dataset_path: json
dataset_kwargs: {data_files: colours.jsonl}
test_split: train
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: " {{choices[0]}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
"""
GROUP = """
group: both
task: [colours, written]
aggregate_metric_list:
  - {metric: acc, weight_by_size: true}
"""


def test_perplexity_texts_and_groups(loaded: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_task(tmp_path / "tasks")
    for name, text in {"lines": PERPLEXITY, "written": WRITTEN, "last": LAST_WORD, "both": GROUP}.items():
        write_task(folder, text, name=name)
    found, said = run(loaded, ["lines", "both", "last_word"], folder)
    assert said[0] == "lm-eval: lines, 7 documents" and "reading the index" not in " ".join(said)
    texts = [f"{row['question']} {row['choices'][1]}" for row in QUESTIONS]
    total = sum(windowed(loaded, list(text.encode())) for text in texts)
    assert found["lines"]["bits_per_byte"] == pytest.approx(
        -total / sum(len(text.encode()) for text in texts) / math.log(2), rel=1e-4
    )
    assert found["lines"]["word_perplexity"] == pytest.approx(
        math.exp(-total / sum(len(text.split()) for text in texts)), rel=1e-3
    )
    assert {name for name in found["written"] if "stderr" not in name} == {"exact_match-strict", "exact_match-loose"}
    assert found["written"]["exact_match-strict"] == 0
    assert set(found) == {"lines", "colours", "written", "both", "last_word"}
    model = HarnessModel(loaded)
    likely = [total for total, _ in model.loglikelihood(requests("x", [(q["question"], " red") for q in QUESTIONS]))]
    assert found["last_word"]["perplexity"] == pytest.approx(math.exp(-sum(likely) / len(likely)))
    assert found["last_word"]["perplexity_stderr"] > 0  # of the bootstrap, which says so on standard output
    assert found["both"]["acc"] == found["colours"]["acc"]
    assert capsys.readouterr().out == ""


FUNCTION = CHOICES.replace('doc_to_text: "{{question}}"', "doc_to_text: !function code.question")
CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\ndef question(row):\n    return 'Q'\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FUNCTION, r"task\.yaml: !function code\.question runs Python of its own; if you trust it, --trust-task-code"),
        ("include: base.inc\ntask: colours\n", r"base\.inc: !function code\.question runs Python"),
        ("include: [base.inc]\ntask: colours\n", r"base\.inc: !function code\.question runs Python"),
        (CHOICES + "class: !function code.question\n", r"!function code\.question runs Python"),
        (CHOICES + "custom_dataset: !function code.question\n", r"!function code\.question runs Python"),
        (CHOICES + "unsafe_code: true\n", r"'colours' runs Python that the model writes"),
        (CHOICES.replace("  data_files", "  trust_remote_code: true\n  data_files"), "trust_remote_code runs Python"),
        (CHOICES.replace("metric: acc,", "metric: code.py,"), r"takes its metric 'code\.py' from the library evaluate"),
        (CHOICES.replace("metric: acc,", "hf_evaluate: true, metric: acc,"), "from the library evaluate"),
        (CHOICES.replace("{{question}}", "{{ question.__class__.__mro__ }}"), "'colours' cannot be loaded: Security"),
        (CHOICES.replace("{{question}}", "{{ (1).__class__ }}{{ cycler.__init__.__globals__ }}"), "SecurityError"),
    ],
)
def test_code_of_a_task_runs_only_if_it_is_trusted(loaded: Loaded, tmp_path: Path, content: str, message: str):
    folder = write_task(tmp_path / "tasks", content)
    (folder / "base.inc").write_text(FUNCTION)
    (folder / "code.py").write_text(CODE)
    with pytest.raises(UserError, match=message) as raised:
        run(loaded, ["colours"], folder)
    assert "\n" not in str(raised.value)
    assert not (folder / "ran").exists()


def test_code_that_is_trusted_runs(loaded: Loaded, tmp_path: Path):
    folder = write_task(tmp_path / "tasks", FUNCTION)
    (folder / "code.py").write_text(CODE)
    found, _ = run(loaded, ["colours"], folder, trust=True)
    assert (folder / "ran").exists()
    rows = [row | {"question": "Q"} for row in QUESTIONS]
    assert found["colours"]["acc"] == pytest.approx(right_answers(loaded, rows, False))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CHOICES.replace("{{question}}", "{{no_such_key}}"), r"'colours' cannot be loaded: .*no_such_key"),
        (CHOICES.replace("colours.jsonl", "nothing.jsonl"), r"'colours' cannot be loaded: .*nothing\.jsonl"),
        (CHOICES + "nonsense: 1\n", r"'colours' cannot be loaded: .*nonsense"),
        (CHOICES.replace("multiple_choice", "guess"), "'colours' cannot be loaded: .*guess"),
        (WRITTEN.replace("max_gen_toks", "num_beams").replace("written", "colours"), "generation_kwargs.num_beams"),
        ("task: [colours\n", r"task\.yaml: cannot be read: .*"),
        ("include: base.inc\ntask: colours\n", r"base\.inc: cannot be read: .*"),
        (CHOICES.replace("{test:", "!!python/tuple {test:"), r"no task 'colours', and none is in a file \*\.yaml"),
    ],
)
def test_a_wrong_task_file_is_one_short_message(
    loaded: Loaded, tmp_path: Path, monkeypatch, content: str, message: str
):
    monkeypatch.setattr(tasks, "_own", dict)
    folder = write_task(tmp_path / "tasks", content)
    with pytest.raises(UserError, match=message) as raised:
        run(loaded, ["colours"], folder)
    assert "\n" not in str(raised.value)


def test_a_task_that_fails_as_it_runs_is_one_short_message_and_a_fault_of_ours_is_not(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    examples = CHOICES + "num_fewshot: 9\nfewshot_split: test\n"  # there are 7
    with pytest.raises(UserError, match="lm-eval fails on colours: ValueError: Sample larger"):
        run(loaded, ["colours"], write_task(tmp_path / "tasks", examples))

    def fail(*ignored: Any) -> None:
        raise ValueError("ours")

    monkeypatch.setattr(loaded.model, "hidden", fail)
    with pytest.raises(ValueError, match="ours"):
        run(loaded, ["colours"], write_task(tmp_path / "tasks"))


def test_wrong_requests(loaded: Loaded, config, tmp_path: Path, monkeypatch):
    folder = write_task(tmp_path / "tasks")
    for names, where, limit, message in [
        (["colours"], tmp_path / "nowhere", None, "nowhere: no such folder"),
        (["colours"], folder, 0, "--limit 0: at least 1"),
        ([""], folder, None, "the name of a task is missing"),
    ]:
        with pytest.raises(UserError, match=message):
            run(loaded, names, where, limit)
    labels = Composer(paths.search_roots(), words=["model=gpt_nano", "task=classify", "data=sentiment"]).config({})
    for other in (
        loaded_of(config, ByteTokenizer(), "model=bert_nano", "task=masked_lm"),
        replace(loaded, config=loaded.config.model_copy(update={"task": labels.task})),
    ):
        with pytest.raises(UserError, match="need a model that predicts each token from those before it"):
            run(other, ["colours"], folder)
    monkeypatch.setattr(by_harness, "IS_HERE", False)
    with pytest.raises(UserError, match=r"eval --lm-eval needs lm-eval: pip install 'lmexp\[eval\]'"):
        run(loaded, ["colours"], folder)


@pytest.mark.slow
def test_tasks_of_lm_eval_are_known_by_name_and_need_the_hub(loaded: Loaded, tmp_path: Path, monkeypatch, capsys):
    """Its own tasks, without a network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = write_task(tmp_path / "tasks")
    with pytest.raises(UserError, match=r"lm-eval has no task 'hellaswagg'\. Did you mean 'hellaswag'"):
        run(loaded, ["hellaswagg"], None)
    with pytest.raises(UserError, match=r"'coulours', and none is in .*tasks\. Did you mean 'colours'"):
        run(loaded, ["coulours"], folder)
    with pytest.raises(UserError, match=r"'arc_easy' needs data of the Hugging Face hub, which cannot be reached"):
        run(loaded, ["colours", "arc_easy"], folder)
    with pytest.raises(UserError, match=r"'humaneval' runs Python that the model writes; .*--trust-task-code"):
        run(loaded, ["humaneval"], None)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_without_lm_eval_it_says_how_to_get_it():
    code = """
import sys
sys.modules["lm_eval"] = None
from lmexp.errors import UserError
from lmexp.inference.harness.run import evaluate
try:
    evaluate(None, ["a"], None, None, False, print)
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "eval --lm-eval needs lm-eval: pip install 'lmexp[eval]'\n", done.stderr
