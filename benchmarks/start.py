"""How long whole commands take, from typing to the prompt: `hone --help`, and `hone preview` of ten rows.

    python benchmarks/start.py [--repeats 15] [--json FILE]

Medians of wall seconds of processes of their own, bytecode and files warm. It knows nothing inside a command.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import machine
import models
import rows

_ROWS = 10


def main() -> None:
    """Time each command and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15, help="runs of each command")
    parser.add_argument("--json", type=Path, help="file for every figure of the run")
    asked = parser.parse_args()
    about = machine.describe()
    print(machine.in_words(about), "\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        timed = {
            name: _time(command, Path(folder), repeats=asked.repeats)
            for name, command in _commands(Path(folder)).items()
        }
    print("| command | median wall s | least | median CPU s |\n|---|---|---|---|")
    for name, found in timed.items():
        if "failed" in found:
            print(f"| {name} | failed: {found['failed']} | | |")
        else:
            print(
                f"| {name} | {found['median_wall_seconds']:.3f} | {found['least_wall_seconds']:.3f} "
                f"| {found['median_cpu_seconds']:.3f} |"
            )
    if asked.json is not None:
        results = {"machine": about, "commands": timed}
        asked.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _commands(folder: Path) -> dict[str, list[str]]:
    """By name; tokenizers without weights are models enough for a preview."""
    hone = [str(Path(sys.executable).parent / "hone")]
    small = folder / "model"
    made = rows.made_up(2000)
    models.make_tokenizer(small, rows.texts(made))
    rows.write_rows(folder / "made-up.jsonl", made[:_ROWS])
    preview = [*hone, "preview", str(folder / "made-up.jsonl"), "--model"]
    commands = {
        "hone --help": [*hone, "--help"],
        "hone preview, 10 rows, vocabulary 8,192": [*preview, str(small)],
    }
    shared = rows.shared_folder()
    if shared is not None:
        large = str(shared / "tokenizers" / "qwen2.5")
        airline = rows.read_rows(shared / "data" / "tau_airline.jsonl")[:_ROWS]
        rows.write_rows(folder / "airline.jsonl", airline)
        whole = [*hone, "preview", str(folder / "airline.jsonl"), "--model", large]
        commands["hone preview, 10 rows, Qwen2.5's tokenizer"] = [*preview, large]
        commands["hone preview, 10 rows of tau_airline, Qwen2.5's tokenizer"] = whole
    return commands


def _time(command: list[str], folder: Path, *, repeats: int) -> dict[str, Any]:
    environment = {**os.environ, "HONE_CACHE": str(folder / "cache"), "NO_COLOR": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's second start finds bytecode
    walls: list[float] = []
    cpus: list[float] = []
    for _ in range(repeats + 1):
        before, start = _children_cpu(), time.perf_counter()
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
        walls.append(time.perf_counter() - start)
        cpus.append(_children_cpu() - before)
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            return {"failed": f"exit {done.returncode}: {said[0][:200] if said else ''}"}
    walls, cpus = walls[1:], cpus[1:]  # the first run warms up
    return {
        "median_wall_seconds": median(walls),
        "least_wall_seconds": min(walls),
        "median_cpu_seconds": median(cpus),
        "wall_seconds": walls,
    }


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
