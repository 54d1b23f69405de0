"""What `lmexp doctor --run` says: whether a run's data, code, packages and weights are those of its record."""

import hashlib
import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from lmexp.cli import app
from lmexp.errors import UserError
from lmexp.report.terminal.provenance import print_provenance, verdict
from lmexp.resolve.provenance import Check, trace
from lmexp.resolve.sweep import resolve_sweep
from lmexp.runs import origin
from lmexp.runs.directory import RunDir
from lmexp.terminal import Terminal
from lmexp.train.worker import main
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with one finished run on a text beside them."""
    folder = tmp_path_factory.mktemp("provenance")
    (folder / "text.txt").write_text("\n\n".join(f"{i}: the cat sat on mat {i * 7}" for i in range(200)))
    words = [*SMALL, "data=text", f"data.path={folder / 'text.txt'}", "data.document=paragraph"]
    (planned,) = resolve_sweep(None, words, folder / "outputs").runs
    run = RunDir.create(planned.run.path, planned.config)
    assert main(run.path) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunDir:
    """A copy of the run and of its text, with the paths in its config following."""
    shutil.copytree(trained, tmp_path / "copy")
    (file,) = (tmp_path / "copy" / "outputs").glob("[!.]*/*/config.yaml")
    file.write_text(file.read_text().replace(str(trained), str(tmp_path / "copy")))
    return RunDir(file.parent)


def results(run: RunDir) -> dict[str, Check]:
    return {check.what.split("/")[0].strip(): check for check in trace(run, run.path.parents[1])}


def rewrite(run: RunDir, **columns: object) -> None:
    document = json.loads((run.path / "record.json").read_text())
    document["rows"][-1] |= columns
    (run.path / "record.json").write_text(json.dumps(document))


def test_of_a_fresh_run_everything_is_the_same(run: RunDir) -> None:
    checks = trace(run, run.path.parents[1])
    assert {check.result for check in checks} <= {"same", "noted"}
    assert {check.subject for check in checks} == {"data", "code", "packages", "weights", "hardware"}
    assert verdict([vars(check) for check in checks]) == "Everything is the same as in the record."


def test_the_record_has_the_hash_of_the_weights(run: RunDir) -> None:
    content = (run.final / "model.safetensors").read_bytes()
    assert run.read_record()[-1]["weights_sha256"] == hashlib.sha256(content).hexdigest()


def test_changed_data_and_weights_are_noticed(run: RunDir) -> None:
    text = run.path.parents[2] / "text.txt"
    text.write_text(text.read_text() + "!")
    with (run.final / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    checks = results(run)
    assert checks["model.safetensors"].result == checks["source"].result == "differs"
    assert checks["token store"].result == "same"  # it was made before


def test_other_code_and_packages_are_noticed(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "code_version", lambda: "source@0123456789ab python==3")
    rewrite(run, packages="python==2.7.18 numpy==1.0 no-such-package==1")
    checks = results(run)
    assert checks["source of lmexp"].result == checks["numpy"].result == checks["python"].result == "differs"
    assert checks["no-such-package"].result == "not checked"


def test_what_is_missing_is_not_checked_and_no_difference(run: RunDir) -> None:
    rewrite(run, weights_sha256=None)
    (run.path.parents[2] / "text.txt").unlink()
    shutil.rmtree(run.path.parents[1] / ".tokens")
    checks = results(run)
    for name, reason in (
        ("model.safetensors", "not recorded by the version that trained it"),
        ("source", "no such file"),
        ("token store", "it is not here"),
    ):
        assert checks[name].result == "not checked" and reason in str(checks[name].reason)
    shutil.rmtree(run.final)
    rewrite(run, weights_sha256="0" * 64)
    assert results(run)["model.safetensors"].reason == "it is not here"


def test_what_could_not_be_checked_is_no_pass(run: RunDir) -> None:
    outputs = run.path.parents[1]

    def doctor(*options: str) -> Result:
        return CliRunner().invoke(app, ["doctor", "--run", str(run.path), "--output-dir", str(outputs), *options])

    assert doctor().exit_code == 0
    (run.final / "model.safetensors").rename(run.final / "elsewhere")
    (manifest,) = (outputs / ".tokens").glob("[!.]*/manifest.json")
    manifest.unlink()
    refused = doctor()
    assert refused.exit_code == 1
    assert "Could not be checked: token store, model.safetensors. The rest is the same as in the record." in " ".join(
        refused.stdout.split()
    )
    document = json.loads(doctor("--json").stdout)
    assert (document["differs"], document["not_checked"]) == (0, 2)


@pytest.mark.slow
def test_own_code_is_compared_by_its_hash_and_never_imported(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strange.py").write_text("raise SystemExit('imported')")
    hashed = hashlib.sha256(b"strange\0" + hashlib.sha256((tmp_path / "strange.py").read_bytes()).digest()).hexdigest()
    config = run.path / "config.yaml"
    ours, gone = "{package: null, version: null, sha256: %s}", "{package: null, version: null, sha256: abc}"
    config.write_text(
        config.read_text().replace("code: {}", f"code: {{strange.Thing: {ours % hashed}, no_such.Thing: {gone}}}")
    )
    checks = results(run)
    assert checks["strange.Thing"].result == "same" and checks["strange.Thing"].reason == "it is not trusted here"
    assert checks["no_such.Thing"].result == "not checked" and "no module no_such" in str(
        checks["no_such.Thing"].reason
    )
    (tmp_path / "strange.py").write_text("raise SystemExit('imported again')")
    assert results(run)["strange.Thing"].result == "differs"


def test_an_edited_config_is_noticed(run: RunDir) -> None:
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("\nseed: 0", "\nseed: 1"))
    assert results(run)["config"].result == "differs"


def test_text_from_a_record_cannot_move_the_cursor(run: RunDir) -> None:
    rewrite(run, device_name="\x1b[2Jgone", packages="numpy==[bold]\x1b]0;x\x07")
    page = StringIO()
    print_provenance([vars(check) for check in trace(run, run.path.parents[1])], Terminal(file=page, width=100))
    assert "\x1b" not in page.getvalue() and "\x07" not in page.getvalue() and "[bold]" in page.getvalue()


def test_a_run_without_a_record_is_refused(run: RunDir) -> None:
    (run.path / "record.json").unlink()
    with pytest.raises(UserError, match="no record to check; its state is 'failed'"):
        trace(run, run.path.parents[1])


@pytest.mark.slow
def test_the_command_says_it_and_exits_with_1_if_something_differs(run: RunDir, lmexp, tmp_path: Path) -> None:
    words = ("doctor", "--run", str(run.path), "--output-dir", str(run.path.parents[1]))
    same = lmexp(*words, "--json")
    assert same.returncode == 0 and json.loads(same.stdout)["differs"] == 0
    (run.final / "model.safetensors").write_bytes(b"other")
    other = lmexp(*words)
    assert other.returncode == 1 and "Differs from the record: model.safetensors." in other.stdout
