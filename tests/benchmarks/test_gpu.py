"""The GPU's benchmark: its rows, its arithmetic and its words; and every line of it on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import gpu_cases  # noqa: E402
import gpu_model  # noqa: E402
import gpu_report  # noqa: E402

CPU = torch.device("cpu")


def test_rows_are_what_they_are_called() -> None:
    dense = gpu_cases.make_rows("dense", 3, vocabulary=100, small=False)
    assert [ids.shape[0] for ids, _ in dense] == [4096] * 3
    assert all(int(mask.sum()) == 4095 for _, mask in dense)
    short = [
        ids.shape[0] for ids, _ in gpu_cases.make_rows("gsm8k", 2000, vocabulary=9, small=False)
    ]
    assert 200 < sum(short) / 2000 < 250
    assert min(short) >= 29
    assert max(short) <= 616
    agent = gpu_cases.make_rows("agent", 16, vocabulary=1000, small=False)
    assert all((ids[:4000] == agent[0][0][:4000]).all() for ids, _ in agent)
    given = sum(ids.shape[0] for ids, _ in agent)
    computed = given - 15 * 4000
    assert 1.9 < given / computed < 2.4
    share = sum(int(mask.sum()) for _, mask in agent) / (given - 16 * 4000)
    assert 0.2 < share < 0.3
    again = gpu_cases.make_rows("agent", 16, vocabulary=1000, small=False)
    assert all((a == b).all() for (a, _), (b, _) in zip(agent, again, strict=True))


def test_the_shapes_are_those_of_8b_models() -> None:
    for name, billions in (("llama", 8.03), ("qwen", 8.19)):
        shape = gpu_cases.shape_of(name, small=False)
        model = gpu_model.make(shape, torch.device("meta"), dtype="bfloat16")
        assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.01)


def test_a_figure_stands_beside_what_is_wanted() -> None:
    run = {"tokens_per_second": 20_000.0}
    results = {
        "small": False,
        "cases": {
            "lora-dense-llama": {"hone": run, "trl": {"best": {"tokens_per_second": 16_000.0}}},
            "lora-agent-llama": {"hone": {"tokens_per_second": 30_000.0}},
            "full-dense-llama": {"hone": {"failed": "exit 1: no room"}},
        },
    }
    text = gpu_report.aims(results)
    assert "tokens/s: 16,000 | 20,000 (met)" in text
    assert "packing: 1.3 | 1.25 (missed)" in text
    assert "dense figure: 2 | 1.50 (missed)" in text
    assert "product: 0.5 | not measured" in text


_BARE = """
import sys

for name in ("pydantic orjson typer rich ruamel trl datasets bitsandbytes matplotlib questionary pyarrow").split():
    sys.modules[name] = None  # as if it were not installed
sys.path.insert(0, sys.argv[1])
import json, time
import gpu_cases, gpu_hone
job = {**gpu_cases.CASES["lora-agent-llama"].as_job(small=True), "device": "cpu", "compute": {"compile": False}}
print(json.dumps(gpu_hone.measure(job, time.perf_counter())))
"""


def test_hones_side_needs_nothing_that_a_bare_machine_lacks() -> None:
    """Of Hone's dependencies only torch, transformers, peft, numpy and safetensors; two timed steps of agent rows."""
    done = subprocess.run(
        [sys.executable, "-c", _BARE, str(FOLDER)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["steps"] == 2
    assert found["tokens_per_second"] > found["computed_tokens_per_second"] > 0  # they share
    assert 0 < found["utilisation_of_weights"] < found["utilisation"]
    assert {"what": "compiled layers", "why": "compute.compile=false"} in found["off"]


@pytest.mark.slow
def test_the_script_runs_to_its_table_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, str(FOLDER / "gpu.py"), "--rehearse", "--json", str(out)],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_bytes())
    assert set(results["cases"]) == {*gpu_cases.CASES, "ablation"}
    for name, case in results["cases"].items():
        runs = [run for _, run in gpu_report._runs(case)]
        assert runs, name
        for run in runs:
            assert "failed" not in run, (name, run)
            assert "absent" in run or run["tokens_per_second"] > 0
    assert results["cases"]["lora-agent-llama"]["hone"]["packs_per_step"] >= 1
