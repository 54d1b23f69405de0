"""What varies and changes the law is said, with the filter or the column that handles it."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmexp.analysis.scaling.readers import points_of_csv, points_of_frame
from lmexp.errors import UserError
from tests.analysis.scaling.designs import grid

CASES = Path(__file__).parents[4] / "shared/cases/fits"


def table(**columns) -> pd.DataFrame:
    """Return 24 runs with further columns, which repeat their values."""
    runs = grid(noise=0.005)
    frame = pd.DataFrame({"params": runs.params, "tokens": runs.tokens, "loss": runs.loss})
    return frame.assign(**{name: np.resize(np.array(values), 24) for name, values in columns.items()})


VARYING = {
    "epochs": ({"epochs": [1, 4, 16]}, 'up to 16 passes .* --where "epochs <= 4"'),
    "unique tokens": ({"unique_tokens": [5e7]}, 'passes .* --where "tokens / unique_tokens <= 4"'),
    "family": ({"family": ["moe", "dense", "dense"]}, "family is moe or dense: .* --where \"family == 'dense'\""),
    "vocabulary": ({"vocab_size": [32000, 32000, 64000]}, 'do not compare .* --where "vocab_size == 32000"'),
    "learning rate": ({"LR": [1e-3, 3e-4]}, 'LR is 0.001 or 0.0003: .* --where "LR == '),
    "batch": ({"batch_tokens": [1048576, 1048576, 2097152]}, 'where "batch_tokens == 1048576"'),
    "data set": ({"Data Set": ["c4", "pile"]}, "`Data Set` is c4 or pile"),
    "active": ({"n_params_active": [1e6]}, "24 of 24 rows .* --params n_params_active"),
}


@pytest.mark.parametrize("name", VARYING)
def test_a_column_that_changes_the_law_is_said_with_its_remedy(name: str):
    columns, said = VARYING[name]
    (warning,) = points_of_frame(table(**columns)).warnings
    assert re.search(said, warning), warning


def test_other_columns_are_in_the_unit_of_the_table():
    """A table in millions, whose parameters are all active."""
    frame = table(epochs=[1])
    frame["params"], frame["tokens"] = frame["params"] / 1e6, frame["tokens"] / 1e6
    frame["active_params"], frame["unique_tokens"] = frame["params"], frame["tokens"]
    assert points_of_frame(frame, scale={"params": 1e6, "tokens": 1e6}).warnings == ()


def test_the_advised_filter_names_the_tables_own_column():
    frame = table(unique_tokens=[5e7]).rename(columns={"tokens": "train_tokens"})
    (warning,) = points_of_frame(frame, {"tokens": "train_tokens"}).warnings
    assert '--where "train_tokens / unique_tokens <= 4"' in warning


def test_what_does_not_vary_or_is_handled_is_not_said():
    fixed = table(epochs=[1, 2], family=["gpt"], vocab_size=[32000], lr=[1e-3], n_params_active=[1e6])
    fixed["n_params_active"] = fixed["params"]
    assert points_of_frame(fixed).warnings == ()
    moe = fixed.assign(n_params_active=fixed["params"] / 4)
    assert points_of_frame(moe, {"params": "n_params_active"}).warnings == ()


@pytest.mark.parametrize("name", ["repeated_data", "dense_and_moe", "vocab_changes_with_size"])
def test_the_cases_from_outside_are_said(name: str):
    if not CASES.exists():
        pytest.skip("the cases are not here")
    assert any("--where" in warning for warning in points_of_csv(CASES / f"{name}.csv").warnings)


def test_a_validation_loss_comes_before_the_loss():
    frame = table().assign(val_loss=lambda rows: rows["loss"] + 0.1)
    np.testing.assert_allclose(points_of_frame(frame).loss, frame["val_loss"])


def test_perplexity_is_refused_by_its_name():
    for name in ("perplexity", "val_ppl", "Perplexity"):
        with pytest.raises(UserError, match="take its logarithm"):
            points_of_frame(table().rename(columns={"loss": name}), {"loss": name})


def test_a_precision_in_bits_is_that_of_its_type():
    assert set(points_of_frame(table(precision=[16, 8, 4])).precision) == {"bf16", "fp8", "fp4"}
    assert set(points_of_frame(table(precision=["16", "fp8"])).precision) == {"bf16", "fp8"}
