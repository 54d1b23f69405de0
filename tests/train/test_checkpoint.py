"""Checkpoints: a good one is gone on from, a damaged one is set aside and costs no more than its steps."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lmexp.runs.directory import RunDir
from lmexp.train.checkpoint import last_checkpoint
from lmexp.train.saving import Saving
from lmexp.train.worker import main
from tests.train.test_stopping import results
from tests.train.test_worker import MakeRun


def stop_after(monkeypatch: pytest.MonkeyPatch, run: RunDir, step: int) -> None:
    """Train the run until a signal is found to have come during this step."""
    saved = Saving.on_step_end

    def asked(self: Saving, trainer: Any, task: Any) -> None:
        self.signals.requested = "cancelled" if self.progress.steps == step else None
        saved(self, trainer, task)

    with monkeypatch.context() as patch:
        patch.setattr(Saving, "on_step_end", asked)
        assert main(run.path) == 1 and f"after step {step};" in (run.read_state().reason or "")


Content = dict[str, Any]
PARTS = ("query", "key", "value")


def rewritten(change: Callable[[Content], None]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        content = torch.load(file, weights_only=True)
        change(content)
        torch.save(content, file)

    return damage


def truncated(share: float, file: Path) -> None:
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


def flipped(file: Path) -> None:
    """One bit of one number."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def smaller(content: Content) -> None:
    name = next(iter(content["state_dict"]))
    content["state_dict"][name] = content["state_dict"][name][:-1]


def other_moments(content: Content) -> None:
    content["optimizer_states"][0]["state"][0]["exp_avg"] = torch.zeros(3)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": partial(truncated, 0.0),
    "half of it": partial(truncated, 0.5),
    "all but its end": partial(truncated, 0.99),
    "a flipped bit": flipped,
    "no zip": lambda file: file.write_bytes(b"PK\x03\x04 half a zip") and None,
    "a list": lambda file: torch.save([1, 2], file),
    "nothing in it": rewritten(dict.clear),
    "no weights": rewritten(lambda content: content.pop("state_dict") and None),
    "a weight is missing": rewritten(lambda content: content["state_dict"].popitem() and None),
    "a weight of another shape": rewritten(smaller),
    "no optimizer": rewritten(lambda content: content.pop("optimizer_states") and None),
    "no optimizer's state": rewritten(lambda content: content["optimizer_states"][0]["state"].clear()),
    "a moment of another shape": rewritten(other_moments),
    "no schedulers": rewritten(lambda content: content.pop("lr_schedulers") or None),
    "no meter": rewritten(lambda content: content["callbacks"]["Clock"].pop("meter") and None),
    "samples in an unknown order": rewritten(
        lambda content: content["callbacks"]["Clock"]["progress"].update(order="by size")
    ),
    "no time spent": rewritten(lambda content: content["callbacks"].pop("Spending") and None),
}


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """The results of a run to which nothing happened, once there are some."""
    return {}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_that_cannot_be_gone_on_from_is_set_aside_and_the_run_starts_over(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, undisturbed: dict, damage: str
):
    run = make_run()
    stop_after(monkeypatch, run, 7)
    DAMAGES[damage](last_checkpoint(run))
    capsys.readouterr()
    assert main(run.path) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "last.ckpt.damaged" in line]
    assert "cannot be used (" in line and line.endswith("; starting over")
    assert [file.name for file in run.checkpoints.iterdir() if file.is_file()] == ["last.ckpt.damaged"]
    if not undisturbed:
        other = make_run(place="undisturbed")
        assert main(other.path) == 0
        undisturbed["results"] = results(other)
    record, curve = results(run)
    assert curve == undisturbed["results"][1]  # of one attempt, from its first point
    assert {k: v for k, v in record.items() if k != "data_fingerprint"} == {
        k: v for k, v in undisturbed["results"][0].items() if k != "data_fingerprint"
    }


