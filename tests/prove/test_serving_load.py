"""64 clients at once for a while: every reply is the one that its prompt gets alone, some go early, nothing stays."""

from __future__ import annotations

import gc
import http.client
import json
import os
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hone.infer.batch import Bounds
from hone.infer.served import Served
from hone.infer.shelf import Shelf
from hone.serving.server import Address, Server
from tests.folders import model_folder
from tests.infer.test_shelf import adapter

SECONDS = float(os.environ.get("SERVING_SECONDS", "180"))
CLIENTS = 64


def ask(port: int, model: str, text: str, tokens: int, *, leave: bool = False) -> str | None:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    told = json.dumps({**body, "temperature": 0, "stream": True})
    connection.request("POST", "/v1/chat/completions", told, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read(300)
    text = ""
    for place, line in enumerate(answer):
        if line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            assert "error" not in chunk, chunk
            text += chunk["choices"][0]["delta"].get("content") or ""
        if leave and place > 6:
            connection.close()
            return None
    connection.close()
    return text


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_clients_get_right_answers_and_leave_nothing(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base")
    served = [Served("base", str(base))]
    served += [Served(f"a{i}", str(adapter(base, tmp_path / f"a{i}", i))) for i in range(3)]
    shelf = Shelf(served, Bounds(rows=32, waiting=256))
    server = Server(shelf, Address(port=0))
    server.start()
    words = ["red", "green", "blue", "one", "two", "three", "cat", "dog", "bird"]
    rng = random.Random(0)
    cases = [
        (
            rng.choice(shelf.names()),
            " ".join(rng.choices(words, k=rng.randrange(1, 30))),
            rng.randrange(4, 60),
        )
        for _ in range(60)
    ]
    want = {case: ask(server.port, *case) for case in cases}
    wrong: list[Any] = []
    done = 0
    marks: list[int] = []
    end = time.monotonic() + SECONDS

    def client(number: int) -> None:
        nonlocal done
        chosen = random.Random(number)
        while time.monotonic() < end:
            case = chosen.choice(cases)
            leave = chosen.random() < 0.1
            try:
                got = ask(server.port, *case, leave=leave)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                wrong.append(repr(error))
                return
            if not leave and got != want[case]:
                wrong.append((case, got, want[case]))
            done += 1

    threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(SECONDS / 10)
        marks.append(resident_bytes())
    for thread in threads:
        thread.join()
    (weights,) = shelf._bases.values()
    until = time.monotonic() + 30
    while weights.batch.busy and time.monotonic() < until:
        time.sleep(0.1)
    print(f"{done} replies, memory {[mark >> 20 for mark in marks]} MB")
    assert not wrong, wrong[:3]
    assert done > CLIENTS
    assert weights.batch.busy == 0
    server.stop()
    gc.collect()
    assert max(marks[-3:]) < marks[2] * 1.1 + 20 * 2**20
    assert not [t.name for t in threading.enumerate() if t.name.startswith("hone-base")]


NODE = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const ask = { model: "m", messages: [{ role: "user", content: "the red cat" }], max_tokens: 8, temperature: 0 };
const whole = await client.chat.completions.create({ ...ask, logprobs: true, top_logprobs: 2 });
let text = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? "";
}
let fault = null;
try { await client.chat.completions.create({ ...ask, temperature: 9 }); }
catch (error) { fault = { status: error.status, param: error.param, kind: error.constructor.name }; }
const models = (await client.models.list()).data.map((model) => model.id);
console.log(JSON.stringify({ whole: whole.choices[0].message.content, text, fault, models,
  chances: whole.choices[0].logprobs.content.length }));
"""


@pytest.mark.slow
def test_the_client_for_node_reads_what_the_one_for_python_reads(tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not here")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    got = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "openai"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    if got.returncode:
        pytest.skip(f"npm has no openai package for us: {got.stderr[-200:]!r}")
    (tmp_path / "ask.mjs").write_text(NODE)
    server = Server(Shelf([Served("m", str(model_folder(tmp_path / "m")))]), Address(port=0))
    server.start()
    try:
        ran = subprocess.run(
            [node, "ask.mjs", server.base_url], cwd=tmp_path, capture_output=True, check=False
        )
        want = ask(server.port, "m", "the red cat", 8)
    finally:
        server.stop()
    assert ran.returncode == 0, ran.stderr.decode()
    told = json.loads(ran.stdout)
    assert told["whole"] == told["text"] == want
    assert told["chances"] == 8
    assert told["models"] == ["m"]
    assert told["fault"] == {"status": 400, "param": "temperature", "kind": "BadRequestError"}
