"""What a classifier must beat to have learnt anything: the commonest label, and a bag of words.

The bag of words is multinomial naive Bayes over counts of words, with one added to each count (Wang and Manning 2012,
section 2.1): it sees which words a text has and nothing of their order, is fitted in one pass and has nothing to tune.
Words are those of scripts.py, in lower case. Both read the texts that the store has, after the data's cleaning, and are
fitted to the training split alone, the bag of words to its first characters if it is large.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from lmexp.data.examples import ExampleStore
from lmexp.data.scripts import WORD

MAX_CHARACTERS = 50_000_000
"""The bag of words is fitted to the first training texts that have this many characters together: some ten seconds."""


def baseline_columns(store: ExampleStore) -> dict[str, float]:
    """Return the columns of the record that say how right the baselines are on the validation split."""
    right = np.asarray(store.label("validation"))
    trained_on = np.asarray(store.label("train"))
    commonest = np.bincount(trained_on, minlength=len(store.labels)).argmax()
    texts = _first_texts(store.texts("train"), MAX_CHARACTERS)
    guessed = naive_bayes(texts, trained_on[: len(texts)], store.texts("validation"), len(store.labels))
    return {
        "majority_accuracy": float((right == commonest).mean()),
        "bag_of_words_accuracy": float((right == guessed).mean()),
    }


def naive_bayes(texts: Sequence[str], labels: np.ndarray, others: Sequence[str], n_labels: int) -> np.ndarray:
    """Fit multinomial naive Bayes to texts and their labels, and return the likeliest label of each other text.

    Words that occur in none of `texts` are ignored. A label that none of them has is never guessed.
    """
    vocabulary: dict[str, int] = {}
    counts = _counts(texts, vocabulary, grows=True)  # (texts, words)
    of_label = csr_array((np.ones(len(labels)), (labels, np.arange(len(labels)))), shape=(n_labels, len(labels)))
    words = of_label @ counts  # (labels, words); it stays sparse: dense, a thousand labels would take gigabytes
    log_totals = np.log(np.maximum(words.sum(1) + len(vocabulary), 1))  # one is added to each count
    with np.errstate(divide="ignore"):
        log_labels = np.log(np.bincount(labels, minlength=n_labels) / len(labels))
    asked = _counts(others, vocabulary, grows=False)
    scores: np.ndarray = (asked @ words.log1p().T).toarray() - np.outer(asked.sum(1), log_totals) + log_labels
    return scores.argmax(1)


def _counts(texts: Sequence[str], vocabulary: dict[str, int], grows: bool) -> csr_array:
    """Return how often each text has each word, (texts, words); new words join the vocabulary if it grows."""
    numbers, values, bounds = list[int](), list[int](), [0]
    for text in texts:
        for word, count in Counter(WORD.findall(text.lower())).items():
            number = vocabulary.setdefault(word, len(vocabulary)) if grows else vocabulary.get(word)
            if number is not None:
                numbers.append(number)
                values.append(count)
        bounds.append(len(numbers))
    return csr_array((values, numbers, bounds), shape=(len(bounds) - 1, len(vocabulary)), dtype=np.float64)


def _first_texts(texts: Sequence[str], characters: int) -> list[str]:
    """Return the first texts, up to this many characters together, and at least one."""
    first: list[str] = []
    for text in texts:
        characters -= len(text)
        if first and characters < 0:
            break
        first.append(text)
    return first
