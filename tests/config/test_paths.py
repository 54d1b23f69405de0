"""Where configs are looked for, and what is passed over."""

from pathlib import Path

import pytest

from lmexp.config import paths
from lmexp.errors import UserError

OWN = "wandb/bayes_gpt_nano"
"""A sweep of W&B's that lmexp ships."""


def test_sweeps_of_wandb_are_none_of_lmexps():
    roots = paths.search_roots()
    file = paths.shipped_root() / "sweeps" / f"{OWN}.yaml"
    assert file.is_file()
    assert not [name for name in paths.sweep_files(roots) if name.startswith("wandb")]
    with pytest.raises(UserError, match="no sweep"):
        paths.find_sweep(OWN, roots)
    with pytest.raises(UserError, match="`wandb agent`"):
        paths.find_sweep(str(file), roots)


def test_a_file_called_wandb_is_a_sweep_like_any_other(tmp_path: Path):
    (tmp_path / "sweeps" / "mine" / "wandb").mkdir(parents=True)
    for name in ("wandb.yaml", "mine/wandb/x.yaml"):
        (tmp_path / "sweeps" / name).write_text("# a study")
    assert {"wandb", "mine/wandb/x"} <= set(paths.sweep_files([tmp_path]))
