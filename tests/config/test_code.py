"""Which code a config may name, and that nothing of any other is imported."""

import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import pytest

from lmexp.config import trust
from lmexp.config.base import OutsideSection
from lmexp.config.code import CodeVersion, arguments_of, check_call, code_version, load_target
from lmexp.config.trust import Trust, allow, check_trusted, code_environment, targets_in, trusting
from lmexp.errors import UserError

MODULE = """
from pathlib import Path

import torch

from lmexp.config.base import Section

Path(__file__).with_name("imported").touch()


class Settings(Section):
    width: int = 3


class Net(torch.nn.Module):
    Config = Settings

    def __init__(self, width: int) -> None:
        super().__init__()


def plain(share, slope=1.0):
    return share * slope
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A user's folder with a package of code that tells when it is imported."""
    package = tmp_path / "their_study"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(MODULE)
    before = list(sys.path)
    with trusting(folder=tmp_path):
        yield tmp_path
    sys.path[:] = before
    for name in [name for name in sys.modules if name.split(".")[0] in ("their_study", "their_plugin")]:
        del sys.modules[name]


def was_imported(folder: Path) -> bool:
    return (folder / "their_study" / "imported").exists()


def test_code_that_nobody_named_is_refused_and_not_imported(folder: Path):
    with pytest.raises(UserError, match="--trust their_study"):
        load_target("their_study.nets.Net", "model")
    assert not was_imported(folder)


@pytest.mark.parametrize("name", ["their_study", "their_study.nets", "their_study.nets.Net"])
def test_a_name_allows_what_is_inside_it(folder: Path, name: str):
    with trusting([name]):
        assert load_target("their_study.nets.Net", "model").__name__ == "Net"
    with pytest.raises(UserError, match="--trust"):
        load_target("their_study.nets.Net", "model")  # the block is over


@pytest.mark.parametrize("name", ["their", "their_study.net", "nets"])
def test_a_name_allows_nothing_else(folder: Path, name: str):
    with trusting([name]), pytest.raises(UserError, match="--trust"):
        load_target("their_study.nets.Net", "model")
    assert not was_imported(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("conf/model/net.yaml", "_target_: their_study.nets.Net\n"),
        ("sweeps/nets.yaml", "sweep: {grid: {model._target_: [lmexp.models.gpt.GPT, their_study.nets.Net]}}\n"),
        ("conf/callbacks.yaml", "callbacks: [{_target_: their_study.nets.Net}]\n"),
    ],
)
def test_the_users_own_configs_allow_what_they_name(folder: Path, file: str, content: str):
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_text(content)
    assert load_target("their_study.nets.Net", "model")
    assert load_target("their_study.nets.plain", "schedule")  # of the same package, which lies beside the configs


def test_of_a_library_only_what_is_named_is_allowed(folder: Path):
    (folder / "conf").mkdir()
    (folder / "conf" / "schedule.yaml").write_text("_target_: math.sqrt\n")
    assert load_target("math.sqrt", "schedule")(4) == 2
    with pytest.raises(UserError, match="--trust math"):
        load_target("math.exp", "schedule")


@pytest.mark.parametrize(
    "target", ["their_study.nets.Path.touch", "their_study.nets.torch.load", "their_study.nets.torch.os.system"]
)
def test_what_a_trusted_module_has_imported_is_not_trusted(folder: Path, target: str):
    with trusting(["their_study"]), pytest.raises(UserError, match=f"is not trusted.*--trust {target}"):
        load_target(target, "source")
    with trusting([target]):
        assert callable(load_target(target, "source"))  # by this very name
    (folder / "conf").mkdir()
    (folder / "conf" / "source.yaml").write_text(f"_target_: {target}\n")
    assert callable(load_target(target, "source"))


def test_a_config_that_names_a_model_of_lmexp_does_not_allow_the_rest_of_it(folder: Path):
    (folder / "lmexp").mkdir()  # as in a checkout of lmexp
    (folder / "conf").mkdir()
    (folder / "conf" / "model.yaml").write_text("_target_: lmexp.models.gpt.GPT\n")
    with pytest.raises(UserError, match="--trust lmexp"):
        load_target("lmexp.files.write_atomically", "source")


@pytest.mark.parametrize("file", ["conf/model/own.yaml", "sweeps/own.yaml"])
def test_code_that_comes_with_a_model_is_trusted_by_its_key(folder: Path, file: str):
    with pytest.raises(UserError, match="--trust trust_remote_code"):
        check_trusted("trust_remote_code")
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_text("model: {trust_remote_code: false}\n")
    with pytest.raises(UserError, match="--trust trust_remote_code"):
        check_trusted("trust_remote_code")
    (folder / file).write_text("model: {trust_remote_code: true}\n")
    check_trusted("trust_remote_code")


def test_the_current_folder_is_the_users_own_wherever_that_is(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "conf").mkdir()
    (folder / "conf" / "model.yaml").write_text("_target_: their_study.nets.Net\n")
    monkeypatch.setattr(trust, "_TRUST", ContextVar("trust", default=None))
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    allow()
    with pytest.raises(UserError, match="--trust"):
        load_target("their_study.nets.Net", "model")
    monkeypatch.chdir(folder)
    assert load_target("their_study.nets.Net", "model")


