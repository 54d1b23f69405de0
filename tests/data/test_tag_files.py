"""CoNLL and CoNLL-U files: the tagged sentences they give, and the messages about wrong ones."""

import pytest

from lmexp.config.data import TagData
from lmexp.config.tokenizers import ByteTokenizerConfig
from lmexp.data.example_writing import prepare_examples
from lmexp.data.prepare import warnings
from lmexp.data.sources import examples
from lmexp.data.split import SplitExamples
from lmexp.errors import UserError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Work in an empty folder, and write files there."""
    monkeypatch.chdir(tmp_path)

    def write(**contents: str) -> None:
        for name, content in contents.items():
            (tmp_path / name.replace("_", ".")).write_text(content)

    return write


def tags(path="a.conll", **options) -> TagData:
    return TagData(source="tags", path=path, **options)


def conllu(**options) -> TagData:
    return tags("a.conllu", format="conllu", word_column=1, tag_column=3, scheme="words", **options)


def read(data) -> list[tuple]:
    return [(example.where, example.source, example.target) for example in examples(data)]


def test_a_tagged_file_is_a_word_and_its_tag_a_line(write):
    write(
        a_conll="-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\n\nPeter NNP B-PER\nBlackburn\tNNP I-PER\r\n. . O\n",
        b_conll="O \u3000\nB-LOC \u5317\nI-LOC \u4eac",
    )
    assert read(tags()) == [
        ("a.conll:3", ("EU", "rejects"), ("B-ORG", "O")),
        ("a.conll:7", ("Peter", "Blackburn", "."), ("B-PER", "I-PER", "O")),
    ]
    assert read(tags("b.conll", word_column=1, tag_column=0)) == [
        ("b.conll:1", ("\u3000", "\u5317", "\u4eac"), ("O", "B-LOC", "I-LOC"))
    ]


@pytest.mark.parametrize("before", ["a O", "a B-X", "a B-Y\nb O", "a B-Y\n", "a B-YY"])
def test_a_tag_that_starts_inside_a_span_is_named_by_file_and_line(write, before):
    write(a_conll=f"{before}\nc I-Y\n")
    line = before.count("\n") + 2
    with pytest.raises(UserError, match=rf"a\.conll:{line}: the tag I-Y .*starts inside a span.* begins with B-Y"):
        read(tags())


@pytest.mark.parametrize("content", ["a B-Y\nb I-Y\nc I-Y\n", "a B-Y\nb B-Y\nc I-Y\n"])
def test_a_span_may_go_on(write, content):
    write(a_conll=content)
    assert len(read(tags())) == 1


def test_comments_stand_in_front_of_sentences_and_a_hash_may_be_a_word(write):
    write(a_conll="# text = a b\n#begin document (x); part 000\na NN B-X\n# # O\n\n# NN I-X\n# # O\nb NN O\n\n#end\n")
    with pytest.raises(UserError, match=r"a\.conll:6: the tag I-X at the beginning"):  # a word, with a broken tag
        read(tags())
    write(a_conll="# text = a b\na NN B-X\n# # O\n\n# newdoc id\n# # O\nb NN O\n\n#end\n")
    assert read(tags()) == [("a.conll:2", ("a", "#"), ("B-X", "O")), ("a.conll:6", ("#", "b"), ("O", "O"))]
    write(a_conll="# title\n# SYM\na NN\n\n# SYM\n")
    assert read(tags(scheme="words")) == [("a.conll:3", ("a",), ("NN",)), ("a.conll:5", ("#",), ("SYM",))]


def test_words_separated_by_tabs_may_have_spaces(write):
    write(a_conll="# a comment\nNew York\tB-LOC\nis\tO\n \tO\n\nSan\tB-LOC\n")
    assert read(tags()) == [
        ("a.conll:2", ("New York", "is", " "), ("B-LOC", "O", "O")),
        ("a.conll:6", ("San",), ("B-LOC",)),
    ]
    write(a_conll="a\tO\n\tO\nNew York\tO\n")
    with pytest.raises(UserError, match=r"a\.conll:2: the word is empty"):
        read(tags())


UD = """# sent_id = 1
# text = vamonos
1-2\tvamonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\tV\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\tP\t_\t1\tobj\t_\t_
2.1\tempty\tx\tX\t_\t_\t_\t_\t_\t_

1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
2\t1 000\t1\tNUM\tN\t_\t1\tobj\t_\t_
"""


def test_a_conllu_file_gives_its_words_with_their_parts_of_speech(write):
    write(a_conllu=UD, a_conll=UD)
    expected = [
        ("a.conllu:4", ("vamos", "nos"), ("VERB", "PRON")),
        ("a.conllu:8", ("#", "1 000"), ("SYM", "NUM")),
    ]
    assert read(conllu()) == expected
    assert SplitExamples(conllu(validation_path="a.conllu")).labels == ["NUM", "PRON", "SYM", "VERB"]
    with pytest.raises(UserError, match=r"a\.conll:3: this is a CoNLL-U file, .* data=conllu reads it"):
        read(tags(scheme="words"))
    for content, said in (
        (UD.replace("2\t1 000", "two\t1 000"), ":9: 'two' is no number"),
        ("a O\n", ":1: 1 column; a li"),
    ):
        write(a_conllu=content)
        with pytest.raises(UserError, match=rf"a\.conllu{said}"):
            read(conllu())


def test_repaired_tags_are_counted_in_the_store_and_said(write, tmp_path):
    write(a_conll="a I-X\nb O\n\nc I-X\nd I-X\n", v_conll="a B-X\nb I-Y\n\na B-Y\nb I-X\n")
    data = tags(scheme="iob2", repair="lenient", validation_path="v.conll")
    with pytest.raises(UserError, match="the tag 'B-Y' occurs in the validation split and never in training"):
        SplitExamples(data)
    write(v_conll="a B-X\nb I-X\n")
    store = prepare_examples(data, ByteTokenizerConfig(kind="byte"), None, tmp_path / "stores")
    assert store.tags_repaired == 2 and store.labels == ["O", "B-X", "I-X"]
    (said,) = (warning for warning in warnings(store) if "data.repair" in warning)
    assert said.startswith("2 tags break data.scheme=iob2; data.repair=lenient read each")
