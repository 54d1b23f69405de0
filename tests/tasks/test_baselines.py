"""The baselines of a classifier: scikit-learn's naive Bayes over the same words is the outside check."""

import numpy as np
import pytest

from lmexp.data.scripts import WORD
from lmexp.tasks.baselines import naive_bayes

WORDS = ["good", "Bad", "so-so", "the", "film", "was", "不错", "été", "x"]


def texts_of(seed: int, count: int) -> tuple[list[str], np.ndarray]:
    """Return texts in which each label prefers other words."""
    dice = np.random.default_rng(seed)
    labels = dice.integers(0, 3, count)
    shares = np.array([[1.0 + (2 * (i % 3 == label)) for i in range(len(WORDS))] for label in range(3)])
    texts = [" ".join(dice.choice(WORDS, dice.integers(1, 9), p=shares[i] / shares[i].sum())) for i in labels]
    return texts, labels


def test_naive_bayes_guesses_what_that_of_scikit_learn_guesses():
    text = pytest.importorskip("sklearn.feature_extraction.text")
    bayes = pytest.importorskip("sklearn.naive_bayes")
    (texts, labels), (others, right) = texts_of(0, 300), texts_of(1, 200)
    others[0] = "a word that no text has"
    counter = text.CountVectorizer(tokenizer=WORD.findall, token_pattern=None)
    theirs = bayes.MultinomialNB().fit(counter.fit_transform(texts), labels).predict(counter.transform(others))
    ours = naive_bayes(texts, labels, others, 4)
    assert (ours == theirs).all() and (ours == right).mean() > 0.5
