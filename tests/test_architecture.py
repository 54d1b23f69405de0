"""The one-way road: which room may import which."""

import ast
from pathlib import Path

import pytest

import lmexp

PACKAGE = Path(lmexp.__file__).parent
MAY_IMPORT = {
    "config": set(),
    "models": {"config"},
    "data": {"config", "cost"},
    "cost": {"config"},
    "runs": {"config"},
    "tasks": {"config", "models", "data"},
    "train": {"config", "models", "data", "cost", "runs", "tasks"},
    "resolve": {"config", "data", "cost", "runs"},
    "inference": {"config", "models", "data", "cost", "runs", "tasks", "train", "resolve"},
    "launch": {"config", "data", "cost", "runs", "resolve"},
    "analysis": {"config", "cost", "runs"},
    "planning": {"config", "cost", "runs", "analysis"},
    "papers": {"config", "analysis"},
    "report": {"config", "cost", "runs", "analysis", "planning", "papers"},
    "study": {"config", "cost", "runs", "inference", "resolve", "launch", "analysis", "planning", "papers", "report"},
    "cli": {
        "config",
        "data",
        "cost",
        "runs",
        "inference",
        "resolve",
        "launch",
        "analysis",
        "planning",
        "papers",
        "report",
        "study",
    },
}
"""Besides itself, and the small modules at the top."""
TOP = {"collection", "errors", "files", "hub", "messages", "orphans", "terminal", "units", "__version__"}


def imported_by(file: Path) -> set[str]:
    """Return the names of all that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_every_room_is_in_the_table():
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_those_before_it(room: str):
    allowed = MAY_IMPORT[room] | TOP | {room}
    for file in (PACKAGE / room).rglob("*.py"):
        ours = {name.split(".")[1] for name in imported_by(file) if name.startswith("lmexp.")}
        late = {
            PACKAGE / "launch" / "processes.py": {"train"},  # the forked child becomes the worker
            PACKAGE / "report" / "__init__.py": {"api"},  # the package is called as `lmexp.report`
        }.get(file, set())
        assert ours <= allowed | late, f"{file.relative_to(PACKAGE)} imports {ours - allowed}"


def test_models_know_no_lightning_and_analysis_no_torch():
    for room, banned in {
        "models": "pytorch_lightning",
        "analysis": "torch",
        "planning": "torch",
        "report": "torch",
    }.items():
        for file in (PACKAGE / room).rglob("*.py"):
            assert not any(name.split(".")[0] == banned for name in imported_by(file)), file


def test_only_one_file_makes_consoles_and_what_a_person_reads_is_printed_by_none_but_them():
    """Everything else would print markup, control characters and unknown letters as they come."""
    for room in ("cli", "study", "planning", "analysis", "report", "launch", "resolve", "config"):
        for file in (PACKAGE / room).rglob("*.py"):
            calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
            names = {call.id for call in calls if isinstance(call, ast.Name)}
            assert not names & {"print", "Console", "input"}, file
