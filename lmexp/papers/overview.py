"""papers.json in the folder of all sweeps: the last verdicts on each paper, for the overview."""

from pathlib import Path
from typing import Any

from lmexp.errors import UserError
from lmexp.files import read_json, write_json
from lmexp.papers.paper import ARITHMETIC, POINTS, SCALES, JudgedOn, paper_files, read_paper

FILE = "papers.json"


def note_verdicts(outputs: Path, name: str, scale: JudgedOn, verdicts: dict[str, Any]) -> None:
    """Keep the last verdicts on a paper at a scale: `date`, `runs` and the number of claims with each verdict."""
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


def counts_in_words(verdicts: dict[str, int]) -> str:
    """Return how many claims have each verdict, as in `2 borne out, 1 undecided`."""
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())


def _read(outputs: Path) -> dict[str, Any]:
    """Return the content of the file; nothing if there is none, or if it is damaged."""
    try:
        known = read_json(outputs / FILE)
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
