"""Windows for masked language modelling: how many tokens are hidden, by what, and that it is always the same."""

import numpy as np
import pytest
import torch

from lmexp.data.feeds import IGNORED
from lmexp.data.windows import MaskedWindows
from lmexp.errors import UserError

CONTEXT, SHARE = 40, 0.15


@pytest.fixture
def store(byte_store):
    return byte_store(4001, 401)


def windows(store, seed: int = 5, share: float = SHARE) -> MaskedWindows:
    return MaskedWindows(store, CONTEXT, seed, share)


def test_as_many_tokens_of_each_window_are_hidden_and_all_others_stay(store):
    batch = windows(store).batch(0, 50)
    hidden = batch["targets"] != IGNORED
    assert set(hidden.sum(1).tolist()) == {round(SHARE * CONTEXT)}
    assert windows(store).targets(0, 50) == int(hidden.sum())
    whole = torch.where(hidden, batch["targets"], batch["inputs"])
    starts = windows(store).order.take(0, 50)
    assert whole.tolist() == [store.array("train")[start : start + CONTEXT].tolist() for start in starts]


def test_of_hidden_tokens_80_percent_are_the_mask_10_another_token_and_10_themselves(store):
    batch = windows(store).batch(0, 4000)
    hidden = batch["targets"] != IGNORED
    shown, right = batch["inputs"][hidden], batch["targets"][hidden]
    count = len(right)  # 24,000, so that a share is known to 0.003 with a standard error
    masked, kept = shown == store.mask_id, shown == right
    other = ~masked & ~kept
    # One of 256 tokens in place of another is, by chance, the same.
    assert float(masked.sum()) / count == pytest.approx(0.8, abs=0.012)
    assert float(kept.sum()) / count == pytest.approx(0.1 + 0.1 / 256, abs=0.01)
    assert float(other.sum()) / count == pytest.approx(0.1 - 0.1 / 256, abs=0.01)
    assert store.bos_id not in shown[other]
    assert len(set(shown[other].tolist())) > 200  # any token, not those of the text alone
    places = hidden.float().mean(0)
    assert float(places.min()) > 0.11 and float(places.max()) < 0.19  # every position alike


def test_what_is_hidden_is_a_function_of_seed_and_number(store):
    at_once, again = windows(store).batch(0, 12), windows(store).batch(7, 2)
    for name, tensor in again.items():
        assert torch.equal(at_once[name][7:9], tensor)
    assert not torch.equal(windows(store, seed=6).batch(0, 12)["targets"], at_once["targets"])
    # The same text in another epoch is hidden elsewhere.
    sizes = store.tokens("train") // CONTEXT
    assert not torch.equal(windows(store).batch(sizes * 3, 12)["targets"], at_once["targets"])


def test_every_run_is_asked_the_same_in_validation(store):
    numbers = np.arange(windows(store).validation_samples)
    (one,), (other,) = (list(windows(store, seed).validation(numbers)) for seed in (1, 2))
    assert torch.equal(one["inputs"], other["inputs"]) and torch.equal(one["targets"], other["targets"])
    assert len(one["inputs"]) == 401 // CONTEXT
    pieces = torch.cat([next(windows(store).validation(numbers[i : i + 3]))["inputs"] for i in range(0, 10, 3)])
    assert torch.equal(pieces, one["inputs"])


def test_a_short_window_hides_one_token_at_least_and_a_short_text_is_refused(store, byte_store):
    assert MaskedWindows(store, 4, 0, 0.01).hidden == 1
    with pytest.raises(UserError, match=r"the validation split is shorter than model\.context=40"):
        windows(byte_store(1000, 30))
