"""The page while a sweep runs: a small server for this machine only, whose page follows the runs.

It answers two addresses and no others: `/` with the page, and `/version` with the version of the page. It listens on
127.0.0.1 and accepts requests only under the names of this machine, so that no other web page can read it through a
name that points here (DNS rebinding). The browser asks for the version every two seconds. The study is read again only
if one of its files has changed, and at most once in REWRITE_RATIO times the seconds that this takes.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lmexp.analysis.forecasts.same_size import result_files
from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.report.page.html import report_page
from lmexp.runs.directory import RECORD, SCORES, RunDir
from lmexp.runs.forecasts import FOLDER as FORECASTS
from lmexp.runs.manifest import MANIFEST, read_manifest

HOST = "127.0.0.1"
PORT = 8765
REWRITE_RATIO = 4.0
"""A page that took one second to write is written again after this many seconds at the earliest."""
LOCAL = ("127.0.0.1", "localhost")

Render = Callable[[str], str]
"""A function that returns the page for a version."""


class LivePage:
    """The newest page of some sweeps, for several threads."""

    def __init__(self, folders: Sequence[Path], render: Render) -> None:
        self._folders, self._render = list(folders), render
        self._lock = threading.Lock()
        self._version, self._page = "", ""
        self._not_before = 0.0

    def get(self) -> tuple[str, str]:
        """Return the version and the page, which is written again if the study has changed.

        If the study cannot be read at this moment, the last page stays; before the first page, this raises UserError.
        """
        with self._lock:
            if time.monotonic() >= self._not_before:
                version = fingerprint(self._folders)
                if version != self._version:
                    self._write(version)
            return self._version, self._page

    def _write(self, version: str) -> None:
        start = time.monotonic()
        try:
            self._page = self._render(version)
        except UserError:  # for example, while a manifest is being replaced
            if not self._page:
                raise
        else:
            self._version = version
        self._not_before = time.monotonic() + REWRITE_RATIO * (time.monotonic() - start)


def fingerprint(folders: Sequence[Path]) -> str:
    """Return a hash of everything that a page shows: manifests, and the record, scores, curve and state of each run.

    If forecasts are sealed, the results in all sweeps of the outputs belong to it: a forecast's run may lie in any.
    Only the name and the reason of a state count, because its heartbeat changes all the time and is not shown.
    """
    digest = hashlib.sha256()
    for folder in folders:
        manifest = read_manifest(folder)
        digest.update(_stamp(folder / MANIFEST))
        sealed = sorted((folder / FORECASTS).glob("*.json"))
        for file in [*sealed, *(result_files(folder.resolve().parent) if sealed else ())]:
            digest.update(str(file).encode() + _stamp(file))
        paths = [folder / cell.path for cell in manifest.cells] if manifest else sorted(folder.iterdir())
        for path in paths:
            for name in (RECORD, SCORES, "metrics.jsonl"):
                digest.update(_stamp(path / name))
            state = RunDir(path).read_state()
            digest.update(f"{path.name} {state.state} {state.reason}".encode())
    return digest.hexdigest()[:16]


def _stamp(file: Path) -> bytes:
    try:
        stat = file.stat()
    except OSError:
        return b"-"
    return f"{stat.st_mtime_ns} {stat.st_size}".encode()


def make_server(page: LivePage, port: int = PORT) -> ThreadingHTTPServer:
    """Return a server of a page on 127.0.0.1; port 0 takes any free port.

    Raises UserError if the port is in use or not allowed.
    """

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "lmexp", ""

        def do_GET(self) -> None:
            if not _is_local(self.headers.get("Host", ""), self.connection.getsockname()[1]):
                return self._send(403, "text/plain", "this server answers to localhost only\n")
            if self.path not in ("/", "/version"):
                return self._send(404, "text/plain", "there is nothing here but the report\n")
            version, text = page.get()
            if self.path == "/":
                return self._send(200, "text/html", text)
            return self._send(200, "application/json", json.dumps({"version": version}))

        def _send(self, status: int, kind: str, text: str) -> None:
            content = text.encode()
            self.send_response(status)
            headers = {
                "Content-Type": f"{kind}; charset=utf-8",
                "Content-Length": str(len(content)),
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
                "Referrer-Policy": "no-referrer",
                "Cross-Origin-Resource-Policy": "same-origin",
            }
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Print nothing: there would be a line every two seconds."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # Ctrl-C does not wait for a browser

        def handle_error(self, *_: Any) -> None:
            """Print nothing if the browser was closed during an answer."""

    try:
        return Server((HOST, port), Handler)
    except (OSError, OverflowError):
        raise UserError(f"port {port} cannot be used: choose another with --port, or 0 for any free port") from None


def _is_local(host: str, port: int) -> bool:
    """Whether a Host header names this machine and this port."""
    return host in {f"{name}:{port}" for name in LOCAL} | (set(LOCAL) if port == 80 else set())


def serve(
    folders: Sequence[Path],
    quality: str | None,
    cost: str | None,
    all_runs: bool,
    port: int,
    say: Callable[[str], None],
) -> None:
    """Serve the page of some sweeps until Ctrl-C, and report its address to `say`.

    Raises UserError for a study that cannot be read, an unknown column, or a port that is taken.
    """

    def render(version: str) -> str:
        study = load_study(list(folders), all_runs)
        return report_page(study, quality or study.default_quality, cost or study.default_cost, version)

    page = LivePage(folders, render)
    page.get()
    with make_server(page, port) as server:
        say(f"http://{HOST}:{server.server_address[1]}/")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            return
