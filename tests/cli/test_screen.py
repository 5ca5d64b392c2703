"""A recorded run on every kind of output: a terminal, a pipe, a program, one that goes away."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import termios
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from hone.cli.lines import bytes_text, describe, duration_text, flops_text
from hone.cli.screen import PlainScreen, open_screen
from hone.cli.streams import Look, QuietOutput, look_of
from hone.runs.events import Event
from tests.cli.recorded import STEPS, event, parts, run, step

TERMINAL = {"TERM": "xterm-256color"}


def through_pipe(
    events: Iterable[Event], *, as_json: bool = False, quiet: bool = False, **environment: str
) -> str:
    stream = io.StringIO()
    with open_screen(
        as_json=as_json, quiet=quiet, stream=stream, environment=environment
    ) as screen:
        for each in events:
            screen(each)
    return stream.getvalue()


def through_terminal(
    events: Iterable[Event], environment: Mapping[str, str], *, columns: int = 100
) -> str:
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    with os.fdopen(terminal, "w", encoding="utf-8") as stream:
        with open_screen(
            as_json=False, quiet=False, stream=stream, environment=environment
        ) as screen:
            for each in events:
                screen(each)
        os.set_blocking(controller, False)
        shown = b""
        while chunk := _read(controller):
            shown += chunk
    os.close(controller)
    return shown.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except (BlockingIOError, OSError):
        return b""


def test_a_pipe_gets_every_notice_and_the_ledger_in_plain_lines() -> None:
    text = through_pipe(run())
    assert "\x1b" not in text
    assert "\r" not in text
    for part in (
        "reading the rows",
        "note: the model has no chat template: ChatML is used",
        "rows.jsonl: messages, 100 rows: read 100 = kept 90 + dropped 10 (too long: 10)",
        "9,000 tokens, 1,800 trained (20%)",
        "on NVIDIA X: bf16, fused adapters; off: compiled layers (the run is short: about 20 s)",
        "step 1/40  loss 5.0000",
        "step 40/40  loss 0.1250  held-out 0.7500  lr 1.00e-04  2,000 tok/s  500 trained tok/s  MFU 43%",
        "matrix products: 73 GFLOP/s here",
        "tensorboard: tensorboard --logdir runs/rows-tiny/tracking",
        "step 20: held-out loss 0.7500 (10 rows): code 0.6000, prose 0.8000",
        "shared 60%",
        "1.5 GiB",
        "step 20: memory ran out; from here Packs of at most 2,048 tokens",
        "step 20: saved runs/rows-tiny/checkpoints/step-00000020",
        "finished: 40 steps, loss 0.1250, best held-out loss 0.7500, 3m05s",
    ):
        assert part in text
    steps = re.findall(r"^step (\d+)/40", text, flags=re.MULTILINE)
    assert len(steps) == 11, "the first, and one for each tenth"
    assert (steps[0], steps[-1]) == ("1", "40")


def test_samples_stand_in_lines_that_steer_no_terminal() -> None:
    lines = through_pipe(run()).splitlines()
    first = lines.index("step 20: samples")
    assert lines[first + 1 : first + 9] == [
        "  rows.jsonl:7",
        "    asked  <|im_start|>user",
        "           the red cat",
        "    reply  one",
        "           sings",
        "    wanted sings",
        "  -",
        r"    asked  a \x1b[31mred\x1b[0m dog",
    ]
    assert lines[first + 9].startswith("    reply  bird bird")
    assert lines[first + 9].endswith("...")
    assert len(lines[first + 9]) < 230


def test_losses_by_source_are_means_over_recent_steps() -> None:
    sources = [parts(1.0, 2.0), {"code": {"loss": 4.0, "weight": 2.0}}]
    events = [step(n, steps=2, sources=each) for n, each in enumerate(sources, start=1)]
    assert "by source: code 3.0000, prose 2.0000" in through_pipe(events)
    assert "by source" in through_terminal(events, TERMINAL)


def test_slow_steps_get_a_line_by_time() -> None:
    now = 0.0
    stream = io.StringIO()
    look = Look(colour=False, live=False)
    screen = PlainScreen(QuietOutput(stream), look, clock=lambda: now)
    for number in range(1, 11):
        screen.take(step(number, steps=100_000))
        now += 4.0
    assert re.findall(r"step (\d+)/", stream.getvalue()) == ["1", "4", "7", "10"]


def test_quiet_keeps_notices_and_the_result() -> None:
    lines = through_pipe(run(), quiet=True).splitlines()
    assert [line.split()[0] for line in lines] == ["note:", "rows.jsonl:", "step", "finished:"]
    assert "memory ran out" in lines[2]


def test_json_is_each_event_as_it_was() -> None:
    lines = through_pipe(run(), as_json=True, FORCE_COLOR="1").splitlines()
    told = [json.loads(line) for line in lines]
    assert [each["event"] for each in told] == [each.name for each in run()]
    assert told[-1]["loss"] == 0.125
    assert all("time" in each for each in told)


def test_a_terminal_is_redrawn_and_keeps_what_matters_above() -> None:
    text = through_terminal(run(), TERMINAL)
    assert "\x1b[2K" in text, "a line was erased to be drawn again"
    assert "ChatML is used" in text
    assert "read 100 = kept 90" in text
    assert "finished: 40 steps" in text
    assert "━" in text
    assert "\x1b[?25h" in text, "the cursor is shown again"


def test_a_tiny_terminal_is_enough() -> None:
    assert "finished: 40 steps" in through_terminal(run(), TERMINAL, columns=20)


@pytest.mark.parametrize(
    ("environment", "is_redrawn", "is_coloured"),
    [
        (TERMINAL, True, True),
        ({**TERMINAL, "NO_COLOR": "1"}, True, False),
        ({**TERMINAL, "NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, False, True),
        ({**TERMINAL, "CI": "true"}, False, True),
    ],
)
def test_what_a_terminal_may_do(
    environment: dict[str, str], is_redrawn: bool, is_coloured: bool
) -> None:
    text = through_terminal(run(), environment)
    assert ("\x1b[2K" in text) == is_redrawn
    assert ("\x1b[33m" in text) == is_coloured
    assert "ChatML is used" in text
    assert "finished: 40 steps" in text


@pytest.mark.parametrize(
    ("environment", "is_coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "0"}, False), ({"NO_COLOR": "", "FORCE_COLOR": "1"}, True)],
)  # fmt: skip
def test_what_a_pipe_may_do(environment: dict[str, str], is_coloured: bool) -> None:
    look = look_of(io.StringIO(), environment)
    assert look == Look(colour=is_coloured, live=False)
    assert ("\x1b[33m" in through_pipe(run(), **environment)) == is_coloured


def test_a_reader_that_goes_away_stops_nothing(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        with open_screen(as_json=False, quiet=False, stream=stream, environment={}) as screen:
            for each in run():
                screen(each)
        stream.flush()


def test_a_full_disk_behind_the_output_stops_nothing() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with (
        open("/dev/full", "w") as stream,
        open_screen(as_json=True, quiet=False, stream=stream, environment={}) as screen,
    ):
        for each in run():
            screen(each)


def test_unknown_and_lean_events_do_not_disturb() -> None:
    assert describe(event("something-new", a=1)) is None
    assert describe(event("phase", name="compiling")) == "compiling"
    text = through_pipe(
        [step(1, loss=None, steps=1), event("evaluated", step=1, loss=None, rows=1)]
    )
    assert "not a number" in text


def test_numbers_in_words() -> None:
    assert [duration_text(s) for s in (0.4, 59.4, 60, 3599, 7620)] == ["0s", "59s", "1m00s", "59m59s", "2h07m"]  # fmt: skip
    assert [bytes_text(n) for n in (0, 300 * 2**20, 2**30)] == ["0 MiB", "300 MiB", "1.0 GiB"]
    assert [flops_text(n) for n in (7.34e10, 4.12e14)] == ["73 GFLOP/s", "412 TFLOP/s"]
    assert STEPS == 40
