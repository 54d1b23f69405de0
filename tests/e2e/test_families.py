"""The shipped studies of families and tasks, as a user types them: short, to the end, with their scores."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Lmexp

ONE_THREAD = "launcher.threads=1"


def rows(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "table.csv").open() as file:
        return list(csv.DictReader(file))


def plan(lmexp: Lmexp, *words: str) -> list[dict[str, Any]]:
    ended = lmexp("plan", *words, "--json")
    assert ended.returncode == 0, ended.stderr
    assert "skipped" not in ended.stderr
    return json.loads(ended.stdout)["runs"]


def test_families_have_one_size_and_one_budget(lmexp: Lmexp):
    """Parameters within 2 %, tokens within a step; or FLOPs within a step. One MoE has more in all, as many active."""
    cells = plan(lmexp, "families")
    assert len(cells) == 16
    whole = [cell for cell in cells if cell.get("model.d_ff") != 96]
    sizes = [cell["n_params"] for cell in whole]
    assert len(whole) == 14 and max(sizes) <= 1.02 * min(sizes)
    dense = {cell["n_params"] for cell in whole if cell["model"] == "gpt_nano"}
    assert all(cell["n_params"] > 1.5 * max(dense) for cell in cells if cell not in whole)
    by_tokens = [cell for cell in cells if cell.get("budget.flops") is None]
    by_flops = [cell for cell in cells if cell.get("budget.flops") is not None]
    assert len(by_tokens) == len(by_flops) == 8
    assert len({cell["tokens"] for cell in by_tokens}) == 1
    (budget,) = {cell["budget.flops"] for cell in by_flops}
    for cell in by_flops:
        step = cell["train_flops"] / cell["steps"]
        assert budget - step < cell["train_flops"] <= budget


@pytest.mark.slow(70)
def test_families_run_to_the_end(lmexp: Lmexp, tmp_path: Path):
    ended = lmexp("sweep", "families", "budget.tokens=7680", "budget.flops=null", ONE_THREAD, timeout=280)
    assert ended.returncode == 0, ended.stderr
    found = rows(tmp_path / "outputs" / "families")
    assert {row["family"] for row in found} == {"gpt", "llama", "moe", "lstm", "hf", "bert", "encdec"}
    assert {row["task"] for row in found} == {"causal_lm", "masked_lm", "seq2seq"} and len(found) == 8
    for task in ("causal_lm", "masked_lm", "seq2seq"):  # compared within a task
        assert f"{task}: " in ended.stdout


@pytest.mark.slow(70)
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("shared_tokens")
def test_an_encoder_and_a_decoder_are_pretrained_and_then_classify(lmexp: Lmexp, tmp_path: Path):
    ended = lmexp("sweep", "bert_vs_gpt", "budget.tokens=15_360", ONE_THREAD, timeout=550)
    assert ended.returncode == 0, ended.stderr
    found = rows(tmp_path / "outputs" / "bert_vs_gpt")
    assert sorted(row["task"] for row in found) == ["causal_lm", *["classify"] * 4, "masked_lm"]
    assert all(row["score/classify/f1_macro"] for row in found if row["task"] == "classify")
    with_text = {row["tokenizer_fingerprint"] for row in found if row["task"] != "classify"}
    without = {row["tokenizer_fingerprint"] for row in found if row["vocab_size"] == "250"}
    assert len(with_text) == len(without) == 1 and with_text != without  # that of pretraining comes along
    assert "classify f1_macro" in ended.stdout


@pytest.mark.slow
def test_translation_is_scored(lmexp: Lmexp, tmp_path: Path):
    words = ["model.d_model=16", "budget.tokens=20_480", "data.count=500", "task.scored=20", ONE_THREAD]
    ended = lmexp("sweep", "translation", *words)
    assert ended.returncode == 0, ended.stderr
    found = rows(tmp_path / "outputs" / "translation")
    assert len(found) == 2
    for metric in ("bleu", "chrf", "rougeL", "exact_match"):
        assert all(row[f"score/seq2seq/{metric}"] for row in found)
    assert "seq2seq bleu" in ended.stdout


@pytest.mark.slow
def test_tagging_is_scored(lmexp: Lmexp, tmp_path: Path):
    words = ["model.n_layers=1", "budget.tokens=15_360", "data.count=1000", ONE_THREAD]
    ended = lmexp("sweep", "tagging", *words)
    assert ended.returncode == 0, ended.stderr
    found = rows(tmp_path / "outputs" / "tagging")
    assert {row["family"] for row in found} == {"bert", "gpt", "lstm"}
    assert all(row["score/tag/span_f1"] for row in found) and "tag span_f1" in ended.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_the_docs_say_of_tagging_holds(lmexp: Lmexp, tmp_path: Path):
    """Who sees both sides finds the roles; who sees the left alone cannot know who did it before the verb is read."""
    ended = lmexp("sweep", "tagging", "model.n_layers=2", "model=bert_nano,gpt_nano", ONE_THREAD, timeout=850)
    assert ended.returncode == 0, ended.stderr
    f1 = {row["family"]: float(row["score/tag/span_f1"]) for row in rows(tmp_path / "outputs" / "tagging")}
    assert f1["bert"] > 0.9 and f1["bert"] > f1["gpt"] + 0.05


# A user's own files.

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs"}


@pytest.fixture
def sentences() -> list[tuple[str, str]]:
    """Distinct sentences of number words in English, and in German."""
    dice = random.Random(0)
    drawn = {tuple(dice.choice(list(WORDS)) for _ in range(2 + dice.randrange(4))) for _ in range(400)}
    return [(" ".join(words), " ".join(WORDS[word] for word in words)) for words in sorted(drawn)]


@pytest.mark.slow
def test_parallel_text_files_are_translated(lmexp: Lmexp, tmp_path: Path, sentences: list[tuple[str, str]]):
    for name, side in (("src.txt", 0), ("tgt.txt", 1)):
        (tmp_path / name).write_text("".join(pair[side] + "\n" for pair in sentences))
    words = ["data=pairs", "data.path=src.txt", "data.target_path=tgt.txt", "data.format=txt"]
    room = ["model.input_context=32", "model.context=32", "target_tokenizer=null"]
    small = ["model.d_model=16", "model.positions=learned", "budget.tokens=10_240", "task.scored=10", ONE_THREAD]
    ended = lmexp("sweep", "translation", *words, *room, *small)
    assert ended.returncode == 0, ended.stderr
    (row,) = rows(tmp_path / "outputs" / "translation")
    assert float(row["score/seq2seq/chrf"]) >= 0


@pytest.mark.slow
def test_parallel_files_of_unequal_length_are_refused_with_the_line(lmexp: Lmexp, tmp_path: Path):
    (tmp_path / "src.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "tgt.txt").write_text("eins\nzwei\n")
    words = ["data=pairs", "data.path=src.txt", "data.target_path=tgt.txt", "data.format=txt"]
    ended = lmexp("sweep", "translation", *words, ONE_THREAD)
    assert ended.returncode == 2 and "src.txt:3: no such line in" in ended.stderr
    assert not list(tmp_path.glob("outputs/*/*/record.json"))


@pytest.mark.slow
def test_a_tagged_file_is_tagged(lmexp: Lmexp, tmp_path: Path):
    dice = random.Random(0)
    names, verbs, places = ("Ada Grace Alan", "met saw called", "London Paris Rome")
    file = tmp_path / "mine.conll"
    lines = []
    for number in range(300):
        name, verb, place = (dice.choice(of.split()) for of in (names, verbs, places))
        lines += [f"{name} B-PER", f"L{number} I-PER", f"{verb} O", f"{dice.choice(names.split())} B-PER", "in O"]
        lines += [f"{place} B-LOC", ""]
    file.write_text("\n".join(lines))
    words = [
        "data=tags",
        "data.path=mine.conll",
        "tokenizer.vocab_size=270",
        "model=bert_nano,lstm_nano",
        "model.n_layers=1",
    ]
    ended = lmexp("sweep", "tagging", *words, "budget.tokens=15_360", ONE_THREAD)
    assert ended.returncode == 0, ended.stderr
    found = rows(tmp_path / "outputs" / "tagging")
    assert len(found) == 2 and all(row["score/tag/span_f1"] for row in found)

    file.write_text("Ada I-PER\n" + file.read_text())
    ended = lmexp("sweep", "tagging", *words, ONE_THREAD)
    assert ended.returncode == 2 and "mine.conll:1: the tag I-PER at the beginning of a sentence" in ended.stderr


@pytest.mark.slow
def test_a_labelled_table_is_classified(lmexp: Lmexp, tmp_path: Path, sentences: list[tuple[str, str]]):
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "stars"])
        writer.writerows((english, str(english.count("one"))) for english, _ in sentences)
    words = ["task=classify", "data=labels", "data.path=mine.csv", "data.field=review", "data.label_field=stars"]
    small = ["tokenizer=byte", "model.context=64", "model.n_layers=1", "batch.tokens=1024", "budget.tokens=10_240"]
    ended = lmexp("train", "-m", *words, *small, "model=bert_nano,gpt_nano", "--name", "mine", ONE_THREAD)
    assert ended.returncode == 0, ended.stderr
    found = rows(tmp_path / "outputs" / "mine")
    assert len(found) == 2 and all(row["score/classify/accuracy"] for row in found)

    ended = lmexp("train", *[word for word in words if "label_field" not in word], *small, "model=bert_nano")
    assert ended.returncode == 2 and "no column 'label'" in ended.stderr
