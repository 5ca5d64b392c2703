"""`distill`: prompts answered by a teacher, as rows to train on. It composes prompts, teacher, journal and output, and
prints nothing.

The journal lies beside the output: the same call goes on where an earlier one ended, however it ended, and what was
answered is never asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from hone.data.conversation import Conversation, Message
from hone.data.example import Origin
from hone.data.messages import read_messages
from hone.data.outbox import Outbox
from hone.data.remarks import Remarks
from hone.data.shape_writers import as_openai, write_row
from hone.errors import ConfigError, DataError, HoneError, Interrupted, RemoteError, Terminated
from hone.recipes.answers import Ended, Journal, Outcome
from hone.recipes.asked import Asked, AskedFile
from hone.recipes.asking import Asking, Patience, Request
from hone.recipes.spending import Limits, Spending
from hone.recipes.teacher import (
    Address,
    ApiTeacher,
    Drawing,
    LocalTeacher,
    Teacher,
    find_key,
)
from hone.runs.events import Event, Listener, Say

_SYSTEM: Final = ("system", "developer")
_NAMED_FAILURES: Final = 5
_FAILED: Final = "failed"
_FREE: Final = Drawing()
_UNLIMITED: Final = Limits()
_PATIENT: Final = Patience()
_Make = Callable[[], Teacher]


@dataclass(frozen=True)
class Order:
    """What is asked, of whom, how often, and where the rows go.

    Without `base_url` the teacher is a run, an adapter or a model folder of this machine. `timeout` is in seconds, for a
    whole answer. Raises ConfigError for what makes no sense.
    """

    prompts: Path
    teacher: str
    out: Path
    base_url: str | None = None
    samples: int = 1
    system: str | None = None
    drawing: Drawing = _FREE
    timeout: float = 600.0
    api_key_env: str | None = None

    def __post_init__(self) -> None:
        drawn = self.drawing.temperature
        if self.samples > 1 and (drawn == 0 or (drawn is None and self.base_url is None)):
            raise ConfigError(
                f"{self.samples} samples at temperature 0 are {self.samples} times the same answer",
                remedy="set --temperature above 0, or leave --samples at 1",
            )
        if self.out.suffix not in (".jsonl", ".json"):
            raise ConfigError(
                f"rows are written as .jsonl or .json, not as {self.out.suffix or self.out.name!r}",
                remedy=f"name it {self.out.with_suffix('.jsonl').name}",
            )

    @property
    def rejected(self) -> Path:
        """Where that goes which is no answer to learn from."""
        return self.out.with_name(f"{self.out.stem}.rejected.jsonl")

    @property
    def journal(self) -> Path:
        """Where every answer is kept as it comes."""
        return self.out.with_name(f"{self.out.name}.journal")


@dataclass(frozen=True)
class Distilled:
    """What came of it, over all commands that wrote this output."""

    requests: int
    outcomes: Mapping[str, int]
    failed: tuple[str, ...]
    left: int
    tokens: int
    cost: float | None
    others: Mapping[str, int]
    rows: int
    seconds: float


def distill(
    order: Order,
    *,
    limits: Limits = _UNLIMITED,
    patience: Patience = _PATIENT,
    fresh: bool = False,
    force: bool = False,
    listeners: Sequence[Listener] = (),
) -> Distilled:
    """Ask every prompt, and write the answered ones to `order.out`, in the order of the prompts.

    `fresh` moves an earlier journal aside, `force` replaces an output that is not this journal's own. Raises
    ConfigError, DataError, ModelError and LockedError before anything is asked; RemoteError where the API failed for
    some (what was answered is written first), BudgetReached, DataError where nothing was answered, DiskError,
    Interrupted and Terminated.
    """
    began = time.monotonic()

    def say(event: str, /, **fields: object) -> None:
        for listener in listeners:
            listener(Event(event, time.time(), fields))

    if limits.is_limit and order.drawing.max_tokens is None:
        raise ConfigError(
            "a budget cannot be kept without a longest answer",
            remedy="add --max-tokens COUNT, the most tokens of one answer",
        )
    requests = _requests(order, say)
    make_teacher = _teacher(order, requests, say)
    journal = Journal(order.journal, _header(order, requests), fresh=fresh)
    with contextlib.closing(journal):
        _check_places(order, journal, force=force)
        spending = Spending(limits)
        for ended in journal.ended.values():
            spending.spend(ended.tokens)
        spending.spend(journal.lost)
        missing = [one for one in requests if one.number not in journal.ended]
        missing.sort(key=lambda one: one.number in journal.failed)  # those that failed come last
        _say_beginning(order, requests, missing, journal, say)
        asking = None
        if missing:
            asking = _ask(make_teacher, order, missing, journal, spending, patience, say)
        _write(order, requests, journal)
        done = _told(requests, journal, spending, asking, began)
        _say_end(order, done, asking, say)
    _raise_unless_all(order, done, asking)
    return done


def _requests(order: Order, say: Say) -> list[Request]:
    """Each sample of each prompt, numbered."""
    found: list[Asked] = []
    own = 0
    for asked in AskedFile(order.prompts, "PROMPTS"):
        if order.system is not None:
            if asked.messages[0].role in _SYSTEM:
                own += 1
            else:
                system = Message("system", order.system)
                asked = replace(asked, messages=[system, *asked.messages])
        found.append(asked)
    if not found:
        raise DataError(
            "nothing is asked", where=str(order.prompts), remedy="write prompts into it"
        )
    if own:
        message = (
            f"{own:,} prompts have a system message of their own and keep it, without --system"
        )
        say("notice", code="own-system", message=message)
    return [
        Request(place * order.samples + sample, asked, sample)
        for place, asked in enumerate(found)
        for sample in range(order.samples)
    ]


def _teacher(order: Order, requests: Sequence[Request], say: Say) -> _Make:
    """What makes the teacher when something is to be asked; what cannot work is refused now."""
    if order.base_url is None:
        if (
            not Path(order.teacher).expanduser().exists()
            and not (Path("runs") / order.teacher).is_dir()
        ):
            raise ConfigError(
                f"the teacher {order.teacher!r} is no folder and no run here, and no address was named",
                remedy="add --base-url, e.g. https://api.openai.com/v1, or name a run or a model folder",
            )
        if any(one.asked.tools for one in requests):
            raise ConfigError(
                "prompts with tools: a teacher in this process writes calls as text, which is not read back",
                remedy="serve it with a server that speaks the OpenAI API, and name it with --base-url",
            )

        def local() -> Teacher:
            teacher = LocalTeacher(order.teacher)
            for notice in teacher.notices:
                say("notice", code="teacher", message=notice)
            return teacher

        return local
    address = Address(order.base_url)
    key = find_key(address, order.api_key_env, os.environ)
    if key is not None and address.url.startswith("http://") and not address.is_loopback:
        message = f"the key goes to {address.host} unencrypted: the address begins with http://"
        say("notice", code="unencrypted", message=message)
    return lambda: ApiTeacher(
        order.teacher,
        address,
        key=key,
        timeout=order.timeout,
        environment=os.environ,
    )


def _header(order: Order, requests: Sequence[Request]) -> dict[str, Any]:
    """What makes answers those of this order: whoever changes it asks something else."""
    digest = hashlib.sha256()
    for one in requests[:: order.samples]:
        asked = [[as_openai(message) for message in one.asked.messages], list(one.asked.tools)]
        digest.update(json.dumps(asked).encode("ascii") + b"\n")
    drawing = order.drawing
    return {
        "prompts": f"{len(requests) // order.samples} with SHA-256 {digest.hexdigest()}",
        "teacher": order.teacher,
        "base_url": order.base_url,
        "samples": order.samples,
        "system": order.system,
        "temperature": drawing.temperature,
        "top_p": drawing.top_p,
        "max_tokens": drawing.max_tokens,
        "seed": drawing.seed,
    }


def _check_places(order: Order, journal: Journal, *, force: bool) -> None:
    """Raise ConfigError, before anything is paid, where the outputs must not be written."""
    out = order.out
    ours = out.is_file() and journal.written == hashlib.sha256(out.read_bytes()).hexdigest()
    Outbox(inputs=[order.prompts], force=force or ours).check(out)
    Outbox(inputs=[order.prompts], force=True).check(order.rejected)


def _ask(
    make: _Make,
    order: Order,
    missing: Sequence[Request],
    journal: Journal,
    spending: Spending,
    patience: Patience,
    say: Say,
) -> Asking:
    """Ask them all in an event loop of its own."""

    async def main() -> Asking:
        _end_on_sigterm()
        teacher = make()
        asking = Asking(
            teacher,
            order.teacher,
            order.drawing,
            journal=journal,
            spending=spending,
            patience=patience,
            say=say,
        )
        try:
            await asking.run(missing)
        finally:
            await teacher.close()
        return asking

    remedy = "type the same command: it asks only what is missing"
    try:
        return asyncio.run(main())
    except KeyboardInterrupt:
        kept = f"{len(journal.ended):,} answers are kept"
        raise Interrupted(f"interrupted; {kept}", where=str(journal.path), remedy=remedy) from None
    except asyncio.CancelledError:
        kept = f"{len(journal.ended):,} answers are kept"
        raise Terminated(f"terminated; {kept}", where=str(journal.path), remedy=remedy) from None


def _end_on_sigterm() -> None:
    """SIGTERM cancels the task that runs now, where signals can be heard; Ctrl-C does so by itself."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(ValueError, RuntimeError):  # not the main thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _write(order: Order, requests: Sequence[Request], journal: Journal) -> None:
    """The answered rows and the others, each file whole or as it was; an output that stands already is left."""
    answered = [one for one in requests if _is_answered(journal.ended.get(one.number))]
    others = [one for one in requests if _why_not(one, journal) is not None]
    with Outbox(inputs=[order.prompts], force=True) as outbox:
        if answered:
            sink = outbox.rows(order.out)
            for one in answered:
                sink.add_json(_row(one, journal.ended[one.number]))
        if others:
            sink = outbox.rows(order.rejected)
            for one in others:
                sink.add_json(_rejected_row(one, journal))
    if not others and journal.written is not None:
        order.rejected.unlink(missing_ok=True)  # of an earlier command: by now they are answered
    if answered:
        digest = hashlib.sha256(order.out.read_bytes()).hexdigest()
        if digest != journal.written:
            journal.wrote(digest)


