"""What only the user may say is refused when a run or a sweep file from elsewhere says it, and allowed by name."""

from pathlib import Path

import pytest

from lmexp.config import trust
from lmexp.config.compose import Composer, allow_code
from lmexp.config.paths import shipped_root
from lmexp.config.trust import (
    SETTINGS,
    Trust,
    check_settings,
    check_trusted,
    code_environment,
    current_trust,
    trusting,
)
from lmexp.errors import UserError

CLUSTER = "defaults: [{override /launcher: slurm}, {override /logger: mlflow}, _self_]\n"
RAY = "defaults: [{override /launcher: ray}, _self_]\n"
FOREIGN = {
    "shell lines": (CLUSTER + "launcher: {setup: ['touch /tmp/x']}", "launcher.setup"),
    "shell lines of an axis": (CLUSTER + "sweep: {grid: {launcher.setup: [[a], [b]]}}", "launcher.setup"),
    "shell lines, interpolated": (
        CLUSTER + "launcher: {partition: x, setup: ['${launcher.partition}']}",
        "launcher.setup",
    ),
    "options of sbatch": (CLUSTER + "launcher: {options: {prolog: /x}}", "launcher.options"),
    "a cluster's address": (RAY + "launcher: {address: '10.0.0.1:6379'}", "launcher.address"),
    "a server's address": (CLUSTER + "logger: {uri: 'http://theirs:5000'}", "logger.uri"),
    "a variable in a name": ("logger: {project: '${oc.env:A_SECRET}'}", "oc.env.A_SECRET"),
    "a variable with a default": ("logger: {project: '${oc.env:A_SECRET,x}'}", "oc.env.A_SECRET"),
    "a variable, its resolver put together": (
        "logger: {entity: oc, project: '${${logger.entity}.env:A_SECRET}'}",
        "oc.env.A_SECRET",
    ),
    "a variable, decoded": (
        "x: $\ny: en\nz: '${x}{oc.${y}v:A_SECRET}'\nlogger: {project: '${oc.decode:${z}}'}",
        "oc.env.A_SECRET",
    ),
    "a variable that chooses a group": ("defaults: [{override /model: '${oc.env:A_SECRET}'}]", "oc.env.A_SECRET"),
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder, and a variable of the environment that is nobody else's business."""
    monkeypatch.setenv("A_SECRET", "secret-value")
    folder = tmp_path / "own"
    (folder / "sweeps").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def compose(own: Path, text: str, folder: str = "downloads", words: tuple[str, ...] = ()) -> None:
    """Compose the first config of a sweep file in a folder beside or in the user's own."""
    file = own / folder / "theirs.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text if "sweep:" in text else f"{text}\nsweep: {{seeds: 1}}")
    allow_code(list(words))
    composer = Composer([own, shipped_root()], file, list(words))
    grid = composer.sweep_spec().grid
    composer.config({key: values[0] for key, values in grid.items()})


def what_is_wrong(own: Path, text: str, folder: str = "downloads") -> str:
    """Return what composing says is wrong with a sweep file; nothing if it is fine."""
    try:
        compose(own, text, folder)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("case", FOREIGN)
def test_what_a_sweep_file_from_elsewhere_may_not_say_is_refused_unless_it_is_trusted_by_name(own: Path, case: str):
    text, name = FOREIGN[case]
    with pytest.raises(UserError) as refused:
        compose(own, text)
    assert f"add --trust {name}" in str(refused.value) and "secret-value" not in str(refused.value)
    others = ["their_study", "oc.env.OTHER", *(key for key in SETTINGS if key != name)]
    with trusting(others), pytest.raises(UserError, match=f"add --trust {name}"):
        compose(own, text)
    with trusting([name]):
        assert "--trust" not in what_is_wrong(own, text)


@pytest.mark.parametrize("case", FOREIGN)
def test_the_users_own_sweep_file_may_say_all_of_it(own: Path, case: str):
    text, _ = FOREIGN[case]
    if "put together" in case or "decoded" in case:
        text += "\n# ${oc.env:A_SECRET} is not seen in a comment, and a variable must be written out to be seen"
        assert "add --trust" in what_is_wrong(own, text, "sweeps")
    else:
        assert "--trust" not in what_is_wrong(own, text, "sweeps")


def test_overrides_speak_for_their_own_value_only(own: Path):
    cluster, key = FOREIGN["a server's address"]
    options = "launcher.options={exclude: node7}"
    allow_code(["logger=mlflow", f"{key}=http://mine:5000", options, "data.path=${oc.env:HOME}"])
    check_settings({"logger": {"uri": "http://mine:5000"}, "launcher": {"options": {"exclude": "node7"}}})
    assert current_trust().allows_variable("HOME") and not current_trust().allows_variable("A_SECRET")
    for config in ({"logger": {"uri": "http://theirs"}}, {"launcher": {"options": {"exclude": "node8"}}}):
        with pytest.raises(UserError, match="--trust"):
            check_settings(config)
    with pytest.raises(UserError, match=r"--trust logger\.uri"):
        compose(own, cluster)


def test_the_users_own_configs_speak_for_their_own_values_only(own: Path):
    (own / "conf" / "logger").mkdir(parents=True)
    (own / "conf" / "logger" / "mine.yaml").write_text("name: mlflow\nuri: http://mine:5000\n")
    (own / "conf" / "launcher").mkdir()
    (own / "conf" / "launcher" / "mine.yaml").write_text("name: slurm\nsetup: [module load cuda]\n")
    check_settings({"logger": {"uri": "http://mine:5000"}, "launcher": {"setup": ["module load cuda"]}})
    for lines in (["module load cuda", "touch x"], ["module load"]):
        with pytest.raises(UserError, match=r"--trust launcher\.setup"):
            check_settings({"launcher": {"setup": lines}})
        check_settings({"launcher": {"setup": lines}}, "logger")  # of what is about to be used


def test_a_module_of_the_users_allows_no_setting_that_begins_with_its_name(own: Path):
    with trusting(["launcher", "logger", "oc"]):
        for config in ({"launcher": {"setup": ["x"]}}, {"logger": {"uri": "x"}}):
            with pytest.raises(UserError, match="--trust"):
                check_settings(config)
        assert not current_trust().allows_variable("A_SECRET")


def test_code_of_one_model_is_not_code_of_another(own: Path):
    (own / "conf" / "model").mkdir(parents=True)
    (own / "conf" / "model" / "mine.yaml").write_text("pretrained: mine/model\ntrust_remote_code: true\n")
    assert list(trust.names_of_code({"model": {"pretrained": "a/b", "trust_remote_code": True}})) == [
        "trust_remote_code=a/b"
    ]
    check_trusted("trust_remote_code=mine/model")
    with pytest.raises(UserError, match=r"for this model.*--trust trust_remote_code"):
        check_trusted("trust_remote_code=theirs/model")
    with pytest.raises(UserError, match="for this model"):  # a dot is part of a model's name
        check_trusted("trust_remote_code=mine/model.5")
    with trusting(["trust_remote_code"]):
        check_trusted("trust_remote_code=theirs/model")


def test_what_needs_no_trust_reads_no_file_of_the_users(own: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trust, "_marked_files", lambda root: pytest.fail(f"{root} was read"))
    with trusting(["their_study", "logger.uri", "oc.env.HOME"]):
        check_trusted("lmexp.models.gpt.GPT")
        check_trusted("their_study.nets.Net")
        check_settings({"logger": {"uri": "x"}, "launcher": {"name": "local", "threads": 1}})
        trust.check_variable("HOME")


def test_workers_are_told_of_values_with_colons(own: Path, monkeypatch: pytest.MonkeyPatch):
    names = {"their_study", "logger.uri=http://mine:5000/50%25", "launcher.setup=a: b", "/scratch/a:b"}
    with trusting(names):
        told = code_environment()
    monkeypatch.setenv("LMEXP_TRUST", told["LMEXP_TRUST"])
    assert current_trust().names == names
    assert Trust(frozenset(["/scratch"])).allows_folder(Path("/scratch/x"))
    assert not Trust(frozenset(["/scratch"])).allows_folder(Path("/scratches"))
