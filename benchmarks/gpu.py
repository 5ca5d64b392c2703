"""Training speed of Hone on a GPU, beside what it is to reach and beside TRL with liger and packing where both are here.

    python benchmarks/gpu.py [--case lora-dense-llama|...|ablation|all] [--minutes 30] [--json FILE]
    python benchmarks/gpu.py --rehearse         # the whole script on a CPU, with tiny models

For a bare machine: torch, transformers, peft, numpy and safetensors, no network and no files (liger-kernel, trl and
datasets are measured where they are installed). Weights are random, in the
shapes of Llama-3.1-8B and Qwen3-8B; rows are random token ids. A case takes less than 9 minutes, all together 30.

A full fine-tune keeps float32 master weights and AdamW's moments in float32: 16 bytes a parameter with the gradients,
120 GiB for 8B. They fit on a card of 139 GiB because masters are held in two halves, of which the model computes with
one (`hone.engine.split_weights`); layers are recomputed as far as the rest asks for. TRL's full runs hold weights,
gradients and moments in bfloat16: 8 bytes a parameter, another arithmetic.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_device
import gpu_report
import gpu_trl
from child import run
from gpu_cases import CASES, VARIANTS, Case
from machine import describe

Results = dict[str, Any]
_LONGEST_CASE = 9 * 60  # seconds
_LEAST = 60  # seconds: with less left nothing is started
_SHARE_OF_HONE = 0.55  # of a case's time, where TRL is measured beside it


def main() -> None:
    """Measure the chosen cases, print each when it is done, and keep every figure."""
    asked = _arguments()
    device = "cpu" if asked.rehearse else "cuda"
    results: Results = {
        "machine": describe(),
        "device": gpu_device.describe(),
        "small": asked.rehearse,
        "cases": {},
    }
    if device == "cuda" and "card" not in results["device"]:
        raise SystemExit("torch sees no GPU here; --rehearse runs this script on a CPU")
    print(gpu_report.heading(results), flush=True)
    end = time.monotonic() + 60 * asked.minutes
    names = [*CASES, "ablation"] if asked.case == "all" else [asked.case]
    with tempfile.TemporaryDirectory(prefix="gpu-bench-") as folder:
        measuring = _Measuring(device, asked, Path(folder))
        for name in names:
            left = min(_LONGEST_CASE, end - time.monotonic())
            if left < _LEAST:
                results["cases"][name] = {"left_out": "no time was left"}
            elif name == "ablation":
                results["cases"][name] = dict(measuring.ablation(left))
            else:
                results["cases"][name] = measuring.case(CASES[name], left)
            print(gpu_report.case(name, results), flush=True)
            _keep(asked.json, results)
    print(gpu_report.aims(results), flush=True)


class _Measuring:
    """Runs the sides, each as a process of its own."""

    def __init__(self, device: str, asked: argparse.Namespace, folder: Path) -> None:
        self.device = device
        self.asked = asked
        self.folder = folder
        self.environment = _environment() if device == "cuda" else {}

    def case(self, case: Case, seconds: float) -> Results:
        """Hone, and TRL where it belongs beside it."""
        end = time.monotonic() + seconds
        peer = case.peer and not self.asked.hone_only
        found: Results = {"hone": self.hone(case, seconds * (_SHARE_OF_HONE if peer else 1.0))}
        if case.rows == "agent" and end - time.monotonic() > _LEAST:
            found["unshared"] = self.hone(case, end - time.monotonic(), share=False)
        if peer:
            found["trl"] = self.trl(case, end)
        return found

    def hone(self, case: Case, patience: float, **more: Any) -> Results:
        """One run of Hone."""
        return self._run("gpu_hone.py", case, patience, **more)

    def trl(self, case: Case, end: float) -> Results:
        """TRL's settings briefly, one after the other while there is time, and what each came to."""
        here = gpu_device.describe()["packages"]
        missing = [name for name in ("trl", "datasets", "peft") if not here[name]]
        if missing:
            return {"absent": f"{' and '.join(missing)} not installed"}
        tried: list[Results] = []
        chosen = gpu_trl.settings(case.rows)
        for place, setting in enumerate(chosen):
            left = end - time.monotonic()
            if left < _LEAST and not self.asked.rehearse:
                break
            patience = max(left / (len(chosen) - place), _LEAST)
            tried.append(self._run("gpu_trl.py", case, patience, setting=setting, steps=3))
            if self.asked.rehearse:
                break
        worked = [found for found in tried if "failed" not in found]
        best = max(worked, key=lambda found: found["tokens_per_second"], default=None)
        return {"tried": tried, **({"best": best} if best else {})}

    def ablation(self, seconds: float) -> Iterator[tuple[str, Results]]:
        """Hone alone, with one thing changed at a time."""
        end = time.monotonic() + seconds
        for place, (name, compute) in enumerate(VARIANTS.items()):
            left = end - time.monotonic()
            if left < _LEAST and not self.asked.rehearse:
                yield name, {"failed": "no time was left"}
                continue
            patience = max(left / (len(VARIANTS) - place), _LEAST)
            yield (
                name,
                self._run(
                    "gpu_hone.py", CASES["lora-dense-llama"], patience, compute=compute, steps=4
                ),
            )

    def _run(self, script: str, case: Case, patience: float, **more: Any) -> Results:
        job = {
            **case.as_job(small=self.asked.rehearse),
            "device": self.device,
            "folder": str(self.folder),
            "threads": 1 if self.asked.rehearse else max(1, (os.cpu_count() or 2) // 2),
            "environment": self.environment,
            **({} if self.asked.rehearse and "steps" in more else more),
        }
        if self.asked.rehearse:
            job |= {key: value for key, value in more.items() if key != "steps"}
        return run(script, job, patience=max(10.0, patience))


def _environment() -> dict[str, str]:
    """Memory in segments that grow, against fragments, where this driver can do it."""
    wanted = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    code = "import torch; torch.zeros(1 << 24, device='cuda').sum().item()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **wanted},
        capture_output=True,
        timeout=180,
        check=False,
    )
    return wanted if done.returncode == 0 else {}


def _keep(path: Path | None, results: Results) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--case", choices=[*CASES, "ablation", "all"], default="all")
    parser.add_argument("--minutes", type=float, default=29.0, help="for all cases together")
    parser.add_argument("--hone-only", action="store_true", help="leave TRL out")
    parser.add_argument("--rehearse", action="store_true", help="tiny models and rows, on the CPU")
    parser.add_argument("--json", type=Path, help="file for every figure of the run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
