"""A study as a folder for any web server."""

import json
import os
import re
import shutil
import signal
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lmexp
from lmexp.errors import UserError
from lmexp.files import digest_of, exchange_folders, read_json, write_json
from lmexp.runs.directory import RunDir
from lmexp.study.public_copy import without_places
from lmexp.study.publish import publish_study
from tests.command import start_process
from tests.report.synthetic import write_study

NAMES = st.text("abcdefgh_-0123456789", min_size=1, max_size=8)
PRIVATE = ["hunter2", "machine-of-anna", "/home/anna", "tracking.example", "module load cuda"]
"""What the runs below hold in logs, records, states and configs, and no publication may."""


@given(st.lists(NAMES, min_size=2, max_size=5), st.sampled_from(["", "cannot read ", "path=", "a:", "file://", "'"]))
def test_of_an_absolute_path_only_the_last_part_stays(parts: list[str], before: str):
    said = without_places(f"{before}/{'/'.join(parts)} is missing")
    assert f"/{parts[0]}/" not in said.replace(f".../{parts[-1]}", "") and f".../{parts[-1]}" in said


@pytest.mark.parametrize(
    "text", ["https://pages.example/a/b.html", "score/tag/span_f1", "tokens / n_params", "</s>", "and/or", "a//b"]
)
def test_what_is_no_path_of_the_machine_stays(text: str):
    assert without_places({text: [text, 1, None]}) == {text: [text, 1, None]}


