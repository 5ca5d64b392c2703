"""The job service under load: how long a poll takes, what the server's memory does, and what it costs a training job.

    python benchmarks/service.py [--jobs 10000] [--clients 200] [--megabytes 512] [--seconds 60] [--json FILE]

A job trains on one core. `hone service` and its clients share another: so many clients poll every five seconds over
connections that stay open, a table of so many jobs behind them, while one uploads a file of so many megabytes. The
job's steps are timed without the load and with it. It knows the service by its HTTP and its command line only, but for
the jobs that fill the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import machine
import models
import rows as made_rows

from hone.service.names import JOB, new_id, tuned_name
from hone.service.store import Store
from hone.service.tables.database import insert

POLL_SECONDS = 5.0
START_SECONDS = 300.0


def main() -> None:
    """Measure, and print a table."""
    asked = _arguments()
    told: dict[str, Any] = {"machine": machine.describe(), "asked": vars(asked)}
    print(machine.in_words(told["machine"]), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-service-") as made:
        folder = Path(made)
        data = made_rows.made_up(400)
        models.make_tokenizer(folder / "model", made_rows.texts(data))
        models.make_weights(folder / "model", asked.size, positions=4096)
        made_rows.write_rows(folder / "rows.jsonl", data)
        told |= _measure(folder, asked)
    for name, value in told["found"].items():
        print(f"  {name:32} {value}")
    if asked.json:
        Path(asked.json).write_text(json.dumps(told, indent=1))


def _measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    root = folder / "service"
    store = Store(root)
    _, key = store.create_key("bench", max_running=9, quotas={"file_bytes": 2**40, "disk_bytes": 2**40})  # fmt: skip
    base = ["--root", str(root), "--model", f"bench={folder / 'model'}"]
    cores = sorted(os.sched_getaffinity(0))
    here, there = cores[0], cores[-1]
    server = _start(here, "hone", "service", *base, "--port", "0", "--no-worker", "--json")
    worker = None
    try:
        assert server.stdout is not None
        port = int(json.loads(server.stdout.readline())["port"])
        os.sched_setaffinity(0, {here})
        client = Client(port, key)
        job = asyncio.run(_create(client, folder / "rows.jsonl"))
        filler = _fill(store, asked.jobs)
        worker = _start(there, "hone.service.worker", *base, "--threads", "1", "--lifeline")
        events = root / "jobs" / job / "run" / "events.jsonl"
        _wait(lambda: len(_steps(events)) > 10)
        quiet = _speed(events, asked.seconds)
        watch = Memory(server.pid)
        watch.start()
        load = asyncio.run(_load(client, [job, *filler], asked))
        with_load = _speed_between(events, load["began"], load["ended"])
        watch.stop()
    finally:
        for process in (worker, server):
            if process is not None:
                assert process.stdin is not None
                process.stdin.close()
                process.terminate()
                process.wait(timeout=120)
    return {"found": _found(load, watch, quiet, with_load)}


def _found(load: dict[str, Any], watch: Memory, quiet: float, loaded: float) -> dict[str, Any]:
    times = sorted(load["times"])
    return {
        "polls": len(times),
        "polls that failed": load["failed"],
        "poll, median ms": round(1000 * median(times), 2),
        "poll, 99% below ms": round(1000 * times[int(0.99 * len(times))], 2),
        "poll, longest ms": round(1000 * times[-1], 2),
        "upload, MB/s": round(load["megabytes"] / load["upload_seconds"], 1),
        "server's memory before, MB": round(watch.seen[0] / 2**20, 1),
        "server's memory at most, MB": round(max(watch.seen) / 2**20, 1),
        "step without load, ms": round(1000 * quiet, 2),
        "step with load, ms": round(1000 * loaded, 2),
        "training loses": f"{100 * (loaded / quiet - 1):.1f}%",
    }


def _start(core: int, module: str, *words: str) -> subprocess.Popen[bytes]:
    command = ["taskset", "-c", str(core), sys.executable, "-m", module, *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _fill(store: Store, count: int) -> list[str]:
    """So many jobs that have ended; some of their ids."""
    made: list[str] = []
    with store.writing() as connection:
        for number in range(count):
            job = new_id(JOB)
            values = {
                "id": job, "owner": "bench", "model": "bench", "base": "bench", "status": "succeeded",
                "tuned_name": tuned_name("bench", "bench", f"n{number}"), "body": "{}", "config": "{}",
                "metadata": json.dumps({"n": str(number % 100)}), "hyperparameters": '{"n_epochs": 1}', "seed": 0,
                "training_file": "file-" + "0" * 32, "created": int(time.time()), "finished": int(time.time()),
            }  # fmt: skip
            insert(connection, "jobs", values)
            for step in range(3):
                event = {"id": new_id("ftevent-"), "job": job, "level": "info", "type": "message"}
                more = {"message": f"Step {step}/3", "mark": f"step:{step}", "created": 0}
                insert(connection, "events", {**event, **more})
            made.append(job)
    return random.Random(0).sample(made, min(200, count))


class Client:
    """Requests over one connection, as bytes: no library's own time is measured."""

    def __init__(self, port: int, key: str) -> None:
        self.port = port
        self._head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\n"

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, pipes: Any, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        """One request and its answer."""
        pipes[1].write(self.head(method, path, len(body), "application/json") + body)
        return await self.answer(pipes)

    def head(self, method: str, path: str, length: int, kind: str) -> bytes:
        """What stands before a body."""
        lines = f"{method} /v1{path} HTTP/1.1\r\n{self._head}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        return lines.encode()

    async def answer(self, pipes: Any) -> dict[str, Any]:
        """The JSON of an answer; raises where it is none with status 200."""
        head = await pipes[0].readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        body = await pipes[0].readexactly(int(fields[b"content-length"]))
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise RuntimeError(body[:300].decode())
        return json.loads(body)


