"""Chinese text all the way: characters, bytes, cleaning, scores, generated text, reports."""

import json
from pathlib import Path

import pytest

from tests.conftest import SMALL, Lmexp

WORDS = "我们 他们 今天 明天 在 学校 家里 公园 看书 吃饭 唱歌 跑步 和 朋友 一起 很 高兴".split()  # noqa: SIM905
SWEEP = """# 字符还是字节？
# @package _global_
defaults: [{override /data: text}, _self_]
sweep:
  question: 中文应当按字符、按字节，还是按词片切分？
  points:
    - {tokenizer: char}
    - {tokenizer: byte}
    - {tokenizer: bpe, tokenizer.vocab_size: 300}
data: {path: 文本.txt, document: line, clean: {unicode: nfkc, stop_words: chinese}}
"""


def sentence(number: int) -> str:
    return "".join(WORDS[(number * step + step) % len(WORDS)] for step in (1, 3, 5, 7, 2)) + "。"


@pytest.mark.slow
def test_a_study_of_chinese_text_from_characters_to_the_report(tmp_path: Path, lmexp: Lmexp):
    (tmp_path / "文本.txt").write_text("\n".join(f"{sentence(i)}{sentence(i // 7)}" for i in range(400)))
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "中文.yaml").write_text(SWEEP)
    words = [word for word in SMALL if not word.startswith("tokenizer")]
    ended = lmexp("sweep", "sweeps/中文.yaml", *words, "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["question"].startswith("中文")
    assert not found["skipped"]
    assert {run["state"] for run in found["runs"]} == {"done"} and len(found["runs"]) == 3
    lossless = [run for run in found["runs"] if run["tokenizer"] in ("char", "byte", "bpe")]
    assert all(run["bits_per_byte"] > 0 for run in lossless)
    page = Path(found["report"])
    assert "中文应当按字符" in page.read_text(encoding="utf-8")

    run = next(run["run_id"] for run in found["runs"] if run["tokenizer"] == "char")
    (folder,) = tmp_path.glob(f"outputs/*/*{run}")
    scored = json.loads(lmexp("score", str(folder), "今天家里", "--json").stdout)["sentences"][0]
    assert [word["word"] for word in scored["words"]] == list("今天家里")
    written = json.loads(lmexp("generate", str(folder), "今天", "--tokens", "8", "--no-stop", "--json").stdout)
    assert len(written["text"]) >= 8 and set(written["text"]) <= {*"".join(WORDS), "。", *"<|endoftext|>"}


def test_stop_words_are_left_out_before_anything_is_counted(tmp_path: Path, lmexp: Lmexp):
    (tmp_path / "a.txt").write_text("\n".join(f"我们的学校{i}在公园" for i in range(100)))
    words = ["data=text", "data.path=a.txt", "data.document=line", "tokenizer=char"]
    whole, cleaned = (
        json.loads(lmexp("prepare", *words, *more, "--json").stdout)["train"]
        for more in ([], ["data.clean.stop_words=chinese"])
    )
    assert cleaned["bytes"] < whole["bytes"] and cleaned["documents"] > 0
