"""Tests of the config compose it with Hydra each time; other tests may share what was composed (tests/server.py)."""

import pytest

from tests.server import COMPOSED


@pytest.fixture(autouse=True)
def composed_anew() -> None:
    """Forget what other tests have composed."""
    COMPOSED.clear()
