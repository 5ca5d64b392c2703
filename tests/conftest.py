"""What every test may lean on: where the shared material lies, and that nothing reaches a network."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# Tests that send signals expect what a shell gives a program; who starts them in the background or under nohup
# has some of these ignored, and every child would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("hone", deadline=None)  # timings on a shared machine say nothing
settings.register_profile("ci", parent=settings.get_profile("hone"), derandomize=True)
# The suite that decides about a change says the same twice; `HYPOTHESIS_PROFILE=hone` draws anew, as
# `make prove` does.
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real tokenizers and data beside the checkout; tests that need it skip without it."""
    folder = Path(os.environ.get("HONE_SHARED", ROOT.parent / "shared"))
    if not (folder / "tokenizers").is_dir():
        pytest.skip(f"no shared material at {folder} (set HONE_SHARED)")
    return folder