def _is_answered(ended: Ended | None) -> bool:
    return ended is not None and ended.outcome is Outcome.ANSWERED


def _row(request: Request, ended: Ended) -> dict[str, Any]:
    asked = request.asked
    reply = read_messages([ended.message], asked.name, Remarks())
    said = Conversation((*asked.messages, *reply), Origin(asked.name, 1), asked.tools)
    return write_row(said, "messages", lossy=False, where=asked.name)[0]


def _why_not(request: Request, journal: Journal) -> tuple[str, str] | None:
    """The outcome and the reason of a request that was ended without an answer to learn from."""
    ended = journal.ended.get(request.number)
    if ended is not None:
        return None if _is_answered(ended) else (ended.outcome.value, ended.reason or "")
    failed = journal.failed.get(request.number)
    return None if failed is None else (_FAILED, failed)


def _rejected_row(request: Request, journal: Journal) -> dict[str, Any]:
    """By name and reason; with the prompt, so that the file can be asked again as it is."""
    why = _why_not(request, journal)
    assert why is not None
    asked, ended = request.asked, journal.ended.get(request.number)
    return {
        "row": asked.name,
        "sample": request.sample,
        "outcome": why[0],
        "reason": why[1],
        "messages": [as_openai(one) for one in asked.messages],
        **({"tools": list(asked.tools)} if asked.tools else {}),
        **({"answer": ended.message} if ended is not None else {}),
    }


