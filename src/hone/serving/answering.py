"""From a question to its replies: prompt rendered, replies begun, their parts taken apart as they come. No HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

from hone.data.template import TemplateError
from hone.errors import ConfigError, HoneError
from hone.infer.completer import Wanted
from hone.infer.grammar import call_schema, check_schema
from hone.infer.parts import Parts
from hone.infer.writer import Ended, Piece, Tell, Ticket, Told, Voice, Writer
from hone.serving.answer import Choice, Wire, chance_object
from hone.serving.question import Question
from hone.serving.refusal import Refusal, refusal_of

_TAIL_TOKENS: Final = 16  # of the prompt, in which a template may open the reasoning
_THREADS: Final = 32


class Inbox:
    """What other threads tell, on the event loop: one wake-up for all that came since the last."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._came: list[tuple[asyncio.Queue[tuple[int, Told]], int, Told]] = []

    def teller(self, queue: asyncio.Queue[tuple[int, Told]], index: int) -> Tell:
        """What a writer calls for one reply."""

        def tell(what: Told) -> None:
            with self._lock:
                self._came.append((queue, index, what))
                is_first = len(self._came) == 1
            if is_first and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._deliver)

        return tell

    def _deliver(self) -> None:
        with self._lock:
            came, self._came = self._came, []
        for queue, index, what in came:
            queue.put_nowait((index, what))


@dataclass(frozen=True)
class _Begun:
    """A question that is being answered."""

    wire: Wire
    voice: Voice
    tickets: Sequence[Ticket]
    parts: Sequence[Parts]
    queue: asyncio.Queue[tuple[int, Told]]


@dataclass(frozen=True)
class _Asked:
    """A prompt, and how its reply is to be read."""

    ids: list[int]
    wanted: Wanted
    is_thinking: bool
    lead: str
    """What was written of the reply already."""


class Answering:
    """Answers questions with a `Writer`."""

    def __init__(self, writer: Writer, *, most_tokens: int) -> None:
        """`most_tokens` bounds a reply that does not say how long it may be."""
        self.writer = writer
        self._most = most_tokens
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="hone-ask")
        self._inbox: Inbox | None = None

    def close(self) -> None:
        """No question is begun any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def names(self) -> list[str]:
        """Every model that can be asked."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self.writer.names)

    async def whole(self, question: Question) -> dict[str, Any]:
        """The completion. Raises Refusal; when it is cancelled, so are the replies."""
        begun, choices = await self._begin(question)
        try:
            async for _ in self._deltas(begun, choices, question):
                pass
        finally:
            _cancel(begun)
        return begun.wire.completion(choices)

    async def chunks(self, question: Question) -> AsyncGenerator[dict[str, Any]]:
        """The completion's chunks. The first one comes before anything is written; Refusal is raised before it."""
        begun, choices = await self._begin(question)
        wire = begun.wire
        try:
            for choice in choices:
                yield wire.chunk(choice.index, {"role": "assistant", "content": ""})
            async for chunk in self._deltas(begun, choices, question):
                yield chunk
            if question.include_usage:
                yield wire.last_chunk(choices)
        finally:
            _cancel(begun)

    async def _begin(self, question: Question) -> tuple[_Begun, list[Choice]]:
        loop = asyncio.get_running_loop()
        self._inbox = self._inbox or Inbox(loop)
        queue: asyncio.Queue[tuple[int, Told]] = asyncio.Queue()
        tells = [self._inbox.teller(queue, index) for index in range(question.choices)]
        work = loop.run_in_executor(self._threads, self._ask, question, tells, queue)
        try:
            begun = await asyncio.shield(work)
        except asyncio.CancelledError:  # what it begins in its thread must not go on
            work.add_done_callback(_cancel_later)
            raise
        return begun, [Choice(index) for index in range(question.choices)]

    def _ask(
        self, question: Question, tells: Sequence[Tell], queue: asyncio.Queue[tuple[int, Told]]
    ) -> _Begun:
        """Open the model, render, and queue the replies; in a thread, because each may take its time."""
        try:
            voice = self.writer.voice(question.model)
        except HoneError as error:
            raise refusal_of(error, param="model") from error
        asked = self._prompt(question, voice)
        wire = Wire(
            question.model,
            wants_chances=question.top_logprobs is not None,
            wants_ids=question.return_token_ids,
            prompt=asked.ids,
        )
        schemas = _schemas(question)
        tickets: list[Ticket] = []
        try:
            for index, tell in enumerate(tells):
                wanted = _seeded(asked.wanted, index)
                tickets.append(self.writer.write(voice, asked.ids, wanted, tell))
        except HoneError as error:
            for ticket in tickets:
                ticket.cancel()
            raise refusal_of(error, param=None) from error
        parts = [
            Parts(voice.dialect, schemas, is_thinking=asked.is_thinking, lead=asked.lead)
            for _ in tickets
        ]
        return _Begun(wire, voice, tickets, parts, queue)

    def _prompt(self, question: Question, voice: Voice) -> _Asked:
        if question.tools and voice.dialect.calls is None:
            raise Refusal(
                400,
                "this model's chat template writes no tool calls, or in a form that is not known here: its calls would "
                "come back as text; leave tools out, or take a model of another family",
                param="tools",
                code="tools_not_supported",
            )
        try:
            with voice.lock:
                ids = voice.renderer.prompt(question.messages, question.tools)
                tail = voice.renderer.tokenizer.decode(ids[-_TAIL_TOKENS:])
        except TemplateError as error:
            said = f"the model's chat template refuses these messages: {error.what}"
            raise Refusal(400, said, param="messages") from error
        opens, closes = voice.dialect.thinking
        is_thinking = tail.rstrip().endswith(opens)
        schema, lead = question.schema, ""
        if question.forced is not None:
            schema, lead = _forced(question, voice)
        if schema is not None:
            try:
                check_schema(schema)
            except ConfigError as error:
                param = "tools" if question.forced else "response_format.json_schema.schema"
                raise refusal_of(error, param=param) from error
            # A form binds the reply from its first token, so an opened reasoning is closed before it.
            written = (f"\n{closes}\n\n" if is_thinking else "") + lead
            is_thinking = False
            with voice.lock:
                ids = ids + (voice.renderer.tokenizer.encode(written) if written else [])
        return _Asked(ids, self._wanted(question, voice, len(ids), schema), is_thinking, lead)

    def _wanted(
        self, question: Question, voice: Voice, read: int, schema: Mapping[str, Any] | None
    ) -> Wanted:
        most = question.max_tokens or self._most
        if voice.limit is not None:
            if read >= voice.limit:
                raise Refusal(
                    400,
                    f"the messages are {read:,} tokens long; the model takes {voice.limit:,} with its reply",
                    param="messages",
                    code="context_length_exceeded",
                )
            most = min(most, voice.limit - read)
        return Wanted(
            max_tokens=most,
            temperature=question.temperature,
            top_p=question.top_p,
            seed=question.seed,
            stop=question.stop,
            top_logprobs=question.top_logprobs,
            presence_penalty=question.presence_penalty,
            frequency_penalty=question.frequency_penalty,
            logit_bias=question.logit_bias,
            schema=schema,
        )

    async def _deltas(
        self, begun: _Begun, choices: Sequence[Choice], question: Question
    ) -> AsyncGenerator[dict[str, Any]]:
        """Chunks as replies come; afterwards the choices hold them whole. Raises Refusal for a reply that failed."""
        open_replies = {choice.index for choice in choices}
        while open_replies:
            index, told = await begun.queue.get()
            if index not in open_replies:
                continue
            choice = choices[index]
            if isinstance(told, Piece):
                for chunk in _piece_chunks(begun, choice, told):
                    yield chunk
                if not question.parallel_calls and choice.calls:
                    begun.tickets[index].cancel()
                    told = Ended("stop", choice.tokens)
            if isinstance(told, Ended):
                open_replies.remove(index)
                for chunk in _end_chunks(begun, choice, told):
                    yield chunk


