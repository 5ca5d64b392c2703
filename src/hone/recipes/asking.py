"""Asks a teacher many questions at once: retries, pauses, budget and the journal. It knows no file of prompts.

No request leaves before what it can cost at most is set aside, and no answer counts before it is in the journal.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hone.data.messages import read_messages
from hone.data.remarks import Remarks
from hone.errors import BudgetReached, DataError, HoneError, RemoteError
from hone.recipes.answers import Ended, Journal, Outcome, judge
from hone.recipes.asked import Asked
from hone.recipes.pace import Pace
from hone.recipes.spending import Spending, Tokens
from hone.recipes.teacher import Answer, Drawing, Teacher, Trouble
from hone.runs.events import Say

LONGEST_WAIT_SECONDS: Final = 600.0  # a teacher that asks to wait longer is left
_LONGEST_BACKOFF_SECONDS: Final = 60.0
_FAILURES_IN_A_ROW: Final = 5
_DATED: Final = r"[-@:]?\d[\d-]*"  # what a teacher writes behind a name for its version


@dataclass(frozen=True)
class Request:
    """One thing to ask: its number, the prompt, and which sample of it."""

    number: int
    asked: Asked
    sample: int


@dataclass(frozen=True)
class Patience:
    """How many requests at once and a minute, tokens a minute, how often one is sent again, and the first wait of the
    doubling ones, in seconds."""

    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    retries: int = 5
    backoff: float = 1.0


class _Over(Exception):
    """Someone ended it all: this request is left as it is."""


class Asking:
    """`await run(requests)`, then `end` says why it ended early, if it did."""

    def __init__(
        self,
        teacher: Teacher,
        model: str,
        drawing: Drawing,
        *,
        journal: Journal,
        spending: Spending,
        patience: Patience,
        say: Say,
    ) -> None:
        self.end: HoneError | None = None
        self.others: Counter[str] = Counter()
        """Answers by other models than the one that was asked, by their names."""
        self.uncounted = 0
        """Answers whose tokens the teacher did not say."""
        self._teacher = teacher
        self._model = model
        self._drawing = drawing
        self._journal = journal
        self._spending = spending
        self._pace = Pace(
            requests_per_minute=patience.requests_per_minute,
            tokens_per_minute=patience.tokens_per_minute,
            sleep=self.nap,
        )
        self._patience = patience
        self._say = say
        self._over = asyncio.Event()
        self._freed = asyncio.Event()
        self._in_a_row = 0

    async def run(self, requests: Sequence[Request]) -> None:
        """Ask all of them, or until something ends it."""
        waiting = deque(requests)

        async def work() -> None:
            while waiting and self.end is None:
                try:
                    await self._until_answered(waiting.popleft())
                except _Over:
                    return
                except HoneError as error:  # the journal cannot be written, say
                    self._finish(error)

        workers = min(self._patience.concurrency, len(requests))
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())

    async def nap(self, seconds: float) -> None:
        """Sleep, but not past the end of everything."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return
        raise _Over

    async def _until_answered(self, request: Request) -> None:
        prompt = self._teacher.most_prompt_tokens(request.asked)
        most = Tokens(prompt, self._drawing.max_tokens or 0)
        tries = 0
        while True:
            got = await self._once(request, most)
            if isinstance(got, Answer):
                return
            tries += 1
            self._stop_for(got)
            if got.then != "again" or tries > self._patience.retries:
                self._failed(request, got)
                return
            longest = min(_LONGEST_BACKOFF_SECONDS, self._patience.backoff * 2 ** (tries - 1))
            wait = random.uniform(0, longest) if got.wait is None else got.wait
            if got.slow:
                self._pace.pause(wait)
            self._say("retry", row=request.asked.name, reason=got.reason, seconds=round(wait, 3))
            await self.nap(wait)

    async def _once(self, request: Request, most: Tokens) -> Answer | Trouble:
        """One request, within budget and pace, and its end in the journal."""
        await self._afford(most)
        spent = Tokens(0, 0)
        try:
            await self._pace.leave(most.total)
            if self.end is not None:
                raise _Over
            self._journal.asking(request.number, most)
            spent = most  # until it is known better
            got = await self._teacher.ask(request.asked, self._drawing, request.sample)
            if isinstance(got, Answer):
                spent = self._tokens(got, most)
                await self._take(request, got, spent)
            else:
                spent = most if got.charged else Tokens(0, 0)
                self._journal.trouble(request.number, got.reason, spent, failed=False)
            self._pace.correct(most.total, spent.total)
            return got
        finally:
            self._spending.settle(most, spent)
            self._freed.set()

    async def _afford(self, most: Tokens) -> None:
        while not self._spending.reserve(most):
            if self._spending.under_way == 0:
                self._finish(
                    BudgetReached(
                        f"the budget is reached: {self._spending.told()}, and the next request may take "
                        f"{most.total:,} tokens",
                        remedy="raise --max-total-tokens or --max-cost, or lower --max-tokens; the same "
                        "command then asks what is left",
                    )
                )
                raise _Over
            self._freed.clear()
            await self._freed.wait()
            if self.end is not None:
                raise _Over
        if self.end is not None:
            self._spending.settle(most, Tokens(0, 0))
            raise _Over

    def _tokens(self, answer: Answer, most: Tokens) -> Tokens:
        if answer.tokens is not None:
            return answer.tokens
        self.uncounted += 1
        text = str(answer.message).encode("utf-8", "surrogatepass")
        return Tokens(most.prompt, most.completion or len(text))

    async def _take(self, request: Request, answer: Answer, tokens: Tokens) -> None:
        outcome, reason = judge(answer)
        if outcome is Outcome.ANSWERED:
            try:
                read_messages([answer.message], request.asked.name, Remarks())
            except DataError as error:
                outcome, reason = Outcome.UNUSABLE, error.what
        ended = Ended(outcome, answer.message, answer.model, reason, tokens)
        self._journal.end(request.number, ended)
        await asyncio.to_thread(self._journal.sync)  # a slow disk makes no other request wait
        self._in_a_row = 0
        if is_other(self._model, answer.model):
            self.others[answer.model] += 1
        self._say("answer", row=request.asked.name, sample=request.sample, outcome=outcome.value)

    def _failed(self, request: Request, trouble: Trouble) -> None:
        self._journal.trouble(request.number, trouble.reason, Tokens(0, 0), failed=True)
        self._say("failure", row=request.asked.name, sample=request.sample, reason=trouble.reason)
        self._in_a_row += 1
        if self._in_a_row >= _FAILURES_IN_A_ROW:
            self._finish(
                RemoteError(
                    f"{self._in_a_row} prompts in a row have failed, the last one with: {trouble.reason}",
                    where=request.asked.name,
                    remedy="look at the reason; the same command goes on, and asks nothing twice",
                )
            )

    def _stop_for(self, trouble: Trouble) -> None:
        """End everything where the teacher says that no further request makes sense."""
        if trouble.then == "end":
            self._finish(
                RemoteError(
                    f"the teacher ends this: {trouble.reason}",
                    remedy="mend that, then type the same command: it asks only what is missing",
                )
            )
        elif trouble.wait is not None and trouble.wait > LONGEST_WAIT_SECONDS:
            self._finish(
                RemoteError(
                    f"the teacher asks to wait {trouble.wait:,.0f} s (Retry-After): {trouble.reason}",
                    remedy="type the same command when that time is over: it asks only what is missing",
                )
            )
        else:
            return
        raise _Over

    def _finish(self, why: HoneError) -> None:
        if self.end is None:
            self.end = why
        self._over.set()
        self._freed.set()


def is_other(asked: str, answered: str) -> bool:
    """Whether another model answered than the one that was asked: a dated version of it is the same."""
    if not answered or answered == asked:
        return False
    return re.fullmatch(re.escape(asked) + _DATED, answered) is None
