"""What README and docs tell people to type works as written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Lmexp

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
pytestmark = [pytest.mark.slow(50), pytest.mark.timeout(1200), pytest.mark.usefixtures("shared_tokens")]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


COMMANDS = [
    lines
    for page in PAGES
    for block in blocks(page, "bash")
    if (lines := [line for line in block.splitlines() if line.startswith("lmexp ")])
]


@pytest.mark.parametrize("lines", COMMANDS, ids=[lines[0] for lines in COMMANDS])
def test_commands_in_the_docs_run(lines: list[str], lmexp: Lmexp):
    """Those of one block one after another, in one folder."""
    for line in lines:
        ended = lmexp(*shlex.split(line.split("  #")[0])[1:], timeout=900)
        assert ended.returncode == 0, (line, ended.stderr)


FITTING = (ROOT / "docs" / "fitting.md").read_text()
TABLES = re.findall(r"^\$ cat > (\S+) <<'END'\n(.*?)END\n((?:\$ lmexp [^\n]*\n)+)", FITTING, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("name", "table", "commands"), TABLES, ids=[name for name, *_ in TABLES])
def test_the_tables_that_the_page_about_fits_shows_can_be_fitted(
    name: str, table: str, commands: str, tmp_path: Path, lmexp: Lmexp
):
    (tmp_path / name).write_text(table)
    for line in commands.splitlines():
        ended = lmexp(*shlex.split(line.split("  #")[0])[2:], timeout=300)
        assert ended.returncode == 0, (line, ended.stderr)


def test_the_readmes_first_sweep_runs(tmp_path: Path, lmexp: Lmexp):
    readme = ROOT / "README.md"
    (sweep,) = blocks(readme, "yaml")
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(sweep)
    (tmp_path / "my_text.txt").write_text("\n".join(p.read_text() for p in sorted(ROOT.glob("lmexp/train/*.py"))))
    (console,) = blocks(readme, "console")
    for line in console.splitlines():
        words = shlex.split(line.removeprefix("$ lmexp ").split("  #")[0])
        ended = lmexp(*words, timeout=900)
        assert ended.returncode == 0, (line, ended.stderr)
    table = tmp_path / "outputs" / "mine" / "table.csv"
    assert len(table.read_text().splitlines()) == 1 + 8  # four widths, two precisions
    assert "lowest loss" in printed_by(readme, tmp_path)
    assert len(table.read_text().splitlines()) == 1 + 8, "Python keeps the width that the command line has added"


def test_the_python_page_runs(tmp_path: Path):
    assert "lowest loss" in printed_by(ROOT / "docs" / "python.md", tmp_path)


def printed_by(page: Path, folder: Path) -> str:
    """Run the one Python block of a page in a folder, and return what it prints."""
    (script,) = blocks(page, "python")
    environment = os.environ | {"LMEXP_OUTPUTS": str(folder / "outputs")}
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_verb_of_the_readme_is_one(lmexp: Lmexp):
    named = set(re.findall(r"^\| `lmexp (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    listed = set(re.findall(r"^\W+(\w+) {2,}\w", lmexp("--help").stdout, re.MULTILINE))
    assert named and named <= listed


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target, _, heading in re.findall(r"\]\((?!http)([^)#]*)(#([^)]+))?\)", page.read_text()):
            other = page.parent / target if target else page
            assert other.exists(), f"{page.name} -> {target}"
            assert not heading or heading in anchors(other), f"{page.name} -> {target}#{heading}"


def anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives to the headings of a page."""
    without_code = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def test_files_that_contributors_are_told_of_exist():
    for page in (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "code.md"):
        for name in re.findall(r"`([a-z_]+/[a-z_/0-9]+\.(?:py|yaml))`", page.read_text()):
            assert (ROOT / name).exists() or (ROOT / "lmexp" / name).exists(), f"{page.name}: {name}"
