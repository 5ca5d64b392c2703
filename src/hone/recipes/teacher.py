"""Who answers: a model behind an OpenAI-compatible address, or one in this process. It knows no file and no budget.

`ask` sends one request and returns an Answer, or a Trouble that says what to do next; it never asks twice.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast
from urllib.parse import urlsplit

from hone.data.shape_writers import as_openai
from hone.errors import ConfigError, HoneError
from hone.recipes.asked import Asked
from hone.recipes.spending import Tokens
from hone.runs.secrets import without_secrets

_OPENAI: Final = "api.openai.com"
_MESSAGE_TOKENS: Final = 32  # what a template may write around a message, at most
_PROMPT_TOKENS: Final = 512  # and around all of them, tools and a system text of its own included
_REASON_CHARACTERS: Final = 300
_CONNECT_SECONDS: Final = 30.0
# What httpx calls a request that never left: nobody can have answered it.
_NEVER_SENT: Final = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"})
_NO_MONEY: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_END: Final = {
    401: "it does not accept the key",
    402: "it asks for money",
    403: "it does not allow this",
    404: "it knows no such model or address",
}
_MAYBE_CHARGED: Final = frozenset({408, 502, 504})  # something between did not wait for the answer


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn; what is unset the teacher decides. Sample n of a prompt has the seed `seed` + n."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Answer:
    """What came back: an assistant message as the OpenAI API has it, why it ended, and what it took."""

    message: dict[str, Any]
    finish: str | None
    model: str
    refusal: str | None = None
    tokens: Tokens | None = None


@dataclass(frozen=True)
class Trouble:
    """Why there is no answer. `then`: end everything, leave this prompt, or ask it again.

    `wait` is what the teacher asks for, in seconds; `slow` says that it has too many requests; `charged` that
    it may have answered all the same.
    """

    reason: str
    then: Literal["end", "leave", "again"] = "again"
    wait: float | None = None
    slow: bool = False
    charged: bool = False


class Teacher(Protocol):
    """Anything that answers."""

    def most_prompt_tokens(self, asked: Asked) -> int:
        """More tokens than the prompt can come to."""
        ...

    async def ask(self, asked: Asked, drawing: Drawing, sample: int) -> Answer | Trouble:
        """One request."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


@dataclass(frozen=True)
class Address:
    """Where an API is, checked. Raises ConfigError for what is none, and for one that carries a secret."""

    url: str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                "--base-url is the address of an API: http://… or https://…",
                remedy="e.g. --base-url https://api.openai.com/v1",
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError(
                "--base-url carries more than an address: a user, a password or a query",
                remedy="put the key into an environment variable, and name it with --api-key-env",
            )

    @property
    def host(self) -> str:
        """The machine's name."""
        return urlsplit(self.url).hostname or ""

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def find_key(address: Address, name: str | None, environment: Mapping[str, str]) -> str | None:
    """The key from the variable `name`, else from a `.env` file here; None for this machine when none is named.

    Raises ConfigError where there is none, or one that no header can carry.
    """
    if name is None and address.is_loopback:
        return None
    name = name or "OPENAI_API_KEY"
    key = environment.get(name)
    if not key and Path(".env").is_file():
        from dotenv import dotenv_values

        key = dotenv_values(".env", interpolate=False).get(name)
    key = (key or "").strip()
    if not key:
        raise ConfigError(
            f"no key for {address.host}: {name} is not set",
            remedy=f"write {name}=… into .env or the environment, or name another variable with "
            "--api-key-env",
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"the key in {name} holds characters that no key has", remedy="copy it again"
        )
    return key


