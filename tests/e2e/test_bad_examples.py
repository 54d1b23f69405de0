"""Wrong examples, models and subjects, as a user meets them: the file and the line, and nothing is started."""

import json
from pathlib import Path

import pytest

from tests.conftest import SMALL, Lmexp

TRAIN = ["train", *[word for word in SMALL if not word.startswith("model")], "model.context=32"]
CLASSIFY = [*TRAIN, "model=bert_nano", "task=classify", "data=labels", "data.validation=0.3"]
TAG = [*TRAIN, "model=bert_nano", "task=tag", "data=tags", "data.validation=0.3"]
TRANSLATE = [*TRAIN, "model=encdec_nano", "task=seq2seq", "data=pairs"]
HF = [*TRAIN, "model=hf_pretrained", "tokenizer=byte"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Examples that are wrong in one way each."""
    (tmp_path / "train.csv").write_text("text,label\n" + "good food,yes\nbad food,no\n" * 20)
    (tmp_path / "other.csv").write_text("text,label\ngood food,yes\nodd food,perhaps\n")
    (tmp_path / "lacking.csv").write_text('text,label\n"two\nlines",yes\nno label\n')
    (tmp_path / "empty_label.csv").write_text("text,label\ngood food,yes\nbad food,\n")
    (tmp_path / "one_label.csv").write_text("text,label\n" + "".join(f"food {i},yes\n" for i in range(40)))
    (tmp_path / "long.csv").write_text("text,label\n" + "good,yes\nbad,no\n" * 20 + f"{'very ' * 20}good,yes\n")
    (tmp_path / "source.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "target.txt").write_text("eins\nzwei\n")
    (tmp_path / "inside.conll").write_text("She O\nslept B-V\n\nin O\nParis I-LOC\n")
    (tmp_path / "other_type.conll").write_text("New B-LOC\nYork I-PER\n")
    (tmp_path / "no_tag.conll").write_text("She O\nslept\n")
    (tmp_path / "broken.jsonl").write_text('{"text": "good", "label": "yes"}\n{"text": "torn\n')
    (tmp_path / "code").mkdir()
    needs_code = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (tmp_path / "code" / "config.json").write_text(json.dumps(needs_code))
    (tmp_path / "code" / "model.safetensors").write_bytes(b"")
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "pickles" / "pytorch_model.bin").write_bytes(b"")
    return tmp_path


WRONG = {
    "a label that only validation has": (
        [*CLASSIFY, "data.path=train.csv", "data.validation_path=other.csv"],
        "other.csv:3: the label 'perhaps'",
    ),
    "a row without its label": ([*CLASSIFY, "data.path=lacking.csv"], "lacking.csv:4: "),
    "an empty label": ([*CLASSIFY, "data.path=empty_label.csv"], "empty_label.csv:3: "),
    "a single label": ([*CLASSIFY, "data.path=one_label.csv"], "all examples have the label 'yes'"),
    "no such column": ([*CLASSIFY, "data.path=train.csv", "data.field=body"], "there are: text, label"),
    "a torn line": ([*CLASSIFY, "data.path=broken.jsonl", "data.format=jsonl"], "broken.jsonl:2: "),
    "a text longer than the context": (
        [*CLASSIFY, "data.path=long.csv", "data.split=tail"],
        "long.csv:42: the source has 104 tokens, more than the 31 that model.context leaves",
    ),
    "parallel files of unequal length": (
        [*TRANSLATE, "data.path=source.txt", "data.target_path=target.txt", "data.format=txt"],
        "source.txt:3: ",
    ),
    "a tag that starts inside of a span": ([*TAG, "data.path=inside.conll"], "inside.conll:5: "),
    "a tag that goes on with another type": ([*TAG, "data.path=other_type.conll"], "other_type.conll:2: "),
    "a word without its tag": ([*TAG, "data.path=no_tag.conll"], "no_tag.conll:2: "),
    "a model that needs code": (
        [*HF, "model.pretrained=code"],
        "needs code that comes with it: own.py. model.trust_remote_code=true runs it",
    ),
    "weights in pickles": ([*HF, "model.pretrained=pickles"], "pytorch_model.bin, which is not read: pickles can run"),
    "a folder that is not there": ([*HF, "model.pretrained=./nowhere"], "nowhere: no such folder"),
    "an architecture that nobody knows": (
        [*TRAIN, "model=hf_config", "model.model_type=gpt22"],
        "gpt22 is no architecture of transformers. Did you mean 'gpt2'?",
    ),
    "a task of another kind of model": (
        [*TRAIN, "model=gpt_nano", "task=masked_lm"],
        "task=masked_lm needs a model of bert (or hf), and gpt_nano is of gpt",
    ),
    "a task of other data": ([*TRAIN, "model=bert_nano", "task=tag"], "task=tag needs tags, and data.source=stdlib"),
    "a frozen language model": ([*TRAIN, "model=gpt_nano", "init.freeze=true"], "init.freeze=true trains a head"),
    "one table for two tokenizers": (
        [*TRAIN, "model=encdec_nano", "task=seq2seq", "data=reverse", "data.count=50", "tokenizer=byte",
         "target_tokenizer={kind: char}", "model.share_embeddings=true"],
        "model.share_embeddings=true needs one tokenizer for both sides",
    ),
    "sizes by other names": (["train", "model=encdec_nano", "model.num_layers=2"], "It is set by model.n_layers"),
    "eval of nothing": (["eval", "demo"], "demo"),
    "score of nothing": (["score", "demo", "a sentence"], "demo"),
    "import of nothing": (["import", "nowhere"], "nowhere"),
    "import of pickles": (["import", "pickles"], "pytorch_model.bin, which is not read"),
    "export of nothing": (["export", "demo", "folder"], "demo"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_input_is_one_message_and_nothing_starts(mistake: str, files: Path, lmexp: Lmexp):
    words, said = WRONG[mistake]
    ended = lmexp(*words)
    assert ended.returncode == 2, ended.stderr
    message = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(message) == 1 and said in message[0] and len(message[0]) < 400, ended.stderr
    assert "Traceback" not in ended.stderr and ended.stdout == ""
    assert not list(files.glob("outputs/[!.]*"))


def test_long_texts_are_cut_where_that_is_asked_and_counted(files: Path, lmexp: Lmexp):
    ended = lmexp(*CLASSIFY, "data.path=long.csv", "data.truncate=true", "data.split=tail", "budget.tokens=512")
    assert ended.returncode == 0, ended.stderr
    assert "warning: data.truncate cuts 1 texts to the context of bert_nano" in ended.stderr
