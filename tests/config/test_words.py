"""A config back to words: what they compose to is the config again."""

from typing import Any

import pytest

from lmexp.config import paths
from lmexp.config.cells import expand
from lmexp.config.compose import Composer
from lmexp.config.schema import RunConfig
from lmexp.config.words import ELSEWHERE, words_of

ROOTS = [paths.shipped_root()]


def essence(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", by_alias=True, exclude=set(ELSEWHERE))


def composed(words: list[str]) -> RunConfig:
    return Composer(ROOTS, words=words).config({})


@pytest.mark.parametrize("sweep", ["demo", "translation", "tagging", "families"])
def test_every_cell_of_a_shipped_sweep_comes_back(sweep: str):
    composer = Composer(ROOTS, paths.find_sweep(sweep, ROOTS)[1])
    for values in expand(composer.sweep_spec(), []).cells[::3]:
        config = composer.config(values)
        assert essence(composed(words_of(config, ROOTS))) == essence(config)


def test_the_usual_is_left_unsaid():
    assert words_of(composed([]), ROOTS) == []
    assert words_of(composed(["seed=3", "optim.lr=1e-2"]), ROOTS) == ["seed=3", "optim.lr=0.01"]


def test_what_resolving_fills_in_is_left_out():
    config = composed(["data=text", "data.path='/a b/c,d.txt'"])
    data = config.data.model_copy(update={"fingerprint": "ab"})
    resolved = config.model_copy(update={"data": data, "model": config.model.model_copy(update={"vocab_size": 99})})
    words = words_of(resolved, ROOTS)
    assert not any("fingerprint" in word or "vocab_size" in word for word in words)
    assert essence(composed(words)) == essence(config)
