"""Who is called stuck, and after how long: signs of life without processes."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from hone.backends.pulse import Page, Sign
from hone.backends.watchdog import MEETING, PACK_CEILING, PACK_FLOOR, Verdict, Watchdog, pack_limit

BEATING = """
import sys, time
from hone.backends.pulse import Page
page, until = Page(int(sys.argv[1])), time.monotonic() + 1
while time.monotonic() < until:
    page.beat("pack", "a")
    page.beat("work", "b" * 2_000)
"""


def sign(
    doing: str, at: float, *, pack_seconds: float = 1.0, what: str = "step 3, Pack 1 of 2"
) -> Sign:
    return Sign(doing, what, at, pack_seconds)  # type: ignore[arg-type]


def first_verdict(
    watchdog: Watchdog, signs: dict[int, Sign], used=lambda now: {}
) -> tuple[float, Verdict]:
    """Judge every two seconds, as a launcher does."""
    now = 0.0
    while now < 20_000:
        now += 2.0
        verdict = watchdog.judge(now, signs, used(now))
        if verdict is not None:
            return now, verdict
    raise AssertionError("nobody was called stuck")


@pytest.mark.fault(10)
def test_a_silent_rank_is_named_within_a_minute_and_not_who_waits_for_it() -> None:
    signs = {0: sign("wait", 0.0, what="agreement"), 1: sign("pack", 0.0)}
    at, verdict = first_verdict(Watchdog(), signs)
    assert PACK_FLOOR <= at <= 55
    assert verdict.ranks == (1,)
    assert verdict.doing == "step 3, Pack 1 of 2"


@pytest.mark.parametrize("doing", ["pack", "work", "wait"])
def test_whatever_a_rank_does_it_cannot_hang_longer(doing: str) -> None:
    at, verdict = first_verdict(Watchdog(), {0: sign(doing, 0.0), 1: sign(doing, 0.0)})
    assert at <= 55
    assert verdict.ranks == (0, 1)


def test_ranks_that_all_wait_for_each_other_are_stuck_together() -> None:
    signs = {rank: sign("wait", 0.0, what="agreement") for rank in range(3)}
    _, verdict = first_verdict(Watchdog(), signs)
    assert verdict.ranks == (0, 1, 2)
    assert verdict.doing == "a wait for agreement"


def test_waiting_for_one_that_works_is_no_hang() -> None:
    """The first rank saves for ten minutes, and is seen to use the disk."""
    signs = {
        0: sign("work", 0.0, what="saving step 5"),
        1: sign("wait", 0.0, what="the checkpoint"),
    }
    watchdog = Watchdog(on_gpu=True)
    for now in range(2, 600, 2):
        assert watchdog.judge(now, signs, {0: now, 1: 0}) is None


def test_a_long_pack_on_a_cpu_that_computes_is_no_hang() -> None:
    watchdog = Watchdog()
    for now in range(2, 600, 2):
        assert watchdog.judge(now, {0: sign("pack", 0.0)}, {0: now}) is None


def test_on_a_gpu_a_spinning_driver_is_no_sign_of_life() -> None:
    at, _ = first_verdict(
        Watchdog(on_gpu=True), {0: sign("pack", 0.0)}, used=lambda now: {0: int(now)}
    )
    assert at <= 55


def test_however_busy_it_looks_it_ends_some_time() -> None:
    at, _ = first_verdict(Watchdog(), {0: sign("pack", 0.0)}, used=lambda now: {0: int(now)})
    assert 1800 <= at <= 1810


@pytest.mark.parametrize(
    ("measured", "limit"),
    [(0.0, PACK_FLOOR), (0.1, PACK_FLOOR), (3.0, 30.0), (10.0, PACK_CEILING), (30.0, 90.0)],
)
def test_the_limit_follows_the_worst_pack_that_was_measured(measured: float, limit: float) -> None:
    assert pack_limit(measured) == limit


def test_a_pulse_is_read_as_it_was_written() -> None:
    page = Page.make()
    assert page.read().what == "starting"
    page.expect(2.5)
    page.beat("pack", "step 7, Pack 1 of 1 – ü")
    read = Page(page.descriptor).read()
    assert (read.doing, read.what, read.pack_seconds) == ("pack", "step 7, Pack 1 of 1 – ü", 2.5)
    page.beat("wait", "x" * 10_000)
    assert page.read().what.startswith("xxx")
    page.close()


def test_a_rank_that_stands_still_while_it_writes_is_read_all_the_same() -> None:
    page = Page.make()
    page.beat("pack", "step 7")
    page._words[0] -= 1  # odd: half way through
    read = page.read()
    assert (read.doing, read.what) == ("pack", "")
    page.close()


def test_a_sign_is_never_read_half_written() -> None:
    """One that was would look like a rank that last moved when the machine was started, and end the run."""
    page = Page.make()
    began = time.monotonic()
    writer = subprocess.Popen(
        [sys.executable, "-c", BEATING, str(page.descriptor)], pass_fds=[page.descriptor]
    )
    seen = set()
    while writer.poll() is None:
        read = page.read()
        assert began - 1 < read.at <= time.monotonic()
        assert read.what in ("starting", "a", "b" * 2_000, "")
        seen.add(read.what)
    assert writer.returncode == 0
    assert {"a", "b" * 2_000} <= seen
    page.close()


def test_of_ranks_elsewhere_only_silence_counts() -> None:
    here = {0: sign("wait", 0.0, what="agreement")}
    watchdog = Watchdog()
    for now in range(2, 300, 2):
        busy = {1: sign("pack", 0.0)}
        assert watchdog.judge(now, here, {}, busy, {1: now}) is None, "judged on its own machine"
        fresh = {1: sign("wait", now - 1.0)}
        assert watchdog.judge(now, here, {}, fresh, {1: now}) is None, "it has just come to wait"
    both = watchdog.judge(300, here, {}, {1: sign("wait", 0.0)}, {1: 299})
    assert both is not None
    assert both.ranks == (0,)
    lost = watchdog.judge(300, {0: sign("pack", 299.0)}, {}, {1: sign("pack", 0.0)}, {1: 250.0})
    assert lost is not None
    assert (lost.ranks, lost.silent_seconds) == ((1,), 50.0)
    assert "another machine" in lost.doing


def test_machines_may_be_started_minutes_after_each_other() -> None:
    here = {0: sign("wait", 0.0, what=MEETING), 1: sign("wait", 0.0, what=MEETING)}
    assert all(Watchdog().judge(now, here, {}) is None for now in range(2, 600, 2))
