"""A run, from its directory to its record."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file

from lmexp.cost.device import detect
from lmexp.cost.energy import why_no_energy
from lmexp.cost.flops import count_model
from lmexp.data.store import prepare
from lmexp.runs.columns import COLUMNS, LOSS_BY_QUARTER
from lmexp.runs.directory import STORES, RunDir
from lmexp.train.checkpoint import last_checkpoint, load_final
from lmexp.train.worker import main
from tests.train.together import train_together

MakeRun = Callable[..., RunDir]
TIMINGS = ["tokens_per_second", "step_ms_p50", "step_ms_p95", "data_wait_fraction", "train_seconds", "wall_seconds",
           "peak_memory_gb", "reserved_memory_gb", "started", "exclusive", "finished", "slug", "sweep", "mfu",
           "mfu_causal", "hfu", "cpu_wait_fraction", "peak_flops"]  # fmt: skip


def record_of(run: RunDir) -> dict:
    (row,) = run.read_record()
    return row


def test_a_run_leaves_what_the_design_names(make_run: MakeRun):
    run = make_run()
    assert main(run.path) == 0
    state, row = run.read_state(), record_of(run)
    assert (state.state, state.reason, state.attempts, state.pid) == ("done", None, 1, None)
    assert state.tokens == 5120 and state.share == 1
    assert [name for name in row if not name.startswith("flops/")] == list(COLUMNS)
    assert all(COLUMNS[n].is_text == isinstance(row[n], str | bool) for n in COLUMNS if row[n] is not None)
    assert row["tokens"] == 5120 and row["steps"] == 20 and row["batch_tokens"] == 256
    assert row["train_flops"] == 5120 * count_model(run.read_config().model).flops_per_token
    assert row["perplexity"] == pytest.approx(2.718281828459045 ** row["loss"])
    assert row["dtype_weights"] == row["dtype_grads"] == row["dtype_optimizer"] == row["dtype_compute"] == "float32"
    for measured in ("tokens_per_second", "step_ms_p50", "train_seconds", "wall_seconds", "peak_memory_gb", "mfu"):
        assert row[measured] > 0
    assert row["mfu"] == pytest.approx(row["tokens_per_second"] * row["flops_per_token"] / row["peak_flops"])
    assert row["reserved_memory_gb"] >= row["peak_memory_gb"]
    assert row["mfu"] < 1 and row["peak_source"] == "measured"
    for unmeasured in ("dollars", "dollars_per_million_tokens", "compile_seconds"):
        assert row[unmeasured] is None  # never 0
    for energy in ("energy_kwh", "kwh_per_million_tokens", "energy_source"):
        assert (row[energy] is None) == (why_no_energy(detect("cpu")) is not None)
    assert {file.name for file in run.final.iterdir()} == {"model.safetensors", "config.yaml", "tokenizer.json"}
    assert not last_checkpoint(run).exists()


def test_the_curve_has_points_of_training_and_validation(make_run: MakeRun):
    run = make_run()
    main(run.path)
    curve = run.read_curve()
    assert [p["step"] for p in curve if "train_loss" in p] == [1, 5, 10, 15, 20]
    assert [p["step"] for p in curve if "loss" in p] == [5, 10, 15, 20]
    assert all(p["tokens"] == 256 * p["step"] for p in curve)
    assert curve[-1]["loss"] == record_of(run)["loss"] < curve[0]["train_loss"]
    rates = [p["lr"] for p in curve if "lr" in p]
    assert max(rates) == pytest.approx(1e-3) and rates[-1] == pytest.approx(1e-4)  # cosine ends at its final share


def test_bits_per_byte_divide_by_the_bytes_of_the_text(make_run: MakeRun):
    run = make_run()
    main(run.path)
    row, config = record_of(run), run.read_config()
    store = prepare(config.data, config.tokenizer, run.path.parent.parent / STORES)
    nll = row["loss"] * (store.tokens("validation") - 1)  # all but the first token are predicted
    assert row["bits_per_byte"] == pytest.approx(nll / 0.6931471805599453 / store.bytes("validation"), rel=1e-12)


def test_stopping_and_resuming_changes_nothing(make_run: MakeRun):
    words = ["model.dropout=0.1", "checkpoint.every=0.4"]  # dropout draws random numbers at every step
    undisturbed = make_run(*words, place="undisturbed")
    assert main(undisturbed.path) == 0

    stopped = make_run(*words, place="stopped")
    # A worker of its own, killed as soon as it has a checkpoint; fsync by fsync slow enough to be caught.
    worker = subprocess.Popen(
        [sys.executable, "-c", KILLED_AFTER_ITS_FIRST_CHECKPOINT, str(stopped.path)], stdout=subprocess.DEVNULL
    )
    assert worker.wait(120) == -signal.SIGKILL
    assert last_checkpoint(stopped).exists() and not stopped.read_record()
    assert main(stopped.path) == 0

    assert stopped.read_state().attempts == 2
    first, second = record_of(undisturbed), record_of(stopped)
    assert {k: v for k, v in first.items() if k not in TIMINGS} == {k: v for k, v in second.items() if k not in TIMINGS}
    same, other = (load_file(run.final / "model.safetensors") for run in (undisturbed, stopped))
    assert all(torch.equal(same[name], other[name]) for name in same)
    curves = [[(p["step"], p.get("loss"), p.get("train_loss")) for p in r.read_curve()] for r in (undisturbed, stopped)]
    assert curves[0] == curves[1]


KILLED_AFTER_ITS_FIRST_CHECKPOINT = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(torch.get_num_threads())
from lmexp.train.saving import Saving
from lmexp.train.worker import main
saved = Saving.on_step_end
def save_then_die_three_steps_later(self, trainer, task):
    saved(self, trainer, task)
    if self.file.exists() and self.progress.steps % 8 == 3:
        os.kill(os.getpid(), signal.SIGKILL)
Saving.on_step_end = save_then_die_three_steps_later
main(Path(sys.argv[1]))
"""


