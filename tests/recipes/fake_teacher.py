"""A teacher played by a server of our own: each request is answered by the next line of a script.

It counts what it was asked and what it would have charged, so that a test can say that nothing was asked twice.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Play = Callable[["Call"], None]


class Call:
    """One request, and the means to answer it well or badly."""

    def __init__(self, web: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        self.web = web
        self.body = body
        self.key = web.headers.get("Authorization", "").removeprefix("Bearer ")

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][-1]["content"])

    def send(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, claim: int = 0
    ) -> None:
        """`claim`: bytes more than are sent, so that the answer is half."""
        self.web.send_response(status)
        self.web.send_header("Content-Type", "application/json")
        self.web.send_header("Content-Length", str(len(content) + claim))
        for name, value in (headers or {}).items():
            self.web.send_header(name, value)
        self.web.end_headers()
        self.web.wfile.write(content)
        if claim:
            self.web.close_connection = True

    def error(self, status: int, message: str = "no", code: str = "", **headers: str) -> None:
        told = {"error": {"message": message, "code": code}}
        self.send(
            status,
            json.dumps(told).encode(),
            {name.replace("_", "-"): value for name, value in headers.items()},
        )

    def answer(
        self,
        content: Any = None,
        *,
        finish: str = "stop",
        model: str | None = None,
        tokens: tuple[int, int] | None = (10, 5),
        claim: int = 0,
        **message: Any,
    ) -> None:
        said = {"role": "assistant", "content": content, **message}
        told: dict[str, Any] = {
            "id": "1",
            "object": "chat.completion",
            "model": model or self.body["model"],
            "choices": [{"index": 0, "message": said, "finish_reason": finish}],
        }
        if tokens is not None:
            told["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
        self.send(200, json.dumps(told).encode(), claim=claim)


def well(call: Call) -> None:
    """The answer of a teacher that has no trouble."""
    call.answer(f"re: {call.prompt}")


class FakeTeacher:
    """Answers `well`, but for prompts that `plays` names: each of theirs in turn, then well again."""

    def __init__(self) -> None:
        self.plays: dict[str, list[Play]] = {}
        self.always: Play = well
        self.calls: list[Call] = []
        self.answered: list[str] = []
        self.busy = self.busiest = 0
        self.seconds = 0.0
        self._turn = threading.Lock()
        self.url = ""

    def asked(self, prompt: str) -> int:
        return sum(call.prompt == prompt for call in self.calls)

    def take(self, web: BaseHTTPRequestHandler) -> None:
        body = json.loads(web.rfile.read(int(web.headers["Content-Length"])))
        call = Call(web, body)
        with self._turn:
            self.calls.append(call)
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
            waiting = self.plays.get(call.prompt)
            play = waiting.pop(0) if waiting else self.always
        try:
            time.sleep(self.seconds)
            play(call)
            with self._turn:
                self.answered.append(call.prompt)
        except (BrokenPipeError, ConnectionResetError):
            web.close_connection = True
        finally:
            with self._turn:
                self.busy -= 1


@contextmanager
def fake_teacher() -> Iterator[FakeTeacher]:
    teacher = FakeTeacher()

    class Web(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            teacher.take(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that was killed, or a connection that a play has cut."""

    server = Server(("127.0.0.1", 0), Web)
    server.daemon_threads = True
    server.block_on_close = False
    teacher.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield teacher
    finally:
        server.shutdown()
        server.server_close()
