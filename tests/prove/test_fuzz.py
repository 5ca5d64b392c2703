"""Ten minutes of broken rows: no crash, no hang, no unbounded memory. FUZZ_SECONDS makes it longer or shorter."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.prove.fuzzer import CASE_SECONDS

SECONDS = float(os.environ.get("FUZZ_SECONDS", "600"))


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_every_broken_file_ends_as_rows_or_as_a_data_error(tmp_path: Path) -> None:
    seed = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(10**6)))
    words = [sys.executable, "-m", "tests.prove.fuzzer", str(tmp_path), str(SECONDS), str(seed)]
    process = subprocess.Popen(words, cwd=Path(__file__).resolve().parents[2])
    hung = ""
    try:
        while process.poll() is None:
            time.sleep(1)
            last = max((one.stat().st_mtime for one in tmp_path.iterdir()), default=time.time())
            if time.time() - last > 3 * CASE_SECONDS + 30:
                hung = f"nothing new for {time.time() - last:.0f} s"
                break
    finally:
        process.kill()
        process.wait()
    if hung or process.returncode not in (
        0,
        1,
    ):  # it died or hangs: the file that it tried last did it
        last_file = max(tmp_path.glob("case.*"), key=lambda one: one.stat().st_mtime)
        shutil.copy(last_file, tmp_path / f"find-{seed}-last{last_file.suffix}")
    finds = sorted(str(one) for one in tmp_path.glob("find-*"))
    assert not finds, (
        f"seed {seed}: {hung or process.returncode}; copy what is small to tests/corpus"
    )
    assert process.returncode == 0