@pytest.mark.parametrize(
    "words",
    [
        [],
        pytest.param(["optim=sgd"], marks=pytest.mark.slow),
        pytest.param(["optim=sgd", "optim.momentum=0", "optim.nesterov=false"], marks=pytest.mark.slow),
        pytest.param(["precision=bf16_true"], marks=pytest.mark.slow),
        pytest.param(["optim=muon", "model.mup_base_width=16"], marks=pytest.mark.slow),
    ],
)
def test_a_good_checkpoint_is_gone_on_from(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, words: list[str]):
    run, other = make_run(*words), make_run(*words, place="undisturbed")
    stop_after(monkeypatch, run, 7)
    assert [main(run.path), main(other.path)] == [0, 0]
    assert not list(run.checkpoints.glob("*.damaged")) and results(run) == results(other)


@pytest.mark.parametrize("begun", [0, 10**9])
def test_a_run_on_a_long_text_goes_on_in_the_order_in_which_it_was_begun(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, begun: int
):
    """With at most 10**9 windows sorted, the run is begun as by an earlier version."""
    run, other = make_run(), make_run(place="undisturbed")
    monkeypatch.setattr("lmexp.data.order._MAX_SORTED", begun)
    stop_after(monkeypatch, run, 7)
    assert main(other.path) == 0
    monkeypatch.setattr("lmexp.data.order._MAX_SORTED", 0)
    assert main(run.path) == 0
    assert not list(run.checkpoints.glob("*.damaged")) and results(run) == results(other)


def apart(weights: Content) -> Content:
    """Return the weights with one each for queries, keys and values, in the order of a model that has these."""
    split: Content = {}
    for name, weight in weights.items():
        if ".qkv." in name:
            split |= {name.replace("qkv", part): rows for part, rows in zip(PARTS, weight.chunk(3), strict=True)}
        else:
            split[name] = weight
    return split


def as_of_earlier_versions(content: Content) -> None:
    (optimizer,), weights = content["optimizer_states"], content["state_dict"]
    in_blocks = [".blocks." in name for name in weights]
    groups = [
        [n for n, inside in zip(weights, in_blocks, strict=True) if weights[n].ndim > 1 and inside],
        [
            n
            for n, inside in zip(weights, in_blocks, strict=True)
            if weights[n].ndim > 1 and not inside and "head" not in n
        ],
        [n for n in weights if weights[n].ndim < 2],
    ]
    states: list[Content] = []
    for group, names in zip(optimizer["param_groups"], groups, strict=True):
        first = len(states)
        for name, place in zip(names, group["params"], strict=True):
            state = optimizer["state"][place]
            count = 3 if ".qkv." in name else 1
            states += [{k: v.chunk(count)[i] if v.ndim else v for k, v in state.items()} for i in range(count)]
        group["params"] = list(range(first, len(states)))
    optimizer["state"] = dict(enumerate(states))
    content["state_dict"] = apart(weights)
    best = content["callbacks"]["Evaluation"]["best"]
    best["weights"] = apart(best["weights"])
    content["callbacks"]["Clock"]["progress"].pop("order")


def test_a_checkpoint_of_a_version_with_queries_keys_and_values_apart_is_gone_on_from(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
):
    words = ["optim=muon", "evaluation.patience=9"]
    run, other = make_run(*words), make_run(*words, place="undisturbed")
    stop_after(monkeypatch, run, 7)
    rewritten(as_of_earlier_versions)(last_checkpoint(run))
    stop_after(monkeypatch, run, 8)  # what is saved next is in today's form
    assert [main(run.path), main(other.path)] == [0, 0]
    assert not list(run.checkpoints.glob("*.damaged")) and results(run) == results(other)


def test_a_checkpoint_from_before_divergence_was_kept_is_gone_on_from(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
):
    run = make_run()
    stop_after(monkeypatch, run, 7)
    rewritten(lambda content: content["callbacks"].pop("Curve") and None)(last_checkpoint(run))
    assert main(run.path) == 0 and not list(run.checkpoints.glob("*.damaged"))
