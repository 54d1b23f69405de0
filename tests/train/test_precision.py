"""Precision as a fair arm: one start, one order of data, and a record of what tensors really were."""

from collections.abc import Callable

import pytest
import torch

from lmexp.errors import UserError
from lmexp.runs.directory import RunDir
from lmexp.train.clock import Clock
from lmexp.train.worker import main

MakeRun = Callable[..., RunDir]
PRESETS = {
    "fp32": {},
    "bf16": {},
    "bf16_true": {},
    "fp8": {"emulate": True},
}


def words_for(precision: str) -> list[str]:
    return [f"precision={precision}", *[f"precision.{k}={v}" for k, v in PRESETS[precision].items()]]


@pytest.fixture
def first_step(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What a run starts from: its weights before the first step, and the batches it then sees."""
    seen: dict = {"batches": []}
    begin = Clock.on_train_batch_start

    def look(self, trainer, task, batch, batch_idx):  # type: ignore[no-untyped-def]
        if "weights" not in seen:
            seen["weights"] = {name: weight.detach().float().clone() for name, weight in task.named_parameters()}
        seen["batches"].append(batch["inputs"].clone())
        begin(self, trainer, task, batch, batch_idx)

    monkeypatch.setattr(Clock, "on_train_batch_start", look)
    return seen


def test_all_presets_start_from_the_same_weights_and_see_the_same_tokens(make_run: MakeRun, first_step: dict):
    found = {}
    for precision in PRESETS:
        first_step.clear()
        first_step["batches"] = []
        run = make_run(*words_for(precision))
        assert main(run.path) == 0, precision
        found[precision] = (first_step["weights"], torch.cat(first_step["batches"]))
    weights, tokens = found["fp32"]
    assert len(tokens) == 20 * 8
    for precision, (others, seen) in found.items():
        assert torch.equal(tokens, seen)
        assert others.keys() == weights.keys()
        for name, weight in weights.items():
            expected = weight.bfloat16().float() if precision == "bf16_true" else weight
            assert torch.equal(others[name], expected), (precision, name)


@pytest.mark.parametrize(
    ("precision", "weights", "compute"),
    [
        ("fp32", "float32", "float32"),
        ("bf16", "float32", "bfloat16"),
        ("bf16_true", "bfloat16", "bfloat16"),
        ("fp8", "float32", "float8_e4m3fn emulated"),
    ],
)
def test_the_record_tells_what_tensors_really_were(make_run: MakeRun, precision: str, weights: str, compute: str):
    run = make_run(*words_for(precision))
    assert main(run.path) == 0
    (row,) = run.read_record()
    assert row["dtype_weights"] == row["dtype_grads"] == row["dtype_optimizer"] == weights
    assert row["dtype_compute"] == compute


def test_what_was_asked_for_is_not_what_the_record_tells(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    from lmexp.train import training

    monkeypatch.setattr(training, "convert", lambda model, precision: None)  # fp8 that silently is not
    run = make_run(*words_for("fp8"))
    assert main(run.path) == 0
    assert run.read_record()[0]["dtype_compute"] == "bfloat16"


def test_fp8_needs_a_device_that_has_it_and_widths_that_fit(make_run: MakeRun):
    with pytest.raises(UserError, match=r"fp8 needs an NVIDIA GPU .* precision.emulate=true"):
        make_run("precision=fp8")
    with pytest.raises(UserError, match="multiples of"):
        make_run("precision=fp8", "precision.emulate=true", "model.d_model=40")


def test_emulated_fp8_costs_quality_and_has_no_mfu(make_run: MakeRun):
    losses = {}
    for precision in ("fp32", "fp8"):
        run = make_run(*words_for(precision))
        main(run.path)
        (row,) = run.read_record()
        losses[precision] = row["loss"]
        assert (row["mfu"] is None) == (precision == "fp8")
        assert row["flops_per_token"] == 6 * row["n_params_matmul"] + 12 * 2 * 32 * 32  # counted before conversion
    assert losses["fp8"] != losses["fp32"] and abs(losses["fp8"] - losses["fp32"]) < 0.1


def test_a_finished_fp8_run_is_a_plain_model_to_those_who_use_it(make_run: MakeRun):
    from lmexp.train.checkpoint import load_final

    run = make_run(*words_for("fp8"))
    main(run.path)
    model = load_final(run).model
    assert {type(m).__name__ for m in model.modules() if isinstance(m, torch.nn.Linear)} == {"Linear"}
