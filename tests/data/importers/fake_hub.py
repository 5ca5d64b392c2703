"""A hub on this machine: the few endpoints that huggingface_hub and datasets ask for files, and every fault of one."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

COMMIT = "c" * 40
OLD_COMMIT = "d" * 40


class Hub(http.server.ThreadingHTTPServer):
    """Datasets by id: revision to the files of that commit."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.datasets: dict[str, dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()
        self.bytes_sent = 0
        self.tokens: set[str | None] = set()

    def put(self, name: str, files: dict[str, bytes], *, revision: str = COMMIT) -> None:
        self.datasets.setdefault(name, {})[revision] = files

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.tokens.add(self.headers.get("authorization"))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "datasets"] and len(parts) >= 4:
            self._about("/".join(parts[2:4]), parts[4:])
        elif parts[0] == "datasets" and len(parts) > 5 and parts[3] == "resolve":
            self._file("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
        else:
            self._json({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _files(self, name: str, revision: str) -> dict[str, bytes] | None:
        kept = self.server.datasets.get(name)
        if kept is None:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return None
        commit = {"main": COMMIT, "v1": OLD_COMMIT}.get(revision, revision)
        if commit not in kept:
            self._json({"error": "Invalid rev"}, 404, {"X-Error-Code": "RevisionNotFound"})
            return None
        return kept[commit]

    def _about(self, name: str, rest: list[str]) -> None:
        revision = rest[1] if len(rest) > 1 else "main"
        files = self._files(name, revision)
        if files is None:
            return
        if rest[:1] == ["tree"]:
            folder = "/".join(rest[2:])
            if folder and not any(file.startswith(f"{folder}/") for file in files):
                self._json({"error": "no entry"}, 404, {"X-Error-Code": "EntryNotFound"})
                return
            self._json(_tree(files, folder, recursive="recursive=true" in self.path.lower()))
            return
        commit = {"main": COMMIT, "v1": OLD_COMMIT}.get(revision, revision)
        siblings = [{"rfilename": file} for file in files]
        self._json({"id": name, "sha": commit, "private": False, "tags": [], "siblings": siblings})

    def _file(self, name: str, revision: str, file: str) -> None:
        files = self._files(name, revision)
        if files is None:
            return
        if name in self.server.gated:
            self._json({"error": "gated"}, 403, {"X-Error-Code": "GatedRepo"})
            return
        if file not in files:
            told = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": revision}
            self._json({"error": "Entry not found"}, 404, told)
            return
        data, headers, status = files[file], {"Accept-Ranges": "bytes"}, 200
        headers |= {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": revision}
        asked = self.headers.get("range")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(data)) + 1, len(data))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            data, status = data[start:stop], 206
        self._send(data, status, headers)

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        told = {"Content-Type": "application/json", **(headers or {})}
        self._send(json.dumps(value).encode(), status, told)

    def _send(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):  # the asker has read enough
                self.wfile.write(data)
                self.server.bytes_sent += len(data)


def _tree(files: dict[str, bytes], folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file, data in files.items():
        if folder and not file.startswith(f"{folder}/"):
            continue
        rest = file[len(folder) + 1 :] if folder else file
        parents = rest.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            path = "/".join([*([folder] if folder else []), *parents[:depth]])
            if recursive or depth == 1:
                found[path] = {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        if recursive or not parents:
            oid = hashlib.sha1(data).hexdigest()
            found[file] = {"type": "file", "path": file, "oid": oid, "size": len(data)}
    return list(found.values())
