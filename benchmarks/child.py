"""A measured process, from both ends: `run` starts one with a job, `serve` answers inside it.

It knows nothing of what is measured. Each measurement has a process of its own, so that neither memory nor
warm caches of one reach the other.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_MEMORY_SHARE = 0.7  # of what is free when the process starts
_SAID = 400  # characters of an error that are kept


def run(
    script: str, job: dict[str, Any], *, patience: float, python: str = sys.executable
) -> dict[str, Any]:
    """The answer of `script` to a job, or `{"failed": why}` where it crashed or took too long."""
    threads = str(job["threads"])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "PASSIVE",  # a waiting thread sleeps instead of spinning, on both sides
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
        "HONE_CACHE": str(Path(job["folder"]) / "cache"),
        "HF_HOME": str(Path(job["folder"]) / "cache" / "hf"),
        **job.get("environment", {}),
    }
    asked = {**job, "memory_bytes": int(_free_bytes() * _MEMORY_SHARE)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's second start finds bytecode
    load = os.getloadavg()[0]
    command = [python, str(HERE / script), json.dumps(asked)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"stopped after {patience:,.0f} s"}
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        last = said[-1][:_SAID] if said else "no message"
        return {"failed": f"exit {done.returncode}: {last}"}
    return {**json.loads(done.stdout.splitlines()[-1]), "load_before": round(load, 1)}


def serve(measure: Callable[[dict[str, Any], float], dict[str, Any]]) -> None:
    """Read the job from the command line, measure, and print the answer as the last line."""
    began = time.perf_counter()
    job = json.loads(sys.argv[1])
    # Where a setting needs more memory than there is, it fails alone instead of taking the machine along.
    # A GPU's driver maps more than it uses, and its memory has an end of its own.
    if job.get("device") != "cuda":
        limit = (job["memory_bytes"], resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_DATA, limit)
    print("\n" + json.dumps(measure(job, began)))


def _free_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")
