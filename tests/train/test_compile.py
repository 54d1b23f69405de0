"""torch.compile: the same training, and its time told apart."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from lmexp.runs.directory import RunDir
from lmexp.train.worker import main

MakeRun = Callable[..., RunDir]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
def test_compiling_changes_the_time_and_not_the_result(make_run: MakeRun):
    rows = {}
    for compiled in (False, True):
        run = make_run(f"trainer.compile={compiled}")
        assert main(run.path) == 0
        (rows[compiled],) = run.read_record()
    assert rows[False]["compile_seconds"] is None and rows[True]["compile_seconds"] > 0.5
    assert rows[True]["loss"] == pytest.approx(rows[False]["loss"], abs=1e-4)
    assert rows[True]["dtype_compute"] == "float32"
    # Compiling is time of training, and falls into the warm-up: speed is that of the steps after it.
    assert rows[True]["train_seconds"] > rows[False]["train_seconds"] + 0.5
    assert rows[True]["step_ms_p95"] < 1e3 * rows[True]["compile_seconds"] / 2


MAX_GRAPHS_IN_TRAINING, MAX_GRAPHS = 2, 4


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bool, bool]]]:
    """Record each graph that is compiled, by a compiler that leaves it as it is: with gradients? for one size only?"""
    seen: list[tuple[bool, bool]] = []

    def record(graph: torch.fx.GraphModule, example: list[Any]) -> Callable[..., Any]:
        sizes = [size for value in example if torch.is_tensor(value) for size in value.shape]
        seen.append((torch.is_grad_enabled(), all(isinstance(size, int) for size in sizes)))
        return graph.forward

    compiles = torch.compile  # nn.Module's own method calls it
    monkeypatch.setattr(torch, "compile", lambda what, **options: compiles(what, **options | {"backend": record}))
    torch.compiler.reset()  # of other tests in this process
    yield seen
    torch.compiler.reset()


@pytest.mark.slow
def test_a_run_compiles_the_same_few_graphs_however_long_it_trains(make_run: MakeRun, graphs: list[tuple[bool, bool]]):
    compiled: list[list[tuple[bool, bool]]] = []
    for steps in (3, 6):
        run = make_run("trainer.compile=true", "model.n_layers=1", f"budget.tokens={256 * steps}")
        assert main(run.path) == 0
        compiled.append(list(graphs))
        graphs.clear()
        torch.compiler.reset()
    training = [[graph for graph in each if graph[0]] for each in compiled]
    assert training[0] == training[1] and 1 <= len(training[0]) <= MAX_GRAPHS_IN_TRAINING
    assert all(is_for_one_size for _, is_for_one_size in training[0]), "all micro-batches of a run have one size"
    assert all(len(each) <= MAX_GRAPHS for each in compiled), "evaluation, with its smaller last batch, adds few"