def test_workers_are_told_by_environment_variables(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with trusting(["their_study", "other"]):
        told = code_environment()
    assert told == {"LMEXP_TRUST": "other:their_study", "LMEXP_CODE_PATH": str(folder)}
    assert Trust(frozenset(told["LMEXP_TRUST"].split(":"))).allows("other.a.B")


def test_an_installed_plug_in_allows_its_package(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site = tmp_path / "site"
    (site / "their_plugin").mkdir(parents=True)
    (site / "their_plugin" / "__init__.py").write_text("def schedule(share): return share\n")
    info = site / "their_plugin-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugin\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[lmexp.plugins]\ntheirs = their_plugin\n")
    (info / "top_level.txt").write_text("their_plugin\n")
    with pytest.raises(UserError, match="--trust their_plugin"):
        load_target("their_plugin.schedule", "schedule")
    monkeypatch.syspath_prepend(str(site))
    assert load_target("their_plugin.schedule", "schedule")(0.5) == 0.5
    version = code_version("their_plugin.schedule")
    assert (version.package, version.version) == ("their-plugin", "1.2")


def test_shipped_targets_need_no_trust_and_are_of_their_kind():
    assert load_target("torch.optim.RAdam", "optimizer").__name__ == "RAdam"
    assert load_target("lmexp.models.gpt.GPT", "model").__name__ == "GPT"
    for target, kind in (
        ("torch.optim.Optimizer.step", "optimizer"),  # inside a class, not a class of torch.optim
        ("torch.load", "optimizer"),
        ("torch.optim.Adam", "model"),
        ("lmexp.models.build.build_model", "schedule"),
        ("os.system", "schedule"),
    ):
        with pytest.raises(UserError):
            load_target(target, kind)  # type: ignore[arg-type]


def test_what_is_wrong_with_a_target_is_said(folder: Path):
    allow(["their_study", "their_absent"])
    for target, said in (
        ("their_study.nets.Ney", "has no Ney. Did you mean 'Net'"),
        ("their_study.net.Net", "has no net"),
        ("their_absent.Net", "there is no module their_absent in "),
        ("their_study.nets.plain", "must be a class that derives from torch.nn.Module"),
        ("their_study", "is no dotted name"),
        ("their_study.nets.Net; import os", "no dotted name"),
    ):
        with pytest.raises(UserError, match=said.replace(".", r"\.")):
            load_target(target, "model")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
        ("def f(:", r"SyntaxError: invalid syntax \(broken.py, line 1\)"),
        ("raise SystemExit('set WEIGHTS first')", "SystemExit: set WEIGHTS first"),
    ],
)
def test_an_error_in_a_users_module_is_one_line(folder: Path, content: str, said: str):
    (folder / "their_study" / "broken.py").write_text(f"{content}\n")
    told = f"the model their_study.broken.Net cannot be imported: .*{said}"
    with trusting(["their_study"]), pytest.raises(UserError, match=told):
        load_target("their_study.broken.Net", "model")


def test_keys_that_a_function_does_not_take_are_named(folder: Path):
    allow(["their_study"])
    check_call(OutsideSection.model_validate({"_target_": "their_study.nets.plain", "slope": 2}), "schedule", ["share"])
    wrong = OutsideSection.model_validate({"_target_": "their_study.nets.plain", "slop": 2})
    with pytest.raises(UserError, match=r"unexpected keyword argument 'slop'. Did you mean 'slope'\?"):
        check_call(wrong, "schedule", ["share"])


def test_a_class_may_bring_a_section_that_checks_its_keys(folder: Path):
    allow(["their_study"])
    section = OutsideSection.model_validate({"_target_": "their_study.nets.Net"})
    assert arguments_of(section, load_target(section.target, "model")) == {"width": 3}
    wrong = OutsideSection.model_validate({"_target_": "their_study.nets.Net", "width": "wide"})
    with pytest.raises(UserError, match="width='wide'"):
        check_call(wrong, "model")


def test_the_version_of_code_follows_every_file_of_a_users_package(folder: Path):
    def now() -> CodeVersion:
        return code_version("their_study.nets.Net")

    before = now()
    assert before.package is None and not was_imported(folder)
    (folder / "their_study" / "layers.py").write_text("WIDTH = 3\n")
    added = now()
    (folder / "their_study" / "layers.py").write_text("WIDTH = 4\n")
    assert len({before.sha256, added.sha256, now().sha256}) == 3
    (folder / "their_study" / "layers.py").unlink()
    assert now() == before


def test_targets_are_found_wherever_they_stand():
    node = {
        "model": {"_target_": "a.B"},
        "grid": {"optim._target_": ["c.D", "e.F"]},
        "callbacks": [{"_target_": "g.H"}],
    }
    assert list(targets_in(node)) == ["a.B", "c.D", "e.F", "g.H"]
