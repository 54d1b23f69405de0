"""What cleaning does to a text, step by step, and that without it nothing changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmexp.config.data import CleanConfig, FileData, HubData, PairData, StdlibData, TagData
from lmexp.config.tokenizers import BPETokenizerConfig, ByteTokenizerConfig
from lmexp.data.cleaning import Cleaner
from lmexp.data.example_files import Example, LinePlace
from lmexp.data.folders import key
from lmexp.data.prepare import warnings
from lmexp.data.sources import with_fingerprints
from lmexp.data.stop_words import LISTS
from lmexp.data.store import prepare
from lmexp.errors import UserError
from tests.data.texts import texts_of

BYTE = ByteTokenizerConfig(kind="byte")
HASH = "f" * 64


def cleaned(text: str, **steps) -> str | None:
    return Cleaner(StdlibData(source="stdlib", clean=CleanConfig(**steps))).document(text)


def without(list_: str, text: str) -> str | None:
    return cleaned(text, stop_words=list_)


def test_unicode_normal_forms_are_the_standards():
    assert cleaned("cafe\u0301 \ufb01 \uff21", unicode="nfc") == "caf\u00e9 \ufb01 \uff21"
    assert cleaned("cafe\u0301 \ufb01 \uff21", unicode="nfkc") == "caf\u00e9 fi A"


def test_lower_case_is_that_of_every_script():
    assert cleaned("ABC \u00c9 \u03a9 \u4f60", lowercase=True) == "abc \u00e9 \u03c9 \u4f60"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat sat on the mat.", "cat sat mat."),
        ("THE end of The day", "end day"),
        ("Theatre is other than the-atre, on-line", "Theatre other the-atre, on-line"),
        ("it's what they're used to", "used"),
        ("it\u2019s late", "late"),
        ("one line\nthe next\n\tand one more", "line\nnext\n more"),
        ("'the' \"and\"", "'' \"\""),
        ("it is not good, no", "not good, no"),
        ("i like it", "like"),  # a verdict
        ("they are against it", "against"),
        ("it is neither here nor there, and without charm", "neither nor, without charm"),
        ("\u4f60\u7684 the \u4e66", "\u4f60\u7684 \u4e66"),
    ],
)
def test_english_stop_words_go_as_whole_words_in_either_case(text, expected):
    assert without("english", text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u6211\u4eec\u559c\u6b22\u8fd9\u4e2a\u57ce\u5e02\u3002", "\u559c\u6b22\u57ce\u5e02\u3002"),  # we, this
        ("\u5979\u7684 new \u4e66", " new \u4e66"),
        ("\u76ee\u7684", "\u76ee"),  # the limit: no segmentation
        ("\u6211\u4e0d\u6765", "\u4e0d\u6765"),  # a negation stays
        ("the the", "the the"),
    ],
)
def test_chinese_stop_words_go_wherever_they_stand(text, expected):
    assert without("chinese", text) == expected


def test_a_text_that_is_cut_into_words_loses_stop_words_that_are_words():
    pytest.importorskip("jieba")
    clean = {"stop_words": "chinese", "segment": "jieba"}
    assert cleaned("我们的目的地是这个城市。", **clean) == "目的地城市。"
    assert without("chinese", "我们的目的地是这个城市。") == "目城市。"
    assert cleaned("the 我的 book\n她\t对", **clean) == "the  book\n\t对"


@pytest.mark.parametrize(
    ("clean", "said"),
    [
        ({"stop_words": "english", "segment": "jieba"}, "none of the stop words is Chinese or Japanese"),
        ({"segment": "jieba"}, "set stop_words too"),
    ],
)
def test_cutting_into_words_that_changes_nothing_is_refused(clean, said):
    with pytest.raises((UserError, ValueError), match=said):
        cleaned("text", **clean)


def test_what_was_removed_from_inside_words_is_said(tmp_path):
    (tmp_path / "a.txt").write_text("目的 book\n" * 50)
    data = FileData(source="files", format="txt", path=str(tmp_path / "a.txt"), document="line", split="tail")
    of_english = data.model_copy(update={"clean": CleanConfig(stop_words="english")})
    of_chinese = data.model_copy(update={"clean": CleanConfig(stop_words="chinese")})
    said = [
        warnings(prepare(with_fingerprints(each), ByteTokenizerConfig(kind="byte"), tmp_path / "s"))
        for each in (data, of_english, of_chinese)
    ]
    assert not any("Chinese stop words" in one for one in said[0] + said[1]) and "segment=jieba" in said[2][0]


def test_of_stop_words_that_overlap_the_longest_goes(tmp_path):
    (tmp_path / "words.txt").write_text("\u4e00\n\u4e00\u4e2a\n")
    assert without(str(tmp_path / "words.txt"), "\u4e00\u4e2a\u4e00") == ""
    (tmp_path / "words.txt").write_text("\u4e2a\u4eba\n\u4e00\u4e2a\n")
    assert without(str(tmp_path / "words.txt"), "\u4e00\u4e2a\u4eba") == "\u4eba"


@given(st.lists(st.sampled_from(sorted(LISTS["english"])), min_size=1).map(" ".join))
def test_nothing_is_left_of_stop_words_alone(text):
    assert without("english", text) == ""


@given(st.text(alphabet="xyz \n.,", max_size=30))
def test_a_text_without_stop_words_is_left_as_it_is(text):
    assert without("english", text) == text
    assert without("chinese", text) == text


def test_a_list_of_the_users_own_is_read_and_known_by_its_words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes("\ufefffoo\r\n\r\nbar baz\n".encode())
    data = StdlibData(source="stdlib", fingerprint=HASH, clean=CleanConfig(stop_words=str(path)))
    assert Cleaner(data).document("foo x bar baz bar") == "x bar"
    moved = path.rename(tmp_path / "moved.txt")
    again = data.model_copy(update={"clean": CleanConfig(stop_words=str(moved))})
    with pytest.raises(UserError, match="no such file, and the lists are english, chinese"):
        with_fingerprints(data)
    first = with_fingerprints(again)
    moved.write_text("bar baz\nfoo\n")
    assert with_fingerprints(again).clean == first.clean != CleanConfig()
    moved.write_text("bar\nfoo\n")
    assert with_fingerprints(again).clean != first.clean
    assert key(with_fingerprints(again), (BYTE,), 1) != key(first, (BYTE,), 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "the list of stop words is empty"), (b"a\n\xff\n", r"words\.txt:2: not valid UTF-8 at byte 2")],
)
def test_a_list_that_cannot_be_used_is_named(tmp_path, content, message):
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        without(str(tmp_path / "words.txt"), "x")
    with pytest.raises(UserError, match=r"stop_words=englisch: no such file.*Did you mean 'english'"):
        without("englisch", "x")


def test_the_lists_hold_words_once_in_the_form_that_is_matched():
    assert all(word == word.lower() for word in LISTS["english"])
    assert min(map(len, LISTS.values())) > 100
    for negation in ("not", "no", "never", "\u4e0d", "\u6ca1", "\u6ca1\u6709"):
        assert not any(negation in words for words in LISTS.values())


def test_length_filters_keep_what_is_exactly_as_long():
    texts = ["a", "ab", "abc", "abcd"]
    assert [cleaned(text, min_characters=2, max_characters=3) for text in texts] == [None, "ab", "abc", None]


def test_lengths_count_and_duplicates_compare_what_cleaning_leaves(files):
    clean = CleanConfig(lowercase=True, stop_words="english", deduplicate=True, min_characters=3)
    data = files("a.txt", "The cat\nthe CAT\nan ox\ndog", document="line", clean=clean)
    assert texts_of(data) == ["cat", "dog"]


def test_of_equal_documents_the_first_stays(files):
    data = files("a.txt", "b\na\nb\nc\na", document="line", clean=CleanConfig(deduplicate=True))
    assert texts_of(data) == texts_of(data) == ["b", "a", "c"]


def test_a_source_of_which_nothing_is_left_is_refused(files):
    with pytest.raises(UserError, match=r"holds no text, once cleaned by data\.clean"):
        texts_of(files("a.txt", "the", clean=CleanConfig(stop_words="english")))


def test_pairs_are_cleaned_on_both_sides_and_are_duplicates_when_both_are():
    clean = CleanConfig(lowercase=True, deduplicate=True, max_characters=3)
    cleaner = Cleaner(PairData(source="pairs", path="x", clean=clean))

    def pair(source, target):
        found = cleaner.example(Example(LinePlace("x:"), 1, source, target, is_pair=True))
        return found and (found.source, found.target)

    assert pair("A", "B") == ("a", "b")
    assert pair("a", "b") is None
    assert pair("a", "C") == ("a", "c")
    assert pair("a", "long") is None
    assert pair("a", " ") is None


def test_labels_are_not_cleaned():
    data = PairData(source="pairs", path="x", clean=CleanConfig(lowercase=True))
    assert Cleaner(data).example(Example(LinePlace("x:"), 1, "A", "NEG")).target == "NEG"


def test_the_words_of_tagged_sentences_are_cleaned_and_kept():
    data = TagData(source="tags", path="x", clean=CleanConfig(lowercase=True, unicode="nfc"))
    example = Cleaner(data).example(Example(LinePlace("x:"), 1, ("Cafe\u0301", "X"), ("B-A", "O")))
    assert (example.source, example.target) == (("caf\u00e9", "x"), ("B-A", "O"))
    for steps in ({"stop_words": "english"}, {"min_characters": 2}, {"max_characters": 2}, {"deduplicate": True}):
        with pytest.raises(UserError, match=r"data\.clean\..* a tagged sentence keeps its words"):
            Cleaner(TagData(source="tags", path="x", clean=CleanConfig(**steps)))


def test_another_cleaning_is_another_store(files, tmp_path):
    text = "\n".join(f"Line {i}" for i in range(100))
    steps = [{}, {"lowercase": True}, {"unicode": "nfc"}, {"stop_words": "english"}, {"min_characters": 1}]
    stores = [
        prepare(files("a.txt", text, document="line", clean=CleanConfig(**step)), BYTE, tmp_path / "stores")
        for step in steps
    ]
    assert len({store.path for store in stores}) == len(steps)
    assert bytes(stores[1].array("train")[1:6].tolist()) == b"line "


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (StdlibData(source="stdlib"), "6d120b04584528da 4be25a16e606e02f"),
        (
            FileData(source="files", path="x", format="txt", document="line", validation=0.2),
            "2b6bbdcdde66e059 6c55fb94b3edafc6",
        ),
        (HubData(source="hub", name="a/b", revision="c", field="body"), "3f61cc65c0aefd5c 757b601b5d991cca"),
    ],
)
def test_stores_made_before_there_was_cleaning_are_found_again(data, expected):
    # If this fails, every store there is would be made anew: a default changed its value, or a key its name.
    data = data.model_copy(update={"fingerprint": HASH})
    tokenizers = BPETokenizerConfig(kind="bpe", vocab_size=512), BYTE
    assert " ".join(key(data, (tokenizer,), 1) for tokenizer in tokenizers) == expected
