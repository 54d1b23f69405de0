"""What examples come out of local files, each with its place, and what is said when they are wrong."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from lmexp.config.data import FileData, LabelData, PairData, StdlibData, TagData
from lmexp.data.scripts import separated
from lmexp.data.sources import check_apart, examples, fingerprint, with_absolute_paths
from lmexp.data.split import SplitExamples
from lmexp.errors import UserError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Work in an empty folder, and write files there."""
    monkeypatch.chdir(tmp_path)

    def write(**contents: str | bytes) -> None:
        for name, content in contents.items():
            path = tmp_path / name.replace("_", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def pairs(path="a.tsv", **options) -> PairData:
    return PairData(source="pairs", path=path, **options)


def parallel(**options) -> PairData:
    return pairs("s.txt", target_path="t.txt", format="txt", **options)


def labels(path="a.csv", **options) -> LabelData:
    return LabelData(source="labels", path=path, **options)


def tags(path="a.conll", **options) -> TagData:
    return TagData(source="tags", path=path, **options)


def read(data) -> list[tuple]:
    return [(example.where, example.source, example.target) for example in examples(data)]


def test_parallel_files_are_paired_line_by_line(write):
    write(s_txt="\ufeffone\r\n\u4f60\u597d\nlast", t_txt="1\n2\n3\n")
    assert read(parallel()) == [("s.txt:1", "one", "1"), ("s.txt:2", "\u4f60\u597d", "2"), ("s.txt:3", "last", "3")]


@pytest.mark.parametrize(
    ("source", "target", "line", "longer", "shorter"), [(3, 5, 4, "t", "s"), (5, 3, 4, "s", "t"), (2, 0, 1, "s", "t")]
)
def test_unequal_parallel_files_are_both_named_with_their_lines(write, source, target, line, longer, shorter):
    write(s_txt="x\n" * source, t_txt="y\n" * target)
    expected = f"{longer}.txt:{line}: no such line in {shorter}.txt: s.txt has {source} lines and t.txt has {target}"
    with pytest.raises(UserError, match=expected.replace(".", r"\.")):
        read(parallel())


def test_folders_of_parallel_files_are_paired_in_sorted_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for side in ("s", "t"):
        (tmp_path / side).mkdir()
        for name in ("b", "a"):
            (tmp_path / side / f"{name}.txt").write_text(f"{side}{name}\n")
    data = pairs("s", target_path="t", format="txt")
    assert [row[1:] for row in read(data)] == [("sa", "ta"), ("sb", "tb")]
    (tmp_path / "t" / "c.txt").write_text("x\n")
    with pytest.raises(UserError, match="s is 2 files and t is 3"):
        read(data)


def test_every_format_of_two_columns_gives_the_same_pairs(write, tmp_path):
    rows = [("a, b", 'say "x"'), ("\u4f60\u597d", "hello")]
    write(
        a_tsv="id\ttarget\tsource\n" + "".join(f"1\t{target}\t{source}\n" for source, target in rows),
        b_tsv="".join(f"1\t{target}\t{source}\n" for source, target in rows),
        a_csv="source,target\n" + '"a, b","say ""x"""\n\u4f60\u597d,hello\n',
        a_jsonl="".join(json.dumps({"target": target, "source": source}) + "\n" for source, target in rows),
    )
    pq.write_table(
        pa.table({"target": [target for _, target in rows], "source": [source for source, _ in rows]}), "a.parquet"
    )
    places = {
        "a.tsv": ["a.tsv:2", "a.tsv:3"],
        "b.tsv": ["b.tsv:1", "b.tsv:2"],
        "a.csv": ["a.csv:2", "a.csv:3"],
        "a.jsonl": ["a.jsonl:1", "a.jsonl:2"],
        "a.parquet": ["a.parquet: row 1", "a.parquet: row 2"],
    }
    for path, where in places.items():
        fields = {"source_field": "2", "target_field": "1"} if path == "b.tsv" else {}
        data = pairs(path, format=path.split(".")[1], **fields)
        assert read(data) == [(place, *row) for place, row in zip(where, rows, strict=True)]


def test_columns_without_names_are_numbers_as_they_are_written_in_yaml(write):
    write(a_tsv="1\tx\ty\n")
    data = PairData.model_validate({"source": "pairs", "path": "a.tsv", "source_field": 2, "target_field": 1})
    assert read(data) == [("a.tsv:1", "y", "x")]
    with pytest.raises(ValidationError, match="valid string"):
        PairData.model_validate({"source": "pairs", "path": "a.tsv", "source_field": True})


def test_a_row_of_csv_is_placed_at_its_first_line(write):
    write(a_csv='text,label\n"two\nlines",x\nnext,y\n')
    assert [row[0] for row in read(labels())] == ["a.csv:2", "a.csv:4"]


def test_labels_are_names_whatever_they_are_written_as(write):
    write(a_jsonl='{"text": "a", "label": 1}\n{"text": "b", "label": "1 "}\n{"text": "c", "label": true}\n')
    assert [row[2] for row in read(labels("a.jsonl", format="jsonl"))] == ["1", "1", "true"]


@pytest.mark.parametrize(
    ("data", "content", "message"),
    [
        (tags(), "a O\nb\n", r"a\.conll:2: the word 'b' has no tag: the line has one column"),
        (tags(), "a b O\nc O\n", r"a\.conll:2: 2 columns, where the file's first line has 3"),
        (tags(tag_column=5), "a O\n", r"a\.conll:1: no column 5: the line has 2 columns"),
        (tags(), "a O\n\nb NN\n", r"a\.conll:3: 'NN' is not a tag of IOB2"),
        (tags(), "a B-\n", r"a\.conll:1: 'B-' is not a tag of IOB2"),
        (tags(), b"a O\nb\xff O\n", r"a\.conll:2: not valid UTF-8"),
        (pairs(), "source\ttarget\tsource\nx\ty\tz\n", r"a\.tsv:1: 2 columns are called 'source'"),
        (labels(), "text,label,label\nx,a,b\n", r"a\.csv:1: 2 columns are called 'label'"),
        (pairs(), "source\ttargets\nx\ty\n", r"a\.tsv: no column 'target'; there are: source, targets"),
        (pairs(), "source\ttarget\nx\ty\nz\n", r"a\.tsv:3: the line has 1 fields, the first has 2"),
        (pairs(source_field="0", target_field="2"), "x\ty\n", r"a\.tsv:1: no column 2: the line has 2 fields"),
        (labels(), "text,label\nx,a\ny,\n", r"a\.csv:3: 'label' is empty"),
        (labels(), "text,label\nx\n", r"a\.csv:2: the row has 1 fields"),
        (labels("a.jsonl", format="jsonl"), '{"text": 1, "label": 1}\n', r"a\.jsonl:1: 'text' must be a text"),
        (labels("a.jsonl", format="jsonl"), '{"text": "x", "label": null}\n', r":1: 'label' must be a text, found n"),
        (pairs(format="txt"), "x\n", r"set data\.target_path"),
        (pairs(target_path="b.tsv"), "x\n", r"only text files lie in parallel"),
        (pairs(validation_target_path="b.tsv"), "x\n", r"data\.validation_path is not"),
        (
            parallel(validation_path="b.txt"),
            "x\n",
            r"data\.validation_target_path is not set: training and validation both",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_file_and_line(write, data, content, message):
    write(**{data.path.replace(".", "_"): content})
    with pytest.raises(UserError, match=message) as raised:
        read(data)
    assert "\n" not in str(raised.value)


def test_a_source_of_text_holds_no_examples():
    with pytest.raises(UserError, match=r"data\.source=stdlib holds text, not examples"):
        next(examples(StdlibData(source="stdlib")))


def test_the_fingerprint_follows_every_file_and_what_it_is_for(write, tmp_path, monkeypatch):
    write(s_txt="1\n", t_txt="2\n", v_txt="1\n", w_txt="2\n")
    both = {"validation_path": "v.txt", "validation_target_path": "w.txt"}
    swapped = pairs("t.txt", target_path="s.txt", format="txt")
    prints = [fingerprint(data) for data in (parallel(), swapped, parallel(**both))]
    assert len(set(prints)) == 3
    absolute = with_absolute_paths(parallel(**both))
    monkeypatch.chdir("/")
    assert fingerprint(absolute) == prints[2]
    for name in ("s", "t", "v", "w"):
        before = fingerprint(absolute)
        (tmp_path / f"{name}.txt").write_text("other\n")
        assert fingerprint(absolute) != before


@pytest.mark.parametrize("folder", [".", "*.conll", "a.conll"])
def test_a_file_that_trains_and_validates_is_refused(write, folder):
    write(a_conll="a O\n", b_conll="b O\n")
    with pytest.raises(UserError, match=r"a\.conll: this file is in data\.path and in data\.validation_path"):
        check_apart(tags(folder, validation_path="a.conll"))
    check_apart(tags("b.conll", validation_path="a.conll"))


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_link_does_not_hide_that_a_file_trains_and_validates(write, tmp_path, link):
    write(a_csv="text,label\nx,a\n")
    link(tmp_path / "v.csv", tmp_path / "a.csv")
    with pytest.raises(
        UserError, match=r"v\.csv \(as a\.csv\): this file is in data\.path and in data\.validation_path"
    ):
        check_apart(labels(validation_path="v.csv"))


def test_a_file_of_text_that_is_in_two_splits_is_refused(write):
    write(a_txt="1\n", v_txt="2\n")
    text = {"source": "files", "format": "txt"}
    with pytest.raises(UserError, match=r"a\.txt: this file is in data\.path and in data\.validation_path"):
        check_apart(FileData(**text, path="*.txt", validation_path="a.txt"))
    with pytest.raises(UserError, match=r"v\.txt: .* data\.validation_path and in data\.test_path, so the test split"):
        check_apart(FileData(**text, path="a.txt", validation_path="v.txt", test_path="v.txt"))


def test_targets_that_train_and_validate_are_refused(write):
    write(s_txt="1\n", t_txt="2\n", v_txt="3\n")
    with pytest.raises(UserError, match=r"t\.txt: this file is in data\.path and in data\.validation_path"):
        check_apart(parallel(validation_path="v.txt", validation_target_path="t.txt"))


def test_by_hash_no_source_text_is_on_both_sides(write):
    write(a_tsv="source\ttarget\n" + "".join(f"s{i % 50}\tt{i}\n" for i in range(200)))
    found = SplitExamples(pairs(validation=0.3))
    sides = {split: {example.source for side, example in found if side == split} for split in found.count}
    assert not sides["train"] & sides["validation"]
    assert sum(found.count.values()) == 200
    assert 20 < found.count["validation"] < 110


def test_by_tail_the_last_examples_validate(write):
    write(a_tsv="source\ttarget\n" + "".join(f"s{i}\tt\n" for i in range(10)))
    assert [split for split, _ in SplitExamples(pairs(split="tail", validation=0.25))] == ["train"] * 7 + [
        "validation"
    ] * 3


def test_a_file_of_its_own_validates_as_a_whole(write):
    write(a_csv="text,label\nx,b\ny,a\nx,b\n", v_csv="text,label\nx,a\n")
    found = SplitExamples(labels(validation_path="v.csv"))
    assert (found.count, found.labels) == ({"train": 3, "validation": 1}, ["a", "b"])
    assert [example.where for split, example in found if split == "validation"] == ["v.csv:2"]


def test_train_validation_and_test_are_three_splits(write):
    write(a_csv="text,label\nx,b\ny,a\n", v_csv="text,label\nx,a\n", t_csv="text,label\nz,b\nz,a\nz,a\n")
    three = SplitExamples(labels(validation_path="v.csv", test_path="t.csv"))
    assert three.count == {"train": 2, "validation": 1, "test": 3}
    write(t_csv="text,label\nz,c\n")
    with pytest.raises(UserError, match=r"t\.csv:2: the label 'c' occurs in the test split and never in training"):
        SplitExamples(labels(validation_path="v.csv", test_path="t.csv"))


def test_a_label_that_training_lacks_is_named_where_it_is(write):
    write(a_csv="text,label\nx,a\ny,b\n", v_csv="text,label\nx,a\ny,c\nz,c\n")
    with pytest.raises(UserError, match=r"v\.csv:3: the label 'c' occurs in the validation split and never in"):
        SplitExamples(labels(validation_path="v.csv"))


def test_labels_that_validation_lacks_are_known(write):
    write(a_csv="text,label\nx,c\ny,b\nz,a\n", v_csv="text,label\nx,b\n", a_conll="a O\nb B-X\n", v_conll="b B-X\n")
    assert SplitExamples(labels(validation_path="v.csv")).unvalidated == ["a", "c"]
    assert SplitExamples(tags(validation_path="v.conll")).unvalidated == []


def test_a_tag_that_training_lacks_is_named_where_it_is(write):
    write(a_conll="a O\nb B-X\n", v_conll="a O\n\nb B-X\nc I-X\n")
    with pytest.raises(UserError, match=r"v\.conll:3: the tag 'I-X' occurs in the validation split and never"):
        SplitExamples(tags(validation_path="v.conll"))


def test_o_is_the_first_tag_and_needs_no_training(write):
    write(a_conll="a B-X\nb I-X\nc B-A\n", v_conll="a O\n")
    assert SplitExamples(tags(validation_path="v.conll")).labels == ["O", "B-A", "B-X", "I-X"]


def test_blank_examples_are_left_out_and_counted(write):
    write(a_tsv="source\ttarget\na\tb\n \tb\nc\t\n\n\t\nd\te\n")
    found = SplitExamples(pairs(split="tail", validation=0.5))
    assert (found.count, found.left_out) == ({"train": 1, "validation": 1}, 2)


@pytest.mark.parametrize(
    ("data", "content", "message"),
    [
        (labels(), "text,label\nx,a\n", r"a\.csv: the (validation|training) split has no examples: none of 1"),
        (labels(split="tail"), "text,label\nx,a\n", r"a\.csv: the training split has no examples: none of 1"),
        (labels(), "text,label\n", r"a\.csv: the source holds no examples"),
        (labels(), "text,label\n ,a\n", r"holds no examples: all 1 are blank, or left out by data\.clean"),
        (labels(validation_path="v.csv"), "text,label\nx,a\n", "the validation split has no examples: its source"),
    ],
)  # fmt: skip
def test_a_split_without_examples_is_refused(write, data, content, message):
    write(a_csv=content, v_csv="text,label\n")
    with pytest.raises(UserError, match=message):
        SplitExamples(data)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("the cat sat .", "the cat sat ."),
        ("\u6211 \u7231 \u5317\u4eac \u3002", "\u6211\u7231\u5317\u4eac\u3002"),
        ("\u6211 \u7528 my phone \u6253 2 \u6b21", "\u6211\u7528my phone\u62532\u6b21"),
        ("\ud55c\uad6d \ub9d0", "\ud55c\uad6d \ub9d0"),
        ("", ""),
    ],
)
def test_words_are_joined_by_a_space_unless_chinese_or_japanese_meets(words, sentence):
    assert "".join(separated(words.split())) == sentence
