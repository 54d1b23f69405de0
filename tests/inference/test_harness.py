"""lm-eval's tasks on models of ours: probabilities and scores as counted by hand, and as its own model says."""

import json
import math
import os
import subprocess
import sys
import types
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.data import BPETokenizerConfig
from lmexp.data.tokenizers.base import Tokenizer
from lmexp.data.tokenizers.build import build_tokenizer
from lmexp.data.tokenizers.lossless import ByteTokenizer
from lmexp.errors import UserError
from lmexp.inference.harness import run as by_harness
from lmexp.inference.harness import tasks
from lmexp.inference.harness.model import HarnessModel, Writing
from lmexp.inference.harness.run import evaluate
from lmexp.models.build import build_model
from lmexp.models.exchange.folders import export_folder
from lmexp.models.sampling import sample
from lmexp.train.checkpoint import Loaded

CONTEXT = 32
PAIRS = [
    ("the cat", " sat"),
    ("", "the cat sat"),
    ("a long text that is cut on the left, for it", " does not fit"),
    ("the cat ", "sat"),
    ("a", "b" * 70),  # the continuation alone is longer than the context
    ("one", ""),
    ("naïve", " 日本"),
]


def loaded_of(config: Any, tokenizer: Tokenizer, *words: str, scale: float = 4.0) -> Loaded:
    """A model with random weights, large ones, so that its choices are clear."""
    resolved = config(f"model.context={CONTEXT}", *words)
    shape = resolved.model.model_copy(update={"vocab_size": tokenizer.vocab_size})
    model = build_model(shape, 1, resolved.task).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.mul_(scale)
    return Loaded(resolved.model_copy(update={"model": shape}), model, tokenizer, tokenizer)


@pytest.fixture
def loaded(config) -> Loaded:
    return loaded_of(config, ByteTokenizer())


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, words, place) for place, words in enumerate(arguments)]


@torch.inference_mode()
def by_hand(loaded: Loaded, before: list[int], after: list[int]) -> tuple[float, bool]:
    """One forward pass a token: its probability after as many of those before it as fit."""
    total, greedy = 0.0, True
    for place, token in enumerate(after):
        scores = loaded.model(torch.tensor([(before + after[:place])[-CONTEXT:]]))[0, -1]
        total += float(scores.log_softmax(-1)[token])
        greedy &= int(scores.argmax()) == token
    return total, greedy


def likeliest(loaded: Loaded, prompt: list[int], count: int) -> list[int]:
    return list(sample(loaded.model, prompt, count, CONTEXT, temperature=0))


@pytest.mark.parametrize(
    ("family", "batch"), [("gpt", 1), ("gpt", 3), ("gpt", 16), ("llama", 3), ("moe", 3), ("lstm", 3)]
)
def test_likelihoods_are_those_of_the_logits(config, family: str, batch: int):
    words = [f"model={family}_nano"] if family != "gpt" else []
    loaded = loaded_of(config, ByteTokenizer(), *words)
    encode, start = loaded.tokenizer.encode, loaded.tokenizer.bos_id
    pairs = [pair for pair in PAIRS if len(pair[0] + pair[1]) < CONTEXT]
    found = HarnessModel(loaded, batch).loglikelihood(requests("loglikelihood", pairs))
    assert len(pairs) == 5
    for (context, text), (total, greedy) in zip(pairs, found, strict=True):
        context, text = context.rstrip(), context[len(context.rstrip()) :] + text  # as in lm-eval
        expected = by_hand(loaded, [start, *encode(context).tolist()], encode(text).tolist())
        assert total == pytest.approx(expected[0], abs=1e-3)
        assert greedy == expected[1]


def test_what_the_model_would_write_is_greedy_and_nothing_else_is(loaded: Loaded):
    model = HarnessModel(loaded)
    prompt = [loaded.tokenizer.bos_id, *b"the cat"]
    ids = likeliest(loaded, prompt, 6)
    others = [*ids[:-1], (ids[-1] + 1) % 256]
    windows = [w for owner, after in enumerate((ids, others)) for w in model._windows(owner, prompt, after)]
    (first, yes), (second, no) = model._scores(windows, 2)
    assert yes and not no
    assert first > second


