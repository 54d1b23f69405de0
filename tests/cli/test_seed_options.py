"""What `--seeds auto` refuses, before anything is resolved."""

from pathlib import Path

import pytest

from lmexp.errors import UserError
from lmexp.runs.manifest import LookRule
from lmexp.study.seeds import look_rule, resolve_with_looks


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("5", 0.1, None, None), "sweep.seeds=5"),
        (("auto", None, None, None), "needs --difference"),
        (("auto", 0.0, None, None), "above 0"),
        (("auto", float("nan"), None, None), "above 0"),
        (("auto", 0.1, 3, None), "--cap must be more than the 3 seeds"),
        (("auto", 0.1, None, "loss,perplexity"), "one column"),
        ((None, 0.1, None, None), "need --seeds auto"),
    ],
)
def test_wrong_options_are_refused(options: tuple, said: str):
    with pytest.raises(UserError, match=said):
        look_rule(*options)


def test_a_search_is_refused_in_words_about_searches(tmp_path: Path):
    rule = LookRule(quality="loss", difference=0.1, cap=4)
    with pytest.raises(UserError, match="search is a search, which chooses its cells: run the search first"):
        resolve_with_looks("search", [], rule, tmp_path)
