"""The Markov process: its entropy against closed forms and other computations, and its text against its entropy."""

from collections import Counter, defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from lmexp.config.compose import Composer
from lmexp.config.data import MarkovData
from lmexp.config.paths import shipped_root
from lmexp.data.loss_floor import loss_floor
from lmexp.data.markov import SYMBOLS, MarkovProcess, fingerprint
from lmexp.data.prepare import AnyStore, prepare
from lmexp.files import hash_text

END = "$"
SMALL = MarkovProcess(order=2, alphabet=3, document_length=20, seed=1)


def nats(*probabilities: float) -> float:
    return -sum(p * np.log(p) for p in probabilities)


def states_of(process: MarkovProcess) -> list[str]:
    symbols = SYMBOLS[: process.alphabet]
    return ["".join(state) for length in range(process.order + 1) for state in product(symbols, repeat=length)]


def tokens_after(process: MarkovProcess) -> dict[str, dict[str, float]]:
    """Return the probability of each token after each state, the document's end included."""
    after = {}
    for state, row in zip(states_of(process), process.probabilities, strict=True):
        end = 1 / process.document_length if state else 0.0
        after[state] = {x: p * (1 - end) for x, p in zip(SYMBOLS, row, strict=False)} | ({END: end} if end else {})
    return after


def losses(process: MarkovProcess, texts: list[str], after: dict[str, dict[str, float]]) -> list[float]:
    """Return the summed loss of each document and its end, under probabilities by state."""
    totals = []
    for text in texts:
        total = 0.0
        for at, token in enumerate(text + END):
            total -= np.log(after[text[max(0, at - process.order) : at]].get(token, 1e-9))
        totals.append(total)
    return totals


def mean_and_error(totals: list[float], texts: list[str]) -> tuple[float, float]:
    """Return the mean loss of a token, and its standard error: documents are independent, their lengths vary."""
    lengths = np.array([len(text) + 1 for text in texts])
    mean = sum(totals) / lengths.sum()
    return mean, float(np.sqrt(((np.array(totals) - mean * lengths) ** 2).sum()) / lengths.sum())


def shares_of(row: Counter) -> dict[str, float]:
    return {token: n / row.total() for token, n in row.items()}


def test_the_entropy_of_two_states_has_its_closed_form():
    process = MarkovProcess(order=1, alphabet=2, document_length=10**12, seed=3)
    _, (stay, leave), (back, _) = process.probabilities
    assert 0 < leave < 1 and leave != back
    closed = (back * nats(stay, leave) + leave * nats(back, 1 - back)) / (leave + back)
    assert process.entropies() == pytest.approx([closed], rel=1e-9)


@pytest.mark.parametrize(("order", "alphabet", "length"), [(1, 2, 5), (2, 3, 20), (3, 2, 2)])
def test_the_entropies_are_those_of_an_eigenvector_over_written_out_states(order, alphabet, length):
    process = MarkovProcess(order, alphabet, length, seed=1)
    states, after = states_of(process), tokens_after(process)
    matrix = np.zeros((len(states), len(states)))
    for i, state in enumerate(states):
        for token, p in after[state].items():
            to = "" if token == END else (state + token)[-order:]
            matrix[i, states.index(to)] += p
    values, vectors = np.linalg.eig(matrix.T)
    shares = np.real(vectors[:, np.argmax(np.real(values))])
    shares /= shares.sum()
    assert process.shares() == pytest.approx(shares, abs=1e-12)
    for visible, entropy in enumerate(process.entropies(), start=1):
        joint: dict[str, Counter] = defaultdict(Counter)
        for state, share in zip(states, shares, strict=True):
            last = (END + state if len(state) < order else state)[-visible:]
            for token, p in after[state].items():
                joint[last][token] += share * p
        conditional = sum(nats(*row.values()) - nats(sum(row.values())) for row in joint.values())
        assert entropy == pytest.approx(conditional, abs=1e-12)


