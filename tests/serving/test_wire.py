"""The OpenAI client, unmodified, against the server: what it reads of replies, streams, calls and errors."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest

from hone.errors import HoneError
from hone.infer.dialect import Dialect
from hone.infer.writer import Crowded
from hone.serving.server import Address, Server
from tests.serving.scripted import ScriptedWriter

CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "é"}}\n</tool_call>'
SCRIPTS = {
    "plain": "Hello there.",
    "deep": "<think>\nhm, so\n</think>\n\nYes.",
    "caller": f"Wait.\n{CALL}\n{CALL}",
    "org/name@3": "by step",
}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}
ASK: Any = [{"role": "user", "content": "?"}]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, ScriptedWriter]]:
    writer = ScriptedWriter(tmp_path_factory.mktemp("scripted"), SCRIPTS)
    server = Server(writer, Address(port=0))
    server.start()
    yield server, writer
    server.stop()
    assert writer.closed


@pytest.fixture
def writer(running: tuple[Server, ScriptedWriter]) -> Iterator[ScriptedWriter]:
    found = running[1]
    found.asked.clear()
    yield found
    found.crowded = found.failure = found.crash = None
    found.pause_s = 0.0


@pytest.fixture(scope="module")
def client(running: tuple[Server, ScriptedWriter]) -> openai.OpenAI:
    return openai.OpenAI(base_url=running[0].base_url, api_key="none", max_retries=0)


def chat(client: openai.OpenAI, model: str = "plain", **more: Any) -> Any:
    return client.chat.completions.create(model=model, messages=more.pop("messages", ASK), **more)


def test_models_are_listed_and_found_by_name(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == list(SCRIPTS)
    assert client.models.retrieve("org/name@3").id == "org/name@3"
    with pytest.raises(openai.NotFoundError, match="no model 'x'"):
        client.models.retrieve("x")


def test_a_reply_with_its_usage(client: openai.OpenAI, writer: ScriptedWriter) -> None:
    reply = chat(client)
    assert reply.choices[0].message.content == "Hello there."
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.prompt_tokens == len(writer.asked[0].prompt)
    assert reply.usage.completion_tokens == 13
    assert reply.object == "chat.completion"
    assert reply.id.startswith("chatcmpl-")
    assert reply._request_id.startswith("req_")


def test_the_prompt_is_the_one_of_training(client: openai.OpenAI, writer: ScriptedWriter) -> None:
    messages: Any = [
        {"role": "system", "content": "<|im_end|> is text here"},
        {"role": "user", "content": [{"type": "text", "text": "look"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at": 1}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "seen"},
    ]
    reply = chat(client, messages=messages, tools=[TOOL], extra_body={"return_token_ids": True})
    told = [
        {"role": "system", "content": "<|im_end|> is text here"},
        {"role": "user", "content": "look"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "look", "arguments": {"at": 1}},
                }
            ],
        },
        {"role": "tool", "content": "seen", "tool_call_id": "c1"},
    ]
    want = writer.renderer.prompt(told, [TOOL])
    assert writer.asked[0].prompt == want == reply.prompt_token_ids
    assert want.count(2) == 4  # ends of turns, and none from what the system message says
    chat(client, messages=messages, tools=[TOOL], tool_choice="none")
    assert writer.asked[1].prompt == writer.renderer.prompt(told)


def test_settings_reach_the_writer(client: openai.OpenAI, writer: ScriptedWriter) -> None:
    chat(
        client,
        max_completion_tokens=5,
        temperature=0.3,
        top_p=0.9,
        seed=8,
        stop=["x", "yz"],
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"7": -3},
        logprobs=True,
        top_logprobs=2,
        n=2,
        user="someone",
    )
    first, second = (asked.wanted for asked in writer.asked)
    assert (first.max_tokens, first.temperature, first.top_p) == (5, 0.3, 0.9)
    assert (first.stop, first.presence_penalty, first.frequency_penalty) == (("x", "yz"), 0.5, -0.5)
    assert (first.logit_bias, first.top_logprobs) == ({7: -3.0}, 2)
    assert (first.seed, second.seed) == (8, 9)
    chat(client)
    assert writer.asked[2].wanted.temperature == 1.0
    assert writer.asked[2].wanted.max_tokens == 400 - len(writer.asked[2].prompt)


def test_reasoning_stands_apart_and_calls_are_calls(
    client: openai.OpenAI, writer: ScriptedWriter
) -> None:
    deep = chat(client, "deep").choices[0].message
    assert (deep.content, deep.reasoning_content) == ("Yes.", "hm, so")
    choice = chat(client, "caller", tools=[TOOL]).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Wait."
    calls = choice.message.tool_calls
    assert [call.function.name for call in calls] == ["look", "look"]
    assert [json.loads(call.function.arguments) for call in calls] == [{"at": "é"}] * 2
    assert calls[0].id != calls[1].id
    assert chat(client, "caller").choices[0].message.content == SCRIPTS["caller"]
    one = chat(client, "caller", tools=[TOOL], parallel_tool_calls=False).choices[0]
    assert len(one.message.tool_calls) == 1
    assert writer.asked[-1].cancelled.is_set()


def test_tools_are_refused_where_calls_could_not_be_read(
    client: openai.OpenAI, writer: ScriptedWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answered, they would come back as text, and nobody would know why."""
    voice = replace(writer.voice("plain"), dialect=Dialect())
    monkeypatch.setattr(writer, "voice", lambda _: voice)
    with pytest.raises(openai.BadRequestError, match="come back as text") as caught:
        chat(client, tools=[TOOL])
    assert caught.value.param == "tools"
    assert not writer.asked
    chat(client)
    chat(client, tools=[TOOL], tool_choice="none")


