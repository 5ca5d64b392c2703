"""`hone chat`: words typed, replies as they come. It knows no model; `recipes/chat.py` answers."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from hone.cli.answer_flags import (
    MaxTokens,
    Partner,
    Revision,
    Seed,
    System,
    Temperature,
    TopP,
)
from hone.cli.printable import printable
from hone.cli.streams import Look, look_of
from hone.errors import HoneError

if TYPE_CHECKING:
    from hone.infer.completer import Reply
    from hone.recipes.chat import Chat

_HELP: Final = "/reset forgets what was said, /exit (or Ctrl-D) leaves, Ctrl-C stops a reply"
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


def chat(
    name: Partner,
    *,
    once: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Say this, print only the reply, and leave.")
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Let the base model answer beside the tuned one.")
    ] = False,
    system: System = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    revision: Revision = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each reply as one line of JSON.")
    ] = False,
) -> None:
    """Talk to a run or a model.

    A run that is not finished answers by its newest checkpoint. Without a terminal each line of the input is
    one turn.
    """
    from hone.infer.completer import Sampling
    from hone.recipes.chat import open_chat

    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
    talk, notices = open_chat(
        name, compare=compare, system=system, sampling=sampling, revision=revision
    )
    for notice in notices:
        print(f"note: {notice}", file=sys.stderr, flush=True)
    converse(talk, once=once, as_json=as_json)


def converse(talk: Chat, *, once: str | None = None, as_json: bool = False) -> None:
    """One turn where something is to be said `once`, else turns until the input ends."""
    face: _Json | _Terminal = _Json(talk) if as_json else _Terminal(talk, bare=once is not None)
    if once is not None:
        face.turn(once)
    else:
        _converse(talk, face)


def _converse(talk: Chat, face: _Json | _Terminal) -> None:
    """Turns until the input ends."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    is_typed = sys.stdin.isatty() and isinstance(face, _Terminal)
    if is_typed:
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # gives `input` its line editing
        print(_HELP)
    while True:
        try:
            text = input("you> " if is_typed else "").strip()
        except (EOFError, KeyboardInterrupt):
            if is_typed:
                print()
            return
        if text == "/exit":
            return
        if text == "/reset":
            talk.reset()
        elif text == "/help":
            print(_HELP, file=sys.stderr)
        elif text:
            _try_turn(face, text)


def _try_turn(face: _Json | _Terminal, text: str) -> None:
    """A turn that is stopped or cannot be had does not end the conversation."""
    try:
        face.turn(text)
    except KeyboardInterrupt:
        print("\n(stopped; this turn is forgotten)", file=sys.stderr, flush=True)
    except HoneError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)


class _Terminal:
    """Replies as they are written; each after its speaker's name where more than one answers."""

    def __init__(self, talk: Chat, *, bare: bool) -> None:
        self._talk = talk
        self._named = len(talk.partners) > 1 or (not bare and sys.stdout.isatty())
        self._look: Look = look_of(sys.stdout, os.environ)
        self._safe = sys.stdout.isatty()
        self._speaker = ""

    def turn(self, text: str) -> None:
        """Say `text`, and show what comes."""
        self._speaker = ""
        replies = self._talk.ask(text, on_text=self._show)
        for name in replies:
            if not replies[name].text:
                self._show(name, "")
        sys.stdout.write("\n")
        sys.stdout.flush()
        if any(reply.finish == "length" for reply in replies.values()) and self._safe:
            print("(cut: see --max-tokens)", file=sys.stderr)

    def _show(self, name: str, piece: str) -> None:
        if name != self._speaker:
            if self._speaker:
                sys.stdout.write("\n")
            if self._named:
                label = f"{name}> "
                sys.stdout.write(f"{_DIM}{label}{_PLAIN}" if self._look.colour else label)
            self._speaker = name
        sys.stdout.write(printable(piece) if self._safe else piece)
        sys.stdout.flush()


class _Json:
    """One object a turn."""

    def __init__(self, talk: Chat) -> None:
        self._talk = talk

    def turn(self, text: str) -> None:
        """Say `text`, and print the reply, the base's within it where it answers too."""
        began = time.monotonic()
        replies = self._talk.ask(text)
        told = _as_json(replies)
        told |= {"event": "reply", "seconds": round(time.monotonic() - began, 3)}
        print(json.dumps(told, ensure_ascii=False), flush=True)


def _as_json(replies: Mapping[str, Reply]) -> dict[str, object]:
    told: dict[str, object] = {}
    for name, reply in replies.items():
        one: dict[str, object] = {
            "reply": reply.text,
            "finish": reply.finish,
            "prompt_tokens": reply.prompt_tokens,
            "reply_tokens": len(reply.token_ids),
        }
        told |= one if name == "tuned" else {name: one}
    return told