def test_a_damaged_checkpoint_is_set_aside_and_the_run_starts_over(make_run: MakeRun):
    run = make_run()
    run.checkpoints.mkdir()
    last_checkpoint(run).write_bytes(b"PK\x03\x04 half a zip")
    assert main(run.path) == 0
    assert record_of(run)["tokens"] == 5120
    assert (run.checkpoints / "last.ckpt.damaged").exists()


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_accumulation_changes_neither_steps_nor_loss(make_run: MakeRun, micro: int):
    whole, cut = make_run(place="whole"), make_run(f"batch.micro={micro}", place="cut")
    assert main(whole.path) == main(cut.path) == 0
    one, other = record_of(whole), record_of(cut)
    assert one["steps"] == other["steps"] == 20
    assert one["loss"] == pytest.approx(other["loss"], abs=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2])
def test_several_processes_train_the_same_model_as_one(make_run: MakeRun, processes: int):
    alone, together = make_run(place="alone"), make_run(f"trainer.devices={processes}", place="together")
    assert main(alone.path) == 0
    train_together(together.path, processes)
    one, other = record_of(alone), record_of(together)
    assert other["world_size"] == processes
    assert one["loss"] == pytest.approx(other["loss"], abs=2e-5)
    assert one["accuracy"] == pytest.approx(other["accuracy"], abs=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "bf16_true"])
def test_every_precision_starts_from_the_same_weights_and_data(make_run: MakeRun, precision: str):
    # The first loss comes before the first update: it differs by what the precision does, and no more.
    runs = [make_run(f"precision={name}", place=name) for name in ("fp32", precision)]
    assert [main(run.path) for run in runs] == [0, 0]
    full, low = (run.read_curve()[0]["train_loss"] for run in runs)
    assert full == pytest.approx(low, rel=2e-3) and full != low
    row = record_of(runs[1])
    assert row["dtype_compute"] == "bfloat16"
    assert row["dtype_weights"] == row["dtype_optimizer"] == {"bf16": "float32", "bf16_true": "bfloat16"}[precision]


def test_a_diverging_run_is_a_result_with_a_reason(make_run: MakeRun):
    run = make_run("optim=sgd", "optim.lr=1e30", "optim.grad_clip=null")
    assert main(run.path) == 1
    state = run.read_state()
    assert state.state == "diverged" and "loss is" in (state.reason or "")
    assert not run.read_record()


def test_the_final_model_gives_the_recorded_loss(make_run: MakeRun):
    from lmexp.data.loading import ValidationBatches
    from lmexp.data.windows import Windows
    from lmexp.tasks.causal_lm import CausalLM

    run = make_run()
    main(run.path)
    loaded = load_final(run)
    config, model = loaded.config, loaded.model
    store = prepare(config.data, config.tokenizer, run.path.parent.parent / STORES)
    for batch in (1, 7):
        task = CausalLM(model, config)
        quality = task.evaluate(ValidationBatches(Windows(store, 32, 0), batch), store.bytes("validation"))
        assert quality.loss == pytest.approx(record_of(run)["loss"], abs=1e-6)
        assert quality.tokens == store.tokens("validation") - 1
        recorded = [record_of(run)[name] for name in LOSS_BY_QUARTER]
        assert quality.quarters == pytest.approx(recorded, abs=1e-6) and len(set(recorded)) == 4
    row = record_of(run)
    assert row["n_params_kaplan"] == 12 * config.model.n_layers * config.model.d_model**2  # Kaplan et al., table 1
    assert row["train_flops_kaplan"] == 6 * row["n_params_kaplan"] * row["tokens"]


def test_json_files_hold_neither_nan_nor_infinity(make_run: MakeRun):
    run = make_run()
    main(run.path)
    for file in (run.path / "record.json", run.path / "state.json"):
        assert not {"NaN", "Infinity"} & set(re.findall(r"\w+", file.read_text()))
