"""How long it takes to validate many rows: `hone validate`, and the script in a document that others use.

    python benchmarks/validate.py [--rows 1000000] [--repeats 3] [--json FILE]

Rows of 1.2 KB are made in a temporary folder, colons, quotes and line feeds among their text. Both commands judge the
same file in turns, each a process of its own, and must find it valid. The script is taken from
`reference/documents/art_train_sft_wizard.md` in HONE_SHARED or ../shared. It knows nothing inside of a command.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import machine
import rows

_DOCUMENT = Path("reference/documents/art_train_sft_wizard.md")
_ROW_BYTES = 1200
_WORDS = re.findall(
    r"\w+",
    "the of to and that it is was for on are with as be this have from by not but what all were when "
    "there can use your which their said if will way about many then them would like so these her make",
)
_RARE = ('e.g.: "so"', "first,", "listed:", "done.\n", "naïve", "東京", "`f(x)`", "50%")


def main() -> None:
    """Time both and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the file")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each command")
    parser.add_argument("--json", type=Path, help="file for every figure of the run")
    asked = parser.parse_args()
    about = machine.describe()
    print(machine.in_words(about), "\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        file = _make(folder / "rows.jsonl", asked.rows)
        print(f"{asked.rows:,} rows, {file.stat().st_size / 1e9:.2f} GB", "\n", flush=True)
        commands = _commands(folder, file)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
        for _ in range(asked.repeats):  # in turns, so that what else the machine does meets both
            for name, command in commands.items():
                runs[name].append(_time(command, f"Valid! {asked.rows} rows"))
    results = {name: _summary(found, asked.rows) for name, found in runs.items()}
    _print(results)
    if asked.json is not None:
        told = {"machine": about, "rows": asked.rows, "commands": results}
        asked.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _make(path: Path, count: int) -> Path:
    """A file of rows of two messages; all are different, and made from a pool of texts to be quick."""
    draw = random.Random(0)
    pool = [_text(draw) for _ in range(1000)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            said = [
                {"role": "user", "content": f"{number} {draw.choice(pool)}"},
                {"role": "assistant", "content": draw.choice(pool)},
            ]
            file.write(json.dumps({"messages": said}, ensure_ascii=False) + "\n")
    return path


def _text(draw: random.Random) -> str:
    words: list[str] = []
    size = 0
    while size < (_ROW_BYTES - 90) // 2:
        words.append(draw.choice(_RARE) if draw.random() < 0.02 else draw.choice(_WORDS))
        size += len(words[-1].encode()) + 1
    return " ".join(words)


def _commands(folder: Path, file: Path) -> dict[str, list[str]]:
    """By name; without the document only ours."""
    ours = "import sys; from hone.cli.main import main; sys.exit(main())"
    found = {"hone validate": [sys.executable, "-c", ours, "validate", str(file)]}
    shared = rows.shared_folder()
    document = None if shared is None else shared / _DOCUMENT
    if document is None or not document.is_file():
        print(f"the document's script is left out: no {_DOCUMENT} in HONE_SHARED or ../shared")
        return found
    text = document.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    script = folder / "script.py"
    script.write_text(next(one for one in blocks if "Valid!" in one), encoding="utf-8")
    return {"the document's script": [sys.executable, str(script), str(file)], **found}


def _time(command: list[str], wanted: str) -> dict[str, float]:
    """Wall and CPU seconds of a command with its processes, and MiB of the largest of them."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = process.stdout.read().decode().strip()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if process.returncode or said != wanted:
        raise SystemExit(f"{command[0]} said {said[:200]!r} and left with {process.returncode}")
    return {
        "wall_seconds": wall,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }


def _summary(found: list[dict[str, float]], count: int) -> dict[str, Any]:
    told: dict[str, Any] = {key: median(one[key] for one in found) for key in found[0]}
    return {**told, "rows_per_second": count / told["wall_seconds"], "runs": found}


def _print(results: dict[str, dict[str, Any]]) -> None:
    first = next(iter(results.values()))["wall_seconds"]
    print(
        "| command | median wall s | times as fast | rows/s | CPU s | peak MiB of its largest process |"
    )
    print("|---|---|---|---|---|---|")
    for name, one in results.items():
        print(
            f"| {name} | {one['wall_seconds']:.2f} | {first / one['wall_seconds']:.2f} "
            f"| {one['rows_per_second']:,.0f} | {one['cpu_seconds']:.2f} | {one['peak_mib']:.0f} |"
        )


if __name__ == "__main__":
    main()
