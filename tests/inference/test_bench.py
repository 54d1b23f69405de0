"""The verb bench, on a run that was really trained."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.errors import UserError
from lmexp.inference.bench import _bandwidth, bench, find_target, parse_grid
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.columns import higher_is_better
from lmexp.runs.directory import RunDir
from lmexp.train.worker import main as train
from tests.conftest import SMALL, Lmexp

pytest.importorskip("torchao")


@pytest.fixture(scope="module")
def outputs(small: list[str], text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with one finished run, of a text that can be deleted; copy them before changing anything."""
    folder = tmp_path_factory.mktemp("bench")
    shutil.copy(text, folder / "text.txt")
    words = [*small, f"data.path={folder / 'text.txt'}", "optim.lr=1e-2", "budget.tokens=15360"]
    (planned,) = resolve_sweep(None, words, folder / "outputs").runs
    assert train(RunDir.create(planned.run.path, planned.config).path) == 0
    return folder / "outputs"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speeds are not looked at: one round a row, and a made-up memory peak of 10 GB/s."""
    monkeypatch.setattr("lmexp.inference.measure.ENOUGH_STEPS", 1)
    monkeypatch.setattr("lmexp.inference.measure.ENOUGH_PREFILLS", 1)
    monkeypatch.setattr("lmexp.inference.bench.memory_bandwidth", lambda device: 10.0)
    monkeypatch.setattr("lmexp.inference.bench.CpuWait.fraction", lambda wait: 0.0)  # whatever else runs here now


@pytest.fixture
def measure(outputs: Path, quick: None) -> Callable[..., dict]:
    def measure(
        *words: str, precisions=(), batches=("1",), prompts=("4",), new=3, compiled=False, where: Path = outputs
    ) -> dict:
        grid = parse_grid(list(precisions), list(batches), list(prompts), new, compiled)
        return bench(find_target(list(words), where, None, print), grid, where, lambda line: None)

    return measure


def run_in(outputs: Path) -> RunDir:
    (path,) = (outputs / "train").glob("gpt*")
    return RunDir(path)


def test_every_precision_has_a_row_for_every_shape_and_the_runs_own_loss(measure: Callable, outputs: Path):
    document = measure("gpt_nano", batches=["1,2"], prompts=["4", "8"])
    rows = document["rows"]
    shapes = [(1, 4), (1, 8), (2, 4), (2, 8)]
    assert [(r["precision"], r["batch"], r["prompt"]) for r in rows] == [
        (precision, *shape) for precision in ("fp32", "int8", "int4") for shape in shapes
    ]
    trained = run_in(outputs).read_record()[0]["loss"]
    loss = {row["precision"]: row["loss"] for row in rows}
    assert loss["fp32"] == pytest.approx(trained, abs=1e-6)
    # Rounding moves logits by about 1 % of their spread (see test_quantise), whose square is what a loss feels
    # on average: a thousandth of a nat. Rounding to int4 is seen, but breaks nothing: the text's own entropy
    # and that of a model that knows nothing are nats apart.
    assert loss["int8"] == pytest.approx(trained, abs=1e-3)
    assert abs(loss["int8"] - trained) < abs(loss["int4"] - trained) < 0.1
    assert document["skipped"] == document["notes"] == []


def test_what_is_held_and_read_is_in_the_rows(measure: Callable):
    rows = measure("gpt_nano", batches=["1", "2"])["rows"]
    by = {(row["precision"], row["batch"]): row for row in rows}
    assert by["int8", 1]["weights_gb"] < 0.6 * by["fp32", 1]["weights_gb"]
    assert by["fp32", 2]["kv_cache_gb"] == 2 * by["fp32", 1]["kv_cache_gb"] == pytest.approx(2 * 2 * 2 * 7 * 32 * 4e-9)
    for row in rows:
        assert row["peak_memory_gb"] is None  # no allocator to ask on a CPU
        speed = row["read_gb_per_step"] / row["decode_ms_p50"] * 1e3
        assert row["bandwidth_use"] == pytest.approx(speed / 10.0) and row["memory_peak_source"] == "measured now"
    assert {row["precision"]: row["dtype_weights"] for row in rows} == {
        "fp32": "float32",
        "int8": "int8",
        "int4": "int4 in bytes",
    }


def test_a_run_keeps_its_document_and_a_new_model_has_none_and_no_loss(measure: Callable, outputs: Path):
    document = measure("gpt_nano", precisions=["fp32"])
    assert json.loads((run_in(outputs).path / "bench.json").read_text()) == document

    before = sorted(outputs.rglob("*"))
    document = measure("model=gpt_nano", "model.context=16", "model.vocab_size=99", precisions=["fp32", "bf16"])
    assert [(row["precision"], row["loss"]) for row in document["rows"]] == [("fp32", None), ("bf16", None)]
    assert "weights are random" in document["notes"][0]
    assert sorted(outputs.rglob("*")) == before


def test_bf16_runs_are_used_with_bf16_weights(measure: Callable):
    (row,) = measure("model=gpt_nano", "model.vocab_size=99", "precision=bf16", precisions=["bf16"])["rows"]
    assert row["dtype_weights"] == row["dtype_compute"] == "bfloat16"


def test_the_doctors_peak_is_used_where_there_is_one(measure: Callable, outputs: Path, tmp_path: Path):
    import torch

    from lmexp.cost.device import detect
    from lmexp.cost.peaks import key_of

    where = shutil.copytree(outputs, tmp_path / "outputs")
    known = {key_of(detect(), torch.get_num_threads()): {"peak_flops": {"fp32": 1e9}, "memory_gb_per_second": 20.0}}
    (where / ".doctor.json").write_text(json.dumps(known))
    (row,) = measure("gpt_nano", precisions=["fp32"], where=where)["rows"]
    assert (row["memory_peak_gb_per_second"], row["memory_peak_source"]) == (20.0, "doctor")
    assert _bandwidth(where, detect()) == (20.0, "doctor")
    known[key_of(detect(), torch.get_num_threads())]["memory_method"] = "one of an earlier version"
    (where / ".doctor.json").write_text(json.dumps(known))
    assert _bandwidth(where, detect()) == (10.0, "measured now")


def test_without_its_text_a_run_has_speeds_and_a_note_for_the_loss(measure: Callable, outputs: Path, tmp_path: Path):
    where = shutil.copytree(outputs, tmp_path / "outputs")
    shutil.rmtree(where / ".tokens")
    text = outputs.parent / "text.txt"
    content = text.read_bytes()
    try:
        text.unlink()
        document = measure("gpt_nano", precisions=["int8"], where=where)
    finally:
        text.write_bytes(content)
    assert document["rows"][0]["loss"] is None and document["rows"][0]["decode_ms_p50"] > 0
    assert "text.txt" in document["notes"][0]


def test_shapes_that_do_not_fit_are_named_and_the_others_measured(measure: Callable):
    document = measure("gpt_nano", precisions=["fp32"], prompts=["4", "30"])
    assert [row["prompt"] for row in document["rows"]] == [4]
    (skipped,) = document["skipped"]
    assert skipped["prompt"] == 30 and skipped["reason"] == "more than the context of 32"


def test_shapes_that_memory_does_not_hold_are_named_and_the_others_measured(
    measure: Callable, monkeypatch: pytest.MonkeyPatch
):
    from lmexp.models.gpt import GPT

    made = GPT.new_cache

    def new_cache(self, batch, capacity=None):
        return made(self, batch * 10**12 if batch > 1 else 1, capacity)

    monkeypatch.setattr(GPT, "new_cache", new_cache)
    document = measure("gpt_nano", precisions=["fp32"], batches=["1", "2"])
    assert [row["batch"] for row in document["rows"]] == [1]
    assert [(gap["batch"], gap["reason"]) for gap in document["skipped"]] == [(2, "out of memory")]


WRONG = {
    "unknown run": (["nothing"], {}, "there is no run 'nothing'"),
    "mixed words": (["gpt_nano", "seed=1"], {}, "'gpt_nano' is not an override"),
    "several models": (["model=gpt_nano,gpt_tiny"], {}, "bench measures one model"),
    "batch of zero": (["gpt_nano"], {"batches": ["1,0"]}, "--batch 0: expected whole numbers of at least 1"),
    "negative prompt": (["gpt_nano"], {"prompts": ["-4"]}, "--prompt -4: expected whole numbers of at least 1"),
    "nothing to decode": (["gpt_nano"], {"new": 1}, "--new 1: at least 2"),
    "unknown precision": (["gpt_nano"], {"precisions": ["int9"]}, "Did you mean 'int8'?"),
    "a model that writes to a source": (
        [
            "model=lstm_encdec_nano",
            "model.context=16",
            "model.input_vocab_size=257",
            "task=seq2seq",
            "data=reverse",
            "tokenizer=byte",
        ],
        {},
        "family lstm_encdec cannot do that",
    ),
    "a classifier": (
        [
            "model=lstm_nano",
            "model.vocab_size=257",
            "task=classify",
            "task.labels=[a,b]",
            "data=sentiment",
            "tokenizer=byte",
        ],
        {},
        "task=classify predicts labels",
    ),
    "prompts too long": (["gpt_nano"], {"prompts": ["30,40"]}, "no prompt fits: the shortest, 30 tokens"),
    "a precision of GPUs": (
        ["model=gpt_nano", "model.vocab_size=99", "trainer.accelerator=cpu"],
        {"precisions": ["tf32"]},
        "--precision tf32: tf32 needs an NVIDIA GPU",
    ),
    "more than memory": (["model=gpt3_175b", "model.vocab_size=50257"], {}, "GB for its weights in float32"),
    "compiling an LSTM": (
        ["model=lstm_nano", "model.vocab_size=300"],
        {"compiled": True},
        "no compiled step for family lstm",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_input_is_one_line(mistake: str, measure: Callable):
    words, options, said = WRONG[mistake]
    with pytest.raises(UserError) as problem:
        measure(*words, **options)
    assert said in str(problem.value) and "\n" not in str(problem.value)


def test_unfinished_runs_and_damaged_weights_are_one_line(measure: Callable, outputs: Path, tmp_path: Path):
    where = shutil.copytree(outputs, tmp_path / "outputs")
    weights = run_in(where).final / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read"):
        measure("gpt_nano", where=where)
    weights.unlink()
    with pytest.raises(UserError, match="has no finished model"):
        measure("gpt_nano", where=where)


@pytest.mark.slow
def test_the_command_prints_a_table_or_one_document(outputs: Path, tmp_path: Path, lmexp: Lmexp):
    shutil.copytree(outputs, tmp_path / "outputs")
    words = ["bench", "gpt_nano", "--batch", "1", "--prompt", "4,40", "--new", "8"]
    shown = lmexp(*words, COLUMNS="80")
    assert shown.returncode == 0, shown.stderr
    table = shown.stdout.split("Not shown")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "int8 decodes at" in shown.stdout.splitlines()[-1]
    assert "Skipped: batch 1 prompt 40 new 8: more than the context of 32." in shown.stdout
    ended = lmexp(*words, "--json", "--precision", "fp32")
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert [row["precision"] for row in document["rows"]] == ["fp32"]
    assert document == json.loads((run_in(tmp_path / "outputs").path / "bench.json").read_text())
    wrong = lmexp("bench", "gpt_nano", "--precision", "int9")
    assert wrong.returncode == 2 and wrong.stderr.splitlines()[-1].startswith("error: --precision int9")


def test_new_models_take_the_words_of_a_config():
    target = find_target([*SMALL, "model.vocab_size=300"], Path("nowhere"), None, print)
    assert target.run is None and target.config.model.vocab_size == 300 and target.config.model.d_model == 32


def test_latency_joins_the_record_where_the_run_had_the_device_to_itself(measure: Callable, outputs: Path):
    document = measure("gpt_nano", precisions=["fp32"])
    (row,) = document["rows"]
    record = run_in(outputs).read_record()[0]
    assert row["exclusive"] and record["score/bench-fp32-b1-p4/decode_ms_p50"] == row["decode_ms_p50"]
    assert row["decode_ms_p95"] is None and "score/bench-fp32-b1-p4/decode_ms_p95" not in record
    assert not higher_is_better("score/bench-fp32-b1-p4/decode_ms_p50")
    assert higher_is_better("score/bench-fp32-b1-p4/decode_tokens_per_second")


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.slow
def test_compiled_steps_are_rows_and_scores_of_their_own(measure: Callable, outputs: Path, tmp_path: Path):
    where = shutil.copytree(outputs, tmp_path / "outputs")
    (plain,) = measure("gpt_nano", precisions=["int8"], where=where)["rows"]
    document = measure("gpt_nano", precisions=["int8"], compiled=True, where=where)
    (row,) = document["rows"]
    assert plain["compile_seconds"] is None and row["compile_seconds"] > row["decode_ms_p50"] / 1e3
    assert row["loss"] == plain["loss"]
    record = run_in(where).read_record()[0]
    assert record["score/bench-int8-compiled-b1-p4/decode_ms_p50"] == row["decode_ms_p50"]
    assert record["score/bench-int8-b1-p4/decode_ms_p50"] == plain["decode_ms_p50"]


@pytest.mark.slow
def test_without_a_compiler_the_message_says_so(outputs: Path, tmp_path: Path, lmexp: Lmexp):
    shutil.copytree(outputs, tmp_path / "outputs")
    missing = {"PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    ended = lmexp("bench", "gpt_nano", "--precision", "fp32", "--prompt", "4", "--new", "3", "--compile", **missing)
    assert ended.returncode == 2 and "torch.compile failed: InvalidCxxCompiler" in ended.stderr.splitlines()[-1]


def test_latency_of_a_cpu_that_other_programs_used_joins_no_record(
    measure: Callable, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(outputs, tmp_path / "outputs")
    monkeypatch.setattr("lmexp.inference.bench.CpuWait.fraction", lambda wait: 0.3)
    document = measure("gpt_nano", precisions=["fp32"], prompts=["5"], where=tmp_path / "outputs")
    assert document["rows"][0]["cpu_wait_fraction"] == 0.3
    assert "score/bench-fp32-b1-p5/decode_ms_p50" not in run_in(tmp_path / "outputs").read_record()[0]
