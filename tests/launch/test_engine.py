"""Engines: a launcher from outside is one class and one YAML file, and a sweep runs through it as through any other."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmexp.config.launchers import OutsideLauncher
from lmexp.errors import UserError
from lmexp.launch.engine import load_engine
from lmexp.launch.queue import run_sweep
from lmexp.resolve.planned import Sweep
from lmexp.resolve.sweep import resolve_sweep
from tests.launch.test_queue import Notes

MODULE = """
import os
import subprocess
from pathlib import Path

from lmexp.launch.engine import Engine, Handle


class Started(Handle):
    def __init__(self, process):
        self.process = process

    def exit_code(self):
        return self.process.poll()


class MyLauncher(Engine[Started]):
    def __init__(self, sweep, python, journal):
        self.python, self.journal = python, Path(journal)

    def start(self, runs):
        for planned in runs:
            with self.journal.open("a") as file:
                file.write(planned.identity + "\\n")
            with planned.run.log.open("ab") as log:
                command = [self.python, "-m", "lmexp.worker", str(planned.run.path)]
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                yield Started(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment))

    def stop(self, handles):
        for handle in handles:
            handle.process.terminate()
            handle.process.wait()


class Forgetful(MyLauncher):
    def start(self, runs):
        pass


class Half(Engine):
    def start(self, runs):
        pass


def not_an_engine():
    pass
"""
Resolve = Callable[..., Sweep]


@pytest.fixture
def resolve(
    tmp_path: Path, small: list[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Resolve:
    """Resolve a sweep in a folder with a launcher of the user's own."""
    module = f"own_launcher_{abs(hash(request.node.name))}"  # a module is imported once in a process
    (tmp_path / f"{module}.py").write_text(MODULE)
    (tmp_path / "conf" / "launcher").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def run(target: str = "MyLauncher", **arguments: str) -> Sweep:
        lines = [f"_target_: {module}.{target}", "name: mine", *(f"{key}: {value}" for key, value in arguments.items())]
        (tmp_path / "conf" / "launcher" / "mine.yaml").write_text("\n".join(lines))
        overrides = [word for word in small if not word.startswith("launcher.")]
        return resolve_sweep(None, [*overrides, "launcher=mine", "seed=0,1"], tmp_path / "outputs", name="own")

    return run


@pytest.mark.slow
def test_a_sweep_runs_through_a_launcher_of_the_users_own(resolve: Resolve, tmp_path: Path):
    sweep = resolve(python=sys.executable, journal="journal.txt")
    states = run_sweep(sweep, Notes())
    assert [state.state for state in states] == ["done", "done"], [state.reason for state in states]
    assert (tmp_path / "journal.txt").read_text().split() == [planned.identity for planned in sweep.runs]
    written = sweep.runs[0].run.read_config().launcher
    assert isinstance(written, OutsideLauncher) and written.arguments["journal"] == "journal.txt"


def test_an_argument_that_the_class_does_not_take_is_a_wrong_input(resolve: Resolve):
    sweep = resolve(python=sys.executable, journal="journal.txt", partition="gpu")
    with pytest.raises(UserError, match=r"launcher=mine: MyLauncher: .*'partition'"):
        run_sweep(sweep, Notes())
    assert not sweep.folder.exists()


def test_a_target_that_is_no_engine_is_refused(resolve: Resolve):
    with pytest.raises(
        UserError, match=r"not_an_engine must be a class that derives from lmexp\.launch\.engine\.Engine"
    ):
        run_sweep(resolve("not_an_engine"), Notes())


def test_a_class_that_is_half_an_engine_or_loses_runs_is_refused(resolve: Resolve):
    with pytest.raises(UserError, match=r"Half must define stop"):
        run_sweep(resolve("Half"), Notes())
    sweep = resolve("Forgetful", python=sys.executable, journal="journal.txt")
    with pytest.raises(UserError, match=rf"Forgetful.start returned no handle for the run {sweep.runs[0].run.name}"):
        run_sweep(sweep, Notes())


def test_a_launcher_that_the_user_has_not_named_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "stranger.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--trust stranger"):
        load_engine(OutsideLauncher(target="stranger.Launcher"))
    assert not (tmp_path / "imported").exists()
