"""A chat template in the language of Ollama's Modelfiles (Go's text/template), found by asking the model's own.

Made-up conversations are rendered; what stands between the texts becomes the pieces of the Go template. Pieces and
template are then compared on further conversations, and a template that is no such sequence is refused: Ollama would
write prompts that the model never saw. Tools are not asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from hone.data.template import ChatTemplate, TemplateError
from hone.errors import ConfigError

_SYSTEM, _FIRST, _REPLY, _SECOND = "qsystemtext", "qfirsttext", "qreplytext", "qsecondtext"
_REMEDY: Final = "export it --to gguf, which carries the chat template itself for llama.cpp, or serve it with `hone serve`"
_TURNS: Final = (1, 2, 3)


@dataclass(frozen=True)
class Pieces:
    """What the template writes around texts."""

    begin: str
    """Before the first user's text, without a system text."""
    begin_system: str | None
    """Before the system text; None where the template refuses one."""
    after_system: str
    """Between the system text and the first user's."""
    user: str
    """Before a later user's text."""
    after_user: str
    assistant: str
    after_assistant: str
    prompt: str
    """What asks for a reply."""

    def write(self, system: str | None, turns: Sequence[tuple[str, str | None]]) -> str:
        """The text of users' turns and their replies; the last may have none, and then asks for it."""
        if system is not None and self.begin_system is not None:
            text = self.begin_system + system + self.after_system
        else:
            text = self.begin
        for number, (asked, reply) in enumerate(turns):
            text += (self.user if number else "") + asked + self.after_user
            text += self.prompt if reply is None else self.assistant + reply + self.after_assistant
        return text

    def go(self) -> str:
        """The Go template. Ollama gives it `.System`, and `.Messages` with the system's among them."""
        begin = self.begin
        if self.begin_system is not None:
            with_system = f"{self.begin_system}{{{{ .System }}}}{self.after_system}"
            begin = f"{{{{ if .System }}}}{with_system}{{{{ else }}}}{begin}{{{{ end }}}}"
        user = f"{{{{ if $later }}}}{self.user}{{{{ end }}}}{{{{ $later = true }}}}{{{{ .Content }}}}{self.after_user}"
        last = "eq (len (slice $.Messages $i)) 1"
        assistant = f"{self.assistant}{{{{ .Content }}}}{{{{ if not ({last}) }}}}{self.after_assistant}{{{{ end }}}}"
        return (
            f"{begin}{{{{ $later := false }}}}{{{{ range $i, $m := .Messages }}}}"
            f'{{{{ if eq .Role "user" }}}}{user}{{{{ else if eq .Role "assistant" }}}}{assistant}{{{{ end }}}}'
            f'{{{{ if and ({last}) (ne .Role "assistant") }}}}{self.prompt}{{{{ end }}}}{{{{ end }}}}'
        )


@dataclass(frozen=True)
class GoTemplate:
    """The template's text, and what a user should hear of it."""

    text: str
    notices: tuple[str, ...]


def go_template(template: ChatTemplate, *, leave_out: str = "") -> GoTemplate:
    """The Go form of `template`. `leave_out` is the token that the engine itself puts first, where it does.

    Raises ConfigError for a template that is no sequence of pieces and texts.
    """
    try:
        pieces = _find(template)
        _compare(template, pieces)
    except (TemplateError, ValueError) as error:
        raise ConfigError(
            f"this chat template has no form that Ollama knows: {error}", remedy=_REMEDY
        ) from error
    if leave_out:
        begin_system = pieces.begin_system
        pieces = replace(
            pieces,
            begin=pieces.begin.removeprefix(leave_out),
            begin_system=None if begin_system is None else begin_system.removeprefix(leave_out),
        )
    odd = next((sign for sign in ("{{", "}}", '"""') if any(sign in str(one) for one in vars(pieces).values())), None)  # fmt: skip
    if odd:
        raise ConfigError(
            f"the chat template writes {odd!r}, which Ollama's reads as its own", remedy=_REMEDY
        )
    return GoTemplate(pieces.go(), tuple(_notices(template, pieces)))


def _render(
    template: ChatTemplate, system: str | None, turns: Sequence[tuple[str, str | None]]
) -> str:
    messages = [] if system is None else [{"role": "system", "content": system}]
    for asked, reply in turns:
        messages.append({"role": "user", "content": asked})
        if reply is not None:
            messages.append({"role": "assistant", "content": reply})
    return template.render(messages, add_generation_prompt=turns[-1][1] is None)


def _find(template: ChatTemplate) -> Pieces:
    asked = _parts(_render(template, None, [(_FIRST, _REPLY), (_SECOND, None)]), _FIRST, _REPLY, _SECOND)  # fmt: skip
    begin, between, again, end = asked
    told = template.render([{"role": "user", "content": _FIRST}])
    after_user = _parts(told, _FIRST)[1]
    after_assistant = _parts(_render(template, None, [(_FIRST, _REPLY)]), _FIRST, _REPLY)[2]
    begin_system, after_system = None, ""
    try:
        with_system = _render(template, _SYSTEM, [(_FIRST, None)])
    except TemplateError:
        with_system = None
    if with_system is not None:
        begin_system, after_system, _ = _parts(with_system, _SYSTEM, _FIRST)
    return Pieces(
        begin=begin,
        begin_system=begin_system,
        after_system=after_system,
        user=_after(again, after_assistant),
        after_user=after_user,
        assistant=_after(between, after_user),
        after_assistant=after_assistant,
        prompt=_after(end, after_user),
    )


def _parts(text: str, *texts: str) -> list[str]:
    """What stands before, between and after the texts."""
    found: list[str] = []
    for one in texts:
        before, seen, text = text.partition(one)
        if not seen or one in text:
            raise ValueError("a message's text is not written once, in its place")
        found.append(before)
    return [*found, text]


def _after(text: str, beginning: str) -> str:
    if not text.startswith(beginning):
        raise ValueError("what ends a turn depends on what follows")
    return text[len(beginning) :]


def _compare(template: ChatTemplate, pieces: Pieces) -> None:
    systems = [None] if pieces.begin_system is None else [None, "You answer briefly."]
    for system, count, open_end in product(systems, _TURNS, (True, False)):
        turns: list[tuple[str, str | None]] = [
            (f"Ask {i}?\nTwo lines.", f"Reply {i}.") for i in range(count)
        ]
        if open_end:
            turns[-1] = (turns[-1][0], None)
        if pieces.write(system, turns) != _render(template, system, turns):
            raise ValueError("it writes a turn otherwise in a longer conversation")


def _notices(template: ChatTemplate, pieces: Pieces) -> list[str]:
    told: list[str] = []
    if pieces.begin_system is None:
        told.append("the chat template refuses a system text: Ollama leaves it out")
    try:
        trims = _render(template, None, [(" a ", None)]) != pieces.write(None, [(" a ", None)])
    except TemplateError:
        trims = True
    if trims:
        told.append("the chat template removes spaces around texts, and Ollama's keeps them")
    if template.mentions("tools"):
        told.append(
            "the template in the Modelfile offers no tools; llama.cpp reads the whole one from the GGUF file"
        )
    return told
