"""A vLLM beside us as a `Writer`: started as a child, asked over loopback with the token ids that we render.

Its own chat endpoint is not used: prompts are those of training, and replies are taken apart by the same code as
ours. It knows no torch. What it cannot serve (checkpoints that hold more than an adapter) is refused by name.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from hone.errors import ConfigError, EnvironmentFault, HoneError, RemoteError, nearest
from hone.infer.checkpoint_adapter import is_plain, write_adapter
from hone.infer.completer import Wanted
from hone.infer.dialect import find_dialect
from hone.infer.open import reading_of
from hone.infer.place import Place
from hone.infer.served import Served, Stand
from hone.infer.writer import Chance, Crowded, Ended, Piece, Tell, UnknownModel, Voice

_START_S: Final = 900.0  # a large model takes minutes to load
_MOST_RANK: Final = 256


@dataclass(eq=False)
class _Reply:
    """A reply under way: its connection, which is closed when nobody waits any more."""

    tell: Tell
    connection: http.client.HTTPConnection
    cancelled: bool = False
    tokens: int = 0
    cut: threading.Lock = field(default_factory=threading.Lock)
    wire: socket.socket | None = None
    """Under the connection, which forgets it once the answer has begun."""

    def cancel(self) -> None:
        """As `Ticket.cancel`; vLLM frees the place when the connection is gone."""
        self.cancelled = True
        with self.cut:
            if self.wire is not None:
                with contextlib.suppress(OSError):
                    self.wire.shutdown(socket.SHUT_RDWR)

    def say(self, what: Piece | Ended) -> None:
        """Tell it, unless nobody waits."""
        if not self.cancelled:
            self.tell(what)


@dataclass(frozen=True)
class _Known:
    """A model that vLLM holds, under the name that it knows."""

    voice: Voice
    remote: str
    stand: Stand


class VllmWriter:
    """Serves one base model and adapters of it by `vllm serve`."""

    def __init__(
        self, served: Sequence[Served], *, rows: int, waiting: int, executable: str = "vllm"
    ) -> None:
        """Starts vLLM and waits until it answers. Raises ConfigError for several bases, EnvironmentFault without vLLM."""
        found = shutil.which(executable)
        if found is None:
            raise EnvironmentFault(
                "vLLM is not installed here",
                remedy="pip install vllm, or set --engine transformers",
            )
        self._served = {one.name: one for one in served}
        self._base = _one_base(served)
        self._bound = rows + waiting
        self._under_way: set[_Reply] = set()
        self._known: dict[str, _Known] = {}
        self._lock = threading.RLock()
        self._made = tempfile.TemporaryDirectory(prefix="hone-vllm-")
        self._key = secrets.token_hex(16)
        self._port = _free_port()
        self._threads = ThreadPoolExecutor(self._bound, thread_name_prefix="hone-vllm")
        command = [found, "serve", str(self._base), "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--served-model-name", "base"]
        command += [
            "--max-num-seqs",
            str(rows),
            "--enable-lora",
            "--max-lora-rank",
            str(_MOST_RANK),
        ]
        surroundings = {**os.environ, "VLLM_API_KEY": self._key}
        surroundings["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
        surroundings.pop("HONE_API_KEY", None)
        self._process = subprocess.Popen(  # noqa: S603 - a list of words of ours
            command, stdin=subprocess.DEVNULL, env=surroundings
        )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def names(self) -> list[str]:
        """As `Writer.names`."""
        return [name for one in self._served.values() for name in one.names()]

    def voice(self, name: str) -> Voice:
        """As `Writer.voice`."""
        return self._find(name).voice

    def write(self, voice: Voice, prompt: Sequence[int], wanted: Wanted, tell: Tell) -> _Reply:
        """As `Writer.write`."""
        known = self._find(voice.name)
        reply = _Reply(tell, http.client.HTTPConnection("127.0.0.1", self._port, timeout=600))
        with self._lock:
            if len(self._under_way) >= self._bound:
                raise Crowded(len(self._under_way), 1.0)
            self._under_way.add(reply)
        body = request_body(known.remote, prompt, wanted, voice.stop_ids)
        self._threads.submit(self._run, reply, body)
        return reply

    def close(self) -> None:
        """As `Writer.close`."""
        for reply in list(self._under_way):
            reply.say(Ended("length", reply.tokens, HoneError("the server is closing")))
            reply.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._made.cleanup()

    def _find(self, name: str) -> _Known:
        served = self._served.get(name.partition("@")[0]) or self._served.get(name)
        if served is None:
            raise UnknownModel(
                f"no model {name!r} is served here", remedy=nearest(name, self.names())
            )
        stand = served.stand(name)
        with self._lock:
            known = self._known.get(name)
            if known is None or known.stand.stamp != stand.stamp:
                known = self._known[name] = self._open(name, stand)
            return known

    def _open(self, name: str, stand: Stand) -> _Known:
        for other in self._known.values():
            if other.stand.stamp == stand.stamp:
                return _Known(replace(other.voice, name=name), other.remote, stand)
        place = stand.place()
        remote = "base"
        if place.kind != "model":
            remote = f"a{len(self._known)}-{secrets.token_hex(4)}"
            self._load(remote, self._adapter_folder(place, remote))
        read = reading_of(place)
        ends = [read.renderer.tokenizer.decode([i]) for i in read.stop_ids]
        dialect = find_dialect(read.renderer.template, ends)
        voice = Voice(name, read.renderer, read.stop_ids, read.limit, dialect, str(place.folder))
        return _Known(voice, remote, stand)

    def _adapter_folder(self, place: Place, name: str) -> Path:
        if place.base.resolve() != self._base.resolve():
            raise ConfigError(f"vLLM serves one base at a time, and {place.folder} has another")
        if place.kind == "adapter":
            return place.folder
        if place.config is None or not is_plain(place.config):
            raise ConfigError(
                f"vLLM cannot serve this checkpoint: {place.folder} holds more than an adapter",
                remedy="set --engine transformers",
            )
        folder = Path(self._made.name) / name
        folder.mkdir()
        write_adapter(place.folder, place.config, place.base, folder)
        return folder

    def _load(self, name: str, folder: Path) -> None:
        body = {"lora_name": name, "lora_path": str(folder.resolve())}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
        try:
            connection.request("POST", "/v1/load_lora_adapter", json.dumps(body), self._headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise RemoteError(f"vLLM refuses the adapter: {_reason(answer)}", where=str(folder))
        except OSError as error:
            raise RemoteError(f"vLLM does not answer: {error}") from error
        finally:
            connection.close()

    @property
    def _headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}

    def _wait(self) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise EnvironmentFault(
                    f"vLLM ended with code {self._process.returncode} before it answered",
                    remedy="its own output says why; --engine transformers does without it",
                )
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
            try:
                connection.request("GET", "/health", headers=self._headers)
                if connection.getresponse().status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(0.2)
        raise EnvironmentFault(f"vLLM did not answer within {_START_S:.0f} s")

    def _run(self, reply: _Reply, body: Mapping[str, Any]) -> None:
        """One reply, in a thread of its own."""
        try:
            if not reply.cancelled:
                reply.connection.request("POST", "/v1/completions", json.dumps(body), self._headers)
                reply.wire = reply.connection.sock
                if reply.cancelled:
                    return
                answer = reply.connection.getresponse()
                if answer.status != 200:
                    raise RemoteError(f"vLLM refuses: {_reason(answer)}")
                finish = _follow(reply, _events(answer))
                reply.say(Ended("stop" if finish == "stop" else "length", reply.tokens))
        except HoneError as error:
            reply.say(Ended("length", reply.tokens, error))
        except (OSError, ValueError, http.client.HTTPException) as error:
            said = RemoteError(f"vLLM broke off: {type(error).__name__}")
            reply.say(Ended("length", reply.tokens, said))
        finally:
            with reply.cut:
                reply.wire = None
                reply.connection.close()
            with self._lock:
                self._under_way.discard(reply)


def request_body(
    model: str, prompt: Sequence[int], wanted: Wanted, stop_ids: Sequence[int]
) -> dict[str, Any]:
    """What vLLM's completions endpoint is sent: ids in, ids and text out."""
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(prompt),
        "stream": True,
        "max_tokens": wanted.max_tokens,
        "temperature": wanted.temperature,
        "top_p": wanted.top_p,
        "stop": list(wanted.stop),
        "stop_token_ids": list(stop_ids),
        "presence_penalty": wanted.presence_penalty,
        "frequency_penalty": wanted.frequency_penalty,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "add_special_tokens": False,
        "return_token_ids": True,
    }
    if wanted.seed is not None:
        body["seed"] = wanted.seed
    if wanted.top_logprobs is not None:
        body["logprobs"] = wanted.top_logprobs
        body["return_tokens_as_token_ids"] = True
    if wanted.logit_bias:
        body["logit_bias"] = {str(i): bias for i, bias in wanted.logit_bias.items()}
    if wanted.schema is not None:
        body["structured_outputs"] = {"json": dict(wanted.schema)}
    return body