def _piece_chunks(begun: _Begun, choice: Choice, piece: Piece) -> list[dict[str, Any]]:
    """Take a piece of a reply."""
    wire = begun.wire
    choice.tokens += piece.tokens
    choice.token_ids += [chance.token_id for chance in piece.chances]
    chances: list[dict[str, Any]] = []
    if wire.wants_chances:
        with begun.voice.lock:
            tokenizer = begun.voice.renderer.tokenizer
            chances = [chance_object(chance, tokenizer) for chance in piece.chances]
        choice.chances += chances
    parts = begun.parts[choice.index].push(piece.text)
    deltas = [choice.add(part) for part in parts]
    if chances and not deltas:
        deltas.append({})
    return [
        wire.chunk(choice.index, delta, chances=chances if place == 0 else ())
        for place, delta in enumerate(deltas)
    ]


def _end_chunks(begun: _Begun, choice: Choice, ended: Ended) -> list[dict[str, Any]]:
    """Take the end of a reply."""
    if ended.failure is not None:
        raise refusal_of(ended.failure)
    wire = begun.wire
    deltas = [choice.add(part) for part in begun.parts[choice.index].end()]
    choice.tokens = ended.tokens
    choice.finish = "tool_calls" if choice.calls and ended.finish == "stop" else ended.finish
    said = [wire.chunk(choice.index, delta) for delta in deltas]
    return [*said, wire.chunk(choice.index, {}, finish=choice.finish)]


def _schemas(question: Question) -> dict[str, Mapping[str, Any]] | None:
    """The arguments' schema of each tool, by name; None without tools."""
    functions = [tool["function"] for tool in question.tools]
    return {str(one["name"]): one.get("parameters") or {} for one in functions} or None


def _forced(question: Question, voice: Voice) -> tuple[dict[str, Any], str]:
    """The schema of the call that must come, and the text that opens it."""
    calls = voice.dialect.calls
    if calls is None or calls.argument_key is None:
        raise Refusal(
            400,
            "this model's calls are not in a form that can be required; leave tool_choice at auto",
            param="tool_choice",
        )
    schemas = _schemas(question) or {}
    named = {name: schemas[name] for name in question.forced or ()}
    lead = f"{calls.opens}\n" if calls.opens and calls.closes else calls.opens
    return call_schema(named, calls.argument_key), lead


def _seeded(wanted: Wanted, index: int) -> Wanted:
    """Several choices of one seed differ, and come out the same again."""
    if wanted.seed is None or index == 0:
        return wanted
    return replace(wanted, seed=wanted.seed + index)


def _cancel_later(begun: asyncio.Future[_Begun]) -> None:
    if not begun.cancelled() and begun.exception() is None:
        _cancel(begun.result())


def _cancel(begun: _Begun) -> None:
    for ticket in begun.tickets:
        ticket.cancel()
