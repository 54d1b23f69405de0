"""Hugging Face datasets: a local folder of one, and what is said when there is none to be had."""

import os
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmexp.config.schema import HubData
from lmexp.data.sources import documents, fingerprint
from lmexp.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a dataset folder with two splits, and keep the library's cache out of the home directory."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / "dataset"
    path.mkdir()
    pq.write_table(pa.table({"body": ["one", "", "two\n"], "id": [1, 2, 3]}), path / "train.parquet")
    pq.write_table(pa.table({"body": ["three", None], "id": [4, 5]}), path / "test.parquet")
    return path


def config(name, **options) -> HubData:
    return HubData(source="hub", name=str(name), **options)


def test_a_local_folder_gives_its_rows_in_order(folder):
    assert list(documents(config(folder, field="body"))) == ["one", "two\n"]


def test_the_fingerprint_of_a_folder_follows_content_and_subset_and_not_the_path(folder, tmp_path):
    before = fingerprint(config(folder))
    assert fingerprint(config(folder, subset="test")) != before
    moved = folder.rename(tmp_path / "elsewhere")
    os.utime(moved / "train.parquet", (0, 0))
    assert fingerprint(config(moved)) == before
    pq.write_table(pa.table({"body": ["other"]}), moved / "train.parquet")
    assert fingerprint(config(moved)) != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"field": "bodies"}, r"no column 'bodies'; there are: body, id\. Did you mean 'body'"),
        ({"field": "body", "subset": "test"}, r"row 2 of test: 'body' must be a text, found null"),
        ({"subset": "dev"}, r"cannot load .*: ValueError: Unknown split \"dev\""),
        ({"config": "en"}, r"cannot load .*BuilderConfig 'en' not found"),
    ],
)
def test_a_wrong_request_is_one_short_message(folder, options, message):
    with pytest.raises(UserError, match=message) as raised:
        list(documents(config(folder, **options)))
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        fingerprint(config(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot reach http://127.0.0.1:9 for the dataset 'a/b'"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set, so the dataset 'a/b' needs data.revision=<commit>"),
    ],
)
def test_without_a_network_the_answer_is_short_and_quick(environment, message):
    code = """
from lmexp.config.schema import HubData
from lmexp.data.sources import fingerprint
from lmexp.errors import UserError
try:
    fingerprint(HubData(source="hub", name="a/b"))
except UserError as error:
    print(error)
"""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert message in done.stdout
    assert done.stdout.count("\n") == 1
    assert time.monotonic() - start < 15
