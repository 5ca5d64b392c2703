"""`hone quickstart` as a program and a user see it. The whole of it, at its real size, is a slow proof."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hone.cli.main import run

CODE = "import sys\nfrom hone.cli.main import main\nsys.exit(main())"


def start(folder: Path, *words: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, "quickstart", "--folder", str(folder), *words],
        capture_output=True, text=True, timeout=900, check=False,
        env={**os.environ, "HONE_CACHE": str(cache)},
    )  # fmt: skip


def test_a_seed_below_zero_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quickstart", "--seed", "-1"]) == 2
    assert "--seed" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_could_not_can_after(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The promise, at full size: at most 5% before, at least 85% after, with every one of five seeds."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    folder = tmp_path_factory.mktemp("quickstart")
    done = start(folder / "q", "--seed", str(seed), "--json", cache=cache)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    shown = {key: told[key] for key in ("exact_match_before", "exact_match_after", "seconds")}
    print(
        f"seed {seed}: {shown}, {told['cpu_seconds']} CPU seconds, base built: {told['base']['built']}"
    )
    assert told["event"] == "result"
    assert told["exact_match_before"] <= 0.05
    assert told["exact_match_after"] >= 0.85
    words = start(folder / "q", "--seed", str(seed), cache=cache)
    assert words.returncode == 0, words.stderr
    assert "What to type next" in words.stdout
    assert words.stdout.count("expected") == 5
