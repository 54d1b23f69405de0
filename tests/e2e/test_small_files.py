"""What the docs tell people to type about files of their own works on files of 200 rows.

The examples are read from README, the docs and the comments of shipped sweeps. Only the files are made here: each has
200 rows of what its example says is in it.
"""

import csv
import json
import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmexp.resolve.sweep import resolve_sweep
from tests.conftest import Lmexp
from tests.e2e.test_docs import PAGES, ROOT, blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_tokens")]

ROWS = 200
PEOPLE = "Ada Grace Alan Edsger Barbara Donald Margaret Linus Guido Radia".split()  # noqa: SIM905
VERBS = "visited painted repaired described photographed admired sold bought measured forgot".split()  # noqa: SIM905
KINDS = "small old red quiet broken wooden famous hidden modern expensive".split()  # noqa: SIM905
THINGS = "house bridge clock engine garden camera library violin ladder market".split()  # noqa: SIM905
PLACES = "Berlin Lisbon Oslo Kyoto Nairobi Lima Quebec Dublin Hanoi Tunis".split()  # noqa: SIM905
ENDS = ["", "before the shop closed", "although nobody had asked", "after a talk with two neighbours about the weather"]


def in_fences(page: Path) -> Iterator[str]:
    for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"(\$ )?lmexp (prepare|train|sweep|plan) .*\bdata\.path=", line):
                yield line.removeprefix("$ ").split("  #")[0]


def in_comments(sweep: Path) -> Iterator[str]:
    """Yield the command that a shipped sweep's comment `for your own: data=...` stands for."""
    for words in re.findall(r"# .*for your own\b[^:]*: (data=[^;\n]*)", sweep.read_text(), re.IGNORECASE):
        yield f"lmexp sweep {sweep.stem} {words.replace('data.path=...', 'data.path=my.tsv')}"


EXAMPLES = [
    *(line for page in PAGES for line in in_fences(page)),
    *(line for sweep in sorted((ROOT / "sweeps").glob("*.yaml")) for line in in_comments(sweep)),
]


def overrides_of(command: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(command) if "=" in word)


def sentences(seed: int) -> Iterator[list[str]]:
    dice = random.Random(seed)
    for _ in range(ROWS):
        person, verb, kind, thing, place = map(dice.choice, (PEOPLE, VERBS, KINDS, THINGS, PLACES))
        yield [person, verb, "the", kind, thing, "in", place, *dice.choice(ENDS).split(), "."]


def entity(word: str, scheme: str) -> str:
    begins = "I" if scheme == "iob1" else "B"
    return f"{begins}-PER" if word in PEOPLE else f"{begins}-LOC" if word in PLACES else "O"


def part_of_speech(word: str) -> str:
    of = {"PROPN": PEOPLE + PLACES, "VERB": VERBS, "ADJ": KINDS, "NOUN": THINGS, "PUNCT": ["."]}
    return next((name for name, words in of.items() if word in words), "X")


def write(file: Path, key: str, given: dict[str, str]) -> None:
    """Write the file that `key` of an example names: 200 rows of what its other overrides say."""
    data, rows = given["data"], list(sentences(seed=len(key)))
    texts = [" ".join(row) for row in rows]
    if data == "text" or (data == "pairs" and given.get("data.format") == "txt"):
        seed = 0 if data == "pairs" else len(key)  # parallel files correspond
        lines = [" ".join(row) for row in sentences(seed)]
    elif data == "tags":
        scheme = given.get("data.scheme", "iob2")
        lines = [line for row in rows for line in (*(f"{word} {entity(word, scheme)}" for word in row), "")]
    elif data == "conllu":
        lines = []
        for row in rows:
            lines += [f"{n}\t{word}\t_\t{part_of_speech(word)}" + "\t_" * 6 for n, word in enumerate(row, 1)] + [""]
    elif data == "jsonl":
        lines = [json.dumps({given.get("data.field", "text"): text}) for text in texts]
    elif data == "parquet":
        import pandas as pd

        pd.DataFrame({given.get("data.field", "text"): texts}).to_parquet(file)
        return
    elif data in ("csv", "labels", "pairs"):
        columns = {
            "csv": [given.get("data.field", "text")],
            "labels": [given.get("data.field", "text"), given.get("data.label_field", "label")],
            "pairs": ["source", "target"],
        }[data]
        with file.open("w", newline="") as stream:
            table = csv.writer(stream, delimiter="\t" if file.suffix == ".tsv" else ",")
            table.writerow(columns)
            for number, text in enumerate(texts):
                answer = text.upper() if data == "pairs" else ["good", "fair", "bad"][number % 3]
                table.writerow([text, answer][: len(columns)])
        return
    else:
        pytest.fail(f"an example has data={data}: say here what a small file of it looks like")
    file.write_text("\n".join(lines) + "\n")


