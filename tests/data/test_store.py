"""The token store: what is in it, that it is made once, and that no half of one is ever seen."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lmexp.config.data import StdlibData
from lmexp.config.tokenizers import BPETokenizerConfig, ByteTokenizerConfig, CharTokenizerConfig
from lmexp.data import folders
from lmexp.data.prepare import warnings
from lmexp.data.sources import documents, fingerprint
from lmexp.data.split import hashed_split
from lmexp.data.store import Store, prepare
from lmexp.errors import UserError

BYTE = ByteTokenizerConfig(kind="byte")
LINES = [f"line {i} caf\u00e9 <|endoftext|>" for i in range(200)]

WRITER = """
import resource, sys, time
from pathlib import Path
from lmexp.config.data import FileData
from lmexp.config.tokenizers import ByteTokenizerConfig
from lmexp.data.store import prepare
from lmexp.errors import UserError

source, root, behaviour = sys.argv[1:]
def say(message):
    print(message, flush=True)
    if behaviour == "hang" and message.startswith("tokenised"):
        time.sleep(600)
    if behaviour == "slow" and message.startswith("tokenised"):
        time.sleep(2)  # until the others have started too
if behaviour == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
data = FileData(source="files", path=source, format="txt", document="line", validation=0.2)
try:
    print("store", prepare(data, ByteTokenizerConfig(kind="byte"), Path(root), say).path, flush=True)
except UserError as error:
    print("refused:", error)
