"""The view that compares a sweep's runs in W&B: a file without a network, and saved once by W&B's own package."""

import json
from pathlib import Path

import pytest

from lmexp.config.schema import LoggerConfig
from lmexp.errors import UserError
from lmexp.runs.mirrors.view import save_view, write_view
from tests.runs.test_mirrors import KEY, nobody_logged_in  # noqa: F401  a fixture that is used by itself
from tests.runs.wandb_server import wandb_server

LOGGER = LoggerConfig(name="wandb", project="study")


@pytest.mark.slow(8)
def test_a_view_is_saved_in_wandb_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "sizes"
    folder.mkdir()
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_API_KEY", KEY[:40])
        monkeypatch.setenv("WANDB_BASE_URL", server.address)
        first = save_view(write_view(folder, LOGGER))
        assert save_view(write_view(folder, LOGGER)) == first
        [view] = server.views
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "study", "sizes")
    spec = json.loads(view["spec"])
    panels = [panel["config"] for part in spec["section"]["panelBankConfig"]["sections"] for panel in part["panels"]]
    assert {"tokens"} == {panel["xAxis"] for panel in panels if panel.get("metrics") == ["val/loss"]}
    assert ("summary:train_flops", "summary:loss") in [(panel["xAxis"], panel.get("yAxis")) for panel in panels]
    [runs] = spec["section"]["runSets"]
    assert "sizes" in json.dumps(runs["filters"]) and runs["runFeed"]["columnPinned"]["summary:loss"]


def test_a_view_of_other_charts_is_saved_anew(tmp_path: Path) -> None:
    file = write_view(tmp_path, LOGGER)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"saved_at": "http://there", "columns": []}))
    assert json.loads(write_view(tmp_path, LOGGER).read_text())["saved_at"] is None


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_view(tmp_path, LOGGER)
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(UserError, match=r"lmexp\[wandb-view\]"):
        save_view(file)
