"""A teacher asked: what becomes of every kind of answer and of every fault, and that nothing is paid twice."""

from __future__ import annotations

import email.utils
import json
import socket
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from hone.errors import (
    DataError,
    RemoteError,
)
from hone.recipes.asking import LONGEST_WAIT_SECONDS, Patience, is_other
from hone.recipes.spending import Limits
from hone.recipes.teacher import Drawing
from hone.runs.events import Event
from tests.recipes.distilling import KEY, QUICK, ask, prompts, replies, rows
from tests.recipes.fake_teacher import Call, FakeTeacher, Play, well

# What is asked, and what is written.


def test_rows_stand_in_the_order_of_the_prompts(teacher: FakeTeacher) -> None:
    names = [f"prompt {n}" for n in range(30)]
    prompts(*names)
    teacher.plays = {"prompt 0": [lambda call: (time.sleep(0.3), well(call))[1]]}
    done = ask(teacher, system="be brief", samples=2, drawing=Drawing(0.7, 0.9, 64, 5))
    assert done.rows == done.requests == 60
    assert replies() == [f"re: {name}" for name in names for _ in range(2)]
    assert rows()[0]["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "prompt 0"},
        {"role": "assistant", "content": "re: prompt 0"},
    ]
    one = [call.body for call in teacher.calls if call.prompt == "prompt 7"]
    assert sorted(body["seed"] for body in one) == [5, 6]
    assert {k: one[0][k] for k in ("model", "temperature", "top_p", "max_tokens")} == {
        "model": "big", "temperature": 0.7, "top_p": 0.9, "max_tokens": 64,
    }  # fmt: skip
    assert set(one[0]) == {"model", "messages", "temperature", "top_p", "max_tokens", "seed"}
    assert 2 <= teacher.busiest <= QUICK.concurrency
    assert not Path("out.rejected.jsonl").exists()


def test_chat_rows_with_tools_reasoning_and_calls(teacher: FakeTeacher) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "look", "arguments": '{"at": "ü"}'},
    }
    first = {
        "messages": [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [call]},
            {"role": "tool", "content": "seen", "tool_call_id": "c1"},
            {"role": "user", "content": "and now"},
        ],
        "tools": [tool],
    }
    given = [first, {"question": "two?", "answer": "not asked for"}, {"prompt": "three"}]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, given)))
    teacher.plays["and now"] = [
        lambda got: got.answer("", tool_calls=[call], reasoning="because", finish="tool_calls")
    ]
    teacher.plays["two?"] = [lambda got: got.answer([{"type": "text", "text": "in parts"}])]
    ask(teacher, prompts=Path("rows.jsonl"))
    sent = next(one.body for one in teacher.calls if one.prompt == "and now")
    assert sent["tools"] == [tool]
    assert "reasoning_content" not in sent["messages"][1]
    assert sent["messages"][1]["tool_calls"] == [call]
    made = rows()
    assert made[0]["tools"] == [tool]
    assert made[0]["messages"][:-1] == first["messages"]
    last = made[0]["messages"][-1]
    assert (last["tool_calls"], last["reasoning_content"]) == ([call], "because")
    assert [row["messages"][-1]["content"] for row in made[1:]] == ["in parts", "re: three"]


def test_what_is_no_answer_is_kept_apart(teacher: FakeTeacher) -> None:
    prompts("good", "refused", "filtered", "empty", "cut", "odd", "bad")
    teacher.plays = {
        "refused": [lambda c: c.answer(None, refusal="I will not")],
        "filtered": [lambda c: c.answer("", finish="content_filter")],
        "empty": [lambda c: c.answer(" \n")],
        "cut": [lambda c: c.answer("half a", finish="length")],
        "odd": [lambda c: c.answer("x", tool_calls=[{"type": "function", "function": {}}])],
        "bad": [lambda c: c.error(400, "this prompt is too long")],
    }
    heard: list[Event] = []
    with pytest.raises(RemoteError, match=r"1 of 7 requests failed: prompts.txt:7") as raised:
        ask(teacher, heard=heard)
    assert raised.value.exit_code == 6
    assert replies() == ["re: good"]
    told = {row["row"]: (row["outcome"], row["reason"]) for row in rows("out.rejected.jsonl")}
    assert told == {
        "prompts.txt:2": ("refused", "I will not"),
        "prompts.txt:3": ("refused", "the teacher's content filter"),
        "prompts.txt:4": ("empty", "no text and no tool call"),
        "prompts.txt:5": ("truncated", "the limit of tokens was reached"),
        "prompts.txt:6": ("unusable", "a tool call has no function name"),
        "prompts.txt:7": ("failed", "HTTP 400: this prompt is too long"),
    }
    assert heard[-1].name == "distilled"
    assert heard[-1]["outcomes"] == {
        "answered": 1, "refused": 2, "empty": 1, "truncated": 1, "unusable": 1, "failed": 1,
    }  # fmt: skip
    done = ask(teacher)  # only what failed is asked again; the rest was answered, and paid
    assert teacher.asked("bad") == 2
    assert len(teacher.calls) == 8
    assert replies() == ["re: good", "re: bad"]
    assert (done.rows, done.outcomes["failed"]) == (2, 0)


