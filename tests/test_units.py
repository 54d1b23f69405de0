"""Numbers and texts as people read them."""

import re
from pathlib import Path

import lmexp
from lmexp.units import counted, listed


def test_a_count_its_noun_and_its_verb_agree():
    assert [counted(n, "run") for n in (0, 1, 2, 1200)] == ["0 runs", "1 run", "2 runs", "1,200 runs"]
    assert [counted(n, "finished row", "has") for n in (1, 2)] == ["1 finished row has", "2 finished rows have"]
    assert [counted(n, "file", "that is") for n in (1, 2)] == ["1 file that is", "2 files that are"]
    assert [counted(n, "trial", "fits") for n in (1, 2)] == ["1 trial fits", "2 trials fit"]
    assert [counted(n, "run", "is", of=8) for n in (1, 2)] == ["1 of 8 runs is", "2 of 8 runs are"]


def test_a_long_list_says_how_many_it_leaves_out():
    assert [listed("abc"[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert listed("abcdef") == "a, b, c, d, e and f"
    assert listed("abcdefgh") == "a, b, c, d, e and 3 more"


def test_no_sentence_chooses_between_a_singular_and_a_plural_by_hand():
    by_hand = re.compile(r'"1 \w[\w ]*" if .* else f"\{|(\w+) else f"\{\w+\} \1s"|\{\'\' if .* == 1 else \'s\'\}')
    files = sorted(Path(lmexp.__file__).parent.rglob("*.py"))
    lines = [(file.name, line.strip()) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if by_hand.search(line[1])] == []