def test_a_text_longer_than_the_context_is_cut_on_the_left(loaded: Loaded):
    said: list[str] = []
    found = HarnessModel(loaded, say=said.append).loglikelihood(requests("loglikelihood", PAIRS))
    assert said == ["lm-eval: 2 of 7 texts are cut on the left to a context of 32"]
    context, text = PAIRS[2]
    tokens = list((context + text).encode())[-CONTEXT - 1 :]
    with torch.inference_mode():
        scores = loaded.model(torch.tensor([tokens[:-1]]))[0].log_softmax(-1)
    expected = sum(float(scores[place, tokens[place + 1]]) for place in range(CONTEXT - len(text), CONTEXT))
    assert found[2][0] == pytest.approx(expected, abs=1e-3)
    # All of a longer continuation counts, in parts.
    assert found[4][0] < 0
    rolled = windowed(loaded, list(PAIRS[4][1].encode()), list(b"a"))
    assert found[4][0] == pytest.approx(rolled, abs=1e-3)


def windowed(loaded: Loaded, tokens: list[int], before: list[int] | None = None) -> float:
    """The log-probability of a text by lm-eval's own windows; `before`: what stands after the start, unscored."""
    total = 0.0
    first = [loaded.tokenizer.bos_id, *(before or [])]
    for place in range(0, len(tokens), CONTEXT):
        part = tokens[place : place + CONTEXT]
        inputs = (first + tokens[:place] + part[:-1])[-CONTEXT:]
        with torch.inference_mode():
            scores = loaded.model(torch.tensor([inputs]))[0].log_softmax(-1)
        total += sum(float(scores[len(inputs) - len(part) + i, token]) for i, token in enumerate(part))
    return total


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 64, 65, 100])
def test_a_text_by_itself_has_each_token_once_with_as_much_before_it_as_fits(loaded: Loaded, length: int):
    model, text = HarnessModel(loaded), ("the cat sat on a mat. " * 5)[:length]
    tokens = list(text.encode())
    windows = list(model._windows(0, [loaded.tokenizer.bos_id], tokens))
    theirs = get_rolling_token_windows(tokens, loaded.tokenizer.bos_id, CONTEXT, 1)
    disjoint = [make_disjoint_window(window) for window in theirs]
    assert [(window.tokens[: -window.scored], window.tokens[-window.scored :]) for window in windows] == disjoint
    assert [token for window in windows for token in window.tokens[-window.scored :]] == tokens
    (found,) = model.loglikelihood_rolling(requests("loglikelihood_rolling", [(text,)]))
    assert found == pytest.approx(windowed(loaded, tokens), abs=1e-3)


