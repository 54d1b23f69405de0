"""Inputs: what data and tokenizers decide about a config, read once, and a mistake in them reported each time."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.config.schema import RunConfig
from lmexp.data import prepare as preparing
from lmexp.errors import UserError
from lmexp.resolve import inputs
from lmexp.resolve.inputs import InputResolver, begin_with, with_store

Configure = Callable[..., RunConfig]


@pytest.fixture
def resolver(tmp_path: Path) -> InputResolver:
    return InputResolver(tmp_path / "stores")


def test_a_config_gets_the_rows_of_its_tokenizer_and_a_hash_of_its_text(resolver: InputResolver, config: Configure):
    resolved = resolver.settled(resolver.identified(config()))
    assert config().model.vocab_size is None and resolved.model.vocab_size == resolver.store(resolved).vocab_size
    assert resolved.data.model_dump()["fingerprint"]


def test_fewer_rows_than_the_tokenizer_has_entries_are_refused(resolver: InputResolver, config: Configure):
    few = config("model.vocab_size=9")
    with pytest.raises(UserError, match=r"model\.vocab_size=9 is less than the tokenizer's"):
        with_store(few, resolver.store(resolver.identified(few)))


def test_a_store_is_read_once_and_its_mistake_is_raised_each_time(
    resolver: InputResolver, config: Configure, monkeypatch: pytest.MonkeyPatch
):
    calls: list[RunConfig] = []

    def prepare(*arguments: object) -> preparing.AnyStore:
        calls.append(config())
        raise UserError("no such text")

    monkeypatch.setattr(inputs, "prepare", prepare)
    for _ in range(3):
        with pytest.raises(UserError, match="no such text"):
            resolver.store(config())
    assert len(calls) == 1


def test_weights_of_another_run_bring_its_model_and_its_tokenizer(resolver: InputResolver, config: Configure):
    source = resolver.settled(resolver.identified(config("model.n_layers=1")))
    tokenizer = resolver.store(source).path / "tokenizer.json"
    mine = begin_with(config("model.n_layers=2"), source, tokenizer)
    assert mine.model == source.model
    assert mine.tokenizer.model_dump()["path"] == str(tokenizer.absolute())
