"""What all tests share: small texts, small configs, the command line as a user has it."""

import gc
import os
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from lmexp.config import paths, trust
from lmexp.config.compose import Composer
from lmexp.config.schema import RunConfig
from lmexp.runs.directory import STORES
from tests.command import run_command, start_server

if TYPE_CHECKING:
    from tests.launch.ray import RayCluster

# A shell lets what it starts in the background ignore SIGINT, and so would all commands that a test interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline of milliseconds fails on a busy machine, and says nothing about the code.
hypothesis.settings.register_profile("lmexp", deadline=None)
hypothesis.settings.load_profile("lmexp")

ROOT = Path(__file__).parent
SMALL = [
    "model=gpt_nano",
    "model.context=32",
    "model.d_model=32",
    "tokenizer=byte",
    "batch.tokens=256",
    "budget.tokens=5120",  # 20 steps
    "trainer.log_every=5",
    "launcher.threads=1",  # floating-point sums depend on how many threads share them
]
"""A run of a second."""

CLUSTERS = {"slurm_cluster": "slurm", "ray_cluster": "ray"}
"""Session fixtures that start daemons, and the group of all tests that use them."""
DEFAULT_SECONDS, DEFAULT_SLOW_SECONDS = 1, 10
"""About how long a test takes; `@pytest.mark.slow(seconds)` says it of one that takes much longer than most."""

Lmexp = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Send tests that share something expensive to the same worker, so that it is made once (`--dist loadgroup`).

    These are tests of one module that use a module's fixture, such as a trained study, and all tests of a cluster.
    What takes longest starts first (`--no-loadscope-reorder`), so that no worker is left with a long test at the end.
    """
    seconds: Counter[str] = Counter()
    for item in items:
        fixtures = {name: found[-1] for name, found in item._fixtureinfo.name2fixturedefs.items()}  # type: ignore[attr-defined]
        groups = [group for name, group in CLUSTERS.items() if name in fixtures]
        if not groups and any(fixture.scope == "module" for fixture in fixtures.values()):
            groups = [str(item.path.relative_to(ROOT).with_suffix(""))]
        if groups and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(groups[0]))
        slow = item.get_closest_marker("slow")
        seconds[_group(item)] += (*slow.args, DEFAULT_SLOW_SECONDS)[0] if slow else DEFAULT_SECONDS
    items.sort(key=lambda item: -seconds[_group(item)])


def _group(item: pytest.Item) -> str:
    """Return what tests have in common that one worker runs, which for most is a test's own id."""
    group = item.get_closest_marker("xdist_group")
    return group.args[0] if group else item.nodeid


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run in groups that pytest-xdist does not see: as of pytest 9.2 it ignores them without a word.

    Garbage collections from here on need not look through all libraries and the thousands of tests.
    """
    gc.freeze()
    if getattr(session.config.option, "loadgroup", False):
        for item in session.items:
            if item.get_closest_marker("xdist_group") and "@" not in item.nodeid.rpartition("]")[2]:
                raise pytest.UsageError(f"{item.nodeid}: pytest-xdist does not see the group of this test")


@pytest.fixture(scope="session", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs mark the device they use in the temporary folder: tests side by side must not see each other's."""
    folder = tmp_path_factory.mktemp("tmp")
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


@pytest.fixture(scope="session", autouse=True)
def server(alone: None) -> None:
    """Start the server in the background that commands and runs are forked from."""
    start_server()


@pytest.fixture(autouse=True)
def no_trust() -> Iterator[None]:
    """Code that one test has allowed, in this process, is not allowed in the next."""
    token = trust._TRUST.set(None)
    yield
    trust._TRUST.reset(token)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 200 short documents, in one file, a paragraph each."""
    file = tmp_path_factory.mktemp("text") / "text.txt"
    words = "the cat sat on a mat and saw one red bird fly over our old stone house".split()  # noqa: SIM905
    documents = [" ".join(words[(i * k) % len(words)] for k in range(1, 30)) for i in range(200)]
    file.write_text("\n\n".join(f"{i}: {words}" for i, words in enumerate(documents)))
    return file


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this session share. What is made in it needs a lock."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture
def shared_tokens(session_folder: Path, tmp_path: Path) -> None:
    """Let `outputs` share its token stores with other tests: the standard library is tokenised once, not once a test.

    lmexp itself holds a lock on a store while it writes it, and only reads it afterwards.
    """
    stores = session_folder / "tokens"
    stores.mkdir(exist_ok=True)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / STORES).symlink_to(stores, target_is_directory=True)


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm of two emulated nodes with four cores each; `sbatch` and lmexp find it through the environment."""
    from tests.launch.slurm import missing, slurm

    if reason := missing():
        pytest.skip(reason)
    with slurm(tmp_path_factory.mktemp("slurm"), cpus=4):
        yield


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator["RayCluster"]:
    """A Ray cluster of two nodes; a test calls `complete` first, because an earlier one may have killed a node."""
    from tests.launch.ray import ray_nodes

    with ray_nodes() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def small(text: Path) -> list[str]:
    """The overrides of a run of a second, on the small text."""
    return [*SMALL, "data=text", f"data.path={text}", "data.document=paragraph"]


@pytest.fixture
def config(small: list[str]) -> Callable[..., RunConfig]:
    """Compose a small config, with overrides."""
    return lambda *words: Composer(paths.search_roots(), words=[*small, *words]).config({})


@pytest.fixture
def lmexp(tmp_path: Path) -> Lmexp:
    """Run the command as a user would, in an empty folder; outputs go to `outputs` in it."""
    return partial(run_command, tmp_path)