def _events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """The objects of a stream, until it says that it is done. Raises RemoteError where it breaks off."""
    for line in answer:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        said: Any = json.loads(data)
        if "error" in said:
            raise RemoteError(f"vLLM failed: {said['error'].get('message', 'no reason given')}")
        yield said
    raise RemoteError("vLLM broke off in the middle of a reply")


def _follow(reply: _Reply, events: Iterator[dict[str, Any]]) -> str | None:
    """Tell the pieces of a stream; how it ended."""
    finish: str | None = None
    for event in events:
        for choice in cast("list[dict[str, Any]]", event.get("choices") or []):
            ids = cast("list[int]", choice.get("token_ids") or [])
            reply.tokens += len(ids)
            text = str(choice.get("text") or "")
            if text or ids:
                reply.say(Piece(text, len(ids), tuple(_chances(ids, choice.get("logprobs")))))
            finish = choice.get("finish_reason") or finish
    return finish


def _chances(ids: Sequence[int], told: Any) -> Iterator[Chance]:
    """Probabilities as completions tell them, tokens spelled as `token_id:N`."""
    said: dict[str, Any] = told or {}
    values: list[float | None] = said.get("token_logprobs") or []
    tops: list[dict[str, float] | None] = said.get("top_logprobs") or []
    for place, token in enumerate(ids):
        value = values[place] if place < len(values) else None
        top = (tops[place] if place < len(tops) else None) or {}
        ranked = sorted(
            ((int(k.rpartition(":")[2]), v) for k, v in top.items()), key=lambda x: -x[1]
        )
        yield Chance(token, 0.0 if value is None else value, tuple(ranked))


def _reason(answer: http.client.HTTPResponse) -> str:
    try:
        said: Any = json.loads(answer.read(100_000))
        inner: Any = said.get("error", said)
        return str(inner.get("message") or said)
    except (ValueError, AttributeError):
        return f"status {answer.status}"


def _one_base(served: Sequence[Served]) -> Path:
    """The base of all of them. Raises ConfigError where there are several."""
    bases = {place.base.resolve() for place in (one.stand(one.name).place() for one in served)}
    if len(bases) != 1:
        raise ConfigError(
            f"vLLM serves one base at a time; these have {len(bases)}",
            remedy="serve them apart, or set --engine transformers",
        )
    return bases.pop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
