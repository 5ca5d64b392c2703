"""A reply's text taken apart as it comes: reasoning, content, tool calls. It knows no tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hone.infer.call_formats import Call, Schemas
from hone.infer.dialect import Dialect


@dataclass(frozen=True, slots=True)
class Part:
    """What comes next: of one kind, and never empty."""

    kind: Literal["reasoning", "content", "call"]
    text: str = ""
    call: Call | None = None


_BREAKS: Final = "\n"


class Parts:
    """Text in, parts out. What might be the beginning of a mark waits until it is known.

    Contents joined, with nothing but reasoning and calls taken out, are the text as it was written; line breaks
    beside marks go with them.
    """

    def __init__(
        self, dialect: Dialect, schemas: Schemas | None, *, is_thinking: bool, lead: str = ""
    ) -> None:
        """`schemas` are of the tools that the reply may call, None where it may call none; `is_thinking`: the
        prompt has opened the reasoning already; `lead`: a beginning of the reply that the prompt holds."""
        self._opens, self._closes = dialect.thinking
        self._calls = dialect.calls if schemas else None
        self._schemas = schemas or {}
        self._mode: Literal["before", "thinking", "text", "call"] = (
            "thinking" if is_thinking else "before"
        )
        self._thought = is_thinking
        self._begun = False  # whether something of this mode was said
        self._called = False
        self._held = lead

    def push(self, text: str) -> list[Part]:
        """More of the reply."""
        self._held += text
        found: list[Part] = []
        while self._advance(found):
            pass
        return found

    def end(self) -> list[Part]:
        """What was waiting, now that nothing follows."""
        found: list[Part] = []
        rest, self._held = self._held, ""
        if self._mode == "thinking":
            self._say(found, "reasoning", rest.rstrip(_BREAKS))
        elif self._mode == "call" or (self._mode == "before" and self._is_bare(rest)):
            self._settle_call(found, rest, closes="")
        else:
            self._say(found, "content", rest.rstrip() if self._called else rest)
        return found

    def _advance(self, found: list[Part]) -> bool:
        """Take one mark, or say what is safe; whether to look again."""
        match self._mode:
            case "before":
                return self._before()
            case "thinking":
                return self._thinking(found)
            case "text":
                return self._text(found)
            case "call":
                return self._call(found)

    def _before(self) -> bool:
        """Nothing but space has come: reasoning may open, or a bare call."""
        seen = self._held.lstrip()
        if not self._thought and seen.startswith(self._opens):
            self._held = seen[len(self._opens) :]
            self._mode, self._thought = "thinking", True
            return True
        if not seen or (not self._thought and self._opens.startswith(seen)) or self._is_bare(seen):
            return False
        if self._thought:
            self._held = self._held.lstrip(_BREAKS)
        self._mode = "text"
        return True

    def _is_bare(self, text: str) -> bool:
        """Whether it may be a call without marks: such a reply is judged as a whole."""
        return self._calls is not None and not self._calls.opens and text.lstrip()[:1] == "{"

    def _thinking(self, found: list[Part]) -> bool:
        inner, mark, rest = self._held.partition(self._closes)
        if mark:
            self._say(found, "reasoning", inner.rstrip(_BREAKS))
            self._held, self._mode, self._begun = rest, "before", False
            return True
        self._say(found, "reasoning", self._take_safe((self._closes,), trail=_BREAKS))
        return False

    def _text(self, found: list[Part]) -> bool:
        opens = self._calls.opens if self._calls is not None else ""
        if not opens:
            self._say(found, "content", self._held)
            self._held = ""
            return False
        before, mark, rest = self._held.partition(opens)
        if mark:
            self._say(found, "content", before.rstrip())
            self._held, self._mode = rest, "call"
            return True
        self._say(found, "content", self._take_safe((opens,), trail=" \t\r\n"))
        return False

    def _call(self, found: list[Part]) -> bool:
        closes = self._calls.closes if self._calls is not None else ""
        if not closes:
            return False
        body, mark, rest = self._held.partition(closes)
        if not mark:
            return False
        self._settle_call(found, body, closes=mark)
        self._held, self._mode = rest, "text"
        return True

    def _settle_call(self, found: list[Part], body: str, *, closes: str) -> None:
        """The calls in `body`; what cannot be read stays text, marks and all."""
        calls = self._calls.read(body, self._schemas) if self._calls is not None else None
        if calls:
            self._called = True
            found += [Part("call", call=call) for call in calls]
        else:
            opens = self._calls.opens if self._calls is not None else ""
            self._say(found, "content", f"{opens}{body}{closes}")

    def _take_safe(self, marks: Sequence[str], *, trail: str) -> str:
        """What can be said of the held text: not a mark's beginning, and not what would go with a mark."""
        held = self._held
        waiting = max((_begun(held, mark) for mark in marks), default=0)
        safe = held[: len(held) - waiting]
        safe = safe.rstrip(trail)
        self._held = held[len(safe) :]
        return safe

    def _say(self, found: list[Part], kind: Literal["reasoning", "content"], text: str) -> None:
        if kind == "reasoning" and not self._begun:
            text = text.lstrip(_BREAKS)
        if text:
            self._begun = True
            found.append(Part(kind, text))


def _begun(text: str, mark: str) -> int:
    """How many characters at the end of `text` are the beginning of `mark`."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:size]):
            return size
    return 0
