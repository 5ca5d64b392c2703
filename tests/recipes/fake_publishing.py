"""The part of the hub that publishing talks to, on this machine: repositories made, files taken, tokens checked."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_fakefakefakefakefakefakefakefake"


@dataclass
class FakePublishing:
    """What the hub knows: repositories with their files, and every request."""

    address: str = ""
    repos: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    asked: list[str] = field(default_factory=list[str])

    def answer(
        self, method: str, path: str, body: bytes
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, body and headers."""
        self.asked.append(f"{method} {path}")
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            said = json.loads(body)
            name = (
                f"{said['organization']}/{said['name']}"
                if said.get("organization")
                else f"me/{said['name']}"
            )
            if name in self.repos:
                return 409, {"error": "exists", "url": f"{self.address}/{name}"}, {}
            private = said.get("visibility") == "private" or bool(said.get("private"))
            self.repos[name] = {"private": private, "files": {}}
            return 200, {"url": f"{self.address}/{name}", "name": name, "id": "1"}, {}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if parts[:2] != ["api", "models"]:
            return 404, {"error": "not here"}, {}
        repo = "/".join(parts[2:4])
        if repo not in self.repos:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        rest = parts[4:]
        if not rest or rest == ["revision", "main"]:
            told = {
                "id": repo,
                "modelId": repo,
                "private": self.repos[repo]["private"],
                "sha": "0" * 40,
            }
            return 200, {**told, "siblings": [], "tags": [], "downloads": 0, "likes": 0}, {}
        if rest[0] == "preupload":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for one in json.loads(body)["files"]
            ]
            return 200, {"files": files}, {}
        if rest[0] == "commit":
            for line in body.decode().splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    self.repos[repo]["files"][row["value"]["path"]] = base64.b64decode(
                        row["value"]["content"]
                    )
            url = f"{self.address}/{repo}/commit/1"
            return (
                200,
                {"success": True, "commitOid": "1" * 40, "commitUrl": url, "hookOutput": ""},
                {},
            )
        return 404, {"error": "not here"}, {}


@contextmanager
def fake_publishing() -> Generator[FakePublishing]:
    """A hub on the loopback address while the block runs."""
    state = FakePublishing()

    class Answers(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size)
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                status, told, more = 401, {"error": "who are you?"}, {}
            else:
                path = self.path.partition("?")[0]
                status, told, more = state.answer(self.command, path, body)
            data = json.dumps(told).encode()
            self.send_response(status)
            for key, value in {
                **more,
                "Content-Type": "application/json",
                "Content-Length": str(len(data)),
            }.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_HEAD = do_PUT = _serve

        def log_message(self, *words: object) -> None:
            del words

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
