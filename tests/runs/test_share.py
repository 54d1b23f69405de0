"""Finished runs at an address that several people share."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lmexp.analysis.table import load_study
from lmexp.config.identity import run_id
from lmexp.config.schema import RunInfo
from lmexp.errors import UserError
from lmexp.files import hash_text, read_json
from lmexp.messages import MAX_LINES
from lmexp.report.options import ViewOptions
from lmexp.report.page.html import report_page
from lmexp.report.view import StudyView
from lmexp.runs.directory import RunDir
from lmexp.runs.forecasts import Forecast, Interval, SealedLaw, write_forecast
from lmexp.runs.manifest import Cell, Manifest, read_manifest, write_manifest
from lmexp.runs.origin import utc
from lmexp.runs.scores import add_scores
from lmexp.runs.share import CONFLICTS, pull, push
from lmexp.runs.store import Store
from tests.command import start_process
from tests.report.synthetic import config, write_run


def write_sweep(outputs: Path, seeds: list[int], loss: float = 3.0, unfinished: int | None = None) -> Path:
    """Write a sweep of finished runs of these seeds under their true ids; `unfinished` is a seed that is queued."""
    folder = outputs / "demo"
    cells = []
    for seed in seeds:
        made = config("gpt_nano", 2, "fp32", seed)
        made = made.model_copy(update={"run": RunInfo(id=run_id(made), sweep="demo", slug=f"s{seed}")})
        assert made.run
        path = folder / f"s{seed}-{made.run.id}"
        cells.append(Cell(run_id=made.run.id, path=path.name, values={"seed": seed}))
        if seed == unfinished:
            RunDir.create(path, made)
        else:
            write_run(path, made, loss + seed / 100, points=4).log.write_text("a log that stays here")
    write_manifest(folder, Manifest(name="demo", axes={"seed": list(seeds)}, cells=cells, command=["lmexp"]))
    return folder


def losses(folder: Path) -> dict[int, float]:
    manifest = read_manifest(folder)
    assert manifest
    rows = {cell.values["seed"]: RunDir(folder / cell.path).read_record() for cell in manifest.cells}
    return {seed: each[-1]["loss"] for seed, each in rows.items() if each}


@pytest.mark.parametrize("kind", ["{}", "file://{}"])
def test_two_machines_merge_one_study(kind: str, tmp_path: Path):
    address = kind.format(tmp_path / "shared")
    anna = write_sweep(tmp_path / "anna", [0, 1, 2], unfinished=2)
    ben = write_sweep(tmp_path / "ben", [2, 3])
    first = push(anna, address)
    assert len(first.pushed) == 2 and first.unfinished == 1 and first.n_bytes > 0
    assert len(push(ben, address).pushed) == 2
    pulled = pull(anna, address)
    assert len(pulled.pulled) == 2 and len(pulled.present) == 2 and not pulled.refused  # the queued run has its result
    pull(ben, address)
    assert losses(anna) == losses(ben) == {seed: 3.0 + seed / 100 for seed in range(4)}
    again, push_again = pull(anna, address), push(anna, address)
    assert not again.pulled and again.n_bytes == 0 and len(again.present) == 4
    assert not push_again.pushed and len(push_again.present) == 4  # what was Ben's is there already
    assert not list((tmp_path / "ben" / "demo").glob("s0-*/log.txt"))


def test_two_results_of_one_run_are_both_kept_and_the_one_here_stays_the_row(tmp_path: Path):
    anna, ben = write_sweep(tmp_path / "anna", [0], loss=3.0), write_sweep(tmp_path / "ben", [0], loss=2.0)
    address = str(tmp_path / "shared")
    push(anna, address)
    assert push(ben, address).conflicts == [path.name for path in ben.glob("s0-*")]
    (other,) = pull(anna, address).conflicts
    assert losses(anna) == {0: 3.0} and RunDir(other).read_record()[0]["loss"] == 2.0
    assert other.parent == anna / CONFLICTS
    again = pull(anna, address)
    assert again.conflicts == [] and len(again.present) == 2
    assert losses(ben) == {0: 2.0} and len(pull(ben, address).conflicts) == 1
    both = pull(tmp_path / "carl" / "demo", address)  # a third person has both as well
    assert len(both.pulled) == len(both.conflicts) == 1


def test_the_report_says_where_other_results_are(tmp_path: Path):
    anna, ben = write_sweep(tmp_path / "anna", [0], loss=3.0), write_sweep(tmp_path / "ben", [0], loss=2.0)
    push(ben, str(tmp_path / "shared"))
    assert load_study([anna]).about_conflicts == []
    pull(anna, str(tmp_path / "shared"))
    study = load_study([anna])
    said = "Left out: 1 other result of runs of demo, which a pull brought; `lmexp report demo/conflicts` shows it."
    assert study.about_conflicts == [said]
    assert said in StudyView.of(study, ViewOptions()).notes
    assert "<code>lmexp report demo/conflicts</code> shows it" in report_page(study)
    assert len(load_study([anna / CONFLICTS]).table) == 1


def a_forecast(loss: float) -> Forecast:
    sizes = {"params": 1e6, "tokens": 2e7, "flops": 1.2e14}
    return Forecast(
        sweep="demo", date=1.8e9, date_utc=utc(1.8e9), run=sizes, at="run", same_size={"params": 1.1},
        conditions={}, columns=dict.fromkeys(("params", "tokens", "flops", "loss"), "loss"),
        loss=Interval(value=loss, low=2, high=4), beyond=2, laws=("kaplan",), fit={}, n_units=5, points=(),
        law=SealedLaw(name="kaplan", formula="", theta={}, effective=(1,), residual=0.1, delta=None),
        points_sha256="0", code="test",
    )  # fmt: skip


def test_sealed_forecasts_are_shared_byte_by_byte_and_changed_ones_are_not(tmp_path: Path):
    anna, address = write_sweep(tmp_path / "anna", [0]), tmp_path / "shared"
    sealed, changed = (write_forecast(anna, a_forecast(loss)).path for loss in (3.0, 3.5))
    changed.write_text(changed.read_text().replace("3.5", "3.1"))
    assert push(anna, str(address)).forecasts == 1 and push(anna, str(address)).forecasts == 0
    ben = tmp_path / "ben" / "demo"
    assert pull(ben, str(address)).forecasts == 1 and pull(ben, str(address)).forecasts == 0
    (copy,) = (ben / "forecasts").iterdir()
    assert (copy.name, copy.read_bytes()) == (sealed.name, sealed.read_bytes())
    forged = changed.read_bytes()
    (address / "demo" / "forecasts" / f"{hashlib.sha256(forged).hexdigest()}.json").write_bytes(forged)
    (reason,) = pull(ben, str(address)).refused.values()
    assert reason == "it was changed after it was sealed" and len(list((ben / "forecasts").iterdir())) == 1


def test_the_files_of_a_run_are_fetched_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    address, get, fetched = "memory://at-once", MemoryFileSystem.get, []
    push(write_sweep(tmp_path / "anna", [0, 1]), address)
    monkeypatch.setattr(MemoryFileSystem, "get", lambda *args: (fetched.append(len(args[1])), get(*args)))
    assert len(pull(tmp_path / "ben" / "demo", address).pulled) == 2
    assert len(fetched) == 2 and min(fetched) >= 3


def test_scores_and_weights_that_came_later_join_the_run(tmp_path: Path):
    anna, address = write_sweep(tmp_path / "anna", [0]), str(tmp_path / "shared")
    (run,) = (RunDir(path) for path in anna.glob("s0-*"))
    push(anna, address)
    ben = tmp_path / "ben" / "demo"
    pull(ben, address)
    mine = RunDir(ben / run.name)
    add_scores(mine, "here", {"acc": 0.25}, {})
    add_scores(run, "here", {"acc": 0.5}, {})
    add_scores(run, "there", {"acc": 0.75}, {})
    run.final.mkdir(parents=True)
    (run.final / "model.safetensors").write_bytes(b"weights")
    (run.final / "pickle.bin").write_bytes(b"not shared")
    push(anna, address, weights=True)
    assert len(pull(ben, address).completed) >= 1 and not mine.final.exists()
    row = mine.read_record()[-1]
    assert (row["score/here/acc"], row["score/there/acc"]) == (0.25, 0.75)
    pull(ben, address, weights=True)
    assert [file.name for file in mine.final.iterdir()] == ["model.safetensors"]
    assert (mine.final / "model.safetensors").read_bytes() == b"weights"


def test_a_run_that_has_begun_here_is_left_alone(tmp_path: Path):
    anna, address = write_sweep(tmp_path / "anna", [0]), str(tmp_path / "shared")
    ben = write_sweep(tmp_path / "ben", [0], unfinished=0)
    (run,) = (RunDir(path) for path in ben.glob("s0-*"))
    run.update_state(state="cancelled", attempts=1)
    push(anna, address)
    assert pull(ben, address).begun == [run.name] and run.read_state().state == "cancelled"


def replace_file(shared: Path, name: str, content: bytes) -> None:
    """Put a forged file into the only run at a place, with hashes that are right."""
    (manifest,) = (shared / "demo" / "runs").glob("*/*.json")
    known = read_json(manifest)
    digest = hashlib.sha256(content).hexdigest()
    (manifest.parent / digest).write_bytes(content)
    known["files"][name] = {"sha256": digest, "size": len(content)}
    text = json.dumps(known, sort_keys=True, separators=(",", ":"))
    manifest.unlink()
    (manifest.parent / f"{hash_text(text)}.json").write_text(text)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("../../../evil.txt", b"x"),
        ("checkpoints/final/../../../evil", b"x"),
        ("/etc/evil", b"x"),
        ("checkpoints/final/model.bin", b"a pickle"),
        ("record.json", b'{"rows": [{"run_id": "0000"}]}'),
        ("record.json", b'{"rows": []}'),
        ("record.json", b"[" * 100_000),
        ("scores.json", b'{"task": {"scores": {"acc": "<script>"}}}'),
        ("config.yaml", b"run: {id: abc}"),
        ("config.yaml", b"!!python/object/apply:os.system [touch evil]"),
    ],
)
def test_what_a_stranger_has_forged_is_refused(name: str, content: bytes, tmp_path: Path):
    push(write_sweep(tmp_path / "anna", [0]), str(tmp_path / "shared"))
    replace_file(tmp_path / "shared", name, content)
    before = set(tmp_path.rglob("*"))
    pulled = pull(tmp_path / "ben" / "demo", str(tmp_path / "shared"))
    assert len(pulled.refused) == 1 and not pulled.pulled
    new = {path.relative_to(tmp_path).as_posix() for path in set(tmp_path.rglob("*")) - before}
    assert new <= {"ben", "ben/demo", "ben/demo/.pull.lock", "ben/demo/sweep.json"}


def test_of_many_refused_runs_and_other_results_a_few_are_named_and_the_result_has_all(tmp_path: Path):
    shared, seeds = tmp_path / "shared", list(range(MAX_LINES + 3))
    anna, ben = write_sweep(tmp_path / "anna", seeds, loss=3.0), write_sweep(tmp_path / "ben", seeds, loss=2.0)
    said: list[str] = []
    push(ben, str(shared))
    push(anna, str(shared), say=said.append)
    assert len(said) == MAX_LINES + 1 and said[-1] == "and 3 more; `lmexp push --json` lists all"
    said.clear()
    assert len(pull(anna, str(shared), say=said.append).conflicts) == len(seeds)
    assert len(said) == MAX_LINES + 1 and said[-1] == f"and 3 more; all are in {anna / CONFLICTS}"
    said.clear()
    for listing in shared.glob("demo/runs/*/*.json"):
        listing.write_text("{}")
    assert len(pull(ben, str(shared), say=said.append).refused) == 2 * len(seeds)
    assert len(said) == MAX_LINES + 1 and said[-1] == f"and {len(seeds) + 3} more; `lmexp pull --json` lists all"


def test_a_damaged_file_and_a_changed_config_are_refused(tmp_path: Path):
    shared, anna = tmp_path / "shared", write_sweep(tmp_path / "anna", [0])
    push(anna, str(shared))
    text = next(anna.glob("s0-*/config.yaml")).read_text()
    record = next(file for file in shared.rglob("*") if file.is_file() and b'"rows"' in file.read_bytes())
    good = record.read_bytes()
    record.write_bytes(good.replace(b"3.0", b"1.0"))
    (reason,) = pull(tmp_path / "ben" / "demo", str(shared)).refused.values()
    assert "damaged" in reason
    record.write_bytes(good)
    replace_file(shared, "config.yaml", text.replace("n_layers: 2", "n_layers: 4").encode())
    (reason,) = pull(tmp_path / "ben" / "demo", str(shared)).refused.values()
    assert "run id" in reason


@pytest.mark.parametrize(
    "address",
    ["s3://me:hunter2@bucket/x", "https://host/x?api_key=hunter2", "simplecache::s3://bucket", "", "nosuch://bucket/x"],
)
def test_an_address_with_a_password_or_of_no_kind_is_refused_without_repeating_it(address: str):
    with pytest.raises(UserError) as refused:
        Store(address)
    assert "hunter2" not in str(refused.value)


def push_to_many(folder: Path, shared: Path) -> None:
    for number in range(10_000):
        push(folder, str(shared / str(number)))


@pytest.mark.slow(6)
def test_a_killed_push_leaves_nothing_that_is_read_as_a_run(tmp_path: Path):
    anna = write_sweep(tmp_path / "anna", list(range(8)))
    complete = {seed: 3.0 + seed / 100 for seed in range(8)}
    counts = []
    for number in range(6):
        shared = tmp_path / f"shared{number}"
        process = start_process(push_to_many, anna, shared)
        while not list(shared.glob(f"{number}/demo/runs/*/*")):
            assert process.is_alive()
            time.sleep(0.002)
        time.sleep(0.01 * number)
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        last = max(shared.iterdir(), key=lambda path: int(path.name))
        lists = len(list(last.glob("demo/runs/*/*.json")))
        counts.append(lists)
        if lists:
            here = tmp_path / "pulled" / str(number) / "demo"
            pulled = pull(here, str(last))
            assert not pulled.refused and len(pulled.pulled) == lists
            assert losses(here).items() <= complete.items()
        else:
            with pytest.raises(UserError, match="no runs"):
                pull(tmp_path / "none" / "demo", str(last))
        assert push(anna, str(last)).pushed or lists == 8
        pull(tmp_path / "after" / str(number) / "demo", str(last))
        assert losses(tmp_path / "after" / str(number) / "demo") == complete
    assert any(count < 8 for count in counts)  # else no push was killed before its end


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a bucket on a real S3 server, a process of its own."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    from urllib.request import urlopen

    log = (tmp_path_factory.mktemp("s3") / "log").open("w+")
    process = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", "0"], stderr=log, stdout=log)
    try:
        deadline = time.monotonic() + 60
        while "Running on http://" not in (said := Path(log.name).read_text()):
            assert process.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.1)
        endpoint = said.split("Running on ")[1].split()[0]
        urlopen(f"{endpoint}/moto-api/")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": "anybody",
                "AWS_SECRET_ACCESS_KEY": "anything",
                "AWS_DEFAULT_REGION": "us-east-1",
            }.items():
                patch.setenv(name, value)
            import s3fs

            s3fs.S3FileSystem.clear_instance_cache()  # one of an earlier server would keep its address
            s3fs.S3FileSystem().mkdir("bucket")
            yield "s3://bucket/studies"
    finally:
        process.terminate()
        process.wait()


def push_one(folder: Path, address: str, go: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)  # the server that forks this process started earlier
    while not go.exists():
        time.sleep(0.001)
    push(folder, address)


@pytest.mark.slow(15)
@pytest.mark.parametrize("kind", ["s3", "file"])
def test_two_people_who_push_at_the_same_moment_lose_no_run(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    address = f"{request.getfixturevalue('s3')}/{tmp_path.name}" if kind == "s3" else (tmp_path / "shared").as_uri()
    folders = [
        write_sweep(tmp_path / "anna", [0, 1], loss=3.0),
        write_sweep(tmp_path / "ben", [1, 2], loss=2.0),
    ]
    processes = [start_process(push_one, folder, address, tmp_path / "go", dict(os.environ)) for folder in folders]
    (tmp_path / "go").touch()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    carl = tmp_path / "carl" / "demo"
    pulled = pull(carl, address)
    assert len(pulled.pulled) == 3 and len(pulled.conflicts) == 1 and not pulled.refused
    kept = [RunDir(path).read_record()[0]["loss"] for path in (carl / CONFLICTS).iterdir()]
    rows = losses(carl)
    assert sorted([*rows.values(), *kept]) == [2.01, 2.02, 3.0, 3.01]
    assert pull(carl, address).n_bytes == 0


@pytest.mark.slow(5)
def test_on_s3_what_is_there_is_skipped_and_weights_are_streamed(s3: str, tmp_path: Path):
    anna = write_sweep(tmp_path / "anna", [0, 1])
    (run,) = (RunDir(path) for path in anna.glob("s0-*"))
    run.final.mkdir(parents=True)
    (run.final / "model.safetensors").write_bytes(os.urandom(3_000_000))
    address = f"{s3}/{tmp_path.name}"
    assert len(push(anna, address, weights=True).pushed) == 2
    again = push(anna, address, weights=True)
    assert (len(again.present), again.n_bytes) == (2, 0)
    ben = tmp_path / "ben" / "demo"
    assert len(pull(ben, address, weights=True).pulled) == 2
    weights = RunDir(ben / run.name).final / "model.safetensors"
    assert weights.read_bytes() == (run.final / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"no runs of 'demi'.*Did you mean 'demo'"):
        pull(tmp_path / "ben" / "demi", address)


class OneServer(MemoryFileSystem):
    """As a client of S3, it takes the address of its server from the environment when it is made."""

    protocol = "oneserver"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.server = os.environ["AWS_ENDPOINT_URL"]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        return self.server.encode()


def test_an_address_is_opened_with_the_environment_of_now(monkeypatch: pytest.MonkeyPatch):
    fsspec.register_implementation("oneserver", OneServer, clobber=True)
    for server in ("http://first", "http://second"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", server)
        assert Store("oneserver://bucket/study").read("x") == server.encode()
