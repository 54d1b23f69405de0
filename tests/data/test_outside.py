"""A user's own data source or tokenizer that does not do what lmexp needs: it is named, in one message."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lmexp.config.data import OutsideData
from lmexp.config.tokenizers import OutsideTokenizerConfig
from lmexp.config.trust import trusting
from lmexp.data.outside import fingerprint
from lmexp.data.tokenizers.outside import build_outside
from lmexp.errors import UserError

MODULE = """
def nothing(): pass
def one_text(): return "a text"
def not_a_text(): yield from ["a text", 7]
def empty(): return []

class Tokens:
    vocab_size = 10
    def __init__(self, ids): self.ids = ids
    def encode(self, text): return self.ids
    def decode(self, ids): return ""
    def state(self): return {}

class NoState:
    vocab_size = 10
    def encode(self, text): return []
    def decode(self, ids): return ""
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "odd_data.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    with trusting(["odd_data"]):
        yield


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "must yield its texts or examples, or return a list of them; it returned None"),
        ("one_text", "must yield its texts or examples, or return a list of them; it returned 'a text'"),
        ("not_a_text", "must yield a text each time; number 2 is 7"),
        ("empty", "is empty"),
    ],
)
def test_a_source_that_gives_no_texts_is_named(name: str, said: str):
    data = OutsideData(target=f"odd_data.{name}")
    with pytest.raises(UserError, match=f"the source odd_data.{name} {said}"):
        fingerprint(data)


@pytest.mark.parametrize("ids", [None, 7, ["a"], [[1, 2]]])
def test_a_tokenizer_that_encodes_no_list_of_ids_is_named(ids: object):
    tokenizer = build_outside(OutsideTokenizerConfig(target="odd_data.Tokens", ids=ids), iter(()))
    with pytest.raises(UserError, match=r"the tokenizer odd_data.Tokens must encode a text as a list of ids"):
        tokenizer._encode_batch(["a text"])


def test_a_tokenizer_without_a_member_is_named():
    with pytest.raises(UserError, match=r"the tokenizer odd_data.NoState needs state"):
        build_outside(OutsideTokenizerConfig(target="odd_data.NoState"), iter(()))
