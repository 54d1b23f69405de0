"""The types that tensors are stored and multiplied in are read from the tensors."""

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from lmexp.tasks.base import Task
from lmexp.train.dtypes import DtypeReader, MatmulTypes, is_compiled, profiled_type, stored_dtypes


def test_the_type_that_holds_the_most_numbers_counts():
    model = nn.Sequential(nn.Linear(8, 8).bfloat16(), nn.Linear(4, 4))
    optimizer = torch.optim.AdamW(model.parameters())
    assert stored_dtypes(model, optimizer) == {
        "dtype_weights": "bfloat16",
        "dtype_optimizer": None,
    }


def test_gradients_and_moments_are_read_and_step_counters_are_not():
    model = nn.Linear(2, 1, bias=False).double()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2, dtype=torch.float64)).sum().backward()
    optimizer.step()
    reader, task = DtypeReader([]), Reads(model)
    reader.on_before_optimizer_step(cast(Any, None), task, optimizer)
    optimizer.zero_grad()  # as it is after each step
    assert reader.gradients == stored_dtypes(model, optimizer)["dtype_optimizer"] == "float64"
    (state,) = optimizer.state.values()
    del state["exp_avg"], state["exp_avg_sq"]
    assert "step" in state and stored_dtypes(model, optimizer)["dtype_optimizer"] is None


@pytest.mark.parametrize(
    ("large", "small", "expected"),
    [(torch.float32, torch.bfloat16, "float32"), (torch.bfloat16, torch.float32, "bfloat16")],
)
def test_the_matmul_with_the_most_work_decides(large: torch.dtype, small: torch.dtype, expected: str):
    with MatmulTypes() as matmuls:
        torch.ones(16, 16, dtype=large) @ torch.ones(16, 16, dtype=large)
        torch.ones(2, 2, dtype=small) @ torch.ones(2, 2, dtype=small)
    assert matmuls.most_used == expected
    assert matmuls.multiply_adds[expected] == 16**3


def test_what_only_adds_multiplies_in_nothing():
    with MatmulTypes() as matmuls:
        torch.ones(4, 4) + torch.ones(4, 4)
    assert matmuls.most_used is None


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x)
        return out.sum()


class Reads(Task):
    """The parts of a task that a reader of types uses."""

    device = torch.device("cpu")  # type: ignore[assignment]

    def __init__(self, model: nn.Module) -> None:
        pl.LightningModule.__init__(self)
        self.model, self.config = model, cast(Any, SimpleNamespace(precision=SimpleNamespace(emulate=False)))

    def batch_nll(self, batch: Any) -> torch.Tensor:
        loss: torch.Tensor = self.model(batch)
        return loss


@pytest.mark.parametrize("steps", [1, 2])
def test_a_compiled_model_is_seen_as_it_is_compiled_and_not_as_it_is_in_eager_mode(steps: int):
    """With a compiler that multiplies in bfloat16 what the model multiplies in float32."""

    def compiler(graph: torch.fx.GraphModule, example: Any) -> Callable[..., Any]:
        return lambda *arguments: [graph.to(torch.bfloat16)(*(x.to(torch.bfloat16) for x in arguments))[0].float()]

    model, batch = Model(), torch.ones(4, 8)
    assert not is_compiled(model)
    model.compile(backend=compiler)
    task, reader = Reads(model), DtypeReader([])
    trainer: Any = SimpleNamespace(
        accumulate_grad_batches=2,
        optimizers=[torch.optim.SGD(model.parameters())],
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
    )
    reader.on_train_start(trainer, task)
    for index in range(2 * steps):
        reader.on_train_batch_start(trainer, task, cast(Any, batch), index)
        reader.on_before_backward(trainer, task, model(batch))
        assert (reader._profiled is not None) == (index >= 2), "the second step, when nothing is traced any more"
    reader.on_train_end(trainer, task)
    assert reader.dtypes["dtype_compute"] == "bfloat16" and reader.dtypes["dtype_weights"] == "float32"


@pytest.mark.parametrize(
    ("kinds", "is_on_cuda", "precision", "expected"),
    [
        (["c10::Half", "float"], False, "highest", "float16"),
        (["float"], True, "highest", "float32"),
        (["float"], True, "high", "tf32"),
        (["float"], False, "high", "float32"),
        (["c10::Float8_e4m3fn"], True, "highest", "float8_e4m3fn"),
        ([], True, "highest", None),
    ],
)
def test_types_in_a_profile(
    kinds: list[str], is_on_cuda: bool, precision: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
):
    """The products get smaller and smaller, so the first one decides."""
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    events = [
        SimpleNamespace(
            name=lambda: "aten::addmm",
            shapes=lambda size=size: [[size], [size, size], [size, size], []],
            dtypes=lambda kind=kind: ["float", kind, kind, "Scalar"],
        )
        for kind, size in zip(kinds, [16, 8], strict=False)
    ]
    other = SimpleNamespace(name=lambda: "aten::linear")
    assert profiled_type([other, *events], is_on_cuda) == expected
