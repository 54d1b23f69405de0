"""A server that speaks enough of W&B's protocol for its real client to upload a run, and keeps what arrives.

It stands for the real one, which needs a network and an account. Like it, a run is found by its id, and lines of a file
stream replace those at their offsets.
"""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

HISTORY, SUMMARY, CONSOLE = "wandb-history.jsonl", "wandb-summary.json", "output.log"


@dataclass
class StoredRun:
    """What a server has of a run."""

    about: dict[str, Any] = field(default_factory=dict)
    """The variables of the requests that made or changed it: displayName, groupName, tags, jobType, notes."""
    files: dict[str, dict[int, str]] = field(default_factory=dict)
    """Lines of its files by their numbers."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """The curve."""
        return [json.loads(line) for _, line in sorted(self.files.get(HISTORY, {}).items())]


class WandbServer(ThreadingHTTPServer):
    """The runs of one person, `me`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, StoredRun] = {}
        self.views: list[dict[str, Any]] = []

    @property
    def address(self) -> str:
        """For WANDB_BASE_URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the data that answers a GraphQL request."""
        if "upsertBucket" in query:
            name, project = variables["name"], variables["project"]
            run = self.runs.setdefault(name, StoredRun())
            run.about |= {key: value for key, value in variables.items() if value is not None}
            owner = {"id": "P", "name": project, "entity": {"id": "E", "name": "me"}}
            shown = {"displayName": run.about.get("displayName"), "description": "", "config": "{}", "sweepName": None}
            bucket = {"id": name, "name": name, "historyLineCount": 0, "project": owner, **shown}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "upsertView" in query:
            self.views.append(variables)
            return {"upsertView": {"view": {"id": "V", "name": variables["name"]}, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.address}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}
        return {"viewer": {"id": "U", "username": "me", "entity": "me", "flags": "{}", "teams": {"edges": []}}}

    def stream(self, run: str, content: dict[str, Any]) -> None:
        """Store lines of a run's files."""
        for name, part in content.get("files", {}).items():
            lines = self.runs[run].files.setdefault(name, {})
            for number, line in enumerate(part["content"]):
                lines[part["offset"] + number] = line


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _reply(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        answer: dict[str, Any] = {}
        if self.path == "/graphql":
            asked = json.loads(body)
            answer = {"data": self.server.answer(asked["query"], asked.get("variables") or {})}
        elif self.path.endswith("/file_stream"):
            self.server.stream(self.path.split("/")[-2], json.loads(body))
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _reply


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """Run a server until the block ends."""
    server = WandbServer()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
