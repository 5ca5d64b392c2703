"""Asks the wizard's questions on a terminal, one at a time, in plain lines. It knows no question.

Nothing is drawn, so it works in any width, with a screen reader, and where the terminal is dumb.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import sys
import termios
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from hone.cli.printable import printable
from hone.cli.streams import look_of
from hone.errors import ConfigError, HoneError, nearest

if TYPE_CHECKING:
    from hone.wizard.answers import Answers
    from hone.wizard.question import Option, Question, Value

BACK: Final = "<"
_WIDEST: Final = 88
_NARROWEST: Final = 20
_LONGEST_SHOWN: Final = 24  # of a default beside the cursor; longer ones get a line
_PASTE_SECONDS: Final = 0.03  # what a terminal needs to hand over the next line of a paste


class GoBack(Exception):
    """The user wants the question before this one."""


def has_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


class Asker:
    """One terminal, whose lines are edited by readline where that is there."""

    def __init__(self) -> None:
        self._colour = look_of(sys.stdout, os.environ).colour
        try:
            import readline

            readline.set_auto_history(False)  # an answer is not offered at the next question
        except ImportError:
            pass

    def greet(self) -> None:
        """How to answer, once."""
        self.say(
            f"Enter takes what stands in brackets, {BACK} goes back one question, "
            "Ctrl-C leaves and writes nothing."
        )

    def say(self, text: str, *, indent: str = "") -> None:
        """Text in lines that fit."""
        width = max(_NARROWEST, min(shutil.get_terminal_size().columns, _WIDEST))
        for line in printable(text).split("\n"):
            wrapped = textwrap.wrap(
                line,
                width,
                initial_indent=indent,
                subsequent_indent=indent,
                break_on_hyphens=False,
                drop_whitespace=True,
            )
            print("\n".join(wrapped) or "", flush=True)

    def complain(self, error: HoneError) -> None:
        """Why an answer was not taken."""
        head = f"\x1b[31m{'not taken'}\x1b[0m" if self._colour else "not taken"
        print(f"{head}:", flush=True)
        for line in str(error).split("\n"):
            self.say(line.strip(), indent="  ")

    def ask(self, question: Question, answers: Answers) -> Any:
        """What the user answers, unchecked. Raises GoBack, KeyboardInterrupt, and EOFError at the end of input."""
        print()
        self._head(question.text)
        if question.kind == "conversations":
            self.say(question.hint)
            return self._conversations()
        options = question.options(answers)
        default = question.default(answers)
        if options:
            return self._choose(question, options, default)
        if question.kind == "texts":
            self.say(f"{question.hint}; an empty line ends")
            return self._texts()
        if question.hint:
            self.say(question.hint)
        return self._line(_shown(default))

    def agrees(self, text: str, *, default: bool) -> bool:
        """Yes or no. Raises GoBack."""
        while True:
            self._head(text)
            said = self._line("yes" if default else "no").lower()
            if said in ("y", "yes", "n", "no"):
                return said.startswith("y")
            self.say("answer yes or no")

    def _head(self, text: str) -> None:
        """A question; bold where that can be shown."""
        if self._colour:
            sys.stdout.write("\x1b[1m")
        self.say(text)
        if self._colour:
            sys.stdout.write("\x1b[0m")
            sys.stdout.flush()

    def _choose(self, question: Question, options: Sequence[Option], default: Value | None) -> str:
        values = [one.value for one in options]
        for number, one in enumerate(options, 1):
            self.say(f"{number}  {one.label}")
            if one.note:
                self.say(one.note, indent="     ")
        if question.other is not None:
            self.say(f"{len(options) + 1}  {question.other}")
        while True:
            shown = str(values.index(str(default)) + 1) if str(default) in values else ""
            said = self._line(shown)
            if said in values:
                return said
            if re.fullmatch(r"\d{1,3}", said, re.ASCII):
                place = int(said)
                if 1 <= place <= len(values):
                    return values[place - 1]
                if question.other is not None and place == len(values) + 1:
                    if question.hint:
                        self.say(question.hint)
                    return self._line("")
            elif question.other is not None:
                return said
            last = len(values) + (question.other is not None)
            remedy = f"type a number from 1 to {last}; {nearest(said, values)}"
            self.complain(ConfigError(f"no such choice: {said!r}", remedy=remedy))

    def _texts(self) -> list[str] | str:
        found: list[str] = []
        while True:
            said = self._read("> ", several=True)
            if said.strip() == BACK:
                raise GoBack
            found += [line.strip() for line in said.split("\n") if line.strip()]
            if len(found) == 1 and found[0].startswith("@"):
                return found[0]
            if not said.strip():
                if found:
                    return found
                self.say("one at least is needed")

    def _conversations(self) -> list[list[dict[str, str]]]:
        found: list[list[dict[str, str]]] = []
        while True:
            print(f"example {len(found) + 1}")
            found.append(self._conversation())
            if not self.agrees("Another example?", default=False):
                return found

    def _conversation(self) -> list[dict[str, str]]:
        messages: list[dict[str, str]] = []
        system = self._message("system (Enter: none)")
        if system:
            messages.append({"role": "system", "content": system})
        turns = 0
        while True:
            asked = self._message(f"user{' (Enter: ends here)' if turns else ''}")
            if not asked and turns:
                return messages
            if not asked:
                self.say("what the user says is needed")
                continue
            answered = ""
            while not answered:
                answered = self._message("assistant")
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": answered})
            turns += 1

    def _message(self, what: str) -> str:
        said = self._read(f"{what} > ", several=True).strip()
        if said == BACK:
            raise GoBack
        return said

    def _line(self, default: str) -> str:
        """One line, or the default."""
        prompt = "> "
        if default and len(default) <= _LONGEST_SHOWN:
            prompt = f"[{printable(default)}] > "
        elif default:
            self.say(f"Enter: {default}")
        while True:
            said = self._read(prompt, several=False).strip() or default
            if said == BACK:
                raise GoBack
            if said:
                return said
            self.say("an answer is needed here")

    def _read(self, prompt: str, *, several: bool) -> str:
        """A line as it was typed, or several that were pasted at once.

        Where one is wanted a paste of more is refused whole: its second line would answer the next question.
        """
        while True:
            said = _without_bad(input(prompt))
            rest = _pasted()
            text = "\n".join([said, *rest]).strip("\n")
            if several or "\n" not in text.strip():
                return text
            self.say("several lines came at once, and one is wanted: nothing of them was taken")


def _shown(default: Value | None) -> str:
    """A default as it would be typed."""
    if isinstance(default, float):
        from hone.wizard.literal import number

        return number(default)
    return "" if default is None else str(default)


def _without_bad(text: str) -> str:
    """Bytes that are no UTF-8 arrive as lone surrogates; file names may have them, so they stay."""
    return text.replace("\r", "\n").replace("\x1b[200~", "").replace("\x1b[201~", "")


def _pasted() -> list[str]:
    """Lines that wait already, a moment after the first was ended."""
    found: list[str] = []
    try:
        descriptor = sys.stdin.fileno()
        while select.select([descriptor], [], [], _PASTE_SECONDS)[0]:
            block = os.read(descriptor, 1 << 16)
            if not block:
                break
            found += block.decode(errors="surrogateescape").split("\n")
        if found:
            termios.tcflush(descriptor, termios.TCIFLUSH)
    except (OSError, ValueError, termios.error):
        return found
    return found
