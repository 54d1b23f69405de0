"""`lmexp reproduce` as a user has it: a paper of one's own is run, judged, and judged again."""

import json
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

from lmexp import reproduce
from tests.conftest import Lmexp

PAPER = """
defaults:
  - override /data: text
  - override /tokenizer: byte
paper:
  title: Learning rates
  authors: A. Author
  year: 2024
  evaluations:
    - {precision: bf16}
  claims:
    - name: training_helps
      claim: A rate of 0.01 is better than none to speak of
      where: figure 1
      value: paired(loss, optim.lr == 0.01, optim.lr == 1e-9)
      band: [null, -0.05]
    - name: sixteen_bits_are_enough
      claim: With weights of 16 bits the loss is the same to a hundredth
      where: figure 1
      value: mean(abs(score/causal_lm-bf16/loss - loss))
      band: [null, 0.01]
    - name: of_another_study
      claim: Something about a column that is not there
      where: figure 2
      value: mean(flavour)
      band: [0, 1]
    - name: of_missing_runs
      claim: Something about runs that are not there
      where: figure 3
      value: mean(loss, where=optim.lr == 3)
      band: [0, 1]
sweep:
  grid: {optim.lr: [1e-9, 0.01]}
  seeds: 2
"""


@pytest.fixture
def paper(tmp_path: Path, small: list[str]) -> None:
    folder = tmp_path / "sweeps" / "papers"
    folder.mkdir(parents=True)
    settings = OmegaConf.from_dotlist([word for word in small if "." in word.split("=")[0]])
    (folder / "rates2024.yaml").write_text(PAPER + OmegaConf.to_yaml(settings))


@pytest.mark.slow
def test_a_paper_is_run_judged_and_listed(paper: None, tmp_path: Path, lmexp: Lmexp):
    nothing = lmexp("reproduce", "rates2024", "--no-run")
    assert nothing.returncode == 2 and "there is no sweep in" in nothing.stderr
    ended = lmexp("reproduce", "rates2024")
    assert ended.returncode == 0, ended.stderr
    plan, first = ended.stderr.index("then 4 evaluations, one after another"), ended.stderr.index("1/4  ")
    assert plan < first < ended.stderr.index("evaluation 1/4  ") and "precision bf16  loss" in ended.stderr
    assert "4 runs at scale cpu: 2 borne out, 1 not judged, 1 not run" in ended.stdout
    assert "there is no column 'flavour'" in ended.stdout
    again = lmexp("reproduce", "rates2024", "--no-run", "--json", "--page", "pages")
    document = json.loads(again.stdout)
    folder = tmp_path / "outputs" / "papers-rates2024"
    assert json.loads((folder / "claims.json").read_text()).items() <= document.items()
    assert "form-action 'none'" in (folder / "paper.html").read_text() and document["page"].endswith("paper.html")
    assert sorted(file.name for file in (tmp_path / "pages").iterdir()) == ["rates2024-claims.svg", "rates2024.md"]
    assert "# Learning rates" in (folder / "paper.md").read_text()
    helps = document["claims"][0]
    assert helps["verdict"] == "borne out" and helps["high"] < -0.05
    from_python = reproduce("rates2024", run=False, output_dir=tmp_path / "outputs", config_dir=tmp_path)
    claims = from_python.claims
    assert claims["verdict"].to_dict() == {claim["name"]: claim["verdict"] for claim in document["claims"]}
    assert claims.loc["training_helps", ["high", "band_high"]].tolist() == [helps["high"], -0.05]
    assert claims.loc["of_missing_runs", "value"] is pd.NA and from_python.table["loss"].notna().sum() == 4
    assert from_python.folder == folder and from_python.page.exists() and from_python.markdown.name == "paper.md"
    listed = lmexp("list", "papers")
    assert "rates2024" in listed.stdout and "2 borne out" in listed.stdout, listed.stderr
