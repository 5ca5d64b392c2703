"""Uploads in parts, expiry, webhooks: what the official client does with them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest

from hone.service.hooks import Hooks, hook_secret
from hone.service.retention import let_go
from hone.service.store import Store
from tests.service.jobs import BOB, queued, store_of
from tests.service.served import Served, rows, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as one:
        yield one


def test_a_file_in_parts(served: Served) -> None:
    client, data = served.client(), rows(400)
    done = client.uploads.upload_file_chunked(
        file=data, filename="big.jsonl", bytes=len(data), mime_type="application/jsonl", purpose="fine-tune",
        part_size=4096,
    )  # fmt: skip
    assert done.status == "completed"
    assert done.file is not None
    assert client.files.content(done.file.id).read() == data
    assert client.uploads.complete(done.id, part_ids=["x"]).file == done.file  # asked again
    assert not (served.store.root / "uploads" / done.id).exists()


def test_parts_that_are_not_the_file(served: Served) -> None:
    client = served.client()
    made = client.uploads.create(
        bytes=10, filename="a.jsonl", mime_type="text/plain", purpose="fine-tune"
    )
    part = client.uploads.parts.create(made.id, data=b"12345")
    with pytest.raises(
        openai.BadRequestError, match="5 bytes together; the upload was begun for 10"
    ):
        client.uploads.complete(made.id, part_ids=[part.id])
    with pytest.raises(openai.APIStatusError, match="larger than"):
        client.uploads.parts.create(made.id, data=b"x" * 11)
    with pytest.raises(openai.BadRequestError, match="begun for 10"):
        client.uploads.parts.create(made.id, data=b"x" * 6)
    last = client.uploads.parts.create(made.id, data=b"67890")
    with pytest.raises(openai.BadRequestError, match="twice"):
        client.uploads.complete(made.id, part_ids=[part.id, part.id])
    with pytest.raises(openai.BadRequestError) as caught:
        client.uploads.complete(made.id, part_ids=[last.id, part.id], md5="0" * 32)
    assert caught.value.param == "md5"
    assert client.uploads.cancel(made.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="is cancelled"):
        client.uploads.parts.create(made.id, data=b"1")
    assert list((served.store.root / "files").glob("*")) == []


def test_what_expires_goes_unless_a_job_needs_it(served: Served) -> None:
    client = served.client()
    expires: Any = {"anchor": "created_at", "seconds": 3600}
    kept, gone = (
        client.files.create(file=("a.jsonl", rows()), purpose="fine-tune", expires_after=expires)
        for _ in range(2)
    )
    assert kept.expires_at == kept.created_at + 3600
    client.fine_tuning.jobs.create(model="tiny", training_file=kept.id)
    served.store.now = lambda: kept.created_at + 4000
    let_go(served.service.desk)
    assert [one.id for one in client.files.list()] == [kept.id]
    assert not served.service.desk.vault.path(gone.id).exists()
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("a.jsonl", rows()), purpose="fine-tune",
                            expires_after={"anchor": "created_at", "seconds": 5})  # fmt: skip
    assert caught.value.param == "expires_after.seconds"


class Listener(BaseHTTPRequestHandler):
    """Hears webhooks; the first is refused."""

    heard: list[tuple[dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.heard.append((dict(self.headers), body))
        self.send_response(500 if len(self.heard) == 1 else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_webhooks_are_signed_and_sent_until_they_arrive(tmp_path: Path) -> None:
    class Here(Listener):
        heard: list[tuple[dict[str, str], bytes]] = []  # noqa: RUF012 - of this class alone

    target = HTTPServer(("127.0.0.1", 0), Here)
    threading.Thread(target=target.serve_forever, daemon=True).start()
    store = store_of(tmp_path)
    job = queued(store)
    store.want(job.id, BOB, "cancel")
    secret = hook_secret(tmp_path, None)
    assert hook_secret(tmp_path, None) == secret
    hooks = Hooks(store, [f"http://127.0.0.1:{target.server_port}/hook"], secret)
    assert hooks.send() == 0
    assert hooks.send() == 0  # not due yet
    store.now = lambda: job.created + 3600
    assert hooks.send() == 1
    assert hooks.send() == 0
    target.shutdown()
    first, second = Here.heard
    headers, body = second
    client = openai.OpenAI(api_key="x", webhook_secret=secret)
    event = client.webhooks.unwrap(body, {key.lower(): value for key, value in headers.items()})
    assert (event.type, event.data.id) == ("fine_tuning.job.cancelled", job.id)
    assert first[0]["Webhook-Id"] == headers["Webhook-Id"]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body + b" ", {key.lower(): value for key, value in headers.items()})


def test_a_store_of_a_newer_hone_is_left_alone(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    with store.writing() as connection:
        connection.execute("PRAGMA user_version=99")
    store.close()
    with pytest.raises(Exception, match="newer than this Hone knows"):
        Store(tmp_path)
