"""A manifest comes back as it was written, tolerates later versions, and says what is wrong with it."""

from pathlib import Path

import pytest

from lmexp.errors import UserError
from lmexp.files import read_json, write_json
from lmexp.runs.manifest import Cell, Manifest, SkippedCell, read_manifest, write_manifest

MANIFEST = Manifest(
    name="sizes",
    question="How large?",
    axes={"model.n_layers": [2, 4], "data.files": [["a", "b"]]},
    cells=[Cell(run_id="ab12", path="l2-ab12", values={"model.n_layers": 2, "optim.lr": 1e-3, "seed": None})],
    skipped=[SkippedCell(values={"precision": "fp16"}, reason="this device has no fp16")],
)


def test_it_comes_back_as_it_was_written(tmp_path: Path):
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST


def test_a_folder_without_one_has_none(tmp_path: Path):
    assert read_manifest(tmp_path) is None


def test_keys_of_a_later_version_are_ignored(tmp_path: Path):
    write_manifest(tmp_path, MANIFEST)
    file = tmp_path / "sweep.json"
    write_json(file, read_json(file) | {"colour": "green"})
    assert read_manifest(tmp_path) == MANIFEST


PATH = '{"name": "a", "cells": [{"run_id": "b", "path": "%s"}]}'
OUTSIDE = ["../../a", "/a", "..", ".", "", "../a", "../..", "../../a/b", "a/b", "../.tokens/a", "../a/..", "a/.."]
"""Paths of cells that would lead out of the outputs, or to what is no run."""


@pytest.mark.parametrize("path", ["a-1", "../other/a-1", "a..b", "Ünïcode run"])
def test_a_run_lies_in_the_sweeps_folder_or_in_one_beside_it(tmp_path: Path, path: str):
    (tmp_path / "sweep.json").write_text(PATH % path)
    manifest = read_manifest(tmp_path)
    assert manifest is not None and manifest.cells[0].path == path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "sweep.json cannot be read"),
        ("{}", "name: Field required"),
        ('{"name": "a", "cells": [{}]}', "cells.0.run_id"),
        ('{"name": "a", "schema_version": 2}', "schema_version"),
        *((PATH % path, "cells.0.path") for path in OUTSIDE),
    ],
)
def test_a_wrong_one_is_one_short_message_with_the_key(tmp_path: Path, content: str, message: str):
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        read_manifest(tmp_path)
    assert message in str(caught.value)
