"""Preparing rows for training: Hone beside TRL and LLaMA-Factory, and beside the fastest exact tokenizer alone.

    python benchmarks/data.py [--rows 200000] [--large 2000000] [--tokenizer FOLDER] [--llamafactory PYTHON]

Reading, rendering and tokenizing the same chat rows, each side at its best number of workers; the second start from the
cache; peak memory at both sizes; and how soon the first step of training on the large file is done. Medians of
--repeats, wall seconds, each measurement a process of its own. Rows are made up, without a network.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
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

HERE = Path(__file__).resolve().parent
_TOKENIZER_ROWS = 2000
_BLOCK = 2000  # rows that are made at once


def main() -> None:
    """Make the rows, measure each side, print the table."""
    asked = _arguments()
    about = machine.describe()
    print(machine.in_words(about), "\n", flush=True)
    results: dict[str, Any] = {"machine": about, "rows": asked.rows, "large": asked.large}
    with tempfile.TemporaryDirectory(prefix="bench-data-") as name:
        folder = Path(name)
        model = _model(folder, asked.tokenizer)
        file = _rows(folder / "rows.jsonl", asked.rows)
        results["bytes"] = file.stat().st_size
        results["sides"] = _sides(asked, folder, model, file)
        _print_sides(asked, results)
        if asked.large:
            results["large_run"] = _large(asked, folder, model)
            _print_large(asked, results)
    if asked.json is not None:
        asked.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _sides(asked: argparse.Namespace, folder: Path, model: Path, file: Path) -> dict[str, Any]:
    plans: dict[str, dict[str, Any]] = {
        "Hone": {"side": "hone"},
        "Hone, second start (cached)": {"side": "hone", "cached": True},
        "tokenizers alone, encode_batch_fast, all cores": {"side": "alone", "core": "tokenizers"},
        "tiktoken alone, one core": {"side": "alone", "core": "tiktoken"},
        "TRL, dataset_num_proc=1": {"side": "trl", "workers": 1},
        "TRL, dataset_num_proc=2": {"side": "trl", "workers": 2},
    }
    if asked.llamafactory:
        for workers in (1, 2):
            name = f"LLaMA-Factory, preprocessing_num_workers={workers}"
            plans[name] = {"side": "llamafactory", "workers": workers}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in plans}
    for _ in range(asked.repeats):
        for name, plan in plans.items():
            if not plan.get("cached"):
                _forget(folder)
            python = asked.llamafactory if plan["side"] == "llamafactory" else sys.executable
            job = {**plan, "model": str(model), "file": str(file), "rows": asked.rows}
            told = _run(job, folder, python=python)
            found[name].append(told)
            print(f"  {name}: {json.dumps(told)}", flush=True)
            if name == "Hone":
                found["Hone, second start (cached)"].append(_run({**job, "cached": True}, folder))
        plans.pop("Hone, second start (cached)", None)  # measured right after each first start
    return found


def _run(job: dict[str, Any], folder: Path, *, python: str = sys.executable) -> dict[str, Any]:
    environment = {
        **os.environ,
        "HONE_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "cache" / "hf"),
        "HF_DATASETS_CACHE": str(folder / "cache" / "datasets"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    done = subprocess.run(
        [python, str(HERE / "data_side.py"), json.dumps({**job, "folder": str(folder)})],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - began
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1:] or done.returncode}
    return {**json.loads(done.stdout.splitlines()[-1]), "process_seconds": round(wall, 3)}


def _forget(folder: Path) -> None:
    """Remove what was prepared. That the fast encoder is exact was proved in the first run, once for a tokenizer."""
    for name in ("data", "hf", "datasets"):
        shutil.rmtree(folder / "cache" / name, ignore_errors=True)


def _large(asked: argparse.Namespace, folder: Path, model: Path) -> dict[str, Any]:
    """Peak memory of preparing ten times as many rows, and how soon training on them takes its first step."""
    file = _rows(folder / "large.jsonl", asked.large)
    job = {"model": str(model), "file": str(file), "rows": asked.large}
    found: dict[str, Any] = {"first_step": []}
    for _ in range(asked.repeats):
        _forget(folder)
        found["first_step"].append(_run({**job, "side": "first_step"}, folder))
    _forget(folder)
    found["prepare"] = _run({**job, "side": "hone"}, folder)
    return found


def _model(folder: Path, tokenizer: Path | None) -> Path:
    """A model with a body of 1M, and the tokenizer that is asked for or one trained on the rows."""
    model = folder / "model"
    if tokenizer is None:
        sample = rows.made_up(_TOKENIZER_ROWS)
        models.make_tokenizer(model, rows.texts(sample), template=models.CHATML)
        models.make_weights(model, "1m", positions=32_768)
        return model
    model.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, model / name)
    models.make_weights(model, "1m", positions=32_768)
    return model


def _rows(path: Path, count: int) -> Path:
    """`count` made-up rows, no two alike: a peer that keeps what it has seen gains nothing by it."""
    with path.open("w", encoding="utf-8") as file:
        for first in range(0, count, _BLOCK):
            for row in rows.made_up(min(_BLOCK, count - first), seed=first):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def _print_sides(asked: argparse.Namespace, results: dict[str, Any]) -> None:
    size = results["bytes"] / 2**20
    print(f"\n{asked.rows:,} chat rows, {size:,.0f} MiB; medians of {asked.repeats}\n")
    print("| side | seconds | rows/s | peak memory, MiB |\n|---|---|---|---|")
    speeds: dict[str, float] = {}
    for name, told in results["sides"].items():
        good = [one for one in told if "failed" not in one]
        if not good:
            print(f"| {name} | failed: {told[-1:]} | | |")
            continue
        seconds = median(one["seconds"] for one in good)
        speeds[name] = asked.rows / seconds
        peak = max(one["peak_mib"] for one in good)
        print(f"| {name} | {seconds:.2f} | {speeds[name]:,.0f} | {peak:,.0f} |")
    ours = speeds.get("Hone", 0.0)
    peers = {name: speed for name, speed in speeds.items() if name.startswith(("TRL", "LLaMA"))}
    alone = {name: speed for name, speed in speeds.items() if "alone" in name}
    for kind in ("TRL", "LLaMA-Factory"):
        best = max((v for k, v in peers.items() if k.startswith(kind)), default=0.0)
        if best:
            print(f"\nHone beside {kind} at its best: {ours / best:.1f} times", end="")
    if alone:
        print(f"\nHone beside the fastest tokenizer alone: {ours / max(alone.values()):.0%}")


def _print_large(asked: argparse.Namespace, results: dict[str, Any]) -> None:
    told = results["large_run"]
    first = [one["seconds"] for one in told["first_step"] if "failed" not in one]
    small = max(one["peak_mib"] for one in results["sides"]["Hone"])
    print(f"\n{asked.large:,} rows:")
    if first:
        print(f"- first step of training after {median(first):.1f} s")
    else:
        print(f"- first step failed: {told['first_step']}")
    print(f"- prepared in {told['prepare'].get('seconds')} s")
    print(
        f"- peak memory {told['prepare'].get('peak_mib')} MiB; at {asked.rows:,} rows {small} MiB"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--large", type=int, default=2_000_000, help="0 leaves this part out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokenizer", type=Path, help="folder of a real tokenizer")
    parser.add_argument("--llamafactory", metavar="PYTHON", help="python of its own environment")
    parser.add_argument("--json", type=Path, help="file for every figure of the run")
    return parser.parse_args()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
