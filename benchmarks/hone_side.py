"""One measured run of Hone, in a process of its own: a job as JSON in, one line of JSON out.

The run is `hone.recipes.train.train` itself, the function behind `hone train`, heard through its events.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from child import serve
from clock import Clock


def measure(job: dict[str, Any], began: float) -> dict[str, Any]:
    """Train `job["steps"]` steps and say how fast they were."""
    from hone.config.layers import resolve
    from hone.recipes.train import train
    from hone.runs.events import Event

    clock = Clock()
    heard: dict[str, Any] = {"computed_tokens": 0, "phases": []}

    def listen(event: Event) -> None:
        if event.name == "step":
            clock.mark(event["tokens"])
            heard["loss"] = event["loss"]
            if len(clock.marks) > 1:
                heard["computed_tokens"] += event["computed_tokens"]
            else:
                heard["first_loss"] = event["loss"]
                heard["first_step_cpu_seconds"] = time.process_time()
        elif event.name == "rehearsed":
            heard["micro_batch_tokens"] = event["micro_batch_tokens"]
        elif event.name == "notice":
            heard.setdefault("notices", []).append(event["message"])
        elif event.name == "phase":
            heard["phases"].append(
                (event["name"], time.perf_counter() - began, time.process_time())
            )
            if event["name"] == "training":
                heard["start_wall_seconds"] = time.perf_counter() - began
                heard["start_cpu_seconds"] = time.process_time()

    with tempfile.TemporaryDirectory() as folder:
        train(resolve(overrides=_settings(job, Path(folder))), listeners=[listen])
    result = clock.result()
    heard["computed_share"] = heard["computed_tokens"] / result["tokens"]
    return {**result, **heard}


def _settings(job: dict[str, Any], folder: Path) -> list[str]:
    words = {
        "model.name": job["model"],
        "data.path": job["rows"],
        "data.shuffle": "true",
        "tuning.lora.r": "8",
        "tuning.lora.alpha": "16",
        "train.max_steps": str(job["steps"]),
        "train.save_steps": str(job["steps"]),
        "train.batch_size": str(job["batch"]),
        "train.schedule": "linear",
        "train.precision": job["precision"],
        "compute.threads": str(job["threads"]),
        "output.dir": str(folder / "run"),
        **job.get("settings", {}),
    }
    return [f"{name}={value}" for name, value in words.items()]


if __name__ == "__main__":
    serve(measure)
