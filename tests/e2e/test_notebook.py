"""The notebook in examples/ runs from top to bottom, in a kernel as Jupyter starts it."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "frontier_and_law.ipynb"


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_holds_no_outputs(notebook: Any):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow(120)
@pytest.mark.timeout(900)
def test_the_notebook_trains_draws_and_fits(notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LMEXP_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    NotebookClient(notebook, timeout=800, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    shown = {kind for output in outputs for kind in output.get("data", {})}
    assert "20 runs, 0 failures" in printed
    assert "image/svg+xml" in shown  # the chart
    assert "parameters: " in printed and "95 % interval" in printed  # the law's answer
    assert len(list((tmp_path / "outputs" / "notebook").glob("*/record.json"))) == 20
    assert (tmp_path / "outputs" / "notebook" / "report.html").exists()
