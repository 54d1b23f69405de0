"""Where configs are looked for, and what is passed over."""

import json
from pathlib import Path

import pytest

from lmexp.cli.list import list_choices
from lmexp.config import paths
from lmexp.config.compose import Composer
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


@pytest.fixture
def two_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, and two installed plug-ins that bring `optim=lion` and the sweep `lions`."""
    for name in ("first_plugin", "second_plugin"):
        site = tmp_path / "site"
        for file, content in (
            ("__init__.py", ""),
            ("conf/optim/lion.yaml", f"# Lion of {name}\n_target_: {name}.Lion\nlr: 1e-4\n"),
            ("conf/optim/plain.yaml" if name == "first_plugin" else "conf/optim/other.yaml", "lr: 1e-4\n"),
            ("sweeps/lions.yaml", "sweep: {seeds: 1}\n"),
        ):
            (site / name / file).parent.mkdir(parents=True, exist_ok=True)
            (site / name / file).write_text(content)
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[lmexp.plugins]\n{name} = {name}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    (tmp_path / "mine" / "conf").mkdir(parents=True)
    return tmp_path / "mine"


def test_what_two_plug_ins_bring_under_one_name_is_refused_until_the_user_decides(two_plugins: Path):
    roots = paths.search_roots(two_plugins)
    both = "is in 2 plug-ins, .*first_plugin and .*second_plugin: uninstall one, or copy the one that you mean"
    with pytest.raises(UserError, match=f"conf/optim/lion.yaml {both}"):
        Composer(roots, words=["optim=lion"]).config({})
    with pytest.raises(UserError, match=f"conf/optim/lion.yaml {both}"):
        Composer(roots).config({"optim": "lion"})
    with pytest.raises(UserError, match=f"sweeps/lions.yaml {both}"):
        paths.find_sweep("lions", roots)
    assert Composer(roots).config({}).optim.target == "torch.optim.AdamW"  # what is not chosen is in nobody's way

    (two_plugins / "conf" / "optim").mkdir()
    (two_plugins / "conf" / "optim" / "lion.yaml").write_text("_target_: torch.optim.RAdam\nlr: 1e-4\n")
    assert Composer(roots, words=["optim=lion"]).config({}).optim.target == "torch.optim.RAdam"


def test_a_list_shows_what_two_plug_ins_bring(two_plugins: Path, capsys: pytest.CaptureFixture[str]):
    list_choices("optims", config_dir=two_plugins, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["lion"].endswith(" (in several plug-ins)") and not shown["plain"]
