"""A model's answers to questions: prompts rendered, replies written many at a time, calls read as the family writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hone.data.template import TemplateError
from hone.infer.call_formats import Call
from hone.infer.completer import Sampling
from hone.infer.dialect import Dialect, find_dialect
from hone.infer.local import LocalCompleter
from hone.infer.many import Many, Written
from hone.infer.parts import Parts
from hone.recipes.evaluation.question import Question

_TAIL_TOKENS: Final = 16  # of the prompt, in which a template may open the reasoning


@dataclass(frozen=True)
class Answer:
    """What the model wrote: its text without reasoning and calls, and these. `finish` is `length` where it was cut."""

    text: str
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    finish: str = "stop"
    tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        """As sample files hold it."""
        told: dict[str, Any] = {"text": self.text, "finish": self.finish, "tokens": self.tokens}
        if self.reasoning:
            told["reasoning"] = self.reasoning
        if self.calls:
            told["tool_calls"] = [
                {"name": one.name, "arguments": dict(one.arguments)} for one in self.calls
            ]
        return told


@dataclass(frozen=True)
class Unasked:
    """Why a question was not put to the model."""

    reason: str


class Asker:
    """Puts questions to one model."""

    def __init__(self, completer: LocalCompleter) -> None:
        self._completer = completer
        renderer = completer.renderer
        ends = [renderer.tokenizer.decode([i]) for i in completer.stop_ids]
        self.dialect: Dialect = find_dialect(renderer.template, ends)
        self._prompts: dict[int, list[int]] = {}

    def refused(self, questions: Sequence[Question]) -> dict[int, Unasked]:
        """The questions that cannot be put, by their places: too long, or refused by the chat template."""
        found: dict[int, Unasked] = {}
        limit = self._completer.limit
        for i, question in enumerate(questions):
            try:
                ids = self._completer.renderer.prompt(question.prompt, question.tools)
            except TemplateError as error:
                found[i] = Unasked(f"the chat template refuses it: {error.what}")
                continue
            if limit is not None and len(ids) >= limit:
                found[i] = Unasked(
                    f"its prompt leaves no room below the model's limit of {limit:,} tokens"
                )
                continue
            self._prompts[i] = ids
        return found

    def answers(
        self,
        questions: Sequence[Question],
        places: Sequence[int],
        *,
        sampling: Sampling,
        rows: int,
        on_reply: Callable[[int], None],
    ) -> dict[int, Answer]:
        """The answers to the questions at `places`, after `refused`; `on_reply` hears the tokens of each."""
        prompts = [self._prompts[i] for i in places]
        with Many(self._completer, rows=rows) as many:
            written = many.replies(
                prompts, sampling=sampling, on_reply=lambda _, one: on_reply(one.tokens)
            )
        return {
            i: self._read(questions[i], ids, one)
            for i, ids, one in zip(places, prompts, written, strict=True)
        }

    def _read(self, question: Question, prompt: Sequence[int], written: Written) -> Answer:
        opens = self.dialect.thinking[0]
        tail = self._completer.renderer.tokenizer.decode(list(prompt[-_TAIL_TOKENS:]))
        is_thinking = tail.rstrip().endswith(opens)
        parts = Parts(self.dialect, question.schemas or None, is_thinking=is_thinking)
        found = [*parts.push(written.text), *parts.end()]

        def joined(kind: str) -> str:
            return "".join(part.text for part in found if part.kind == kind)

        calls = tuple(part.call for part in found if part.call is not None)
        return Answer(
            joined("content").strip(),
            joined("reasoning"),
            calls,
            written.finish,
            written.tokens,
        )
