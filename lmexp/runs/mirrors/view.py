"""A view in W&B that compares the runs of a sweep: a file with its charts and columns, and how it is saved in W&B.

The file can be written without a network. W&B keeps views on its server only, so saving one needs the server and the
package wandb-workspaces.
"""

import importlib.util
from pathlib import Path
from typing import Any

from lmexp.config.schema import LoggerConfig
from lmexp.errors import UserError
from lmexp.files import read_json, write_json
from lmexp.runs.mirrors.wandb import import_wandb

VIEW = "wandb-view.json"
"""In the folder of a sweep."""
CURVES = ("val/loss", "train/loss", "val/bits_per_byte", "train/lr")
PAIRS = (("train_flops", "loss"), ("train_seconds", "loss"), ("n_params", "loss"))
COLUMNS = ("loss", "train_flops", "tokens", "n_params", "train_seconds", "peak_memory_gb")


def write_view(folder: Path, logger: LoggerConfig) -> Path:
    """Write the view of the sweep in `folder`, and return the file. If this view was saved, its address stays in it."""
    file = folder / VIEW
    view: dict[str, Any] = {"name": folder.name, "entity": logger.entity, "project": logger.project}
    view |= {"group": folder.name, "curves": {"x": "tokens", "y": list(CURVES)}}
    view |= {"pairs": [{"x": x, "y": y} for x, y in PAIRS], "columns": list(COLUMNS)}
    write_json(file, view | {"saved_at": _saved_at(file, view)})
    return file


def save_view(file: Path) -> str:
    """Save the view in W&B, unless it is there, and return its address.

    Raises UserError if the package is missing, and what W&B raises if it cannot be reached.
    """
    view = read_json(file)
    if view["saved_at"]:
        return str(view["saved_at"])
    if not importlib.util.find_spec("wandb_workspaces"):
        raise UserError("to save a view in W&B needs the package wandb-workspaces: pip install 'lmexp[wandb-view]'")
    wandb = import_wandb()
    try:
        address = _save(view, view["entity"] or wandb.Api().default_entity)
    finally:
        wandb.teardown()  # so that runs that are opened later do not get the settings it has read
    write_json(file, view | {"saved_at": address})
    return address


def _save(view: dict[str, Any], entity: Any) -> str:
    """Save a view in W&B, and return its address."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    curves: list[Any] = [wr.LinePlot(title=name, x=view["curves"]["x"], y=[name]) for name in view["curves"]["y"]]
    pairs: list[Any] = [
        wr.ScatterPlot(x=wr.SummaryMetric(pair["x"]), y=wr.SummaryMetric(pair["y"]), log_x=True)
        for pair in view["pairs"]
    ]
    workspace = ws.Workspace(
        name=view["name"],
        entity=str(entity),
        project=view["project"],
        sections=[
            ws.Section(name="Curves", panels=curves, is_open=True),
            ws.Section(name="Quality and cost", panels=pairs, is_open=True),
        ],
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group") == view["group"]],
            pinned_columns=[f"summary:{name}" for name in view["columns"]],
        ),
    )
    return str(workspace.save().url)


def _saved_at(file: Path, view: dict[str, Any]) -> str | None:
    """Return where this very view was saved; None if it was not."""
    try:
        earlier = read_json(file)
        saved = earlier.pop("saved_at")
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return saved if earlier == view and isinstance(saved, str) else None