def test_nothing_to_learn_from(teacher: FakeTeacher) -> None:
    prompts("a")
    teacher.always = lambda c: c.answer("")
    with pytest.raises(DataError, match="no answer to learn from"):
        ask(teacher)
    assert not Path("out.jsonl").exists()


# Faults of an API.


def reset(call: Call) -> None:
    """The connection is cut without a word."""
    linger = struct.pack("ii", 1, 0)
    call.web.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    call.web.connection.close()
    raise ConnectionResetError


def drip(call: Call) -> None:
    """A byte now and then: no read ever times out."""
    call.web.send_response(200)
    call.web.send_header("Content-Length", "1000")
    call.web.end_headers()
    for _ in range(50):
        call.web.wfile.write(b" ")
        call.web.wfile.flush()
        time.sleep(0.05)


AGAIN: dict[str, Play] = {
    "500": lambda c: c.error(500),
    "503 with Retry-After": lambda c: c.error(503, Retry_After="0"),
    "429 without": lambda c: c.error(429),
    "timeout": lambda c: time.sleep(2.5),
    "slow bytes": drip,
    "reset": reset,
    "half an answer": lambda c: c.answer("half", claim=50),
    "not JSON": lambda c: c.send(200, b"<html>busy</html>"),
    "cut JSON": lambda c: c.send(200, b'{"choices": [{"mess'),
    "JSON of another kind": lambda c: c.send(200, b"[1]"),
    "no choices": lambda c: c.send(200, b'{"choices": []}'),
    "no message": lambda c: c.send(200, b'{"choices": [{}]}'),
    "an error under 200": lambda c: c.send(200, b'{"error": {"message": "up", "code": 502}}'),
    "failed while answering": lambda c: c.answer("a", finish="error"),
}


@pytest.mark.fault(18)
def test_what_passes_is_tried_again(teacher: FakeTeacher) -> None:
    names = list(AGAIN)
    prompts(*names)
    teacher.plays = {name: [AGAIN[name]] * 2 for name in names}
    heard: list[Event] = []
    patience = Patience(concurrency=16, retries=4, backoff=0.01)
    assert ask(teacher, heard=heard, patience=patience, timeout=1.5).rows == len(names)
    assert replies() == [f"re: {name}" for name in names]
    reasons = {event["row"]: event["reason"] for event in heard if event.name == "retry"}
    assert len(reasons) == len(names)
    for place, name in enumerate(names, start=1):
        assert teacher.asked(name) >= 3, name
        assert reasons[f"prompts.txt:{place}"]
    assert "no answer within 1.5 s" in {reasons["prompts.txt:4"], reasons["prompts.txt:5"]}


@pytest.mark.fault(18)
def test_what_does_not_pass_is_given_up(teacher: FakeTeacher) -> None:
    hopeless = ["reset", "half an answer", "no choices", "500"]
    prompts(*hopeless, "good")
    teacher.plays = {name: [AGAIN[name]] * 9 for name in hopeless}
    with pytest.raises(RemoteError, match=r"4 of 5 requests failed: prompts.txt:1"):
        ask(teacher, patience=Patience(concurrency=3, retries=2, backoff=0.01))
    assert [teacher.asked(name) for name in hopeless] == [3, 3, 3, 3]
    assert replies() == ["re: good"]
    reasons = [row["reason"] for row in rows("out.rejected.jsonl")]
    assert ["connection failed" in one for one in reasons] == [True, True, False, False]