class ApiTeacher:
    """A model behind an OpenAI-compatible address. Redirects are not followed; proxies of the environment are used."""

    def __init__(
        self,
        model: str,
        address: Address,
        *,
        key: str | None,
        timeout: float,
        environment: Mapping[str, str],
    ) -> None:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        self._model = model
        self._address = address
        self._key = key
        self._timeout = timeout
        self._hidden = {**environment, "KEY": key or ""}
        is_openai = address.host == _OPENAI
        # Newer models of OpenAI refuse the older name; most other servers know only that one.
        self._most = "max_completion_tokens" if is_openai else "max_tokens"
        web = DefaultAsyncHttpxClient(
            follow_redirects=False,
            trust_env=not address.is_loopback,  # no proxy stands between this machine and itself
            timeout=Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
        )
        self._client = AsyncOpenAI(
            api_key=key or "not-needed",
            base_url=address.url,
            max_retries=0,
            http_client=web,
        )
        if not is_openai:  # read from the environment, and no stranger's business
            self._client.organization = self._client.project = None

    def most_prompt_tokens(self, asked: Asked) -> int:
        """A token is at least one byte; around them stands what the template writes."""
        text = json.dumps([self._messages(asked), list(asked.tools)], ensure_ascii=False)
        bytes_ = len(text.encode("utf-8", "surrogatepass"))
        return bytes_ + _MESSAGE_TOKENS * len(asked.messages) + _PROMPT_TOKENS

    async def ask(self, asked: Asked, drawing: Drawing, sample: int) -> Answer | Trouble:
        """One request, ended after the timeout however slowly something still comes."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        body: dict[str, Any] = {"model": self._model, "messages": self._messages(asked)}
        said = {
            "temperature": drawing.temperature,
            "top_p": drawing.top_p,
            self._most: drawing.max_tokens,
            "seed": None if drawing.seed is None else drawing.seed + sample,
            "tools": list(asked.tools) or None,
        }
        body |= {name: value for name, value in said.items() if value is not None}
        try:
            async with asyncio.timeout(self._timeout):
                create = cast(Any, self._client.chat.completions.with_raw_response.create)
                raw = await create(**body)
        except (TimeoutError, APITimeoutError) as error:
            reason = f"no answer within {self._timeout:g} s"
            return Trouble(reason, charged=type(error.__cause__).__name__ not in _NEVER_SENT)
        except APIStatusError as error:
            content = self._without_key(error.response.content)
            return self._refused(error.status_code, content, error.response.headers)
        except APIConnectionError as error:
            cause = error.__cause__ or error
            reason = self._clean(f"the connection failed: {type(cause).__name__}: {cause}")
            return Trouble(reason, charged=type(cause).__name__ not in _NEVER_SENT)
        content = self._without_key(cast(bytes, raw.http_response.content))
        return self._read(content)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _messages(self, asked: Asked) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        for one in asked.messages:
            message = as_openai(one)
            for ours in ("reasoning_content", "weight"):  # an API may refuse what it does not know
                message.pop(ours, None)
            told.append(message)
        return told

    def _read(self, content: bytes) -> Answer | Trouble:
        read = read_answer(content)
        if isinstance(read, Answer):
            return read
        if isinstance(read, Trouble):
            return Trouble(self._clean(read.reason), charged=read.charged)
        return self._refused(read, content, {})  # an error under the status of a success

    def _refused(self, status: int, content: bytes, headers: Mapping[str, str]) -> Trouble:
        code, text = _error_in(content)
        reason = self._clean(f"HTTP {status}: {text}" if text else f"HTTP {status}")
        if 300 <= status < 400:
            target = urlsplit(headers.get("location", "")).hostname or "another place"
            return Trouble(
                f"{reason}: {self._address.host} sends us on to {target}, and we do not follow",
                then="end",
            )
        if status in _END:
            return Trouble(f"{_END[status]} ({reason})", then="end")
        wait = _retry_after(headers)
        if status == 429:
            if code in _NO_MONEY:
                return Trouble(f"the account has no credit left ({reason})", then="end")
            return Trouble(reason, wait=wait, slow=True)
        if status >= 500 or status in (408, 409, 425):
            return Trouble(reason, wait=wait, charged=status in _MAYBE_CHARGED)
        return Trouble(reason, then="leave")

    def _clean(self, text: str) -> str:
        text = " ".join(without_secrets(text, self._hidden).split())
        return text if len(text) <= _REASON_CHARACTERS else text[: _REASON_CHARACTERS - 1] + "…"

    def _without_key(self, content: bytes) -> bytes:
        return content.replace(self._key.encode(), b"***") if self._key else content


class LocalTeacher:
    """A run, an adapter or a model of this machine, answering in this process, one request after the other."""

    def __init__(self, name: str) -> None:
        """Raises ModelError and EnvironmentFault where there is nothing that answers."""
        from hone.infer.open import open_model

        opened = open_model(name)
        self._completer = opened.completer
        self._name = name
        self.notices = opened.notices

    def most_prompt_tokens(self, asked: Asked) -> int:
        """The very tokens."""
        prompt = [one.as_template() for one in asked.messages]
        return len(self._completer.renderer.prompt(prompt, asked.tools))

    async def ask(self, asked: Asked, drawing: Drawing, sample: int) -> Answer | Trouble:
        """One reply; greedy where no temperature is set, 512 tokens at most where no limit is."""
        from hone.infer.completer import Sampling

        sampling = Sampling(
            max_tokens=drawing.max_tokens or Sampling.max_tokens,
            temperature=drawing.temperature or 0.0,
            top_p=drawing.top_p or 1.0,
            seed=None if drawing.seed is None else drawing.seed + sample,
        )
        prompt = [one.as_template() for one in asked.messages]
        await asyncio.sleep(0)  # a stop that was asked for is heard between two replies
        try:
            reply = self._completer.reply(prompt, tools=asked.tools, sampling=sampling)
        except HoneError as error:
            return Trouble(error.what, then="leave")
        message = {"role": "assistant", "content": reply.text}
        tokens = Tokens(reply.prompt_tokens, len(reply.token_ids))
        return Answer(message, reply.finish, self._name, tokens=tokens)

    async def close(self) -> None:
        """Nothing stays open."""


def read_answer(content: bytes) -> Answer | Trouble | int:
    """The answer in a response's body; an HTTP status where the body itself says that there was an error."""
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError):
        return Trouble("the answer is not JSON", charged=True)
    if not isinstance(value, dict):
        return Trouble("the answer is no JSON object", charged=True)
    told = cast("dict[str, Any]", value)
    choices: object = told.get("choices")
    if isinstance(told.get("error"), dict) and not choices:
        code: object = told["error"].get("code")
        return code if isinstance(code, int) and 400 <= code < 600 else 500
    if not isinstance(choices, list) or not choices:
        return Trouble("the answer holds no choices", charged=True)
    first: object = cast("list[Any]", choices)[0]
    message: object = (
        cast("dict[str, Any]", first).get("message") if isinstance(first, dict) else None
    )
    if not isinstance(message, dict):
        return Trouble("the answer's first choice holds no message", charged=True)
    choice, said = cast("dict[str, Any]", first), cast("dict[str, Any]", message)
    finish = choice.get("finish_reason")
    if finish == "error":
        return Trouble("the teacher failed while it answered", charged=True)
    refusal = said.get("refusal")
    return Answer(
        _message(said),
        finish if isinstance(finish, str) else None,
        str(told.get("model") or ""),
        refusal if isinstance(refusal, str) and refusal else None,
        _tokens(told.get("usage")),
    )


