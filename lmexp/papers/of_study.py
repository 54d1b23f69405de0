"""The claims of the paper that a study belongs to, judged on its runs as `lmexp reproduce --no-run` judges them."""

from dataclasses import dataclass

from lmexp.analysis.table import Study
from lmexp.config.paths import search_roots
from lmexp.papers.judge import Judged, evidence_of, judge
from lmexp.papers.paper import FOLDER, SCALES, Paper, Scale, paper_files, read_paper
from lmexp.papers.reproduction import sweep_folder


@dataclass(frozen=True)
class Claims:
    """The verdicts on a paper's claims at one scale."""

    name: str
    """The paper's, as `lmexp reproduce` takes it."""
    paper: Paper
    scale: Scale
    judged: tuple[Judged, ...]


def claims_of(study: Study) -> Claims | None:
    """Return the verdicts on the claims of the paper whose runs a study has; nothing is written.

    None if the study is not the whole sweep of one paper, or if no run has finished. Raises UserError for a wrong file
    of a paper, and if no claim can be judged.
    """
    if len(study.folders) != 1 or not study.folders[0].resolve().name.startswith(f"{FOLDER}-"):
        return None
    if set(study.table["run_id"]) != set().union(*study.members.values()):
        return None  # a part of the rows, which somebody has chosen
    folder, files = study.folders[0].resolve().name, paper_files(search_roots())
    known = {sweep_folder(name, scale): (name, scale) for scale in reversed(SCALES) for name in files}
    evidence = evidence_of(study)
    if folder not in known or evidence.table.empty:
        return None
    name, scale = known[folder]
    paper = read_paper(files[name])
    if not paper.has_sweep or scale not in paper:
        return None
    return Claims(name, paper, scale, tuple(judge(paper.claims_at(scale), evidence)))
