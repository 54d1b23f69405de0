"""Tags of every scheme are the spans that seqeval reads; those that break their scheme are errors, or counted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmexp.config.data import TagData
from lmexp.data.tag_schemes import Converted, convert
from lmexp.errors import UserError

PREFIXES = {"bioes": "BIES", "bilou": "BILU", "bmes": "BMES"}
"""Of a span's first, inner and last word, and of its only one."""
pieces = st.lists(st.tuples(st.sampled_from(["O", "PER", "LOC-CITY", ""]), st.integers(1, 4)), max_size=6)
"""What a sentence is made of: a type, O for words outside, and how many words."""


def converted(tags: list[str], scheme: str, repair: str = "strict") -> Converted:
    return convert(tags, TagData(source="tags", path="a", scheme=scheme, repair=repair), lambda n: f"word {n}")


def written(parts: list[tuple[str, int]], scheme: str) -> list[str]:
    """Return the tags of a sentence in a scheme."""
    tags: list[str] = []
    before = None
    for kind, words in parts:
        suffix = f"-{kind}" if kind else ""
        if kind == "O":
            made = ["O"] * words
        elif scheme in PREFIXES:
            begin, inside, end, single = (f"{prefix}{suffix}" for prefix in PREFIXES[scheme])
            made = [single] if words == 1 else [begin, *[inside] * (words - 2), end]
        else:
            first = "I" if scheme == "iob1" and before != kind else "B"
            made = [f"{first}{suffix}", *[f"I{suffix}"] * (words - 1)]
        tags += made
        before = kind
    return tags


@settings(max_examples=50)
@given(pieces, st.sampled_from(["iob2", "iob1", *PREFIXES]), st.sampled_from(["strict", "lenient"]))
def test_every_scheme_tells_the_same_spans(parts, scheme, repair):
    expected = [tag if tag == "O" or "-" in tag else f"{tag}-span" for tag in written(parts, "iob2")]
    assert converted(written(parts, scheme), scheme, repair) == (tuple(expected), 0)


@pytest.mark.parametrize(
    ("scheme", "tags", "read", "repaired"),
    [
        # The spans are those of seqeval 1.2.2's get_entities.
        ("iob2", "I-X I-X O I-Y B-X I-Y", "B-X I-X O B-Y B-X B-Y", 3),
        ("iob1", "B-X I-X B-X O B-Y", "B-X I-X B-X O B-Y", 2),
        ("bioes", "I-X E-X E-X S-X I-X", "B-X I-X B-X B-X B-X", 4),
        ("bioes", "B-X O B-X S-Y B-Y", "B-X O B-X B-Y B-Y", 3),
        ("bilou", "L-X U-X I-Y L-X B-Y", "B-X B-X B-Y B-X B-Y", 4),
        ("bmes", "M-X E-Y B-X M-X", "B-X B-Y B-X I-X", 3),
        ("words", "NN B-X I-Y", "NN B-X I-Y", 0),
    ],
)
def test_lenient_reads_broken_tags_as_seqeval_does_and_counts_them(scheme, tags, read, repaired):
    assert converted(tags.split(), scheme, "lenient") == (tuple(read.split()), repaired)
    if repaired:
        with pytest.raises(UserError, match=r"data\.repair=lenient reads such tags"):
            converted(tags.split(), scheme)


@pytest.mark.parametrize(
    ("scheme", "tags", "said"),
    [
        (
            "iob2",
            "O I-X",
            r"word 1: the tag I-X after O starts inside a span; .* data\.scheme=iob1 reads files in which",
        ),
        ("iob1", "O B-X", r"word 1: the tag B-X after O is wrong in IOB1.* data\.scheme=iob2 reads files"),
        ("bioes", "B-X O", r"word 1: the tag O after B-X comes before the open span has ended"),
        ("bioes", "O B-X", r"word 1: the tag B-X at the end of a sentence leaves a span open"),
        ("bmes", "E-X O", r"word 0: the tag E-X at the beginning of a sentence starts inside a span"),
        (
            "iob2",
            "E-X",
            r"'E-X' is not a tag of IOB2, which has O, B-NAME and I-NAME; it is one of data\.scheme=bioes or bmes",
        ),
        ("bmes", "I-X", r"'I-X' is not a tag of BMES.*; it is one of data\.scheme=iob2 or iob1 or bioes or bilou"),
        ("iob2", "(A0*", "spans in brackets, as in CoNLL 2005 and 2012, must be converted"),
        ("iob2", "VERB", r"'VERB' is not a tag of IOB2.*; data\.scheme=words reads tags of single words"),
    ],
)
def test_a_tag_of_another_scheme_is_named_with_the_scheme_that_has_it(scheme, tags, said):
    with pytest.raises(UserError, match=said):
        converted(tags.split(), scheme)
