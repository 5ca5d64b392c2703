"""Who may ask, for what, and how much: what strangers try against a service."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest

from hone.errors import ConfigError, EnvironmentFault, LockedError
from hone.service.operator import Operator
from hone.service.server import Service
from hone.serving.server import Address
from tests.service.served import Served, rows, serving, work


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("service")) as one:
        yield one


def ask(served: Served, method: str, path: str, **more: object) -> httpx2.Response:
    headers = {"authorization": f"Bearer {served.key}", **more.pop("headers", {})}  # type: ignore[dict-item]
    return httpx2.request(method, served.service.url + path, headers=headers, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", "Basic x", "Bearer \xff"])
def test_a_key_is_needed(served: Served, given: str | None) -> None:
    headers = {} if given is None else {"authorization": given.encode("latin-1")}
    for path in ("/v1/models", "/v1/files", "/v1/fine_tuning/jobs", "/v1/nothing"):
        answer = httpx2.get(served.service.url + path, headers=headers)
        assert answer.status_code == (404 if path == "/v1/nothing" else 401)
        assert answer.json()["error"]["code"] in ("invalid_api_key", "unknown_url")
    assert httpx2.get(served.service.url + "/health").json() == {"status": "ok"}


def test_keys_are_kept_as_digests_and_end(served: Served) -> None:
    made, text = served.store.create_key("ann")
    with served.store.writing() as connection:
        connection.execute("PRAGMA user_version")
    root = served.store.root
    for path in root.rglob("*"):
        if path.is_file():
            assert text.encode() not in path.read_bytes(), path
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    client = served.client(text)
    assert client.models.list().data[0].id == "tiny"
    assert served.store.revoke_key(made.id)
    with pytest.raises(openai.AuthenticationError):
        client.models.list()
    actions = [one["action"] for one in served.store.audit()]
    assert {"key.created", "key.revoked"} <= set(actions)


def test_others_things_are_not_there(served: Served) -> None:
    client = served.client()
    job = client.fine_tuning.jobs.create(model="tiny", training_file=served.uploaded())
    while client.fine_tuning.jobs.retrieve(job.id).status != "queued":
        time.sleep(0.02)
    name = work(served.store).tuned_name
    eve = served.client(served.store.create_key("eve")[1])
    asked = [
        lambda: eve.files.retrieve(job.training_file),
        lambda: eve.files.content(job.training_file),
        lambda: eve.files.delete(job.training_file),
        lambda: eve.fine_tuning.jobs.retrieve(job.id),
        lambda: eve.fine_tuning.jobs.cancel(job.id),
        lambda: eve.fine_tuning.jobs.list_events(job.id),
        lambda: eve.fine_tuning.jobs.checkpoints.list(job.id),
        lambda: eve.models.retrieve(name),
        lambda: eve.models.delete(name),
        lambda: eve.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "x"}]
        ),
        lambda: eve.files.list(after=job.training_file),
    ]
    for one in asked:
        with pytest.raises(openai.NotFoundError):
            one()
    for training_file, model in ((job.training_file, "tiny"), ("file-x", name)):
        with pytest.raises(openai.BadRequestError):
            eve.fine_tuning.jobs.create(model=model, training_file=training_file)
    checkpoint = f"{name}:ckpt-step-3"
    with pytest.raises(openai.PermissionDeniedError):
        eve.fine_tuning.checkpoints.permissions.create(checkpoint, project_ids=["eve"])
    client.fine_tuning.checkpoints.permissions.create(checkpoint, project_ids=["eve"])
    assert eve.models.retrieve(checkpoint).owned_by == "bob"
    (given,) = client.fine_tuning.checkpoints.permissions.list(checkpoint).data
    client.fine_tuning.checkpoints.permissions.delete(
        given.id, fine_tuned_model_checkpoint=checkpoint
    )
    with pytest.raises(openai.NotFoundError):
        eve.models.retrieve(checkpoint)


@pytest.mark.parametrize(
    "name",
    ["..%2F..%2Fservice.db", "../secret", "%2e%2e%2fsecret", "..\\secret", "C:%5Csecret", "file-%00", "/etc/passwd",
     "x" * 5000, "file-" + "0" * 31, "file-" + "G" * 32, ".", "..;/", "file-..%2f" + "a" * 32, "‮"],
)  # fmt: skip
def test_no_id_is_a_path(served: Served, name: str) -> None:
    for path in (f"/v1/files/{name}", f"/v1/files/{name}/content", f"/v1/uploads/{name}/cancel",
                 f"/v1/fine_tuning/jobs/{name}", f"/v1/fine_tuning/jobs/{name}/events"):  # fmt: skip
        method = "POST" if "uploads" in path else "GET"
        with socket.create_connection(("127.0.0.1", served.service.port)) as raw:
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {served.key}\r\n"
            raw.sendall((head + "Content-Length: 0\r\nConnection: close\r\n\r\n").encode())
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        status = int(answer.split(b" ", 2)[1])
        assert status in (400, 403, 404, 405), answer[:200]
        assert b"SQLite" not in answer
        assert b"root:" not in answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "localhost:1"}, 200),
    ],
)
def test_a_page_elsewhere_cannot_ask(served: Served, headers: dict[str, str], status: int) -> None:
    answer = ask(served, "GET", "/v1/models", headers=headers)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"", "found none"),
        (b"[]", "object"),
        (b"{", "no JSON"),
        (b'{"model": NaN}', "no JSON"),
        (b'{"model": "a", "model": "b"}', "model"),
        (b"[" * 100_000, "no JSON"),
        (b'{"seed": 1e999}', "no JSON"),
        (b'{"model": "\xff"}', "no JSON"),
    ],
)
def test_bodies_are_strict(served: Served, body: bytes, match: str) -> None:
    headers = {"content-type": "application/json"}
    answer = ask(served, "POST", "/v1/fine_tuning/jobs", content=body, headers=headers)
    assert answer.status_code == 400
    assert match in answer.json()["error"]["message"]
    assert "NaN" not in answer.text or match == "no JSON"


def test_a_form_of_text_is_no_body(served: Served) -> None:
    """What a page elsewhere may send without asking the service first."""
    answer = ask(
        served,
        "POST",
        "/v1/fine_tuning/jobs",
        content=b"{}",
        headers={"content-type": "text/plain"},
    )
    assert answer.status_code == 400


def _form(parts: list[bytes], end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


FILE = b'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{}'
PURPOSE = b'Content-Disposition: form-data; name="purpose"\r\n\r\nfine-tune'


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not a form",
        _form([FILE]),
        _form([PURPOSE]),
        _form([PURPOSE, FILE], end=b""),
        _form([PURPOSE, FILE, FILE]),
        _form([PURPOSE, PURPOSE, FILE]),
        _form([PURPOSE, FILE.replace(b"file", b"other")]),
        _form([PURPOSE, b'Content-Disposition: form-data; name="file"\r\n\r\n{}']),
        _form([PURPOSE, FILE.replace(b"{}", b"")]),
        _form([PURPOSE.replace(b"fine-tune", b"fine_tune"), FILE]),
        _form([b'Content-Disposition: form-data; name="f%d"\r\n\r\nx' % n for n in range(10_000)]),
        _form([b"X-%d: y\r\n" % n * 2000 + FILE for n in range(2)]),
        _form([b'Content-Disposition: form-data; name="purpose"\r\n\r\n' + b"x" * 100_000, FILE]),
        _form([PURPOSE, b'Content-Disposition: form-data; name="extra"\r\n\r\n1', FILE]),
        b"x" * 200_000 + _form([PURPOSE, FILE]),
    ],
    ids=range(16),
)  # fmt: skip
def test_a_form_that_is_none_leaves_nothing(served: Served, body: bytes) -> None:
    before = sorted((served.store.root / "files").glob("*"))
    known = served.store.totals()["files"]
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = ask(served, "POST", "/v1/files", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert sorted((served.store.root / "files").glob("*")) == before
    assert served.store.totals()["files"] == known


@pytest.mark.parametrize("length", [None, 5_000_000])
def test_an_upload_that_breaks_off_leaves_nothing(served: Served, length: int | None) -> None:
    before = sorted((served.store.root / "files").glob("*"))
    raw = socket.create_connection(("127.0.0.1", served.service.port))
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {served.key}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\n{framing}\r\n\r\n"
    )
    data = _form([PURPOSE, FILE + rows(2000)], end=b"")
    raw.sendall(
        head.encode() + (b"%x\r\n" % len(data) + data + b"\r\n" if length is None else data)
    )
    time.sleep(0.3)
    raw.close()
    end = time.monotonic() + 10
    while sorted((served.store.root / "files").glob("*")) != before:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_file_beyond_the_quota_is_refused(served: Served) -> None:
    key = served.store.create_key("small", quotas={"file_bytes": 1000, "files": 1, "jobs": 1})[1]
    client = served.client(key)
    with pytest.raises(openai.APIStatusError) as caught:
        client.files.create(file=("a.jsonl", rows(500)), purpose="fine-tune")
    assert (caught.value.status_code, caught.value.code) == (413, "file_too_large")
    kept = client.files.create(file=("a.jsonl", rows(8)), purpose="fine-tune")
    with pytest.raises(openai.PermissionDeniedError, match="as many as this key may"):
        client.files.create(file=("a.jsonl", rows(8)), purpose="fine-tune")
    client.fine_tuning.jobs.create(model="tiny", training_file=kept.id)
    with pytest.raises(openai.PermissionDeniedError, match="have not ended") as denied:
        client.fine_tuning.jobs.create(model="tiny", training_file=kept.id, seed=1)
    assert denied.value.code == "quota_exceeded"
    with pytest.raises(openai.BadRequestError, match="is used by"):
        client.files.delete(kept.id)


def test_odd_files_are_told_apart(served: Served) -> None:
    for data in (
        b"\x80\x04\x95pickle",
        b"PK\x03\x04zip",
        b"\x1f\x8bgzip",
        b"PAR1....",
        b"\xff\xfe{\x00}\x00",
        b"\n\n",
    ):
        file = served.client().files.create(file=("rows.jsonl", data), purpose="fine-tune")
        assert file.status == "error", data
        assert file.status_details


@pytest.mark.fault(39)
def test_two_servers_never_share_a_folder(served: Served) -> None:
    with pytest.raises(LockedError):
        Service(served.store.root, Operator(), Address(port=0))


@pytest.mark.fault(16)
def test_a_port_in_use_is_told(served: Served, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=f"port {served.service.port} is in use"):
        Service(tmp_path, Operator(), Address(port=served.service.port))


def test_an_open_door_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reached from other machines"):
        Service(tmp_path, Operator(), Address("0.0.0.0", 0))


def test_metrics_count(served: Served) -> None:
    told = httpx2.get(f"{served.service.url}/metrics").text
    assert "hone_jobs{" in told
    assert 'hone_requests_total{method="POST",status="200"}' in told
    assert os.environ.get("HOME", "/root") not in told