"""


@pytest.fixture
def lines(files):
    return files("lines.txt", "\n".join(LINES), document="line", validation=0.2)


def writer(data, root: Path, behaviour: str = "plain") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, data.path, str(root), behaviour]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def visible(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if not path.name.startswith(".")]


def test_a_store_with_a_test_split_tells_what_the_splits_share(files, tmp_path):
    own = {f"{name}_path": files(f"{name}.txt", text).path for name, text in (("validation", "b\nc"), ("test", "b\nd"))}
    options = {"document": "line", "split": "tail"}
    store = prepare(files("a.txt", "a\nb", **options, **own), BYTE, tmp_path / "stores")
    assert {split: store.array(split).tolist() for split in store.splits} == {
        "train": [256, 97, 256, 98],
        "validation": [256, 98, 256, 99],
        "test": [256, 98, 256, 100],
    }
    assert (store.validation_seen, store.test_seen) == (0.5, 0.5) and store.test_fingerprint
    assert sum("are in the training" in warning for warning in warnings(store)) == 2
    plain = prepare(files("a.txt", "a\nb", **options, validation=0.5), BYTE, tmp_path / "stores")
    assert (plain.test_fingerprint, plain.test_seen, list(plain.splits)) == (None, None, ["train", "validation"])


def test_a_stream_is_every_document_behind_its_token(lines, tmp_path):
    store = prepare(lines, BYTE, tmp_path / "stores")
    for split in store.splits:
        texts = [line for line in LINES if hashed_split(line, {"validation": 0.2}) == split]
        expected = [i for text in texts for i in (256, *text.encode())]
        assert store.array(split).tolist() == expected
        assert store.tokens(split) == len(expected)
        assert store.documents(split) == len(texts)
        document_bytes = np.load(store.path / f"{split}.bytes.npy")
        assert document_bytes.tolist() == [len(text.encode()) for text in texts]
        assert store.bytes(split) == document_bytes.sum()
        assert store.bounds(split)[-1] == len(expected)
        assert (store.array(split)[store.bounds(split)[:-1]] == 256).all()
        assert store.splits[split].sha256 == hashlib.sha256(store.array(split).tobytes()).hexdigest()


def test_the_standard_library_comes_back_out_of_its_store(stdlib_store):
    tokenizer = stdlib_store.tokenizer()
    assert (stdlib_store.vocab_size, stdlib_store.dtype) == (512, "<u2")
    assert stdlib_store.tokenizer_fingerprint == tokenizer.fingerprint
    ids, bounds = stdlib_store.array("validation"), stdlib_store.bounds("validation")
    decoded = [tokenizer.decode(ids[i + 1 : j]) for i, j in pairwise(bounds)]
    data = StdlibData(source="stdlib")
    assert decoded == [text for _, text in documents(data) if hashed_split(text, {"validation": 0.05}) == "validation"]
    assert stdlib_store.fingerprint != stdlib_store.splits["train"].sha256


def test_vocabularies_past_16_bits_are_stored_in_32(files, tmp_path):
    text = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x20000)))) * 2
    data = files("a.txt", text, split="tail", validation=0.5)
    store = prepare(data, CharTokenizerConfig(kind="char"), tmp_path / "stores")
    assert (store.dtype, store.array("train").dtype) == ("<u4", np.uint32)
    assert store.array("train").max() == store.vocab_size - 1 > 65_536
    assert store.tokenizer().decode(store.array("validation")[1:]) == text[len(text) // 2 :]


def test_tokens_are_read_only(lines, tmp_path):
    with pytest.raises(ValueError, match="read-only"):
        prepare(lines, BYTE, tmp_path / "stores").array("train")[0] = 1


def test_the_same_source_gives_the_same_tokens_in_another_process(lines, tmp_path):
    here = prepare(lines, BYTE, tmp_path / "here")
    output, _ = writer(lines, tmp_path / "there").communicate()
    there = Store.open(Path(output.split("store ")[1].strip()))
    assert (there.path.name, there.fingerprint) == (here.path.name, here.fingerprint)


@pytest.mark.parametrize(
    "text, document, total",
    [("a" * 10_276, "file", "1 document, 10.3k characters"), ("a\nb", "line", "2 documents, 2 characters")],
    ids=["one", "two"],
)
def test_prepare_says_how_large_a_small_text_is(files, tmp_path, text, document, total):
    said: list[str] = []
    data = files("a.txt", text, document=document, split="tail", validation=0.5)
    prepare(data, BYTE, tmp_path / "stores", said.append)
    assert f"{total}; building the tokenizer" in said


def test_a_second_prepare_does_not_read_a_source_whose_fingerprint_is_known(lines, tmp_path):
    first = prepare(lines, BYTE, tmp_path / "stores")
    resolved = lines.model_copy(update={"fingerprint": fingerprint(lines)})
    Path(lines.path).unlink()
    said: list[str] = []
    assert prepare(resolved, BYTE, tmp_path / "stores", said.append) == first
    assert said == []


def test_a_store_is_found_again_when_the_source_has_moved(lines, tmp_path):
    first = prepare(lines, BYTE, tmp_path / "stores")
    moved = Path(lines.path).rename(tmp_path / "moved.txt")
    said: list[str] = []
    again = prepare(lines.model_copy(update={"path": str(moved)}), BYTE, tmp_path / "stores", said.append)
    assert (again, said) == (first, [])


def test_content_split_and_tokenizer_each_have_a_store_of_their_own(files, lines, tmp_path):
    root = tmp_path / "stores"
    more = files("more.txt", "\n".join([*LINES, "more"]), document="line", validation=0.2)
    stores = [
        prepare(lines, BYTE, root),
        prepare(more, BYTE, root),
        prepare(lines.model_copy(update={"validation": 0.3}), BYTE, root),
        prepare(lines, CharTokenizerConfig(kind="char"), root),
        prepare(lines, BPETokenizerConfig(kind="bpe", vocab_size=260), root),
    ]
    assert len({store.path for store in stores}) == len(visible(root)) == 5


def test_a_source_that_changed_since_its_fingerprint_was_taken_is_refused(lines, tmp_path):
    resolved = lines.model_copy(update={"fingerprint": fingerprint(lines)})
    Path(lines.path).write_text("something\nelse\n" * 50)
    with pytest.raises(UserError, match="the data has changed since this config was resolved"):
        prepare(resolved, BYTE, tmp_path / "stores")


def test_processes_that_start_together_tokenise_once(lines, tmp_path):
    root = tmp_path / "stores"
    writers = [writer(lines, root, "slow") for _ in range(4)]
    outputs = [process.communicate()[0] for process in writers]
    assert sum("building the tokenizer" in output for output in outputs) == 1
    assert len({output.split("store ")[1] for output in outputs}) == len(visible(root)) == 1


def test_a_writer_killed_midway_leaves_no_store_and_the_next_one_succeeds(lines, tmp_path):
    root = tmp_path / "stores"
    process = writer(lines, root, "hang")
    assert process.stdout is not None
    while not process.stdout.readline().startswith("tokenised"):
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert visible(root) == []
    assert len(list(root.glob(".*.tmp"))) == 1
    assert prepare(lines, BYTE, root).documents("train") > 100
    assert list(root.glob(".*.tmp")) == []


def test_a_full_disk_is_one_message_and_leaves_nothing(lines, tmp_path):
    root = tmp_path / "stores"
    output, _ = writer(lines, root, "full").communicate()
    assert output.endswith(f"refused: cannot write the token store in {root}: File too large\n")
    assert visible(root) == [] and not list(root.glob(".*.tmp"))


def test_a_folder_that_cannot_be_written_is_one_message(lines, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"cannot write the token store in .*taken/stores: Not a directory"):
        prepare(lines, BYTE, tmp_path / "taken" / "stores")


def test_wrong_input_leaves_nothing_behind(files, tmp_path):
    root = tmp_path / "stores"
    data = files("a.txt", b"ab\n" * 100 + b"\xff", document="line")
    with pytest.raises(UserError, match=r"a\.txt:101: not valid UTF-8 at byte 300"):
        prepare(data, BYTE, root)
    large = BPETokenizerConfig(kind="bpe", vocab_size=50_000)
    with pytest.raises(UserError, match="a vocabulary of 50000 is larger than the text supports"):
        prepare(files("b.txt", "\n".join(LINES), document="line"), large, root)
    assert visible(root) == [] and not list(root.glob(".*.tmp"))


def test_damage_is_noticed_when_a_store_is_opened(lines, tmp_path):
    store = prepare(lines, BYTE, tmp_path / "stores")
    with (store.path / "train.bin").open("r+b") as file:
        file.truncate(10)
    with pytest.raises(UserError, match=r"train\.bin: damaged, 10 bytes instead of \d+"):
        prepare(lines, BYTE, tmp_path / "stores")
    manifest = store.path / "manifest.json"
    content = json.loads(manifest.read_text())
    for damaged in ("{", "[]", json.dumps(content | {"dtype": "O"}), json.dumps(content | {"splits": {}})):
        manifest.write_text(damaged)
        with pytest.raises(UserError, match="the manifest is damaged"):
            Store.open(store.path)
    manifest.write_text(json.dumps(content | {"format_version": 99}))
    with pytest.raises(UserError, match="format 99"):
        Store.open(store.path)
    with pytest.raises(UserError, match="no token store here"):
        Store.open(tmp_path / "nothing")


def overwrite(file: Path) -> None:
    """Change the last byte of a file in place, and set its time of modification back."""
    before = file.stat()
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("name", ["train.bin", "validation.bin", "train.bounds.npy", "tokenizer.json"])
def test_a_file_that_was_overwritten_in_place_is_noticed(lines, tmp_path, name):
    store = prepare(lines, BYTE, tmp_path / "stores")
    overwrite(store.path / name)
    with pytest.raises(UserError, match=rf"{name}: its content was changed after the store was made"):
        Store.open(store.path)


def test_tokens_of_an_earlier_version_are_held_against_their_hash_too(lines, tmp_path):
    store = prepare(lines, BYTE, tmp_path / "stores")
    manifest = store.path / "manifest.json"
    manifest.write_text(json.dumps({k: v for k, v in json.loads(manifest.read_text()).items() if k != "files"}))
    assert Store.open(store.path) == store
    overwrite(store.path / "train.bin")
    with pytest.raises(UserError, match=r"train\.bin: its content was changed"):
        Store.open(store.path)


def test_a_large_file_is_read_again_only_if_it_was_changed_later(lines, tmp_path, monkeypatch):
    store = prepare(lines, BYTE, tmp_path / "stores")
    monkeypatch.setattr("lmexp.data.folders.MAX_ALWAYS_READ", 0)
    monkeypatch.setattr("lmexp.data.folders._sha256", lambda *_: pytest.fail("read"))
    assert Store.open(store.path) == store
    monkeypatch.undo()
    monkeypatch.setattr("lmexp.data.folders.MAX_ALWAYS_READ", 0)
    overwrite(store.path / "train.bin")
    with pytest.raises(UserError, match=r"train\.bin: its content was changed"):
        Store.open(store.path)


def test_the_large_files_of_a_copied_store_are_read_once(lines, tmp_path, monkeypatch):
    store = prepare(lines, BYTE, tmp_path / "stores")
    copied = tmp_path / "copy"
    shutil.copytree(store.path, copied)
    time.sleep(0.02)  # the clock of files ticks every few milliseconds
    (copied / "train.bin").touch()
    monkeypatch.setattr("lmexp.data.folders.MAX_ALWAYS_READ", 0)
    read = []
    sha256 = folders._sha256
    monkeypatch.setattr("lmexp.data.folders._sha256", lambda *file: read.append(file) or sha256(*file))
    assert Store.open(copied).fingerprint == store.fingerprint and "train.bin" in {file.name for file, *_ in read}
    read.clear()
    assert Store.open(copied).fingerprint == store.fingerprint and not read


def test_a_file_that_is_changed_while_a_copied_store_is_read_is_noticed_at_every_start(lines, tmp_path, monkeypatch):
    store = prepare(lines, BYTE, tmp_path / "stores")
    time.sleep(0.02)  # the clock of files ticks every few milliseconds
    (store.path / "train.bin").touch()
    monkeypatch.setattr("lmexp.data.folders.MAX_ALWAYS_READ", 0)
    sha256, changed = folders._sha256, []

    def read_and_change(file: Path, *version: int) -> str:
        content = sha256(file, *version)
        if file.name == "train.bin" and not changed:
            changed.append(file)
            time.sleep(0.02)
            overwrite(file)
        return content

    monkeypatch.setattr("lmexp.data.folders._sha256", read_and_change)
    for _ in range(2):
        with pytest.raises(UserError, match=r"train\.bin: its content was changed"):
            Store.open(store.path)


def test_work_on_the_next_item_runs_while_this_one_is_used():
    begun = [threading.Event() for _ in range(3)]

    def work(item: int) -> int:
        begun[item].set()
        return 10 * item

    for item, result in folders.with_results(range(3), work):
        assert result == 10 * item
        assert item == 2 or begun[item + 1].wait(5)
    with pytest.raises(ZeroDivisionError):
        list(folders.with_results([1, 0], lambda item: 1 / item))


def test_a_store_knows_its_document_token_and_mask_and_so_does_one_from_before_masks(lines, tmp_path):
    store = prepare(lines, BYTE, tmp_path / "stores")
    assert (store.bos_id, store.mask_id) == (256, 257)
    manifest = store.path / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({k: v for k, v in content.items() if k not in ("bos_id", "own_mask_id")}))
    assert Store.open(store.path) == store
    manifest.write_text(json.dumps(content | {"own_mask_id": None}))
    with pytest.raises(UserError, match=r"no token for what is hidden, which task=masked_lm needs"):
        _ = Store.open(store.path).mask_id