def _message(said: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that are trained on, whatever else a server puts beside them."""
    content: object = said.get("content")
    if isinstance(content, list):  # parts, as some servers answer
        listed = cast("list[object]", content)
        parts = [cast("dict[str, Any]", one) for one in listed if isinstance(one, dict)]
        content = "".join(str(one.get("text") or "") for one in parts)
    message: dict[str, Any] = {"role": "assistant", "content": content or ""}
    reasoning = said.get("reasoning_content") or said.get("reasoning")
    if isinstance(reasoning, str):
        message["reasoning_content"] = reasoning
    if said.get("tool_calls"):
        message["tool_calls"] = said["tool_calls"]
    return message


def _tokens(usage: object) -> Tokens | None:
    if not isinstance(usage, dict):
        return None
    told = cast("dict[str, Any]", usage)
    counts = (told.get("prompt_tokens"), told.get("completion_tokens"))
    if not all(isinstance(one, int) and one >= 0 for one in counts):
        return None
    return Tokens(cast(int, counts[0]), cast(int, counts[1]))


def _error_in(content: bytes) -> tuple[str, str]:
    """The code and the words of an error's body."""
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError):
        return "", content.decode("utf-8", "replace").strip()
    told = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    error: object = told.get("error", told)
    if not isinstance(error, dict):
        return "", str(error)
    inner = cast("dict[str, Any]", error)
    code = inner.get("code") or inner.get("type") or ""
    return str(code), str(inner.get("message") or inner.get("detail") or "")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from a number or a date (RFC 9110, 10.2.3); None where nothing usable is said."""
    milliseconds, text = headers.get("retry-after-ms"), headers.get("retry-after")
    for said, unit in ((milliseconds, 1000.0), (text, 1.0)):
        try:
            seconds = float(said or "") / unit
        except ValueError:
            continue
        return max(0.0, seconds) if seconds == seconds else None
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text or "").timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
