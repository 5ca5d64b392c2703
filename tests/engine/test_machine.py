"""What a machine lets a process have, read from made-up /proc and /sys."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hone.engine import machine

GIB = 2**30


def made_up(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMORY = {"proc/meminfo": "MemTotal:  67108864 kB\nMemFree: 1 kB\nMemAvailable: 33554432 kB\n"}


def test_without_control_groups_the_machine_decides(tmp_path: Path) -> None:
    root = made_up(tmp_path, MEMORY)
    assert machine.available_bytes(root) == 32 * GIB
    assert machine.memory_bytes(root) == 64 * GIB
    assert machine.group_limit_bytes(root) is None
    assert machine.group_cores(root) is None


def test_the_tightest_group_above_this_process_decides_and_caches_count_as_free(
    tmp_path: Path,
) -> None:
    group = "sys/fs/cgroup/user/job"
    root = made_up(
        tmp_path,
        {
            **MEMORY,
            "proc/self/cgroup": "0::/user/job\n",
            "sys/fs/cgroup/user/memory.max": str(16 * GIB),
            "sys/fs/cgroup/user/memory.current": str(2 * GIB),
            f"{group}/memory.max": str(8 * GIB),
            f"{group}/memory.current": str(5 * GIB),
            f"{group}/memory.stat": f"anon 1\ninactive_file {2 * GIB}\n",
            f"{group}/cpu.max": "150000 100000",
            "sys/fs/cgroup/cpu.max": "max 100000",
        },
    )
    assert machine.available_bytes(root) == 5 * GIB  # 8 - (5 - 2)
    assert machine.memory_bytes(root) == 8 * GIB
    assert machine.group_limit_bytes(root) == 8 * GIB
    assert machine.group_cores(root) == 1.5


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path) -> None:
    root = made_up(
        tmp_path,
        {
            **MEMORY,
            "proc/self/cgroup": "7:memory:/job\n3:cpu,cpuacct:/job\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(4 * GIB),
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(GIB),
        },
    )
    assert machine.available_bytes(root) == 3 * GIB


def test_a_limit_above_the_machine_is_none(tmp_path: Path) -> None:
    root = made_up(
        tmp_path,
        {
            **MEMORY,
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": str(2**62),
            "sys/fs/cgroup/memory.current": "0",
        },
    )
    assert machine.available_bytes(root) == 32 * GIB


@pytest.mark.parametrize(
    ("said", "wanted"), [("3", 3), ("0", None), ("many", None), ("999", None), ("", None)]
)
def test_threads_follow_the_environment_up_to_the_cores(
    monkeypatch: pytest.MonkeyPatch, said: str, wanted: int | None
) -> None:
    monkeypatch.setattr(machine, "allowed_cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert machine.default_threads() == (4 if wanted is None else wanted)


def test_the_processor_is_told_with_the_instructions_that_matter(tmp_path: Path) -> None:
    text = "processor: 0\nmodel name\t: A Processor\nflags\t: fpu avx2 avx512f\n\nprocessor: 1\n"
    root = made_up(tmp_path, {"proc/cpuinfo": text})
    assert machine.processor(root) == ("A Processor", ("avx2", "avx512f"))


def test_a_process_that_is_gone_holds_nothing() -> None:
    assert machine.resident_bytes() > 2**20
    assert machine.resident_bytes() > machine.resident_bytes(own=True)
    assert machine.resident_bytes(2**22 + 1) == 0


_PRODUCTS = """
import ctypes, sys
import torch
from hone.engine.memory import few_products_kept
if sys.argv[1] == "few":
    few_products_kept()
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "abcdefghij"]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
weight = torch.randn(768, 256, dtype=torch.bfloat16, requires_grad=True)
used = []
for tokens in range(200, 380):
    rows = torch.randn(tokens, 256, dtype=torch.bfloat16, requires_grad=True)
    torch.nn.functional.linear(rows, weight).sum().backward()
    weight.grad = None
    used.append(libc.mallinfo2().h)
print(used[-1] - used[79])
"""


@pytest.mark.skipif(
    not {"amx_bf16", "avx512_bf16"} & set(machine.processor()[1]),
    reason="oneDNN compiles bf16 products only where the processor has them",
)
def test_what_is_compiled_for_packs_of_the_past_does_not_stay() -> None:
    """100 lengths after the first 80: as they come, each leaves its products behind."""

    def grown(which: str) -> int:
        # Another test of this process may have set them already.
        fresh = {k: v for k, v in os.environ.items() if not k.endswith("_CACHE_CAPACITY")}
        done = subprocess.run(
            [sys.executable, "-c", _PRODUCTS, which],
            capture_output=True,
            text=True,
            check=True,
            env=fresh,
        )
        return int(done.stdout)

    assert grown("few") < 4 * 2**20 < grown("all")