async def _create(client: Client, path: Path) -> str:
    pipes = await client.open()
    file = await _upload(client, [path.read_bytes()], path.stat().st_size)
    own = {"train": {"max_steps": 1_000_000, "save_steps": 1_000_000, "precision": "fp32"}}
    body = {"model": "bench", "training_file": file, "x_hone": {"config": own}}
    job = await client.ask(pipes, "POST", "/fine_tuning/jobs", json.dumps(body).encode())
    pipes[1].close()
    return str(job["id"])


async def _upload(client: Client, blocks: Iterator[bytes] | list[bytes], size: int) -> str:
    pipes = await client.open()
    edge = "bench-edge"
    before = (
        f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    after = f"\r\n--{edge}--\r\n".encode()
    kind = f"multipart/form-data; boundary={edge}"
    pipes[1].write(client.head("POST", "/files", len(before) + size + len(after), kind) + before)
    for block in blocks:
        pipes[1].write(block)
        await pipes[1].drain()
    pipes[1].write(after)
    told = await client.answer(pipes)
    pipes[1].close()
    return str(told["id"])


async def _load(client: Client, jobs: list[str], asked: argparse.Namespace) -> dict[str, Any]:
    times: list[float] = []
    failed: list[str] = []
    end = time.monotonic() + asked.seconds

    async def poll(number: int) -> None:
        pipes = await client.open()
        rng = random.Random(number)
        await asyncio.sleep(rng.random() * POLL_SECONDS)
        while time.monotonic() < end:
            job = rng.choice(jobs)
            path = rng.choice(
                [f"/fine_tuning/jobs/{job}", f"/fine_tuning/jobs/{job}/events?limit=20", "/fine_tuning/jobs?limit=20"]
            )  # fmt: skip
            began = time.perf_counter()
            try:
                await client.ask(pipes, "GET", path)
                times.append(time.perf_counter() - began)
            except (OSError, RuntimeError, asyncio.IncompleteReadError) as error:
                failed.append(repr(error))
                pipes = await client.open()
            await asyncio.sleep(max(0.0, POLL_SECONDS - (time.perf_counter() - began)))

    line = b'{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "yes"}]}\n' % (b"x " * 500)  # fmt: skip
    block = line * (2**20 // len(line))
    count = asked.megabytes * 2**20 // len(block)
    began = time.time()
    polls = [asyncio.create_task(poll(number)) for number in range(asked.clients)]
    await asyncio.sleep(2 * POLL_SECONDS)
    sent = time.perf_counter()
    await _upload(client, (block for _ in range(count)), count * len(block))
    took = time.perf_counter() - sent
    await asyncio.gather(*polls)
    if failed:
        print("failed:", failed[0])
    return {
        "times": times, "failed": len(failed), "megabytes": count * len(block) / 2**20, "upload_seconds": took,
        "began": began, "ended": time.time(),
    }  # fmt: skip


class Memory(threading.Thread):
    """Looks at the memory of a process again and again."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{pid}/status")
        self._over = threading.Event()
        self.seen: list[int] = [self._now()]

    def run(self) -> None:
        """Until `stop`."""
        while not self._over.wait(0.1):
            self.seen.append(self._now())

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()

    def _now(self) -> int:
        line = next(x for x in self._status.read_text().splitlines() if x.startswith("VmRSS"))
        return int(line.split()[1]) * 1024


def _steps(events: Path) -> list[tuple[float, float]]:
    """(when, seconds) of each step that the run has told."""
    if not events.exists():
        return []
    told = (json.loads(line) for line in events.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))  # fmt: skip
    return [(one["time"], one["seconds"]) for one in told if one["event"] == "step"]


def _speed(events: Path, seconds: float) -> float:
    began = time.time()
    time.sleep(seconds)
    return _speed_between(events, began, time.time())


def _speed_between(events: Path, began: float, ended: float) -> float:
    """The mean seconds from one step to the next: what the machine took in between counts."""
    times = [at for at, _ in _steps(events) if began <= at <= ended]
    return (times[-1] - times[0]) / (len(times) - 1)


def _wait(ready: Any) -> None:
    until = time.monotonic() + START_SECONDS
    while not ready():
        if time.monotonic() > until:
            raise TimeoutError("the job does not train")
        time.sleep(0.2)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--size", default="5m", choices=sorted(models.SIZES))
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
