"""Local files: which of them are read, the documents they give, and the messages about wrong ones."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmexp.config.data import FileData
from lmexp.config.tokenizers import ByteTokenizerConfig
from lmexp.data.local_files import find
from lmexp.data.sources import files as files_of
from lmexp.data.sources import fingerprint
from lmexp.data.store import prepare
from lmexp.errors import UserError
from tests.data.texts import texts_of


def test_texts_are_not_normalised(files):
    text = " \r\n caf\u00e9 cafe\u0301 \ufb01\r\n\r\n\tend \n"
    assert texts_of(files("a.txt", text)) == [text]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("file", ["one\ntwo\r\n\r\n \nthree\n\n"]),
        ("paragraph", ["one\ntwo", "three"]),
        ("line", ["one", "two", " ", "three"]),
    ],
)
def test_a_txt_document_is_a_file_a_paragraph_or_a_line(files, document, expected):
    data = files("a.txt", "one\ntwo\r\n\r\n \nthree\n\n", document=document)
    assert texts_of(data) == expected


def test_only_line_feeds_end_lines(files):
    data = files("a.txt", "a\x0bb\x0cc\x1cd\u2028e\u0085f\rg\nh", document="line")
    assert texts_of(data) == ["a\x0bb\x0cc\x1cd\u2028e\u0085f\rg", "h"]


def test_a_folder_holds_every_file_with_the_suffix_in_sorted_order(files, tmp_path):
    for name in ("b.txt", "a.txt", "c.md"):
        files(name, name, format="txt")
    (tmp_path / "aa").mkdir()
    files("aa/z.txt", "aa/z.txt")
    data = FileData(source="files", path=str(tmp_path), format="txt")
    assert texts_of(data) == ["a.txt", "aa/z.txt", "b.txt"]


LEFTOVERS = (
    ".ipynb_checkpoints/a-checkpoint.txt",
    "._a.txt",
    "__MACOSX/._a.txt",
    "__MACOSX/b.txt",
    "~$a.txt",
    ".git/x/y.txt",
    "sub/.a.txt",
)


@pytest.fixture
def cluttered(files, tmp_path):
    """Write two texts, and what programs leave beside them, one of it not in UTF-8."""
    for folder in ("texts/sub", "texts/.ipynb_checkpoints", "texts/__MACOSX", "texts/.git/x"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a.txt", "sub/b.txt"):
        files(f"texts/{name}", name)
    for name in (*LEFTOVERS, "a.txt~", "#a.txt#"):
        files(f"texts/{name}", b"\x00\xff", format="txt")
    return tmp_path / "texts"


def test_hidden_files_and_leftovers_of_programs_are_no_data_and_are_counted(cluttered, tmp_path):
    data = FileData(source="files", path=str(cluttered), format="txt", split="tail", validation=0.5)
    assert texts_of(data) == ["a.txt", "sub/b.txt"]
    assert files_of(data)["path"].passed_over == sorted((cluttered / name for name in LEFTOVERS), key=Path.as_posix)
    said = []
    prepare(data, ByteTokenizerConfig(kind="byte"), tmp_path / "stores", said.append)
    assert said[0].startswith(f"passed over 7 files that are hidden or left by a program: {cluttered}/.")
    before = fingerprint(data)
    (cluttered / ".new.txt").write_text("new")
    assert fingerprint(data) == before


def test_a_glob_passes_over_leftovers_too_but_not_what_it_names(cluttered, monkeypatch):
    monkeypatch.chdir(cluttered)
    assert [file.as_posix() for file in find("**/*", "txt").files] == ["a.txt", "sub/b.txt"]
    assert [str(file) for file in find(str(cluttered / "a.*"), "txt").files] == [str(cluttered / "a.txt")]
    assert [file.as_posix() for file in find("__MACOSX/*", "txt").files] == ["__MACOSX/b.txt"]
    assert [file.as_posix() for file in find(".ipynb_checkpoints", "txt").files] == [LEFTOVERS[0]]
    assert find("._a.txt", "txt").files == [Path("._a.txt")]


def test_a_folder_with_nothing_but_leftovers_says_so(cluttered, tmp_path):
    (cluttered / "a.txt").unlink()
    (cluttered / "sub" / "b.txt").unlink()
    with pytest.raises(
        UserError, match=r"no \.txt file in this folder but hidden files and leftovers of programs, such"
    ):
        find(str(cluttered), "txt")


def test_a_glob_and_a_relative_path_name_files(files, tmp_path, monkeypatch):
    files("a1.txt", "one")
    files("a2.txt", "two")
    files("b1.txt", "three")
    monkeypatch.chdir(tmp_path)
    assert texts_of(FileData(source="files", path="a*.txt", format="txt")) == ["one", "two"]
    assert texts_of(FileData(source="files", path="b1.txt", format="txt")) == ["three"]


def test_jsonl_csv_and_parquet_give_the_same_documents(files, tmp_path):
    texts = ["plain", 'quotes " and, commas', "two\r\nlines\n", "\u00e9\U0001f600", "x" * 500_000]
    jsonl = "\ufeff" + "".join(json.dumps({"id": 1, "body": text}) + "\n\n" for text in texts)
    quoted = [text.replace('"', '""') for text in texts]
    table = "\ufeffbody,id\r\n" + "".join(f'"{text}",1\r\n' for text in quoted)
    pq.write_table(pa.table({"id": [1] * 5, "body": texts}), tmp_path / "a.parquet", row_group_size=2)
    parquet = FileData(source="files", path=str(tmp_path / "a.parquet"), format="parquet", field="body")
    assert texts_of(files("a.jsonl", jsonl, field="body")) == texts
    assert texts_of(files("a.csv", table, field="body")) == texts
    assert texts_of(parquet) == texts


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda raw: pa.Codec("zstd").compress(raw, asbytes=True),
}


@pytest.mark.parametrize("ending", PACKED)
def test_a_compressed_file_is_read_as_the_text_in_it(files, tmp_path, ending):
    raw = "one\r\ncaf\u00e9 \u4f60\n".encode()
    name = f"a.txt.{ending}"
    assert texts_of(files(name, PACKED[ending](raw), format="txt", document="line")) == ["one", "caf\u00e9 \u4f60"]
    assert texts_of(files("plain.name", PACKED[ending](raw), format="txt")) == [raw.decode()]
    (tmp_path / "folder").mkdir()
    files(f"folder/{name}", PACKED[ending](raw), format="txt")
    folder = FileData(source="files", path=str(tmp_path / "folder"), format="txt")
    assert texts_of(folder) == [raw.decode()]
    files("folder/a.txt", "unpacked")
    assert texts_of(folder) == ["unpacked"]  # and not the same text twice
    with pytest.raises(UserError, match=rf"{name}: the compressed content is damaged or cut off: "):
        texts_of(files(name, PACKED[ending](raw * 100)[:-9], format="txt"))
    with pytest.raises(UserError, match=rf"{name}:2: not valid UTF-8 at byte 2 of the file"):
        texts_of(files(name, PACKED[ending](b"x\n\xff"), format="txt", document="line"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04...", "a zip archive"),
        (gzip.compress(b"a.txt".ljust(257, b"\0") + b"ustar\x0000", mtime=0), "a tar archive; unpack it first"),
        ("text".encode("utf-16"), "text in UTF-16; convert it to UTF-8"),
        (b"PAR1\x15...", r"a parquet file; set data\.format=parquet"),
        (b"%PDF-1.7\n", "a PDF document; extract its text first"),
    ],
)
def test_what_is_no_text_is_refused_by_its_name(files, content, said):
    for options in ({"format": "txt"}, {"format": "csv"}, {"format": "jsonl"}):
        with pytest.raises(UserError, match=rf"a\.any: this is {said}"):
            texts_of(files("a.any", content, **options))
    with pytest.raises(UserError, match=r"b\.any: not a sound parquet file after row 0: it is a zip archive"):
        texts_of(files("b.any", b"PK\x03\x04...", format="parquet"))


def test_texts_that_begin_like_other_files_are_texts(files):
    for text in ("BZh9 is how bz2 files begin", "PK", "PAR1 no", "7z", "Rar! said the crow"):
        assert texts_of(files("a.txt", text)) == [text]


@pytest.mark.parametrize("layout", [{"indent": 1}, {}, {"separators": (",", ":")}])
def test_a_json_array_of_objects_is_read_as_its_lines_would_be(files, layout):
    texts = ["a", 'quotes " and [brackets],\nlines', "\u00e9"]
    array = json.dumps([{"text": text, "id": [1, {"x": 2}]} for text in texts], ensure_ascii=False, **layout)
    assert texts_of(files("a.json", f"\ufeff\n {array}\n", format="jsonl")) == texts
    assert (
        texts_of(files("b.json", "".join(json.dumps({"text": text}) + "\n" for text in texts), format="jsonl")) == texts
    )


def test_a_dot_selects_a_key_inside_of_a_column_unless_a_column_has_that_name(files, tmp_path):
    rows = [{"text": {"de": {"long": text}}, "text.en": text.upper()} for text in ("x", "y")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    jsonl = "".join(json.dumps(row) + "\n" for row in rows)
    for field, expected in (("text.de.long", ["x", "y"]), ("text.en", ["X", "Y"])):
        assert texts_of(files("a.jsonl", jsonl, field=field)) == expected
        parquet = FileData(source="files", path=str(tmp_path / "a.parquet"), format="parquet", field=field)
        assert texts_of(parquet) == expected
    for field, said in (
        ("text.fr", r":1: no column 'text\.fr'; there are: text\.de"),
        ("text.de.long.er", "the value that should hold 'er' is not a mapping"),
        ("txt.de", r":1: no column 'txt\.de'; there are: text, text\.en, text\.de\. Did you mean 'text\.de'"),
    ):
        with pytest.raises(UserError, match=said):
            texts_of(files("a.jsonl", jsonl, field=field))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_of_a_csv_is_the_one_with_which_the_header_has_the_fields(files, delimiter):
    table = f'id{delimiter}text\n1{delimiter}"a, b; c | d\te"\n'
    assert texts_of(files("a.csv", table)) == ["a, b; c | d\te"]
    with pytest.raises(UserError, match=r"no column 'texts'; there are: id, text\. Did you mean 'text'"):
        texts_of(files("a.csv", table, field="texts"))


def test_a_folder_with_other_files_says_how_to_name_them(files, tmp_path):
    files("a.json", "[]", format="jsonl")
    with pytest.raises(
        UserError, match=r"no \.jsonl file in this folder; for its 1 \.json file, set data\.path=.*\*\.json"
    ):
        fingerprint(FileData(source="files", path=str(tmp_path), format="jsonl"))


def test_empty_documents_are_skipped(files):
    assert texts_of(files("a.jsonl", '{"text": ""}\n{"text": "x"}\n')) == ["x"]


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_source_without_text_is_refused(files, content):
    with pytest.raises(UserError, match="holds no text"):
        texts_of(files("a.txt", content, document="line"))


def test_a_missing_file_is_named_with_its_nearest_neighbour(files, tmp_path):
    files("shakespeare.txt", "x")
    data = FileData(source="files", path=str(tmp_path / "shakespear.txt"), format="txt")
    for use in (fingerprint, lambda data: texts_of(data)):
        with pytest.raises(UserError, match=r"no such file or folder\. Did you mean 'shakespeare\.txt'\?"):
            use(data)


def test_a_folder_or_a_glob_without_files_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no \.csv file in this folder"):
        fingerprint(FileData(source="files", path=str(tmp_path), format="csv"))
    with pytest.raises(UserError, match="no file matches"):
        fingerprint(FileData(source="files", path=str(tmp_path / "*.csv"), format="csv"))


@pytest.mark.parametrize("document", ["file", "paragraph", "line"])
def test_invalid_utf8_is_named_by_line_and_byte(files, document):
    data = files("a.txt", b"caf\xc3\xa9\nab\xffc\n", document=document)
    with pytest.raises(UserError, match=r"a\.txt:2: not valid UTF-8 at byte 8 of the file"):
        texts_of(data)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": \n', r"a\.jsonl:2: not valid JSON"),
        ("a.jsonl", '{"text": "x"}\n["x"]\n', r"a\.jsonl:2: every row must be a JSON object, found list"),
        ("a.jsonl", '[{"text": "x"},\n\n{"text": 1}]', r"a\.jsonl:3: 'text' must be a text, found int"),
        ("a.jsonl", '[{"text": "x"}\n{"text": "y"}]', r"a\.jsonl:1: not valid JSON: ',' or '\]' is missing after"),
        ("a.jsonl", '[{"text": "x"},\n', r"a\.jsonl:2: not valid JSON: Expecting value"),
        ("a.jsonl", '[{"text": "x"}]\n{"text": "y"}', r"a\.jsonl:1: not valid JSON: there is more after the end"),
        ("a.jsonl", '{\n "text": "x"}', r"a\.jsonl:1: not valid JSON: .* one array of objects"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl:1: not valid JSON"),
        ("a.jsonl", '{"texts": "x", "id": 1}\n', r":1: no column 'text'; there are: texts, id\. Did you"),
        ("a.jsonl", '{"text": "x"}\n{"text": null}\n', r"a\.jsonl:2: 'text' must be a text, found null"),
        ("a.jsonl", '{"text": 5}\n', r"a\.jsonl:1: 'text' must be a text, found int"),
        ("a.jsonl", '{"text": "\\ud800"}\n', r"a\.jsonl:1: 'text' holds '\\ud800', which is no character"),
        ("a.csv", "id,texts\n1,x\n", r"no column 'text'; there are: id, texts\. Did you mean 'texts'"),
        ("a.csv", "id,text\n1,x\n2\n", r"a\.csv:3: the row has 1 fields, the header 2"),
        ("a.csv", 'id,text\n1,"x\n2,y\n', r"a\.csv:3: not valid CSV"),
        ("a.parquet", "PAR1 no", r"a\.parquet: not a sound parquet file"),
    ],
)  # fmt: skip
def test_damaged_rows_are_named(files, name, content, message):
    with pytest.raises(UserError, match=message) as raised:
        texts_of(files(name, content))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("texts", ["x"], r"no column 'text'; there are: texts\. Did you mean 'texts'"),
        ("text", ["x", None], r"a\.parquet: row 2: 'text' must be a text, found null"),
        ("text", [1.5], r"a\.parquet: row 1: 'text' must be a text, found float"),
    ],
)
def test_damaged_parquet_rows_are_named(tmp_path: Path, column, values, message):
    pq.write_table(pa.table({column: values}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message):
        texts_of(FileData(source="files", path=str(tmp_path / "a.parquet"), format="parquet"))