def _told(
    requests: Sequence[Request],
    journal: Journal,
    spending: Spending,
    asking: Asking | None,
    began: float,
) -> Distilled:
    counts = Counter(one.outcome.value for one in journal.ended.values())
    failed = [one.asked.name for one in requests if one.number in journal.failed]
    return Distilled(
        requests=len(requests),
        outcomes={outcome.value: counts[outcome.value] for outcome in Outcome}
        | {_FAILED: len(failed)},
        failed=tuple(failed),
        left=len(requests) - len(journal.ended) - len(failed),
        tokens=spending.spent.total,
        cost=spending.cost,
        others=dict(asking.others) if asking is not None else {},
        rows=counts[Outcome.ANSWERED.value],
        seconds=time.monotonic() - began,
    )


def _say_beginning(
    order: Order,
    requests: Sequence[Request],
    missing: Sequence[Request],
    journal: Journal,
    say: Say,
) -> None:
    say(
        "teacher",
        teacher=order.teacher,
        at=order.base_url,
        requests=len(requests),
        missing=len(missing),
        journal=str(journal.path),
    )
    if journal.moved is not None:
        message = f"the earlier answers are now in {journal.moved}"
        say("notice", code="moved", message=message)
    if journal.unknown:
        most = sum((one.total for one in journal.unknown.values()), 0)
        bound = (
            f"at most {most:,} tokens" if order.drawing.max_tokens else "they may have been charged"
        )
        say(
            "notice",
            code="under-way",
            message=f"{len(journal.unknown):,} requests were under way when an earlier command ended: whether "
            f"they were answered is unknown ({bound}), and they are asked again",
        )
    thoughts = sum(1 for one in requests for said in one.asked.messages if said.reasoning)
    if thoughts and order.base_url is not None:
        message = "reasoning of earlier turns is not sent to the teacher; it stays in the rows"
        say("notice", code="reasoning-kept-back", message=message)


