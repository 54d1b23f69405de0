"""Checks of the study's own code; `python -m pytest test_study.py` runs them."""

import torch
from my_study.metrics import letters_right
from my_study.model import Average, AverageConfig


def test_no_position_sees_what_comes_after_it() -> None:
    """A change of the last token changes nothing before it."""
    config = AverageConfig(target="my_study.model.Average", name="average", context=8, vocab_size=11)
    model, tokens = Average(config), torch.arange(8)[None]
    changed = tokens.clone()
    changed[0, -1] = 9
    assert torch.equal(model(tokens)[:, :-1], model(changed)[:, :-1])


def test_only_letters_count() -> None:
    """Of two letters one is right; the space does not count."""
    targets = torch.tensor(list(b"a b"))
    assert letters_right(torch.tensor(list(b"a_x")), targets) == 0.5