def test_examples_of_every_kind_of_file_are_found():
    found = {overrides_of(command)["data"] for command in EXAMPLES}
    assert found >= {"text", "jsonl", "csv", "parquet", "pairs", "labels", "tags", "conllu"}
    assert {command.split()[2] for command in EXAMPLES if command.startswith("lmexp sweep")} >= {
        "translation",
        "tagging",
    }


@pytest.fixture(scope="session")
def library_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GPT-2 with its tokenizer, in a folder as the library saves it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("models") / "gpt2"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0} | {character: n for n, character in enumerate(alphabet, 1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    shape = {"n_layer": 1, "n_head": 2, "n_embd": 16, "bos_token_id": 0, "eos_token_id": 0}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(vocabulary), **shape)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder


def prepared(command: str, folder: Path, request: pytest.FixtureRequest) -> list[str]:
    """Write the files of an example into a folder, and return its words after `lmexp`."""
    given = overrides_of(command)
    for key in given:
        if key.startswith("data.") and key.endswith("path"):
            write(folder / given[key], key, given)
    if "/models/gpt2" in command:
        command = command.replace("/models/gpt2", str(request.getfixturevalue("library_model")))
    return shlex.split(command)[1:]


@pytest.mark.parametrize("command", [command for command in EXAMPLES if command.startswith("lmexp prepare")])
def test_an_example_prepares_files_of_200_rows(
    command: str, tmp_path: Path, lmexp: Lmexp, request: pytest.FixtureRequest
):
    ended = lmexp(*prepared(command, tmp_path, request), timeout=300)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("command", [command for command in EXAMPLES if not command.startswith("lmexp prepare")])
def test_the_runs_of_an_example_can_start_with_files_of_200_rows(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    """Every cell is resolved, which reads, tokenises and checks all that its run will use."""
    verb, *words = prepared(command, tmp_path, request)
    monkeypatch.chdir(tmp_path)
    name = None if verb == "train" else words.pop(0)
    sweep = resolve_sweep(name, words, tmp_path / "outputs")
    reasons = {cell.reason for cell in sweep.skipped}
    assert all("needs pairs" in reason for reason in reasons), reasons  # the encoder-decoder among families


TRAINED = {
    overrides_of(command)["data"]: command
    for command in EXAMPLES
    if command.startswith("lmexp train") and "budget" not in command and "/models/" not in command
}
"""An example of each kind of data."""


@pytest.mark.parametrize("command", TRAINED.values(), ids=TRAINED)
def test_a_run_of_two_steps_on_files_of_200_rows_succeeds(
    command: str, tmp_path: Path, lmexp: Lmexp, request: pytest.FixtureRequest
):
    ended = lmexp(*prepared(command, tmp_path, request), "budget.tokens=8192", timeout=300)
    assert ended.returncode == 0, ended.stderr


def test_the_readmes_first_sweep_can_start_with_a_text_of_200_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (sweep,) = blocks(ROOT / "README.md", "yaml")
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(sweep)
    write(tmp_path / "my_text.txt", "data.path", {"data": "text"})
    monkeypatch.chdir(tmp_path)
    assert not resolve_sweep("mine", [], tmp_path / "outputs").skipped
