"""The pins and what is said of them: the SBOM in the wheel, the audit against advisories, and no pickles."""

import ast
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import lmexp

ROOT = Path(__file__).parents[1]
PACKAGE = Path(lmexp.__file__).parent


def pins() -> set[str]:
    """Return the pins of constraints.txt as package addresses, written as PyPI writes names."""
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text().split()
    return {f"pkg:pypi/{canonicalize_name(name)}@{version}" for name, version in (line.split("==") for line in lines)}


# the SBOM


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[zipfile.ZipFile]:
    """The wheel, built twice."""
    pytest.importorskip("hatchling")
    built = []
    for name in ("one", "two"):
        folder = tmp_path_factory.mktemp(name)
        command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        (file,) = folder.glob("*.whl")
        built.append(zipfile.ZipFile(file))
    return built


@pytest.mark.slow
def test_the_wheel_carries_a_valid_sbom_of_the_pins_and_the_same_one_each_time(
    wheels: list[zipfile.ZipFile],
) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    name = f"lmexp-{lmexp.__version__}.dist-info/sboms/lmexp.cdx.json"
    texts = [wheel.read(name).decode() for wheel in wheels]
    assert texts[0] == texts[1]
    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(texts[0]) is None
    document = json.loads(texts[0])
    assert {component["purl"] for component in document["components"]} == pins()
    assert document["metadata"]["component"]["version"] == lmexp.__version__
    scopes = {component["name"]: component.get("scope") for component in document["components"]}
    assert (scopes["torch"], scopes["pytest"], scopes["idna"]) == ("required", "optional", None)
    metadata = wheels[0].read(f"lmexp-{lmexp.__version__}.dist-info/METADATA").decode()
    direct = {line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line}
    assert len(document["dependencies"][0]["dependsOn"]) == len(direct)
    assert not any(entry.startswith(("release/", "hatch_build")) for entry in wheels[0].namelist())


# the audit


class Advisories(BaseHTTPRequestHandler):
    """Answers as OSV does: one package of one version has an advisory."""

    def do_POST(self) -> None:
        """Answer a query for one package."""
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_affected = (query["package"]["name"], query["version"]) == ("jinja2", "3.1.2")
        fixed = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.1.6"}]}
        advisory = {
            "id": "PYSEC-1",
            "aliases": ["CVE-1-\x1b[31m"],
            "summary": "s",
            "published": "2025-01-01T00:00:00Z",
            "modified": "2025-01-01T00:00:00Z",
            "affected": [{"package": {"name": "jinja2", "ecosystem": "PyPI"}, "ranges": [fixed]}],
        }
        answer = json.dumps({"vulns": [advisory]} if is_affected else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    """The address of a server that speaks OSV's protocol."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()


def audited(folder: Path, url: str, *lines: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("pip_audit")
    (folder / "pins.txt").write_text("\n".join(lines))
    command = [sys.executable, ROOT / "release" / "audit.py", "--pins", folder / "pins.txt", "--timeout", "20"]
    return subprocess.run(
        [*command, "--vulnerability-service", "osv", "--osv-url", url],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
    )


@pytest.mark.slow
def test_a_pin_with_an_advisory_is_named_and_fails_the_audit(tmp_path: Path, service: str) -> None:
    bad = audited(tmp_path, service, "idna==3.20", "jinja2==3.1.2")
    assert bad.returncode == 1, bad.stderr
    assert "jinja2 3.1.2: PYSEC-1" in bad.stdout and "fixed in 3.1.6" in bad.stdout and "\x1b" not in bad.stdout
    assert "2 pins checked, 1 with an advisory" in bad.stdout


@pytest.mark.slow
def test_without_a_service_the_audit_says_so_in_one_line_and_does_not_fail(tmp_path: Path) -> None:
    ended = audited(tmp_path, "http://127.0.0.1:9/v1/query", "idna==3.20")
    assert ended.returncode == 0, ended.stdout
    assert (
        ended.stdout.startswith("not checked: the advisory service cannot be reached") and ended.stdout.count("\n") == 1
    )


# no pickles


def unsafe_calls(source: str) -> list[str]:
    """Return the calls in a source that could run code from a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        named = {word.arg: ast.unparse(word.value) for word in node.keywords}
        if call in ("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "dill.load", "dill.loads"):
            found.append(call)
        if call.split(".")[-1] in ("read_pickle", "load_from_checkpoint", "unsafe_load", "full_load"):
            found.append(call)
        if call == "torch.load" and named.get("weights_only") != "True":
            found.append(call)
        if call.startswith(("np.", "numpy.")) and named.get("allow_pickle", "False") != "False":
            found.append(call)
        if call.endswith("trainer.fit") and "ckpt_path" in named and named.get("weights_only") != "True":
            found.append(call)
        if call == "yaml.load" and "_Loader" not in ast.unparse(node):  # ours derives from the safe one
            found.append(call)
    return found


def test_nothing_that_lmexp_reads_is_unpickled_and_weights_are_safetensors() -> None:
    for file in PACKAGE.rglob("*.py"):
        name = file.relative_to(PACKAGE).as_posix()
        assert not unsafe_calls(file.read_text()), name
    for word in ("pickle.loads(x)", "torch.load(f)", "np.load(f, allow_pickle=True)", "pd.read_pickle(f)"):
        assert unsafe_calls(word)
    assert not unsafe_calls("torch.load(f, weights_only=True)")
