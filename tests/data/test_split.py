"""Which side a text falls on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lmexp.config.data import FileData
from lmexp.data.split import SplitDocuments, hashed_split
from lmexp.errors import UserError

LINES = [f"line {i}" for i in range(1000)]


def sides(data) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {split: [] for split in data.splits}
    for split, text in SplitDocuments(data):
        found[split].append(text)
    return found


def test_by_hash_the_share_that_validates_is_about_the_one_asked_for(files):
    found = sides(files("a.txt", "\n".join(LINES), document="line", validation=0.2))
    assert 150 < len(found["validation"]) < 250
    assert len(found["train"]) + len(found["validation"]) == 1000


def test_by_hash_a_side_depends_on_the_text_alone(files):
    once = sides(files("a.txt", "\n".join(LINES), document="line"))
    shuffled = sides(files("b.txt", "\n".join(LINES[::-1] + LINES + ["more"]), document="line"))
    assert set(once["validation"]) <= set(shuffled["validation"])
    assert not set(shuffled["train"]) & set(shuffled["validation"])


@given(st.text(), st.floats(0.01, 0.5), st.floats(0.5, 0.99))
def test_a_larger_share_takes_no_document_back_from_validation(text, small, large):
    before, after = (hashed_split(text, {"validation": share}) for share in (small, large))
    assert before == "train" or after == "validation"


def test_by_tail_one_text_is_cut_as_nanogpt_cuts_it(files):
    text = "".join(chr(97 + i % 26) for i in range(1237)) + "\u00e9" * 200
    found = sides(files("a.txt", text, split="tail", validation=0.1))
    n = int(len(text) * 0.9)
    assert found == {"train": [text[:n]], "validation": [text[n:]]}


@pytest.mark.parametrize("validation", [0.3, 0.5, 0.55])
def test_by_tail_documents_are_cut_where_the_split_falls(files, validation):
    data = files("a.txt", "aaaa\nbbbb\ncc", document="line", split="tail", validation=validation)
    expected = {
        0.3: {"train": ["aaaa", "bbb"], "validation": ["b", "cc"]},
        0.5: {"train": ["aaaa", "b"], "validation": ["bbb", "cc"]},
        0.55: {"train": ["aaaa"], "validation": ["bbbb", "cc"]},
    }
    assert sides(data) == expected[validation]


@given(st.text(), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_test_share_takes_nothing_from_validation_and_changes_nothing_when_it_is_0(text, validation, test):
    before, after = (hashed_split(text, {"validation": validation, "test": share}) for share in (0.0, test))
    assert before == hashed_split(text, {"validation": validation})
    assert after == before or (before, after) == ("train", "test")


@given(st.text(), st.floats(0, 0.3), st.floats(0.3, 0.5), st.floats(0, 0.5))
def test_a_larger_validation_share_takes_nothing_from_test(text, small, large, test):
    before, after = (hashed_split(text, {"validation": share, "test": test}) for share in (small, large))
    assert after == before or (before, after) == ("train", "validation")


def test_by_tail_test_comes_after_validation(files):
    data = files("a.txt", "aaaa\nbbbb\ncc", document="line", split="tail", validation=0.3, test=0.2)
    assert sides(data) == {"train": ["aaaa", "b"], "validation": ["bbb"], "test": ["cc"]}


@pytest.mark.parametrize("split", ["hash", "tail"])
def test_files_of_their_own_are_splits_as_they_are(files, split):
    paths = {name: files(f"{name}.txt", f"{name} 1\n{name} 2").path for name in ("validation", "test")}
    own = {f"{name}_path": path for name, path in paths.items()}
    lines = {name: [f"{name} 1", f"{name} 2"] for name in ("train", *paths)}
    data = files("a.txt", "train 1\ntrain 2", document="line", split=split, **own)
    assert sides(data) == lines
    with_share = files(
        "a.txt", "train 1\ntrain 2", document="line", split="tail", test=0.5, validation_path=paths["validation"]
    )
    assert sides(with_share) == {"train": ["train 1"], "validation": lines["validation"], "test": ["train 2"]}


def test_a_folder_is_listed_once_so_that_all_passes_read_the_same_files(files, tmp_path):
    (tmp_path / "texts").mkdir()
    files("texts/a.txt", "one\ntwo")
    folder = FileData(
        source="files", path=str(tmp_path / "texts"), format="txt", document="line", split="tail", validation=0.5
    )
    documents = SplitDocuments(folder)
    files("texts/0.txt", "a file that somebody adds between two passes")
    assert [text for _, text in documents] == ["one", "two"]


@pytest.mark.parametrize("shares", [{"validation": 0.5, "test": 0.5}, {"test": 0.1, "test_path": "b.txt"}])
def test_shares_that_leave_nothing_or_are_not_needed_are_refused(files, shares):
    with pytest.raises(ValidationError, match=r"leave nothing for training|has a test split of its own"):
        files("a.txt", "x", **shares)


def test_one_document_cannot_be_split_by_hash(files):
    with pytest.raises(UserError, match=r"one document cannot be split by hash: set data\.split=tail$"):
        SplitDocuments(files("a.jsonl", '{"text": "one"}'))
    with pytest.raises(UserError, match=r"one document cannot be split by hash: use a longer text$"):
        SplitDocuments(files("a.txt", "x"))


@pytest.mark.parametrize("between", ["\n", "\n\n"])
def test_each_other_way_to_split_that_a_message_names_works(files, between):
    data = files("a.txt", between.join(f"line {i}" for i in range(200)))
    with pytest.raises(UserError, match="cannot be split by hash: set ") as raised:
        SplitDocuments(data)
    named = str(raised.value).split(" set ")[1].split(" or ")
    assert named == [
        "data.split=tail",
        *(["data.document=paragraph"] if between == "\n\n" else []),
        "data.document=line",
    ]
    for word in named:
        key, value = word.removeprefix("data.").split("=")
        assert SplitDocuments(data.model_copy(update={key: value})).characters


@pytest.mark.parametrize(("validation", "side"), [(0.0001, "validation"), (0.9999, "training")])
def test_an_empty_side_is_refused(files, validation, side):
    data = files("a.txt", "\n".join(LINES[:5]), document="line", validation=validation)
    with pytest.raises(UserError, match=f"the {side} split is empty: none of 5 documents"):
        SplitDocuments(data)


@pytest.mark.parametrize("validation", [0.1, 0.9])
def test_a_text_too_short_for_its_tail_is_refused(files, validation):
    with pytest.raises(UserError, match="1 characters are too few"):
        SplitDocuments(files("a.txt", "x", split="tail", validation=validation))
