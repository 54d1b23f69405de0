"""Overrides that messages name are enough: the config that they make passes every check."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmexp.config.checks import check_config, whole_batch
from lmexp.config.fixes import longer_contexts, shorter_context
from lmexp.config.schema import RunConfig
from lmexp.errors import UserError
from tests.conftest import SMALL

PAIRS = ["task=seq2seq", "data=reverse", "model=encdec_nano", "model.context=16", "batch.tokens=640"]
SIZES = st.integers(1, 700)


def with_overrides(config: RunConfig, overrides: str) -> RunConfig:
    """Return a config with overrides such as `model.context=8 batch.tokens=64`."""
    for override in overrides.split():
        section, name, number = override.replace("=", ".").split(".")
        changed = getattr(config, section).model_copy(update={name: int(number)})
        config = config.model_copy(update={section: changed})
    return config


@pytest.fixture
def pairs(config: Callable[..., RunConfig]) -> RunConfig:
    from lmexp.config import paths
    from lmexp.config.compose import Composer

    rest = [word for word in SMALL if not word.startswith(("model", "batch"))]
    return Composer(paths.search_roots(), words=[*rest, *PAIRS]).config({})


def shared(config: RunConfig, devices: int, micro: int | None, batch: int) -> RunConfig:
    """Return a config whose steps are shared by devices and micro-batches."""
    trainer = config.trainer.model_copy(update={"devices": devices})
    return config.model_copy(
        update={"trainer": trainer, "batch": config.batch.model_copy(update={"micro": micro, "tokens": batch})}
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(needed=SIZES, source=SIZES, devices=st.integers(1, 5), micro=st.none() | st.integers(1, 7), batch=SIZES)
def test_longer_contexts_come_with_a_batch_that_fits_them(pairs, needed, source, devices, micro, batch):
    config = shared(pairs, devices, micro, batch)
    overrides = longer_contexts(config, {"input_context": source, "context": needed})
    assert overrides is not None
    mended = with_overrides(config, overrides)
    check_config(mended)
    assert source <= mended.model.source_limit[0] < source + 8 and needed <= mended.model.context < needed + 8


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(most=SIZES, devices=st.integers(1, 5), micro=st.none() | st.integers(1, 7), batch=SIZES)
def test_a_shorter_context_comes_with_a_batch_that_fits_it(pairs, most, devices, micro, batch):
    config = shared(pairs, devices, micro, batch)
    overrides = shorter_context(config, most)
    assert overrides is not None
    mended = with_overrides(config, overrides)
    check_config(mended)
    assert mended.model.context <= most < 2 * mended.model.context


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(devices=st.integers(1, 5), micro=st.none() | st.integers(1, 7), batch=st.integers(1, 5000))
def test_the_batch_that_a_message_names_is_accepted(pairs, devices, micro, batch):
    config = shared(pairs, devices, micro, batch)
    try:
        check_config(config)
    except UserError as problem:
        check_config(shared(pairs, devices, micro, whole_batch(config, batch)))
        assert str(whole_batch(config, batch)) in str(problem)
    else:
        assert whole_batch(config, batch) == batch


def test_no_context_is_named_that_a_library_model_has_no_positions_for(config: Callable[..., RunConfig]):
    words = ["model=hf_config", "model.model_type=gpt2", "+model.config.n_positions=64", "model.context=32"]
    rest = [word for word in SMALL if not word.startswith("model")]
    from lmexp.config import paths
    from lmexp.config.compose import Composer

    ours = Composer(paths.search_roots(), words=[*rest, *words]).config({})
    assert longer_contexts(ours, {"context": 64}) == "model.context=64"
    assert longer_contexts(ours, {"context": 65}) is None