def _say_end(order: Order, done: Distilled, asking: Asking | None, say: Say) -> None:
    if asking is not None and asking.uncounted:
        message = f"{asking.uncounted:,} answers came without token counts: they count as the most they can be"
        say("notice", code="uncounted", message=message)
    if done.others:
        names = ", ".join(f"{name} ({count:,})" for name, count in done.others.items())
        message = f"asked {order.teacher}, answered by another model: {names}"
        say("notice", code="other-model", message=message)
    say(
        "distilled",
        **{name: getattr(done, name) for name in ("requests", "outcomes", "left", "rows")},
        tokens=done.tokens,
        cost=done.cost,
        seconds=round(done.seconds, 3),
        out=str(order.out) if done.rows else None,
        rejected=str(order.rejected) if done.requests - done.left - done.rows else None,
    )


def _raise_unless_all(order: Order, done: Distilled, asking: Asking | None) -> None:
    """Raise what ended it early, or for what failed."""
    end: HoneError | None = None if asking is None else asking.end
    if end is not None:
        raise end
    if done.failed:
        named = ", ".join(done.failed[:_NAMED_FAILURES])
        more = (
            f" and {len(done.failed) - _NAMED_FAILURES} more"
            if len(done.failed) > _NAMED_FAILURES
            else ""
        )
        raise RemoteError(
            f"{len(done.failed):,} of {done.requests:,} requests failed: {named}{more}",
            where=str(order.rejected),
            remedy="the reasons stand there; the same command asks these again, and nothing else",
        )
    if not done.rows:
        raise DataError(
            "the teacher gave no answer to learn from",
            where=str(order.rejected),
            remedy="the reasons stand there; change the prompts, or raise --max-tokens",
        )
