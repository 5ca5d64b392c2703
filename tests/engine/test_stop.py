"""Signals: the first asks, the second insists, and what stood before is put back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from hone.engine.stop import StopRequest
from hone.errors import Interrupted, Stopped, Terminated

KINDS = [
    (signal.SIGINT, Interrupted, 130),
    (signal.SIGTERM, Terminated, 143),
    (signal.SIGHUP, Terminated, 143),
    (signal.SIGUSR1, Terminated, 143),
]


@pytest.fixture(autouse=True)
def _as_a_shell_starts_programs() -> Iterator[None]:
    """Whoever started the tests may have had them ignore a signal (nohup does)."""
    numbers = (signal.SIGHUP, signal.SIGUSR1)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.fault(8)
@pytest.mark.parametrize(("number", "kind", "code"), KINDS)
def test_the_first_signal_waits_for_the_end_of_the_step(
    number: signal.Signals, kind: type[Stopped], code: int
) -> None:
    with StopRequest("hone train data.jsonl") as stop, stop.at_step_boundaries():
        assert stop() is None
        os.kill(os.getpid(), number)
        answer = stop()
    assert isinstance(answer, kind)
    assert answer.exit_code == code
    assert "hone train data.jsonl" in str(answer.remedy)
    assert answer.signal_name == number.name


@pytest.mark.fault(8)
@pytest.mark.parametrize(("number", "kind", "code"), KINDS)
def test_the_second_signal_ends_the_work_at_once(
    number: signal.Signals, kind: type[Stopped], code: int
) -> None:
    reached: list[str] = []

    def work() -> None:
        with StopRequest("hone train data.jsonl") as stop, stop.at_step_boundaries():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("after the first")
            os.kill(os.getpid(), number)
            reached.append("after the second")

    with pytest.raises(kind, match="not saved") as caught:
        work()
    assert reached == ["after the first"]
    assert caught.value.exit_code == code
    assert "hone train data.jsonl" in str(caught.value.remedy)


@pytest.mark.parametrize(("number", "kind"), [entry[:2] for entry in KINDS])
def test_outside_steps_the_first_signal_ends_the_work_at_once(
    number: signal.Signals, kind: type[Stopped]
) -> None:
    with pytest.raises(kind, match="not saved"), StopRequest("again"):
        os.kill(os.getpid(), number)


def test_the_handlers_of_before_are_put_back() -> None:
    before = [signal.getsignal(number) for number, _, _ in KINDS]
    with StopRequest("again"):
        assert [signal.getsignal(number) for number, _, _ in KINDS] != before
    assert [signal.getsignal(number) for number, _, _ in KINDS] == before


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), StopRequest("again"):
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), StopRequest("again"):
        raise KeyboardInterrupt  # not from a signal that it heard


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_what_is_ignored_or_taken_stays_so(number: signal.Signals) -> None:
    heard: list[int] = []
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopRequest("again") as stop, stop.at_step_boundaries():
            os.kill(os.getpid(), number)
            assert stop() is None
        signal.signal(number, lambda signal_number, _frame: heard.append(signal_number))
        with StopRequest("again") as stop, stop.at_step_boundaries():
            os.kill(os.getpid(), number)
            assert stop() is None
        assert heard == [number]
    finally:
        signal.signal(number, before)
