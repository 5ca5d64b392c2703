"""A job service in this process, for tests of its clients: it keeps the wire, trains nothing, and fails on demand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KEY = "hone-test-key"
BASE = "tiny-base"

Body = dict[str, Any]


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


@dataclass
class State:
    """What the service keeps. Jobs move by `step_seconds`, a step at a time."""

    step_seconds: float = 0.0
    files: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, Body] = field(default_factory=dict)
    uploads: dict[str, Body] = field(default_factory=dict)
    parts: dict[str, bytes] = field(default_factory=dict)
    models: dict[tuple[str, str], Body] = field(default_factory=dict)
    jobs: dict[str, Body] = field(default_factory=dict)
    events: dict[str, list[Body]] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    faults: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, pattern, what): the next request that fits is met by `drop`, `drop-after` or a status."""
    error: Body | None = None
    """What the next job fails with."""
    holds: threading.Event = field(default_factory=threading.Event)
    """Cleared, jobs stay where they are."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def say(self, job: str, message: str, *, kind: str = "message", level: str = "info", data: Body | None = None) -> None:  # fmt: skip
        event = {
            "id": f"ftevent-{uuid.uuid4().hex}", "object": "fine_tuning.job.event", "created_at": int(time.time()),
            "level": level, "type": kind, "message": message, "data": data,
        }  # fmt: skip
        with self.lock:
            self.events.setdefault(job, []).append(event)


class FakeService:
    """The service, with an address of its own."""

    def __init__(self) -> None:
        self.state = State()
        self.state.holds.set()
        state = self.state

        class Bound(_Door):
            pass

        Bound.state = state
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self.state.holds.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextlib.contextmanager
def fake_service() -> Iterator[FakeService]:
    service = FakeService()
    try:
        yield service
    finally:
        service.close()


class _Door(BaseHTTPRequestHandler):
    state: State
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._meet("GET")

    def do_POST(self) -> None:
        self._meet("POST")

    def do_DELETE(self) -> None:
        self._meet("DELETE")

    def _meet(self, method: str) -> None:
        path = urlsplit(self.path).path.removeprefix("/v1")
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self._fault(method, path)
        with self.state.lock:
            self.state.asked.append((method, unquote(path)))
        if fault == "drop":
            return self._drop()
        try:
            if fault and fault.isdigit():
                raise Refusal(int(fault), "something broke", code="made_up")
            if self.headers.get("Authorization") != f"Bearer {KEY}":
                raise Refusal(401, "no such key", code="invalid_api_key")
            told = self._answer(method, path, raw)
        except Refusal as error:
            about = {"message": error.message, "type": "invalid_request_error", "param": error.param, "code": error.code}  # fmt: skip
            return self._send(error.status, json.dumps({"error": about}).encode())
        if fault == "drop-after":
            return self._drop()
        return self._send(200, told if isinstance(told, bytes) else json.dumps(told).encode())

    def _fault(self, method: str, path: str) -> str | None:
        with self.state.lock:
            for one in self.state.faults:
                if one[0] == method and re.search(one[1], path):
                    self.state.faults.remove(one)
                    return one[2]
        return None

    def _drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("x-request-id", uuid.uuid4().hex)
        self.end_headers()
        self.wfile.write(content)

    def _answer(self, method: str, path: str, raw: bytes) -> Any:
        query = {key: values[-1] for key, values in parse_qs(urlsplit(self.path).query).items()}
        is_form = self.headers.get("Content-Type", "").startswith("multipart/")
        body: Body = (
            _form(self.headers["Content-Type"], raw)
            if is_form
            else json.loads(raw)
            if raw.strip()
            else {}
        )
        words = [unquote(word) for word in path.strip("/").split("/")]
        return answer(self.state, method, words, body, query)


def _form(kind: str, raw: bytes) -> Body:
    message = message_from_bytes(
        b"Content-Type: " + kind.encode() + b"\r\n\r\n" + raw, policy=policy.HTTP
    )
    found: Body = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        filename = part.get_filename()
        found[str(name)] = content if filename else content.decode()
        if filename:
            found["filename"] = filename
    return found


def answer(state: State, method: str, words: list[str], body: Body, query: dict[str, str]) -> Any:
    """What the wire says."""
    match [method, *words]:
        case ["POST", "files"]:
            return _keep(state, body["file"], body["filename"], body)
        case ["GET", "files", file, "content"]:
            return state.files[_known(state.files, file)]
        case ["DELETE", "files", file]:
            del state.files[_known(state.files, file)]
            return {"id": file, "object": "file", "deleted": True}
        case ["POST", "uploads"]:
            name = f"upload_{uuid.uuid4().hex}"
            state.uploads[name] = body
            return {"id": name, "object": "upload", "status": "pending"}
        case ["POST", "uploads", upload, "parts"]:
            name = f"part_{uuid.uuid4().hex}"
            state.parts[name] = body["data"]
            return {"id": name, "object": "upload.part", "upload_id": upload}
        case ["POST", "uploads", upload, "complete"]:
            about = state.uploads[upload]
            content = b"".join(state.parts[name] for name in body["part_ids"])
            if len(content) != about["bytes"] or hashlib.md5(content).hexdigest() != body["md5"]:
                raise Refusal(400, "the parts are not the file", "part_ids")
            file = _keep(state, content, about["filename"], about)
            return {"id": upload, "object": "upload", "status": "completed", "file": file}
        case ["POST", "x_hone", "models"]:
            return _register(state, body)
        case ["GET", "x_hone", "models", project, name]:
            return state.models[_known(state.models, (project, name))]
        case ["DELETE", "x_hone", "models", project, name, "checkpoints"]:
            model = state.models[_known(state.models, (project, name))]
            state.bodies.append(body)
            return model
        case ["GET", "models"]:
            own = [
                f"{project}/{name}@{one['step']}" for (project, name), one in state.models.items()
            ]
            names = [BASE, f"ft:{BASE}:org::abcdefgh", *own]
            return {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}
        case ["POST", "fine_tuning", "jobs"]:
            return _create(state, body)
        case ["GET", "fine_tuning", "jobs"]:
            return _page(state, list(state.jobs.values()), query)
        case ["GET", "fine_tuning", "jobs", job]:
            return _shown(state.jobs[_known(state.jobs, job)])
        case ["GET", "fine_tuning", "jobs", job, "events"]:
            return _page(state, state.events[_known(state.jobs, job)], query)
        case ["GET", "fine_tuning", "jobs", job, "checkpoints"]:
            return {"object": "list", "data": [], "has_more": False}
        case ["POST", "fine_tuning", "jobs", job, ("cancel" | "pause" | "resume") as verb]:
            return _want(state, state.jobs[_known(state.jobs, job)], verb)
        case _:
            raise Refusal(404, f"nothing at {'/'.join(words)}", code="not_found")


def _known(table: dict[Any, Any], name: Any) -> Any:
    if name not in table:
        raise Refusal(404, f"No such object: {name}", code="not_found")
    return name


def _keep(state: State, content: bytes, filename: str, about: Body) -> Body:
    name = f"file-{uuid.uuid4().hex}"
    state.files[name] = content
    told = {"id": name, "object": "file", "bytes": len(content), "filename": filename, "purpose": about["purpose"],
            "created_at": int(time.time()), "status": "processed"}  # fmt: skip
    state.names[name] = told | {"asked": about}
    return told


def _register(state: State, body: Body) -> Body:
    unknown = set(body) - {"project", "name", "base_model"}
    if unknown:
        raise Refusal(400, "unknown", sorted(unknown)[0])
    if body["base_model"] != BASE:
        raise Refusal(400, f"no base model {body['base_model']!r}: there is {BASE}", "base_model")
    place = (body["project"], body["name"])
    return state.models.setdefault(place, {
        "object": "x_hone.model", "project": place[0], "name": place[1], "base_model": BASE, "step": 0,
        "inference_name": f"{place[0]}/{place[1]}@0", "gradient_steps": 0,
    })  # fmt: skip


def _create(state: State, body: Body) -> Body:
    with state.lock:
        state.bodies.append(body)
        if body["training_file"] not in state.files:
            raise Refusal(400, "no such file", "training_file")
        call = (body.get("x_hone") or {}).get("trainable", {}).get("call")
        if call in state.calls:
            return _shown(state.jobs[state.calls[call]])
        job = f"ftjob-{uuid.uuid4().hex}"
        state.jobs[job] = {
            "id": job, "object": "fine_tuning.job", "created_at": int(time.time()), "finished_at": None, "error": None,
            "fine_tuned_model": None, "model": body["model"], "status": "queued", "trained_tokens": None,
            "training_file": body["training_file"], "validation_file": body.get("validation_file"), "result_files": [],
            "organization_id": "org", "seed": body.get("seed") or 0, "metadata": body.get("metadata"),
            "hyperparameters": {"n_epochs": 1, "batch_size": 2, "learning_rate_multiplier": 1.0},
        }  # fmt: skip
        state.events[job] = []
        if call is not None:
            state.calls[call] = job
        rows = state.files[body["training_file"]].count(b"\n")
        state.say(job, f"Created fine-tuning job: {job}")
    threading.Thread(target=_train, args=(state, job, body, rows), daemon=True).start()
    return _shown(state.jobs[job])


def _train(state: State, job: str, body: Body, rows: int) -> None:
    """A job's life: one step for each batch."""
    about, call = state.jobs[job], (body.get("x_hone") or {}).get("trainable")
    batch = call["batch_size"] if call else 2
    steps = -(-rows // batch)
    about["status"] = "running"
    state.say(job, "a row was dropped", level="warn")
    for step in range(1, steps + 1):
        state.holds.wait()
        time.sleep(state.step_seconds)
        if about["status"] == "cancelled":
            return
        data = {"step": step, "total_steps": steps, "train_loss": 1.0 / step, "learning_rate": 1e-4}
        state.say(
            job, f"Step {step}/{steps}: training loss={1.0 / step:.2f}", kind="metrics", data=data
        )
    with state.lock:
        if state.error is not None:
            about["error"], about["status"], state.error = state.error, "failed", None
            return
        if call:
            model = state.models[call["project"], call["name"]]
            model["step"] += 1
            model["inference_name"] = f"{call['project']}/{call['name']}@{model['step']}"
        about["fine_tuned_model"] = None if call else f"ft:{about['model']}:org::abcdefgh"
        state.say(job, "The job has successfully completed")
        about["finished_at"], about["status"] = int(time.time()), "succeeded"


def _want(state: State, job: Body, verb: str) -> Body:
    if job["status"] in ("succeeded", "failed", "cancelled"):
        raise Refusal(400, f"the job has {job['status']}", code="wrong_state")
    job["status"] = {"cancel": "cancelled", "pause": "paused", "resume": "queued"}[verb]
    return _shown(job)


def _shown(job: Body) -> Body:
    return dict(job)


def _page(state: State, items: list[Body], query: dict[str, str]) -> Body:
    with state.lock:
        newest = [dict(one) for one in reversed(items)]
    for key, value in query.items():
        if found := re.fullmatch(r"metadata\[(.+)\]", key):
            newest = [one for one in newest if (one.get("metadata") or {}).get(found[1]) == value]
    if after := query.get("after"):
        ids = [one["id"] for one in newest]
        if after not in ids:
            raise Refusal(400, "no such item", "after")
        newest = newest[ids.index(after) + 1 :]
    limit = int(query.get("limit") or 20)
    return {"object": "list", "data": newest[:limit], "has_more": len(newest) > limit}


Start = Callable[[], FakeService]
