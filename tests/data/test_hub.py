"""Hugging Face datasets: a local folder of one, and what is said when there is none to be had."""

import os
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmexp.config.data import HubData, HubExamples
from lmexp.data.sources import check_apart, examples, fingerprint
from lmexp.data.split import SplitDocuments
from lmexp.errors import UserError
from tests.data.texts import texts_of


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
    assert texts_of(config(folder, field="body")) == ["one", "two\n"]


def test_subsets_of_a_text_dataset_are_splits_as_they_are(folder):
    pq.write_table(pa.table({"body": ["four"], "id": [6]}), folder / "validation.parquet")
    pq.write_table(pa.table({"body": ["five"], "id": [7]}), folder / "test.parquet")
    data = config(folder, field="body", validation_subset="validation", test_subset="test")
    assert list(SplitDocuments(data)) == [
        ("train", "one"),
        ("train", "two\n"),
        ("validation", "four"),
        ("test", "five"),
    ]
    plain, without_test = config(folder), config(folder, validation_subset="validation")
    assert len({fingerprint(plain), fingerprint(without_test), fingerprint(data)}) == 3
    with pytest.raises(
        UserError, match=r"data\.validation_subset and data\.test_subset are both 'test': the test split"
    ):
        check_apart(config(folder, validation_subset="test", test_subset="test"))


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
        texts_of(config(folder, **options))
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
from lmexp.config.data import HubData
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


@pytest.fixture
def typed(tmp_path, folder):
    """Return a dataset folder whose features have names for numbers, and a mapping."""
    import datasets

    names = datasets.ClassLabel(names=["neg", "pos"])
    tags = datasets.ClassLabel(names=["O", "B-A", "I-A"])
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": names,
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(tags),
            "translation": {"de": datasets.Value("string"), "en": datasets.Value("string")},
        }
    )
    rows = {
        "text": ["good", "bad"],
        "label": [1, 0],
        "tokens": [["a", "b"], ["c"]],
        "ner_tags": [[1, 2], [0]],
        "translation": [{"de": "eins", "en": "one"}, {"de": "zwei", "en": "two"}],
    }
    path = tmp_path / "typed"
    path.mkdir()
    for subset, label in (("train", [1, 0]), ("test", [0, -1])):
        table = datasets.Dataset.from_dict(rows | {"label": label}, features=features)
        table.to_parquet(path / f"{subset}.parquet")
    return path


def example_config(name, kind, **options) -> HubExamples:
    return HubExamples(source="hub_examples", examples=kind, name=str(name), **options)


def test_the_columns_of_a_dataset_are_examples_with_the_names_of_its_features(typed):
    def read(kind, **options):
        return [(row.source, row.target) for row in examples(example_config(typed, kind, **options))]

    assert read("labels") == [("good", "pos"), ("bad", "neg")]
    assert read("tags", field="tokens", target_field="ner_tags") == [(("a", "b"), ("B-A", "I-A")), (("c",), ("O",))]
    pairs = read("pairs", field="translation.de", target_field="translation.en")
    assert pairs == [("eins", "one"), ("zwei", "two")]


def test_a_subset_of_its_own_validates(typed):
    config = example_config(typed, "pairs", field="text", target_field="text", validation_subset="test")
    validating = list(examples(config, "validation"))
    assert [row.where for row in validating] == [f"{typed}: row 1 of test", f"{typed}: row 2 of test"]
    assert fingerprint(config) != fingerprint(config.model_copy(update={"validation_subset": None}))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("labels", {"subset": "test"}, r"row 2 of test: 'label' is -1, which stands for none of 2 names"),
        ("labels", {"target_field": "labels"}, r"no column 'labels'; there are: .* Did you mean 'label'"),
        (
            "pairs",
            {"field": "translation.fr"},
            r"row 1 of train: no column 'translation.fr'; there are: translation.de",
        ),
        ("pairs", {"field": "text.de"}, r"row 1 of train: no 'text.de'"),
        ("pairs", {"field": "tokens"}, r"row 1 of train: 'tokens' must be a text, found list"),
        ("tags", {"target_field": "ner_tags"}, r"row 1 of train: 'text' must be a list, found str"),
        ("tags", {"field": "ner_tags", "target_field": "tokens"}, r"row 1 of train: 'a' is not a tag of IOB2"),
    ],
)
def test_a_wrong_column_is_named_with_its_row(typed, kind, options, message):
    with pytest.raises(UserError, match=message):
        list(examples(example_config(typed, kind, **options)))
