"""papers.json in the folder of all sweeps: the last verdicts on each paper, for the overview."""

from pathlib import Path
from typing import Any

from filelock import FileLock

from lmexp.errors import UserError
from lmexp.files import read_json, write_json
from lmexp.papers.paper import ARITHMETIC, POINTS, SCALES, JudgedOn, paper_files, read_paper

FILE = "papers.json"


def note_verdicts(outputs: Path, name: str, scale: JudgedOn, verdicts: dict[str, Any]) -> None:
    """Keep the last verdicts on a paper at a scale: `date`, `runs` and the number of claims with each verdict."""
    with FileLock(outputs / f".{FILE}.lock"):  # a command on another paper may write its own at the same time
        known = _read(outputs)
        known.setdefault(name, {})[scale] = verdicts
        write_json(outputs / FILE, known)


def overview(roots: list[Path], outputs: Path) -> dict[str, dict[str, Any]]:
    """Return each paper by name: `title`, `scales`, the last `verdicts` by scale, and `error` if its file is wrong."""
    known = _read(outputs)
    papers: dict[str, dict[str, Any]] = {}
    for name, file in paper_files(roots).items():
        try:
            paper = read_paper(file)
        except UserError as problem:
            papers[name] = {"title": None, "scales": [], "verdicts": {}, "error": str(problem)}
            continue
        scales = [scale for scale in (*SCALES, POINTS, ARITHMETIC) if scale in paper and paper.claims_at(scale)]
        papers[name] = {"title": paper.title, "scales": scales, "verdicts": known.get(name, {}), "error": None}
    return papers


def in_words(paper: dict[str, Any]) -> str:
    """Return a paper of the overview as one line."""
    if paper["error"]:
        return f"cannot be read: {paper['error']}"
    judged = [f"{scale}: {counts_in_words(of['verdicts'])}" for scale, of in paper["verdicts"].items()]
    return f"{paper['title']} ({', '.join(paper['scales'])}){''.join(f'; {line}' for line in judged)}"


def counts_in_words(counts: dict[str, int]) -> str:
    """Return how many there are of each kind, such as claims of each verdict: `2 borne out, 1 undecided`."""
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _read(outputs: Path) -> dict[str, Any]:
    """Return the content of the file, without what is damaged or was not written by lmexp; nothing if there is none."""
    try:
        known = read_json(outputs / FILE)
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: {scale: of for scale, of in _items(scales) if _is_noted(of)} for name, scales in _items(known)}


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _is_noted(value: Any) -> bool:
    counts = value.get("verdicts") if isinstance(value, dict) else None
    return isinstance(counts, dict) and all(isinstance(count, int) for count in counts.values())