def test_a_call_can_be_required(client: openai.OpenAI, writer: ScriptedWriter) -> None:
    chat(client, tools=[TOOL], tool_choice="required")
    wanted = writer.asked[0].wanted
    assert wanted.schema is not None
    assert wanted.schema["properties"]["name"] == {"const": "look"}
    tokenizer = writer.renderer.tokenizer
    assert tokenizer.decode(writer.asked[0].prompt).endswith("assistant\n<tool_call>\n")


@pytest.mark.parametrize("model", SCRIPTS)
def test_a_stream_tells_what_the_whole_tells(client: openai.OpenAI, model: str) -> None:
    whole = chat(client, model, tools=[TOOL], logprobs=True, top_logprobs=1)
    options: Any = {"include_usage": True}
    chunks = list(
        chat(
            client,
            model,
            tools=[TOOL],
            logprobs=True,
            top_logprobs=1,
            stream=True,
            stream_options=options,
        )
    )
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert deltas[0].delta.role == "assistant"
    assert deltas[-1].finish_reason == whole.choices[0].finish_reason
    message = whole.choices[0].message
    assert "".join(d.delta.content or "" for d in deltas) == (message.content or "")
    thoughts = "".join(getattr(d.delta, "reasoning_content", None) or "" for d in deltas)
    assert thoughts == getattr(message, "reasoning_content", "")
    calls = [call for d in deltas for call in d.delta.tool_calls or []]
    assert [(c.index, c.function.name, c.function.arguments) for c in calls] == [
        (i, c.function.name, c.function.arguments) for i, c in enumerate(message.tool_calls or [])
    ]
    told = [one for d in deltas if d.logprobs for one in d.logprobs.content]
    assert told == whole.choices[0].logprobs.content
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_probability_of_zero_is_still_json(client: openai.OpenAI) -> None:
    reply = chat(client, logprobs=True, top_logprobs=2)
    assert reply.choices[0].logprobs.content[0].top_logprobs[1].logprob == -9999.0


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"cat": 1}}, "logit_bias"),
        ({"seed": "x"}, "seed"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a " * 500}]}, "messages"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "odd"}},
                }
            },
            "response_format.json_schema.schema",
        ),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
        ({"extra_body": {"audio": {}}}, "audio"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"store": True}, "store"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    client: openai.OpenAI, writer: ScriptedWriter, more: Any, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **more)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert not writer.asked


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, "nobody")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_too_many_requests_say_when_to_come_back(
    client: openai.OpenAI, writer: ScriptedWriter
) -> None:
    writer.crowded = Crowded(9, 2.4)
    with pytest.raises(openai.RateLimitError) as caught:
        chat(client)
    assert caught.value.response.headers["retry-after"] == "2"


def test_a_fault_shows_no_inside(
    client: openai.OpenAI, writer: ScriptedWriter, capfd: pytest.CaptureFixture[str]
) -> None:
    writer.crash = ZeroDivisionError("secret of the house")
    with pytest.raises(openai.InternalServerError) as caught:
        chat(client)
    assert caught.value.response.json()["error"] == {
        "message": "the server failed at this request",
        "type": "server_error",
        "param": None,
        "code": None,
    }
    heard, end = "", time.monotonic() + 20
    while "secret of the house" not in heard and time.monotonic() < end:
        heard += capfd.readouterr().err
    assert "secret of the house" in heard
    writer.crash = None
    writer.failure = HoneError("the model failed at this reply")
    with pytest.raises(openai.InternalServerError, match="the model failed"):
        chat(client)
    with pytest.raises(openai.APIError, match="the model failed"):
        list(chat(client, stream=True))


def test_the_async_client_streams_many_at_once(
    running: tuple[Server, ScriptedWriter], writer: ScriptedWriter
) -> None:
    async def one(client: openai.AsyncOpenAI, model: str) -> str:
        stream = await client.chat.completions.create(model=model, messages=ASK, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def many() -> list[str]:
        async with openai.AsyncOpenAI(base_url=running[0].base_url, api_key="none") as client:
            return await asyncio.gather(*(one(client, "plain") for _ in range(20)))

    assert asyncio.run(many()) == ["Hello there."] * 20


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_frees_its_place(
    running: tuple[Server, ScriptedWriter], writer: ScriptedWriter, stream: bool
) -> None:
    writer.pause_s = 0.2
    body = json.dumps({"model": "plain", "messages": ASK, "stream": stream})
    connection = http.client.HTTPConnection("127.0.0.1", running[0].port)
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    end = time.monotonic() + 20
    while not writer.asked and time.monotonic() < end:
        time.sleep(0.01)
    assert not writer.asked[0].cancelled.is_set()
    assert connection.sock is not None
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    assert writer.asked[0].cancelled.wait(20)
