"""The page while a sweep runs: a small server on this machine alone, and a page that follows the records.

It answers two addresses, `/` with the page and `/version` with what the page is of; nothing else, no file and no
folder. It listens on 127.0.0.1 and takes requests only under the names of this machine, so that no web page of
somebody else's can read it through a name that it points here (DNS rebinding). The browser asks for the version
every two seconds; the study is read again only when a file of it has changed, and never more often than reading
it is worth.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lmexp.analysis.table import load_study
from lmexp.errors import UserError
from lmexp.report.page.html import report_page
from lmexp.runs.directory import SCORES, RunDir
from lmexp.runs.manifest import MANIFEST, read_manifest

HOST = "127.0.0.1"
PORT = 8765
PATIENCE = 4.0
"""A page that took a second to write is written anew after as many seconds at the earliest."""
LOCAL = ("127.0.0.1", "localhost")

Render = Callable[[str], str]
"""Returns the page of a version."""


class LivePage:
    """The newest page of some sweeps; several threads may ask for it."""

    def __init__(self, folders: Sequence[Path], render: Render) -> None:
        self._folders, self._render = list(folders), render
        self._lock = threading.Lock()
        self._version, self._page = "", ""
        self._not_before = 0.0

    def get(self) -> tuple[str, str]:
        """Return the version and the page, written anew where the study has changed.

        A study that cannot be read at this moment leaves the page before; the first one raises UserError.
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
        except UserError:  # as when a manifest is being moved
            if not self._page:
                raise
        else:
            self._version = version
        self._not_before = time.monotonic() + PATIENCE * (time.monotonic() - start)


def fingerprint(folders: Sequence[Path]) -> str:
    """Return a hash of what a page is made from: manifests, and each run's record, scores, curve and state.

    A state counts by its name and reason: its heartbeat changes all the time and is not shown.
    """
    found = hashlib.sha256()
    for folder in folders:
        manifest = read_manifest(folder)
        found.update(_stamp(folder / MANIFEST))
        paths = [folder / cell.path for cell in manifest.cells] if manifest else sorted(folder.iterdir())
        for path in paths:
            for name in ("record.json", SCORES, "metrics.jsonl"):
                found.update(_stamp(path / name))
            state = RunDir(path).read_state()
            found.update(f"{path.name} {state.state} {state.reason}".encode())
    return found.hexdigest()[:16]


def _stamp(file: Path) -> bytes:
    try:
        stat = file.stat()
    except OSError:
        return b"-"
    return f"{stat.st_mtime_ns} {stat.st_size}".encode()


def make_server(page: LivePage, port: int = PORT) -> ThreadingHTTPServer:
    """Return a server of a page on 127.0.0.1; port 0 is any that is free.

    Raises UserError when the port is taken, or may not be had.
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
            """Say nothing: a line every two seconds tells nobody anything."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # Ctrl-C does not wait for a browser

        def handle_error(self, *_: Any) -> None:
            """Say nothing of a browser that was closed while it was answered."""

    try:
        return Server((HOST, port), Handler)
    except (OSError, OverflowError):
        raise UserError(f"port {port} cannot be had: choose another with --port, or 0 for any that is free") from None


def _is_local(host: str, port: int) -> bool:
    """Whether a Host header names this machine and this port."""
    return host in {f"{name}:{port}" for name in LOCAL} | (set(LOCAL) if port == 80 else set())


def serve(folders: Sequence[Path], quality: str | None, cost: str, port: int, say: Callable[[str], None]) -> None:
    """Serve the page of some sweeps until Ctrl-C, and say where it is.

    Raises UserError for a study that cannot be read, an unknown column, or a port that is taken.
    """

    def render(version: str) -> str:
        study = load_study(list(folders))
        return report_page(study, quality or study.default_quality, cost, version)

    page = LivePage(folders, render)
    page.get()
    with make_server(page, port) as server:
        say(f"http://{HOST}:{server.server_address[1]}/")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            return