def test_likelihoods_and_texts_are_those_of_lm_evals_own_model(config, text: Path, tmp_path: Path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    from tokenizers.processors import TemplateProcessing

    # It starts processes for it, which nothing here asks for.
    for name, members in {
        "accelerate": ("Accelerator", "InitProcessGroupKwargs", "find_executable_batch_size"),
        "accelerate.utils": ("get_max_memory",),
    }.items():
        module = types.ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(dict.fromkeys(members))
        monkeypatch.setitem(sys.modules, name, module)
    from lm_eval.models.huggingface import HFLM

    documents = [("train", part) for part in text.read_text().split("\n\n")]
    tokenizer = build_tokenizer(BPETokenizerConfig(kind="bpe", vocab_size=300), documents)
    loaded = loaded_of(config, tokenizer, scale=3.0)
    export_folder(loaded.config.model, loaded.model, tokenizer, tmp_path / "model")
    library = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    # A folder of ours puts nothing in front of a text by itself.
    library.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{library.bos_token} $A", special_tokens=[(library.bos_token, library.bos_token_id)]
    )
    theirs = HFLM(
        pretrained=transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model"),
        tokenizer=library,
        add_bos_token=True,
        max_length=CONTEXT,
        batch_size=2,
    )
    theirs.logits_cache = False  # it answers wrongly where one text goes on in one token, and again in several
    ours = HarnessModel(loaded, batch=3)
    # It refuses continuations that are empty or longer than the context.
    pairs = [*PAIRS[:4], PAIRS[6], ("the bird saw our ol", "d stone house"), ("our", "old"), ("  ", "x")]
    asked = requests("loglikelihood", pairs)
    expected = theirs.loglikelihood(asked, disable_tqdm=True)
    found = ours.loglikelihood(asked)
    assert [total for total, _ in found] == pytest.approx([total for total, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]

    wanted = [{"max_gen_toks": 12}, {"max_gen_toks": 20, "until": ["e", "zz"]}, {"max_gen_toks": 5, "until": " "}]
    asked = requests("generate_until", [(context, how) for context, _ in pairs if context.strip() for how in wanted])
    assert ours.generate_until(asked) == theirs.generate_until(asked, disable_tqdm=True)

    theirs.add_bos_token = False  # such a text has one anyway
    asked = requests("loglikelihood_rolling", [("the cat sat " * 30,), ("a",), (documents[0][1],)])
    assert ours.loglikelihood_rolling(asked) == pytest.approx(
        theirs.loglikelihood_rolling(asked, disable_tqdm=True), abs=1e-4
    )


def test_a_text_is_written_until_it_is_told_to_stop(loaded: Loaded):
    model, prompt = HarnessModel(loaded), [loaded.tokenizer.bos_id, *b"the cat"]
    whole = loaded.tokenizer.decode(likeliest(loaded, prompt, 12))
    assert len(whole) == 12
    stop = whole[5:7]
    wanted = [{"max_gen_toks": 12, "until": []}, {"max_gen_toks": 12, "until": [stop, "never"]}, {"max_new_tokens": 3}]
    asked = requests("generate_until", [("the cat", how) for how in wanted])
    assert model.generate_until(asked) == [whole, whole[: whole.find(stop)], whole[:3]]


def test_a_prompt_leaves_room_for_what_is_written(loaded: Loaded):
    model, words = HarnessModel(loaded), "a prompt that is longer than all of the context"
    asked = requests("generate_until", [(words, {"max_gen_toks": 10}), (words, {"max_gen_toks": CONTEXT + 8})])
    cut = likeliest(loaded, list(words.encode())[-(CONTEXT - 10) :], 10)
    moving = likeliest(loaded, list(words.encode())[-CONTEXT:], CONTEXT + 8)
    assert model.generate_until(asked) == [loaded.tokenizer.decode(ids) for ids in (cut, moving)]


def test_the_end_of_a_document_ends_what_is_written(loaded: Loaded):
    model, prompt = HarnessModel(loaded), [loaded.tokenizer.bos_id, *b"the cat"]
    ids = likeliest(loaded, prompt, 8)
    model.ends = {ids[5]}
    (found,) = model.generate_until(requests("generate_until", [("the cat", {"max_gen_toks": 8})]))
    assert found == loaded.tokenizer.decode(ids[: ids.index(ids[5])])


def test_what_is_drawn_is_the_same_each_time_and_of_what_is_likely(loaded: Loaded):
    model = HarnessModel(loaded)
    how = {"max_gen_toks": 8, "do_sample": True, "temperature": 2.0}
    asked = requests("generate_until", [("the cat", how)] * 4)
    drawn = model.generate_until(asked)
    assert drawn == model.generate_until(asked)
    assert len(set(drawn)) == 4
    best = loaded.tokenizer.decode(likeliest(loaded, [loaded.tokenizer.bos_id, *b"the cat"], 8))
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"do_sample": False}):
        asked = requests("generate_until", [("the cat", how | narrow)])
        assert model.generate_until(asked) == [best]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, Writing((), 256, 0.0, None, 1.0)),
        ({"until": "\n", "max_gen_toks": None}, Writing(("\n",), 256, 0.0, None, 1.0)),
        ({"do_sample": True, "max_tokens": 5}, Writing((), 5, 1.0, None, 1.0)),
        ({"temperature": 0.5, "top_k": 3, "num_beams": 1}, Writing((), 256, 0.5, 3, 1.0)),
        ({"temperature": 0.5, "do_sample": False, "top_p": 0.9}, Writing((), 256, 0.0, None, 0.9)),
    ],
)
def test_how_a_task_wants_texts_is_read_as_lm_eval_reads_it(wanted: dict[str, Any], expected: Writing):
    assert Writing.of(wanted) == expected


# Whole tasks, in a folder of the user's own.

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
