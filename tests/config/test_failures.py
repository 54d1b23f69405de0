"""Whose code raised an error: the user's own is named, lmexp's and a library's is not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lmexp.config.code import load_target
from lmexp.config.failures import explain, place_outside
from lmexp.config.trust import trusting
from lmexp.errors import UserError
from tests.config.test_code import folder

__all__ = ["folder"]  # the fixture

MODULE = """
import json

from lmexp.errors import UserError
from lmexp.files import hash_files


class Slope:
    def __call__(self, share):
        return 1 / share


def in_a_library(share):
    return json.loads("{")


def in_lmexp(share):
    return hash_files(None)


def says_what_is_wrong(share):
    raise UserError("the share is wrong")
"""


@pytest.fixture(autouse=True)
def trusted(folder: Path) -> Iterator[None]:
    (folder / "their_study" / "broken.py").write_text(MODULE)
    with trusting(["their_study"]):
        yield


def error_of(name: str) -> Exception:
    called = load_target(f"their_study.broken.{name}", "schedule")
    with pytest.raises(Exception) as raised:
        (called() if isinstance(called, type) else called)(0)
    return raised.value


def test_the_users_function_that_raised_is_named_with_its_line():
    error = error_of("Slope")
    assert explain(error) == (
        "ZeroDivisionError: division by zero (in their_study.broken.Slope.__call__, their_study/broken.py:10)"
    )


def test_an_error_in_a_library_is_that_of_the_code_which_called_it():
    assert str(place_outside(error_of("in_a_library"))).startswith("their_study.broken.in_a_library")


def test_an_error_in_lmexp_and_a_message_for_the_user_stay_as_they_are():
    assert place_outside(error_of("in_lmexp")) is None
    error = error_of("says_what_is_wrong")
    assert isinstance(error, UserError) and explain(error) == "the share is wrong"


def test_code_that_nobody_has_named_is_not_blamed():
    with pytest.raises(ValueError) as raised:
        int("x")
    assert place_outside(raised.value) is None