def test_two_folders_change_names_and_a_reader_never_finds_none(tmp_path: Path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add((other / "name").read_text() if other.exists() else "none")

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(501):
        exchange_folders(one, other)
    stop.set()
    reader.join()
    assert "none" not in seen and (one / "name").read_text() == "other"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose runs say much about their machine."""
    folder = write_study(tmp_path_factory.mktemp("outputs"), points=4)
    for run in map(RunDir, folder.glob("*/")):
        run.log.write_text("password=hunter2\n/home/anna/secret\n")
        config = (run.path / "config.yaml").read_text()
        config = re.sub(
            r"(?m)^logger:\n(  .*\n)+", "logger: {name: mlflow, uri: 'https://tracking.example/x'}\n", config
        )
        config = re.sub(r"(?m)^launcher:\n(  .*\n)+", "launcher: {name: slurm, setup: [module load cuda]}\n", config)
        (run.path / "config.yaml").write_text(config.replace("  path: null", "  path: /home/anna/my corpus/all.txt", 1))
        state = run.read_state()
        run.update_state(
            host="machine-of-anna", reason=f"{state.reason or 'fine'}: /home/anna/x.py" if state.reason else None
        )
        if rows := run.read_record():
            run.write_record([rows[0] | {"host": "machine-of-anna"}])
    manifest = read_json(folder / "sweep.json")
    write_json(
        folder / "sweep.json", manifest | {"command": ["lmexp", "sweep", "demo", "--output-dir", "/home/anna/out"]}
    )
    return folder


@pytest.fixture(scope="module")
def site(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_study([study], tmp_path_factory.mktemp("web") / "site", "loss", "train_seconds").folder


def check_whole(site: Path) -> dict[str, str]:
    """Every file of a publication is there, with the content that publication.json says, and nothing else."""
    files: dict[str, str] = read_json(site / "publication.json")["files"]
    for name, digest in files.items():
        assert digest_of(site / name).hex() == digest, name
    return files


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for key, value in attrs if key in ("href", "src", "action", "data", "srcset") and value]


@pytest.mark.slow(10)
def test_the_published_records_are_read_like_the_study_itself(study: Path, site: Path):
    files = check_whole(site)
    assert {"index.html", "README.md", "table.csv", "table.parquet", "records/demo/sweep.json"} <= files.keys()
    assert sorted(name for name in files if name.startswith("figures/")) and not any(
        "log.txt" in name for name in files
    )
    here, there = lmexp.load(study), lmexp.load(site / "records" / "demo")
    apart = ["host", "reason"]
    pd.testing.assert_frame_equal(here.drop(columns=apart), there.drop(columns=apart))
    assert there["host"].isna().all() and here["host"].notna().any()
    assert here.attrs == there.attrs
    published = pd.read_parquet(site / "table.parquet")
    assert list(published["run_id"]) == list(there["run_id"]) and len(pd.read_csv(site / "table.csv")) == len(there)


@pytest.mark.slow(10)
def test_nothing_of_the_machine_and_no_log_is_published(study: Path, site: Path):
    private = [*PRIVATE, str(study.parent), str(site.parent), str(Path.cwd())]
    table = pd.read_parquet(site / "table.parquet").to_csv()
    for file in [path for path in site.rglob("*") if path.is_file()]:
        content = table if file.suffix == ".parquet" else file.read_bytes().decode(errors="replace")
        assert [word for word in private if word in content] == [], file
    everything = "".join(path.read_text() for path in study.rglob("*.*") if path.is_file())
    assert all(word in everything for word in PRIVATE)  # else the test would say nothing


@pytest.mark.slow(10)
def test_links_are_relative_and_lead_to_files_that_are_there(site: Path):
    page = Links()
    page.feed((site / "index.html").read_text())
    readme = re.findall(r"\]\(([^)]+)\)", (site / "README.md").read_text())
    assert readme and page.found
    links = [link for link in [*page.found, *readme] if not link.startswith(("#", "data:"))]
    assert {"table.csv", "table.parquet", "README.md", "index.html"} <= set(links)
    assert all((site / link).is_file() for link in links), links


@pytest.mark.slow(15)
def test_publishing_again_replaces_what_it_wrote_and_keeps_all_other_files(study: Path, tmp_path: Path):
    site = tmp_path / "site"
    publish_study([study], site, "loss", "train_seconds")
    first = check_whole(site)
    (site / "CNAME").write_text("study.example")
    (site / ".git" / "refs").mkdir(parents=True)
    (site / ".git" / "HEAD").write_text("ref")
    (site / "latest").symlink_to("index.html")
    fewer = Path(shutil.copytree(study, tmp_path / "fewer" / "demo"))  # the same sweep without one of its runs
    manifest = read_json(fewer / "sweep.json")
    gone = manifest["cells"].pop(0)["path"]
    write_json(fewer / "sweep.json", manifest)
    publish_study([fewer], site, "loss", "train_seconds")
    second = check_whole(site)
    assert {name.split("/")[2] for name in first.keys() - second.keys()} == {gone}
    assert not (site / "records" / "demo" / gone).exists()
    assert (site / "CNAME").read_text() == "study.example" and (site / "latest").readlink() == Path("index.html")
    assert (site / ".git" / "refs").is_dir() and (site / ".git" / "HEAD").read_text() == "ref"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow(10)
def test_what_others_wrote_is_never_replaced(study: Path, site: Path, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "index.html").write_text("mine")
    with pytest.raises(UserError, match="no earlier publication"):
        publish_study([study], tmp_path / "photos", "loss", "train_seconds")
    with pytest.raises(UserError, match="is a file"):
        publish_study([study], tmp_path / "photos" / "index.html", "loss", "train_seconds")
    readme = (site / "README.md").read_text()
    (site / "README.md").write_text("my own words")
    with pytest.raises(UserError, match="was changed since"):
        publish_study([study], site, "loss", "train_seconds")
    assert (site / "README.md").read_text() == "my own words"
    (site / "README.md").write_text(readme)
    with pytest.raises(UserError, match="cannot be published together"):
        publish_study([study, study], tmp_path / "two", "loss", "train_seconds")
    assert not (tmp_path / "two").exists() and (tmp_path / "photos" / "index.html").read_text() == "mine"


def publish_forever(study: Path, site: Path) -> None:
    while True:
        publish_study([study], site, "loss", "train_seconds")


@pytest.mark.slow(15)
def test_a_kill_at_any_moment_leaves_no_folder_or_a_whole_one(study: Path, tmp_path: Path):
    site = tmp_path / "site"
    for seconds in (0.4, 1.7, 2.9):
        process = start_process(publish_forever, study, site)
        time.sleep(seconds)
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if site.exists():
            check_whole(site)
    publish_study([study], site, "loss", "train_seconds")
    assert [path.name for path in tmp_path.iterdir()] == ["site"]  # what the killed ones left is cleared away
    json.loads((site / "publication.json").read_text())
