"""Code of the user's own that cannot be called as lmexp calls it is refused before anything runs, with its name."""

from pathlib import Path

import pytest

from lmexp.config.compose import Composer
from lmexp.config.outside import check_outside
from lmexp.config.paths import shipped_root
from lmexp.config.trust import trusting
from lmexp.errors import UserError

MODULE = """
import torch

class NoLr(torch.optim.Optimizer):
    def __init__(self, params, rate=1.0): ...

def no_share(): return 1.0

class NoCall:
    def __init__(self): ...

class NotACallback: ...
"""
CASES = [
    ("optim", "NoLr", r"got an unexpected keyword argument 'lr'. lmexp calls NoLr\(params, lr=...\)"),
    ("schedule", "no_share", r"too many positional arguments. lmexp calls no_share\(share\)"),
    ("schedule", "NoCall", r"has no method __call__\(share\)"),
    ("callbacks", "NotACallback", r"must be a class that derives from pytorch_lightning.Callback"),
]


@pytest.mark.parametrize(("group", "name", "said"), CASES)
def test_what_cannot_be_called_as_lmexp_calls_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, name: str, said: str
):
    (tmp_path / "odd_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    words = ["callbacks=[{_target_: odd_parts.NotACallback}]"]
    if group != "callbacks":
        (tmp_path / "conf" / group).mkdir(parents=True)
        rate = "lr: 1e-3\n" if group == "optim" else ""
        (tmp_path / "conf" / group / "odd.yaml").write_text(f"_target_: odd_parts.{name}\n{rate}")
        words = [f"{group}=odd"]
    with trusting(["odd_parts"], tmp_path):
        config = Composer([tmp_path, shipped_root()], words=words).config({})
        with pytest.raises(UserError, match=rf"odd_parts\.{name}.*{said}"):
            check_outside(config)
