"""The largest fifth of compute is held out, and a prediction of it is judged by its relative error."""

import numpy as np
import pytest

from lmexp.analysis.scaling.holdout import judge, largest
from lmexp.analysis.scaling.points import Points


def points_of(flops: list[float], loss: list[float]) -> Points:
    n = len(flops)
    return Points(np.ones(n), np.ones(n), np.array(flops), np.array(loss), np.arange(n).astype(str))


def test_the_fifth_with_the_most_compute_is_held_out_with_its_ties():
    assert largest(points_of([*range(1, 11)], [1.0] * 10)).nonzero()[0].tolist() == [8, 9]
    assert largest(points_of([1, 2, 9, 9, 9], [1.0] * 5)).tolist() == [False, False, True, True, True]
    assert largest(points_of([2, 1], [1.0] * 2)).tolist() == [True, False], "one at least"


def test_errors_are_relative_and_keep_their_sign_in_the_bias():
    found = judge(points_of([5, 7], [2.0, 4.0]), np.array([2.2, 3.8]), np.array([1.9, 3.7]), np.array([2.3, 3.9]))
    assert (found.n_points, found.flops_from) == (2, 5.0)
    assert found.bias == pytest.approx((0.1 - 0.05) / 2) and found.mean_absolute_error == pytest.approx(
        (0.1 + 0.05) / 2
    )
    assert found.coverage == 0.5, "4.0 lies outside of 3.7 to 3.9"
