"""The texts that members and others are compared by."""

import numpy as np
import pytest

from lmexp.config.data import CanariesConfig
from lmexp.config.tokenizers import ByteTokenizerConfig
from lmexp.data.canaries import canaries_of
from lmexp.data.membership import membership_texts
from lmexp.data.split import hashed_split
from lmexp.data.store import prepare
from lmexp.errors import UserError

BYTE = ByteTokenizerConfig(kind="byte")
LINES = [f"{i:03}" + "x" * (i % 40) for i in range(400)]


def decoded(rows: np.ndarray) -> list[str]:
    return [bytes(row.tolist()).decode() for row in rows]


def test_members_are_beginnings_of_training_documents_and_others_of_validation_documents(files, tmp_path):
    data = files("a.txt", "\n".join(LINES), document="line", validation=0.3)
    store = prepare(data, BYTE, tmp_path / "stores")
    texts = membership_texts(store, 100, 1000)
    length = texts.members.shape[1]
    kept = {
        split: [
            line[:length] for line in LINES if hashed_split(line, {"validation": 0.3}) == split and len(line) >= length
        ]
        for split in ("train", "validation")
    }
    assert texts.members.shape == texts.others.shape == (len(kept["validation"]), length)
    assert decoded(texts.others) == kept["validation"]
    assert set(decoded(texts.members)) < set(kept["train"])
    assert len(kept["validation"]) == pytest.approx(0.75 * store.documents("validation"), abs=4)
    again, few = membership_texts(store, 100, 1000), membership_texts(store, 16, 25)
    assert (again.members == texts.members).all()
    assert few.members.shape == few.others.shape == (25, min(16, length))


def test_canaries_are_no_members(files, tmp_path):
    canaries = CanariesConfig(count=3, repeats=[50])
    data = files("a.txt", "\n".join(LINES), document="line", validation=0.3, canaries=canaries)
    texts = membership_texts(prepare(data, BYTE, tmp_path / "stores"), 24, 1000)
    beginnings = {canary.text[: texts.members.shape[1]] for canary in canaries_of(canaries)}
    assert texts.members.shape[1] <= 24 and not beginnings & set(decoded(texts.members))


def test_too_few_documents_are_refused(files, tmp_path):
    store = prepare(files("a.txt", "abc" * 100, split="tail"), BYTE, tmp_path / "stores")
    with pytest.raises(UserError, match="1 training and 1 validation documents of at least"):
        membership_texts(store, 100, 1000)
