"""What distilling has paid for and what it keeps: budgets, rates, going on after a kill, and keys that stay secret."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hone.errors import (
    BudgetReached,
    ConfigError,
    DataError,
    HoneError,
    LockedError,
    RemoteError,
)
from hone.recipes.answers import Journal
from hone.recipes.asking import Patience
from hone.recipes.spending import Limits
from hone.recipes.teacher import Drawing
from hone.runs.events import Event
from tests.recipes.distilling import KEY, ask, prompts, replies, rows
from tests.recipes.fake_teacher import FakeTeacher

# Money, and going on.


@pytest.mark.fault(18)
def test_the_budget_is_never_exceeded(teacher: FakeTeacher) -> None:
    prompts(*[f"p{n:02}" for n in range(60)])
    teacher.always = lambda c: c.answer(f"re: {c.prompt}", tokens=(500, 500))
    limits = Limits(max_cost=0.02, price_input=1.0, price_output=4.0)
    with pytest.raises(BudgetReached, match="the budget is reached") as raised:
        ask(teacher, limits=limits, drawing=Drawing(max_tokens=500))
    assert raised.value.exit_code == 8
    # 0.0025 each: 8 would cost 0.02, but the last may cost more than that before it is answered.
    assert len(teacher.calls) == len(rows()) == 7
    more = Limits(max_cost=0.5, price_input=1.0, price_output=4.0)
    assert ask(teacher, limits=more, drawing=Drawing(max_tokens=500)).rows == 60
    assert len(teacher.calls) == 60
    assert all(teacher.asked(f"p{n:02}") == 1 for n in range(60))


def test_what_may_have_been_charged_counts(teacher: FakeTeacher) -> None:
    prompts("a", "b")
    teacher.plays = {"a": [lambda c: time.sleep(3)], "b": [lambda c: c.error(500)]}
    patience = Patience(concurrency=1, retries=0)
    with pytest.raises(RemoteError):
        ask(teacher, patience=patience, timeout=1.5, drawing=Drawing(max_tokens=1000))
    teacher.plays = {"a": [lambda c: c.answer("x", tokens=None)]}
    done = ask(teacher, drawing=Drawing(max_tokens=1000))
    # One that timed out and one without a count, at the most that they can be; one refusal, at nothing.
    assert 3000 < done.tokens - 15 < 4000


def test_a_budget_needs_what_it_is_counted_with(teacher: FakeTeacher) -> None:
    prompts("a")
    with pytest.raises(ConfigError, match="prices"):
        Limits(max_cost=1.0)
    with pytest.raises(ConfigError, match="longest answer"):
        ask(teacher, limits=Limits(max_tokens=100))
    with pytest.raises(BudgetReached):
        ask(teacher, limits=Limits(max_tokens=100), drawing=Drawing(max_tokens=10))
    assert not teacher.calls


def test_rates_are_kept_over_all_requests(teacher: FakeTeacher) -> None:
    prompts(*[f"p{n}" for n in range(8)])
    patience = Patience(concurrency=8, requests_per_minute=1200)  # one each 0.05 s
    began = time.monotonic()
    ask(teacher, patience=patience)
    assert time.monotonic() - began >= 0.05 * 7
    began = (
        time.monotonic()
    )  # a token's rate: 15 tokens a request are known only when it is answered
    ask(teacher, patience=Patience(concurrency=1, tokens_per_minute=18_000), out=Path("two.jsonl"))
    assert time.monotonic() - began >= 7 * 15 / 300


def test_other_settings_are_refused_by_name(teacher: FakeTeacher) -> None:
    prompts("a", "b")
    ask(teacher)
    with pytest.raises(ConfigError, match=r"temperature: None -> 0\.5"):
        ask(teacher, drawing=Drawing(0.5))
    prompts("a", "c")
    with pytest.raises(ConfigError, match="prompts: '2 with SHA-256"):
        ask(teacher)
    assert ask(teacher, fresh=True).rows == 2
    assert Path("out.jsonl.journal.1").exists()
    assert replies() == ["re: a", "re: c"]
    assert len(teacher.calls) == 4
    Path("out.jsonl").write_text("mine\n")
    with pytest.raises(ConfigError, match="exists already"):
        ask(teacher)
    assert ask(teacher, force=True).rows == 2
    assert len(teacher.calls) == 4


def test_a_journal_is_one_process_s_own_and_a_torn_line_is_cut(teacher: FakeTeacher) -> None:
    prompts("a", "b")
    ask(teacher)
    path = Path("out.jsonl.journal")
    header = {
        k: v for k, v in json.loads(path.read_text().splitlines()[0]).items() if k != "journal"
    }
    held = Journal(path, header, fresh=False)
    with pytest.raises(LockedError):
        ask(teacher)
    held.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"end": 1, "outc')
    ask(teacher)
    assert path.read_bytes() == whole
    lines = whole.splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{broken}\n" + b"".join(lines[1:]))
    with pytest.raises(DataError, match="damaged") as raised:
        ask(teacher)
    assert "line 2" in str(raised.value.where)
    assert len(teacher.calls) == 2


SCRIPT = "import sys; from hone.cli.main import run; sys.exit(run(sys.argv[1:]))"


def command(teacher: FakeTeacher, *more: str) -> list[str]:
    words = ["distill", "prompts.txt", "--teacher", "big", "--out", "out.jsonl"]
    words += ["--base-url", teacher.url, "--api-key-env", "MY_TEACHER", "--max-tokens", "50"]
    return [sys.executable, "-c", SCRIPT, *words, *more]


def wait_for(condition: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


@pytest.mark.fault(18)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_and_gone_on_with_nothing_is_asked_twice(teacher: FakeTeacher, number: int) -> None:
    names = [f"p{n}" for n in range(40)]
    prompts(*names)
    Path(".env").write_text(f"MY_TEACHER={KEY}\n")
    teacher.seconds = 0.05
    child = subprocess.Popen(command(teacher), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: len(teacher.answered) >= 12 or child.poll() is not None)
    child.send_signal(number)
    shown, said = child.communicate(timeout=60)
    expected = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}
    assert child.returncode == expected[signal.Signals(number)], said
    if number != signal.SIGKILL:
        assert b"answers are kept" in said
    time.sleep(0.3)  # the server ends what it was asked
    asked = len(teacher.calls)
    assert asked < 40
    kept = sum('"end"' in line for line in Path("out.jsonl.journal").read_text().splitlines())
    assert kept >= 12 - 8  # 8 may have been on their way
    under_way = asked - kept
    assert under_way <= 8
    teacher.seconds = 0
    done = subprocess.run(command(teacher), capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(teacher.calls) == 40 + under_way
    if under_way:  # begun, and perhaps not arrived yet
        said_to_be = re.search(rb"(\d+) requests? w(?:as|ere) under way", done.stdout)
        assert said_to_be is not None, done.stdout
        assert under_way <= int(said_to_be[1]) <= 8
    assert replies() == [f"re: {name}" for name in names]
    assert {call.key for call in teacher.calls} == {KEY}
    for path in Path().rglob("*"):
        if path.is_file() and path.name != ".env":
            assert KEY.encode() not in path.read_bytes(), path
    assert KEY.encode() not in shown + said + done.stdout + done.stderr


# Keys and addresses.


def test_the_key_is_in_no_text(teacher: FakeTeacher, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts("a", "b", "c")
    monkeypatch.setenv("MINE", KEY)
    teacher.plays = {
        "a": [lambda c: c.answer(f"your key is {c.key}")],
        "b": [lambda c: c.error(400, f"what is {c.key}")],
        "c": [lambda c: c.answer(None, refusal=f"not with {c.key}")],
    }
    heard: list[Event] = []
    with pytest.raises(RemoteError) as raised:
        ask(teacher, heard=heard, api_key_env="MINE")
    assert {call.key for call in teacher.calls} == {KEY}
    assert replies() == ["your key is ***"]
    told = repr(raised.value) + str([event.fields for event in heard])
    for path in Path().iterdir():
        told += path.read_text()
    assert KEY not in told


def test_addresses_and_keys_that_cannot_be_used(
    teacher: FakeTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts("a")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for url in (
        "ftp://a.example",
        "nonsense",
        "https://me:secret@a.example/v1",
        "https://a.example/?k=1",
    ):
        with pytest.raises(ConfigError, match="--base-url"):
            ask(teacher, base_url=url)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        ask(teacher, base_url="https://a.example/v1")
    with pytest.raises(ConfigError, match="no folder and no run"):
        ask(teacher, base_url=None)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert ask(teacher).rows == 1  # this machine needs neither
    assert teacher.calls[0].key == "not-needed"
    with pytest.raises(HoneError, match="same answer"):
        ask(teacher, samples=2, drawing=Drawing(0.0))


def test_a_proxy_is_used(teacher: FakeTeacher, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts("a")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HTTP_PROXY", teacher.url.removesuffix("/v1"))
    assert ask(teacher, base_url="http://teacher.example/v1").rows == 1
    assert teacher.calls[0].web.path == "http://teacher.example/v1/chat/completions"
    assert teacher.calls[0].web.headers["Host"] == "teacher.example"
    assert os.environ["OPENAI_API_KEY"] == KEY