def test_the_text_has_the_loss_that_the_process_computes_and_a_count_model_reaches_it():
    texts = list(SMALL.documents(4000))
    train, scored = texts[:2000], texts[2000:]
    floor = SMALL.entropies()[-1]
    mean, error = mean_and_error(losses(SMALL, scored, tokens_after(SMALL)), scored)
    assert error < 0.01 and abs(mean - floor) < 3 * error
    counts: dict[str, Counter] = defaultdict(Counter)
    shorter: dict[str, Counter] = defaultdict(Counter)
    for text in train:
        for at, token in enumerate(text + END):
            counts[text[max(0, at - 2) : at]][token] += 1
            shorter[text[max(0, at - 1) : at]][token] += 1
    fitted = {state: shares_of(row) for state, row in counts.items()}
    mean, error = mean_and_error(losses(SMALL, scored, fitted), scored)
    assert abs(mean - floor) < 3 * error
    of_last = {state: shares_of(shorter[state[-1:]]) for state in counts}
    mean, error = mean_and_error(losses(SMALL, scored, of_last), scored)
    assert mean - floor > 10 * error  # one symbol back is not enough


def test_the_text_of_a_config_never_changes():
    """If this fails on purpose, give VERSION another number, so that stores of the old text are not taken for the new.

    The blocks in which text is drawn are part of that, so there is a document of a second block.
    """
    texts = list(MarkovProcess(order=2, alphabet=27, document_length=1000, seed=0).documents(1100))
    assert [hash_text(texts[at], 12) for at in (0, 1099)] == ["eb956ba7dd8f", "a58417f3d80d"]
    assert list(SMALL.documents(10)) == list(SMALL.documents(20))[:10]


def test_the_fingerprint_covers_all_that_the_text_depends_on():
    data = MarkovData(source="markov")
    parts = ("order", "alphabet", "document_length", "documents", "seed")
    others = [data.model_copy(update={name: getattr(data, name) + 1}) for name in parts]
    assert len({fingerprint(each) for each in (data, *others)}) == 6
    assert fingerprint(data) == fingerprint(data.model_copy(update={"validation": 0.5}))


def test_a_process_too_large_for_the_memory_is_refused():
    with pytest.raises(ValidationError, match=r"order=4 with alphabet=64 is a process of 1,073,741,824 transitions"):
        MarkovData(source="markov", order=4, alphabet=64)


def floor_and_store(folder: Path, *words: str) -> tuple[float | None, AnyStore]:
    """Return the floor of a run on a small text, and the store of the text."""
    small = ["data=markov", "data.alphabet=5", "data.documents=300", "data.document_length=40", "model.context=16"]
    config = Composer([shipped_root()], words=[*small, *words]).config({})
    store = prepare(config, folder)
    return loss_floor(config, store), store


def test_the_floor_of_a_run_is_the_entropy_of_what_its_windows_show(tmp_path):
    first, rate = MarkovProcess(order=2, alphabet=5, document_length=40, seed=0).entropies()
    of_bytes, store = floor_and_store(tmp_path, "tokenizer=byte")
    assert of_bytes == pytest.approx((first + 15 * rate) / 16, rel=1e-12) and first > 1.05 * rate
    assert floor_and_store(tmp_path, "tokenizer=char")[0] == of_bytes
    assert floor_and_store(tmp_path, "tokenizer=byte", "model.context=1")[0] == pytest.approx(first)
    floor, pairs = floor_and_store(tmp_path, "tokenizer=bpe", "tokenizer.vocab_size=280")
    assert pairs.tokens("validation") < 0.8 * store.tokens("validation")
    assert floor == pytest.approx(rate * store.tokens("validation") / pairs.tokens("validation"))


@pytest.mark.parametrize("words", [["data.clean.lowercase=true"], ["task=masked_lm", "model=bert_nano"]])
def test_the_floor_is_unknown_for_a_cleaned_text_and_for_tokens_that_see_both_sides(words, tmp_path):
    assert floor_and_store(tmp_path, "tokenizer=byte", *words)[0] is None
