"""Many replies at once from one opened model, by the server's batch: they enter and leave between any two steps.

It knows token ids and no conversations, and owns the model until it is closed.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Literal

from peft import PeftModel
from transformers import PreTrainedModel

from hone.errors import ConfigError, HoneError
from hone.infer.batch import Batch, Bounds, Row
from hone.infer.completer import GREEDY, Sampling, Wanted
from hone.infer.decoder import decoder_of, plain_model
from hone.infer.local import LocalCompleter
from hone.infer.reply_text import ReplyText
from hone.infer.writer import Piece, Told
from hone.models.load import quiet
from hone.models.new_tokens import row_count

_HEARD_S: Final = 0.2  # how long a Ctrl-C may wait to be heard


@dataclass(frozen=True)
class Written:
    """What was written after a prompt: its text, how many tokens it took, and why it ended."""

    text: str
    tokens: int
    finish: Literal["stop", "length"]


class Many:
    """Writes replies with the model of a `LocalCompleter`, up to `rows` at a time.

    Used as a context: while it is open, nothing else may run the model; afterwards the model is as before.
    """

    def __init__(self, completer: LocalCompleter, *, rows: int = Bounds.rows) -> None:
        self._completer = completer
        self._rows = rows

    def __enter__(self) -> Many:
        completer = self._completer
        plain = plain_model(completer.model)
        self._stock = str(getattr(plain.config, "_attn_implementation", None) or "eager")
        with completer.weights():
            self._decoder = decoder_of(completer.model, batches=completer.batches)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        unhook: Callable[[], None] | None = getattr(self._decoder, "unhook", None)
        if unhook is not None:
            unhook()
            with quiet():
                plain_model(self._completer.model).set_attn_implementation(self._stock)

    def replies(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        sampling: Sampling = GREEDY,
        on_reply: Callable[[int, Written], None] | None = None,
    ) -> list[Written]:
        """What follows each prompt, in their order; a greedy reply is the one that it would get alone.

        Reply n is drawn with the seed + n, where there is a seed. `on_reply` hears each as it ends, in any order.
        Raises ConfigError for a prompt that leaves no room, HoneError where the model fails.
        """
        rooms = [self._room(prompt, sampling) for prompt in prompts]
        # Rows of one length beside each other: the slots of all are as long as the longest needs.
        order = sorted(range(len(prompts)), key=lambda i: -(len(prompts[i]) + rooms[i]))
        told: queue.Queue[tuple[int, Told]] = queue.Queue()
        bounds = Bounds(rows=self._rows, waiting=len(prompts) + 1)
        found: dict[int, Written] = {}
        with self._completer.weights():
            batch = Batch(self._decoder, bounds, name="many")
            tickets: list[Row] = []
            try:
                for i in order:
                    wanted = self._wanted(sampling, i, rooms[i])
                    tickets.append(self._begin(batch, prompts[i], wanted, _teller(told, i)))
                self._listen(told, found, len(prompts), on_reply)
            finally:
                for ticket in tickets:
                    ticket.cancel()
                batch.close()
                for row in tickets:
                    if row.seat.slot >= 0:
                        self._decoder.leave(row.seat)
        return [found[i] for i in range(len(prompts))]

    def _begin(
        self, batch: Batch, prompt: Sequence[int], wanted: Wanted, tell: Callable[[Told], None]
    ) -> Row:
        completer = self._completer
        return batch.write(
            prompt,
            wanted,
            tell,
            text=ReplyText(completer.renderer.tokenizer, prompt, wanted.stop),
            stop_ids=frozenset(completer.stop_ids),
            width=_width(completer.model),
            adapter=self._decoder.active,
        )

    def _listen(
        self,
        told: queue.Queue[tuple[int, Told]],
        found: dict[int, Written],
        count: int,
        on_reply: Callable[[int, Written], None] | None,
    ) -> None:
        texts: dict[int, list[str]] = {}
        while len(found) < count:
            try:
                i, what = told.get(timeout=_HEARD_S)
            except queue.Empty:
                continue
            if isinstance(what, Piece):
                texts.setdefault(i, []).append(what.text)
                continue
            if what.failure is not None:
                raise HoneError(
                    "the model failed while it wrote many replies at once",
                    remedy="its own words stand above; where memory ran out, write fewer at a time (--batch)",
                ) from what.failure
            found[i] = Written("".join(texts.pop(i, ())), what.tokens, what.finish)
            if on_reply is not None:
                on_reply(i, found[i])

    def _room(self, prompt: Sequence[int], sampling: Sampling) -> int:
        limit = self._completer.limit
        if limit is None:
            return sampling.max_tokens
        if len(prompt) >= limit:
            raise ConfigError(
                f"a prompt is {len(prompt):,} tokens long; the model takes {limit:,} with its reply",
                remedy="leave it out, or say it in fewer words",
            )
        return min(limit - len(prompt), sampling.max_tokens)

    def _wanted(self, sampling: Sampling, i: int, room: int) -> Wanted:
        seed = None if sampling.seed is None else sampling.seed + i
        plain = Wanted(sampling.max_tokens, sampling.temperature, sampling.top_p, seed)
        return replace(plain, max_tokens=room)


def _teller(told: queue.Queue[tuple[int, Told]], i: int) -> Callable[[Told], None]:
    return lambda what: told.put((i, what))


def _width(model: PreTrainedModel | PeftModel) -> int:
    """How many logits are the model's own."""
    return row_count(plain_model(model))
