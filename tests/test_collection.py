"""Garbage collection is kept away from what never becomes garbage."""

import gc

import pytest

from lmexp.collection import imports_kept


def test_nothing_is_collected_during_imports_and_what_they_made_is_not_looked_through_again():
    with imports_kept():
        assert not gc.isenabled()
        kept = [[] for _ in range(10)]
    assert gc.isenabled() and all(not any(each is other for other in gc.get_objects()) for each in kept)


def test_a_failed_import_leaves_collections_on():
    with pytest.raises(ImportError), imports_kept():
        raise ImportError
    assert gc.isenabled()
