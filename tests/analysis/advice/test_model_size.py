"""A number of parameters becomes a model that has about as many, in the proportions of the study."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.analysis.advice.model_size import NEAR, nearest_shape
from lmexp.config import paths
from lmexp.config.compose import Composer
from lmexp.config.schema import RunConfig
from lmexp.cost.flops import count_model

ROOTS = paths.search_roots()


def base(*words: str) -> RunConfig:
    return Composer(ROOTS, words=["tokenizer=byte", "model.vocab_size=257", *words]).config({})


BASES = {name: base(f"model={name}", *words) for name, words in {
    "gpt_mini": [], "llama_nano": [], "lstm_tiny": [], "bert_tiny": ["task=masked_lm"],
}.items()}  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(name=st.sampled_from(list(BASES)), params=st.floats(1e5, 1e9))
def test_the_shape_has_about_the_wanted_parameters_and_the_rest_of_the_base(name: str, params: float):
    config = BASES[name]
    shape = nearest_shape(config.model, config.task, params, ROOTS)
    assert shape is not None and count_model(shape.model, config.task).n_params == shape.n_params
    assert abs(math.log(shape.n_params / params)) < 0.5
    assert (shape.model.family, shape.model.vocab_size, shape.model.context) == (
        config.model.family, config.model.vocab_size, config.model.context,
    )  # fmt: skip


def test_a_shipped_size_close_by_is_taken_and_named(tmp_path: Path):
    config = BASES["gpt_mini"]
    wanted = count_model(config.model, config.task).n_params
    for off in (1 - 0.9 * NEAR, 1.0, 1 + 0.9 * NEAR):
        shape = nearest_shape(config.model, config.task, wanted * off, ROOTS)
        assert shape is not None and shape.shipped == "gpt_mini" and shape.n_params == wanted
    (tmp_path / "conf" / "model").mkdir(parents=True)
    mine = "defaults: [gpt_mini, _self_]\nn_layers: 5\n"
    (tmp_path / "conf" / "model" / "gpt_mine.yaml").write_text(f"# Five layers\n{mine}")
    five = count_model(config.model.model_copy(update={"n_layers": 5}), config.task).n_params
    own = nearest_shape(config.model, config.task, five, [tmp_path, *ROOTS])
    assert own is not None and own.shipped == "gpt_mine" and own.model.n_layers == 5


def test_a_large_model_keeps_about_the_ratio_of_width_to_depth():
    config = BASES["gpt_mini"]
    shape = nearest_shape(config.model, config.task, 3e9, ROOTS)
    assert shape is not None and shape.shipped is None
    ratios = [model.d_model / model.n_layers for model in (shape.model, config.model)]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.25)


def test_a_family_without_a_formula_has_no_shape():
    config = BASES["gpt_mini"]
    assert nearest_shape(config.model.model_copy(update={"d_model": None}), config.task, 1e6, ROOTS) is None
