"""The optimizer that a config names, when it comes from outside."""

from pathlib import Path

import pytest
from torch import nn

from lmexp.config.optimizers import OtherOptim
from lmexp.config.trust import trusting
from lmexp.errors import UserError
from lmexp.tasks.optim import build_optimizer

MODULE = """
import torch

class Plain(torch.optim.Optimizer):
    def __init__(self, params, lr): super().__init__(params, {"lr": lr})

class HidesLr(torch.optim.Optimizer):
    def __init__(self, params, lr): super().__init__(params, {"rate": lr})
"""


def test_an_optimizer_whose_rate_no_schedule_can_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "odd_optimizers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    weights = list(nn.Linear(2, 2).parameters())
    with trusting(["odd_optimizers"]):
        assert build_optimizer(weights, OtherOptim(target="odd_optimizers.Plain", lr=1e-3), False).param_groups
        with pytest.raises(UserError, match=r"odd_optimizers.HidesLr has no 'lr' in its param_groups"):
            build_optimizer(weights, OtherOptim(target="odd_optimizers.HidesLr", lr=1e-3), False)
