"""Serving speed: tokens/s of one client and of many at `hone serve`, and at `transformers serve` in the same run.

    python benchmarks/serving.py [--size 5m] [--clients 64] [--seconds 60] [--json FILE]

Both serve the same random weights on this machine, one after the other, and are asked by the same threads over HTTP,
streamed, with prompts of the same lengths. It knows no server's inside.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import machine
import models

WORDS = [
    "what",
    "is",
    "the",
    "sum",
    "of",
    "two",
    "numbers",
    "when",
    "one",
    "of",
    "them",
    "is",
    "larger",
    "than",
    "the",
    "other",
    "by",
]
REPLY_TOKENS = 64
START_S = 300


def main() -> None:
    """Measure both servers and print a table."""
    asked = _arguments()
    results: dict[str, Any] = {"machine": machine.describe(), "size": asked.size, "servers": {}}
    print(machine.in_words(results["machine"]), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        folder = Path(made) / "model"
        models.make_tokenizer(folder, [" ".join(WORDS)] * 4)
        models.make_weights(folder, asked.size, positions=1024)
        servers = ["hone"]
        if importlib.util.find_spec("fastapi") is not None:
            servers.append("transformers")
        else:
            print("transformers serve is left out: pip install 'transformers[serving]'", flush=True)
        for name in servers:
            results["servers"][name] = _measured(name, folder, asked)
            _keep(asked.json, results)
    print(_table(results["servers"], asked.clients))


def _measured(name: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    port = _free_port()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = {
        "hone": [sys.executable, "-m", "hone", "serve", f"m={folder}", "--port", str(port)],
        "transformers": [
            str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--port", str(port),
        ],
    }[name]  # fmt: skip
    model = {"hone": "m", "transformers": str(folder)}[name]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait(port, process)
        _ask(port, model, 0)  # whatever is made at the first request
        one = _run(port, model, clients=1, seconds=asked.seconds / 2)
        many = _run(port, model, clients=asked.clients, seconds=asked.seconds)
        memory = _resident_bytes(process.pid)
    finally:
        process.terminate()
        process.wait()
    return {"one": one, "many": many, "resident_bytes": memory}


def _run(port: int, model: str, *, clients: int, seconds: float) -> dict[str, Any]:
    """Clients that ask again as soon as they are answered."""
    end = time.monotonic() + seconds
    replies: list[tuple[int, float, float]] = []
    failures: list[str] = []

    def client(number: int) -> None:
        turn = 0
        while time.monotonic() < end:
            try:
                replies.append(_ask(port, model, number * 1000 + turn))
            except (OSError, ValueError, http.client.HTTPException) as error:
                failures.append(repr(error))
            turn += 1

    began = time.monotonic()
    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    tokens = sum(reply[0] for reply in replies)
    return {
        "clients": clients,
        "replies": len(replies),
        "failures": len(failures),
        "first_failure": failures[0] if failures else None,
        "tokens_per_s": tokens / took,
        # None where a server's chunks hold no text that could be timed.
        "first_token_s": median(firsts) if (firsts := [r[1] for r in replies if r[1]]) else None,
        "reply_s": median(reply[2] for reply in replies) if replies else None,
    }


def _milliseconds(seconds: float | None) -> str:
    return "not told" if seconds is None else f"{1000 * seconds:.0f} ms"


def _ask(port: int, model: str, seed: int) -> tuple[int, float, float]:
    """Tokens of one reply, the time to its first, and to its last."""
    chosen = random.Random(seed)
    text = " ".join(chosen.choices(WORDS, k=24))
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": REPLY_TOKENS,
        "temperature": 1.0,  # greedily random weights write one token over and over, which may have no text
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    if answer.status != 200:
        raise ValueError(f"status {answer.status}: {answer.read(300)!r}")
    first, pieces, told = 0.0, 0, None
    for line in answer:
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        told = (chunk.get("usage") or {}).get("completion_tokens", told)
        if any(choice["delta"].get("content") for choice in chunk["choices"]):
            pieces += 1
            first = first or time.monotonic() - began
    connection.close()
    return told or pieces, first, time.monotonic() - began


def _table(servers: dict[str, Any], clients: int) -> str:
    lines = [
        f"{'server':14} {'1 client':>10} {f'{clients} clients':>12} {'ratio':>6} {'first token':>12}  failed"
    ]
    for name, found in servers.items():
        one, many = found["one"], found["many"]
        ratio = many["tokens_per_s"] / one["tokens_per_s"] if one["tokens_per_s"] else 0.0
        lines.append(
            f"{name:14} {one['tokens_per_s']:8.0f}/s {many['tokens_per_s']:10.0f}/s {ratio:6.1f} "
            f"{_milliseconds(one['first_token_s']):>12}  {one['failures'] + many['failures']}"
        )
    return "\n".join(lines)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
        finally:
            connection.close()
    raise SystemExit("the server did not start; run its command by hand to see why")


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _keep(path: Path | None, results: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="5m", choices=sorted(models.SIZES))
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
