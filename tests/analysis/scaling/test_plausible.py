"""Numbers in other units than those of the laws are asked about, whatever a single column looks like."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lmexp.analysis.scaling.laws import PUBLISHED_LAWS, chinchilla
from lmexp.analysis.scaling.readers import points_of_frame
from lmexp.errors import UserError

EPOCH = PUBLISHED_LAWS["epoch"].theta
PUBLIC = Path(__file__).parents[4] / "shared/data"


def table(**changed) -> pd.DataFrame:
    """Return GPT-2's four sizes, each on 100 to 800 billion tokens, with some columns multiplied by a factor."""
    params = np.repeat([124e6, 355e6, 774e6, 1558e6], 4)
    tokens = np.tile([100e9, 200e9, 400e9, 800e9], 4)
    frame = {"params": params, "tokens": tokens, "loss": chinchilla.loss(EPOCH, params, tokens)}
    return pd.DataFrame({name: values * changed.get(name, 1.0) for name, values in frame.items()})


OTHER_UNITS = {
    "params in millions, tokens in billions": {"params": 1e-6, "tokens": 1e-9},
    "both in millions": {"params": 1e-6, "tokens": 1e-6},
    "params in millions": {"params": 1e-6},
    "params in billions": {"params": 1e-9},
    "tokens in millions": {"tokens": 1e-6},
    "tokens in billions": {"tokens": 1e-9},
}


@pytest.mark.parametrize("name", OTHER_UNITS)
def test_sizes_in_other_units_are_asked_about_and_scale_answers(name: str):
    units = OTHER_UNITS[name]
    with pytest.raises(UserError, match=r"in millions.* --scale (params|tokens)=1"):
        points_of_frame(table(**units))
    factors = {key: 1 / factor for key, factor in units.items()}
    scaled, plain = points_of_frame(table(**units), scale=factors | {"params": factors.get("params", 1)}), table()
    np.testing.assert_allclose(scaled.params, plain["params"])
    np.testing.assert_allclose(scaled.flops, 6 * plain["params"] * plain["tokens"])


def test_a_scale_of_1_takes_the_numbers_as_they_are():
    frame = table(params=1e-6, tokens=1e-9)
    assert points_of_frame(frame, scale={"params": 1, "tokens": 1}).params.max() == pytest.approx(1558)


def test_one_row_in_another_unit_is_named():
    frame = table()
    frame.loc[2, "params"] = 124.0
    with pytest.raises(UserError, match=r"line 3: .* tokens per parameter"):
        points_of_frame(frame)


def test_flops_in_another_unit_are_named():
    frame = table()
    with pytest.raises(UserError, match=r"FLOPs are 6e-15 N D.*--compute 6ND"):
        points_of_frame(frame.assign(flops=6e-15 * frame["params"] * frame["tokens"]))


def test_perplexities_are_asked_about_under_the_name_of_loss():
    with pytest.raises(UserError, match="are they perplexities"):
        points_of_frame(table().assign(loss=np.exp(table()["loss"])))


def test_accuracies_are_asked_about_under_the_name_of_loss():
    with pytest.raises(UserError, match="is this an accuracy"):
        points_of_frame(table().assign(loss=1 / table()["loss"]))


def test_a_loss_above_that_of_a_uniform_guess_is_asked_about():
    frame = table().assign(vocab_size=256, tokens=table()["tokens"] / 1e3)
    with pytest.raises(UserError, match=r"above ln 256 = 5\.55"):
        points_of_frame(frame.assign(loss=frame["loss"] + 3.5))
    points_of_frame(frame)


def test_public_studies_are_not_questioned():
    """Their parameters and tokens are plain, and their losses nats, from 1e7 to 1e11 parameters."""
    if not PUBLIC.exists():
        pytest.skip("the public points are not here")
    losses = {"published/gadre2024": "loss_c4_val"}
    names = ("chinchilla_points", "published/gadre2024", "published/muennighoff2023", "published/gemstones2025")
    tables = {name: pd.read_csv(PUBLIC / f"{name}.csv") for name in names}
    sizes = [len(points_of_frame(frame, {"loss": losses.get(name, "loss")})) for name, frame in tables.items()]
    assert sum(sizes) > 1000