@pytest.mark.fault(18)
@pytest.mark.parametrize(
    ("play", "said"),
    [
        (lambda c: c.error(401, f"bad key {KEY}"), "does not accept the key"),
        (lambda c: c.error(403), "does not allow"),
        (lambda c: c.error(404), "knows no such model"),
        (lambda c: c.error(429, code="insufficient_quota"), "no credit"),
        (lambda c: c.error(429, Retry_After="7200"), "wait 7,200 s"),
        (lambda c: c.error(429, Retry_After=email.utils.formatdate(time.time() + 9e4, usegmt=True)), "wait (89|90),"),
        (lambda c: c.send(302, b"", {"Location": "http://elsewhere.example/v1"}), "elsewhere.example"),
    ],
)  # fmt: skip
def test_what_does_not_pass_ends_at_once(teacher: FakeTeacher, play: Play, said: str) -> None:
    prompts(*"abcdefgh")
    teacher.always = play
    began = time.monotonic()
    with pytest.raises(RemoteError, match=said):
        ask(teacher, patience=Patience(concurrency=1))
    assert len(teacher.calls) == 1
    assert time.monotonic() - began < 5
    teacher.always = well
    assert ask(teacher).rows == 8


@pytest.mark.fault(18)
@pytest.mark.parametrize(
    "wait",
    [
        lambda: {"Retry_After": "1"},
        lambda: {"retry_after_ms": "1000"},
        lambda: {"Retry_After": email.utils.formatdate(time.time() + 2, usegmt=True)},
    ],
)
def test_all_pause_where_the_teacher_asks_for_it(teacher: FakeTeacher, wait: Any) -> None:
    prompts(*[f"p{n}" for n in range(6)])
    at: list[float] = []

    def busy(call: Call) -> None:
        at.append(time.monotonic())
        call.error(429, **wait())

    teacher.plays = {"p0": [busy]}
    teacher.seconds = 0.05
    times: list[float] = []
    teacher.always = lambda call: (times.append(time.monotonic()), well(call))[1]
    assert ask(teacher, patience=Patience(concurrency=2, backoff=0.01)).rows == 6
    before = [one for one in times if one < at[0] + 0.2]  # it was under way already
    assert len(before) <= 2
    assert min(one for one in times if one not in before) - at[0] > 0.9


@pytest.mark.fault(18)
def test_many_failures_in_a_row_end_it(teacher: FakeTeacher) -> None:
    prompts(*[f"p{n}" for n in range(40)])
    teacher.always = lambda c: c.error(500)
    with pytest.raises(RemoteError, match="5 prompts in a row have failed"):
        ask(teacher, patience=Patience(concurrency=1, retries=1, backoff=0.001))
    assert len(teacher.calls) == 10
    teacher.always = well
    assert ask(teacher, patience=Patience(concurrency=1)).rows == 40
    # Those that failed come last, so that they cannot bar the way to the others.
    assert {call.prompt for call in teacher.calls[-5:]} == {f"p{n}" for n in range(5)}


def test_nobody_at_the_address(teacher: FakeTeacher) -> None:
    prompts("a")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    limits = Limits(max_tokens=5000)
    with pytest.raises(RemoteError, match="1 of 1 requests failed"):
        ask(teacher, base_url=url, limits=limits, drawing=Drawing(max_tokens=10))
    assert "connection failed: ConnectError" in rows("out.rejected.jsonl")[0]["reason"]


def test_an_answer_by_another_model_is_said(teacher: FakeTeacher) -> None:
    prompts("a", "b", "c")
    teacher.plays = {"b": [lambda c: c.answer("x", model="small")]}
    teacher.plays["c"] = [lambda c: c.answer("x", model="big-2026-01-01")]
    heard: list[Event] = []
    done = ask(teacher, heard=heard)
    assert done.others == {"small": 1}
    assert any(event.get("code") == "other-model" for event in heard)
    assert not is_other("big", "big@2")
    assert is_other("gpt-4", "gpt-4-turbo")
    assert LONGEST_WAIT_SECONDS < 3600
