"""The types that tensors are stored and multiplied in are read from the tensors."""

import pytest
import torch
from torch import nn

from lmexp.train.dtypes import MatmulTypes, stored_dtypes


def test_the_type_that_holds_the_most_numbers_counts():
    model = nn.Sequential(nn.Linear(8, 8).bfloat16(), nn.Linear(4, 4))
    optimizer = torch.optim.AdamW(model.parameters())
    assert stored_dtypes(model, optimizer) == {
        "dtype_weights": "bfloat16",
        "dtype_grads": None,
        "dtype_optimizer": None,
    }


def test_gradients_and_moments_are_read_and_step_counters_are_not():
    model = nn.Linear(2, 1, bias=False).double()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2, dtype=torch.float64)).sum().backward()
    optimizer.step()
    dtypes = stored_dtypes(model, optimizer)
    assert dtypes["dtype_grads"] == dtypes["dtype_optimizer"] == "float64"
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
