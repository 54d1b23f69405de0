"""A new sweep is a copy that composes as it is, with comments, and overwrites nothing."""

from pathlib import Path

import pytest

from lmexp.config.compose import Composer
from lmexp.config.new_sweep import new_sweep
from lmexp.config.paths import first_comment, search_roots, shipped_root, sweep_files
from lmexp.config.yaml_files import read_yaml
from lmexp.errors import UserError

SHIPPED = sweep_files([shipped_root()])


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("source", ["demo", "translation", "search", "tinyshakespeare", "papers/markov"])
def test_a_copy_has_the_cells_and_the_comments_of_its_source(source: str):
    written = new_sweep("mine", source)
    assert written == Path("sweeps/mine.yaml")
    roots = search_roots()
    ours = Composer(roots, sweep_files(roots)["mine"])
    assert ours.sweep_spec() == Composer(roots, SHIPPED[source]).sweep_spec()
    assert first_comment(written) == first_comment(SHIPPED[source])
    text = written.read_text()
    assert "lmexp plan mine" in text and "sweep.question" not in text.splitlines()[0]
    comments = [line for line in SHIPPED["tinyshakespeare"].read_text().splitlines() if "#" in line]
    assert source != "tinyshakespeare" or all(line in text for line in comments)


def test_every_shipped_sweep_can_be_copied():
    for number, source in enumerate(SHIPPED):
        assert "paper:" not in new_sweep(f"copy{number}", source).read_text().splitlines()


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("demo", "demo", "there is a sweep 'demo' already"),
        ("mine", "dmeo", "Did you mean 'demo'.*lmexp list sweeps"),
        ("../mine", "demo", "no name for a sweep"),
        ("", "demo", "no name for a sweep"),
    ],
)
def test_what_cannot_be_written_is_one_message(name: str, source: str, message: str):
    with pytest.raises(UserError, match=message):
        new_sweep(name, source)
    assert not list(Path().rglob("*.yaml"))


def test_a_source_that_is_not_utf_8_is_one_message():
    Path("sweeps").mkdir()
    Path("sweeps/bad.yaml").write_bytes(b"# bad\nmodel: \xff")
    with pytest.raises(UserError, match=r"sweeps/bad.yaml: not UTF-8 at byte 13"):
        new_sweep("mine", "bad")
    assert not Path("sweeps/mine.yaml").exists()


def test_a_file_that_is_there_stays_as_it_is():
    written = new_sweep("mine", "demo")
    written.write_text("# my own\n")
    with pytest.raises(UserError, match="choose another name"):
        new_sweep("mine", "demo")
    assert written.read_text() == "# my own\n" and [file.name for file in Path("sweeps").iterdir()] == ["mine.yaml"]


CLAIMS = "{authors: A, claims: [{name: x}]}"
SAME = [
    "paper: %s\n",
    '"paper": %s\n',
    "'paper': %s\n",
    "paper : %s  # of the authors\n",
    "? paper\n: %s\n",
    "!!str paper: %s\n",
    "paper:\n  authors: A\n# a comment inside\n  claims:\n  - name: x\n",
    '"paper":\n  authors: |\n    seed: 1\n    paper: none\n  claims: [{name: x}]\n',
]


@pytest.mark.parametrize("paper", SAME)
@pytest.mark.parametrize("after", ["seed: 1\n", "# for the seed\nseed: 1\n", ""])
def test_a_copy_has_no_claims_however_the_key_of_the_paper_is_written(paper: str, after: str):
    before = "# Ours\nsweep: {grid: {model.n_layers: [1, 2]}}\n# of a paper\n"
    Path("sweeps").mkdir()
    Path("sweeps/ours.yaml").write_text(before + (paper % CLAIMS if "%s" in paper else paper) + after)
    written = new_sweep("mine", "ours").read_text()
    content = read_yaml(Path("sweeps/mine.yaml"))
    assert content == {"sweep": {"grid": {"model.n_layers": [1, 2]}}} | ({"seed": 1} if after else {})
    assert "authors" not in written and written.endswith(before.split("\n", 1)[1] + after)


@pytest.mark.parametrize(
    "text",
    [
        "{'sweep': {grid: {seed: [1, 2]}}, \"paper\": %s}",
        '{"paper": %s, sweep: {grid: {seed: [1, 2]}}}',
        "{sweep: {grid: {seed: [1, 2]}},\n paper: %s, # last\n}",
    ],
)
def test_a_file_in_flow_style_is_copied_without_the_claims_and_with_what_its_keys_are_for(text: str):
    Path("sweeps").mkdir()
    Path("sweeps/ours.yaml").write_text(text % CLAIMS)
    written = new_sweep("mine", "ours")
    assert read_yaml(written) == {"sweep": {"grid": {"seed": [1, 2]}}}
    assert "#   grid  the axes: " in written.read_text()


@pytest.mark.parametrize(
    "text", ["paper: &all {seed: 1}\nbudget: *all\n", "base: &all {paper: {claims: []}}\npaper: {}\n<<: *all\n"]
)
def test_a_paper_that_other_keys_use_is_not_left_out_silently(text: str):
    Path("sweeps").mkdir()
    Path("sweeps/ours.yaml").write_text(text)
    with pytest.raises(UserError, match="other keys use a part of `paper` by an anchor"):
        new_sweep("mine", "ours")
    assert not Path("sweeps/mine.yaml").exists()
