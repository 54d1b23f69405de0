"""`tokenizer.vocab_size=auto`: its number names, records and counts a run as if somebody had given the number."""

from pathlib import Path

import pytest

from lmexp.config.tokenizers import AUTO_ENTRIES
from lmexp.cost.flops import count_run
from lmexp.data import store
from lmexp.errors import UserError
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs.record import identity_columns
from tests.conftest import SMALL

PEOPLE = "Ada Grace Alan Edsger Barbara Donald Margaret Linus Guido Radia".split()  # noqa: SIM905
VERBS = "visited painted repaired described photographed admired sold bought measured forgot".split()  # noqa: SIM905
THINGS = "house bridge clock engine garden camera library violin ladder market".split()  # noqa: SIM905
WORDS = [word for word in SMALL if not word.startswith("tokenizer")]


def lines(folder: Path, texts: list[str], *words: str) -> list[str]:
    """Write texts into a file, a line each, and return the overrides of a run on it."""
    file = folder / "mine.txt"
    file.write_text("\n".join(texts))
    return [*WORDS, "data=text", f"data.path={file}", "data.document=line", *words]


def sentences(*columns: list[str]) -> list[str]:
    """Return 200 sentences, each of a word from each column."""
    return [" ".join(words[(i // 10**n) % 10] for n, words in enumerate(columns)) + f" {i}" for i in range(200)]


@pytest.fixture
def few(tmp_path: Path) -> list[str]:
    return lines(tmp_path, sentences(PEOPLE, VERBS, THINGS))


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_a_small_text_gets_the_largest_vocabulary_that_it_supports(few: list[str], kind: str, tmp_path: Path):
    sweep = resolve_sweep(None, [*few, f"tokenizer={kind}"], tmp_path / "outputs")
    run = sweep.runs[0]
    size = run.config.tokenizer.model_dump()["vocab_size"]
    assert size < AUTO_ENTRIES and sweep.warnings == [
        f"tokenizer.vocab_size=auto is {size} here: the training text supports no more entries"
    ]
    given = resolve_sweep(None, [*few, f"tokenizer={kind}", f"tokenizer.vocab_size={size}"], tmp_path / "outputs")
    assert given.runs[0].identity == run.identity and given.runs[0].config == run.config and not given.warnings
    assert identity_columns(run.config)["vocab_size"] == size
    assert count_run(run.config) == count_run(given.runs[0].config)
    with pytest.raises(UserError, match=f"{size} entries found; set tokenizer.vocab_size={size} or lower"):
        resolve_sweep(None, [*few, f"tokenizer={kind}", f"tokenizer.vocab_size={size + 1}"], tmp_path / "outputs")


@pytest.mark.parametrize(("kind", "least", "instead"), [("bpe", 258, "byte"), ("wordpiece", 100, "char")])
def test_a_text_that_is_too_small_for_a_kind_is_said_without_a_number_that_nobody_gave(
    kind: str, least: int, instead: str, tmp_path: Path
):
    words = lines(tmp_path, [chr(ord("a") + i % 20) for i in range(200)], f"tokenizer={kind}")
    with pytest.raises(UserError) as raised:
        resolve_sweep(None, words, tmp_path / "outputs")
    said = str(raised.value)
    assert f"the training text is too small for tokenizer.kind={kind}: it supports " in said
    assert said.endswith(f"and {kind} needs {least}; use tokenizer={instead}, or more text")
    assert str(AUTO_ENTRIES) not in said


def test_a_larger_text_gets_what_was_the_default_once_and_the_run_that_it_named(tmp_path: Path):
    words = lines(tmp_path, [f"{i * 7919 % 4000:x}abc {i * 104729 % 4000:x}xyz" for i in range(8000)])
    automatic = resolve_sweep(None, words, tmp_path / "outputs").runs[0]
    given = resolve_sweep(None, [*words, "tokenizer.vocab_size=2048"], tmp_path / "outputs").runs[0]
    assert automatic.identity == given.identity and automatic.config == given.config


def test_what_was_found_once_is_kept(few: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = resolve_sweep(None, few, tmp_path / "outputs").runs[0]
    monkeypatch.setattr(store, "build_tokenizer", lambda *arguments: pytest.fail("a tokenizer is built again"))
    assert resolve_sweep(None, few, tmp_path / "outputs").runs[0].config == first.config


def test_an_axis_shows_the_number(few: list[str], tmp_path: Path):
    sweep = resolve_sweep(None, [*few, "tokenizer.vocab_size=auto,270"], tmp_path / "outputs")
    size, other = (run.values["tokenizer.vocab_size"] for run in sweep.runs)
    assert other == 270 < size < AUTO_ENTRIES and sweep.axes["tokenizer.vocab_size"] == [270, size]
    assert f"vocab_size{size}" in sweep.runs[0].run.name


def test_wordpiece_has_an_entry_for_each_character(tmp_path: Path):
    characters = list(map(chr, range(0x4E00, 0x4E00 + 2500)))
    words = lines(tmp_path, [f"{''.join(characters)} {i}" for i in range(50)], "tokenizer=wordpiece")
    sweep = resolve_sweep(None, words, tmp_path / "outputs")
    assert sweep.runs[0].config.model.vocab_size == 2500 + 10 + 10 + 2  # also digits, first and inside
    assert "the characters of the training text need as many" in sweep.warnings[0]


@pytest.fixture
def pairs(tmp_path: Path) -> list[str]:
    rows = map("\t".join, zip(sentences(THINGS, VERBS), sentences(THINGS, VERBS, PEOPLE), strict=True))
    (tmp_path / "mine.tsv").write_text("\n".join(["source\ttarget", *rows]))
    words = [word for word in WORDS if not word.startswith("model")]
    return [*words, "task=seq2seq", "model=encdec_nano", "data=pairs", f"data.path={tmp_path / 'mine.tsv'}"]


def test_the_targets_of_pairs_have_a_number_of_their_own(pairs: list[str], tmp_path: Path):
    own = "target_tokenizer={kind: bpe, vocab_size: auto}"
    config = resolve_sweep(None, [*pairs, own], tmp_path / "outputs").runs[0].config
    sizes = [section.model_dump()["vocab_size"] for section in (config.tokenizer, config.target_tokenizer) if section]
    assert sizes == [config.model.model_dump()["input_vocab_size"], config.model.vocab_size] and len(set(sizes)) == 2
    (shared,) = resolve_sweep(None, pairs, tmp_path / "outputs").runs
    assert shared.config.model.vocab_size not in sizes  # made from both sides


def test_numbers_that_both_sides_do_not_support_are_mended_by_one_message(pairs: list[str], tmp_path: Path):
    with pytest.raises(UserError, match=r"set tokenizer\.vocab_size=.*; set target_tokenizer\.vocab_size=") as raised:
        resolve_sweep(
            None,
            [*pairs, "tokenizer.vocab_size=5000", "target_tokenizer={kind: bpe, vocab_size: 5000}"],
            tmp_path / "outputs",
        )
    source, target = (part.split("vocab_size=")[1].split()[0] for part in str(raised.value).split(" set ")[1:])
    target_tokenizer = f"target_tokenizer={{kind: bpe, vocab_size: {target}}}"
    assert resolve_sweep(None, [*pairs, f"tokenizer.vocab_size={source}", target_tokenizer], tmp_path / "outputs").runs


def test_a_number_that_the_user_gave_is_never_changed(pairs: list[str], tmp_path: Path):
    with pytest.raises(UserError) as raised:
        resolve_sweep(None, [*pairs, "target_tokenizer={kind: bpe, vocab_size: 5000}"], tmp_path / "outputs")
    assert "set target_tokenizer.vocab_size=" in str(raised.value) and "set tokenizer." not in str(raised.value)
