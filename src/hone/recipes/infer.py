"""`infer`: a file of prompts answered many at a time, as JSONL and as text. It prints nothing.

What is asked comes from `asked.py` (a prompt a line, or rows), what is written goes through the outbox: both files or none.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hone.data.conversation import Message
from hone.data.outbox import Outbox
from hone.data.render import Renderer
from hone.data.shape_writers import as_openai
from hone.data.template import TemplateError
from hone.errors import ConfigError, DataError
from hone.infer.completer import GREEDY, Sampling
from hone.infer.local import LocalCompleter
from hone.infer.many import Many, Written
from hone.infer.open import open_place
from hone.infer.place import find_place
from hone.recipes.asked import Asked, AskedFile
from hone.recipes.herald import Herald
from hone.recipes.memory_fault import memory_faults
from hone.recipes.reply_file import as_text
from hone.runs.events import Listener, Say

DEFAULT_INPUTS: Final = (Path("test_inputs.txt"), Path("demo_inputs.txt"))
DEFAULT_OUTPUT: Final = Path("preds")
_ENDINGS: Final = (".jsonl", ".txt")


@dataclass(frozen=True)
class Order:
    """Who answers, what is asked, and where the answers go: `output` with the endings .jsonl and .txt."""

    name: str
    input: Path
    output: Path = DEFAULT_OUTPUT
    system: str | None = None
    sampling: Sampling = GREEDY
    revision: str | None = None
    rows_at_once: int = 64
    force: bool = False

    @property
    def jsonl(self) -> Path:
        """The file of rows."""
        return self._stem.with_name(f"{self._stem.name}.jsonl")

    @property
    def text(self) -> Path:
        """The file of lines."""
        return self._stem.with_name(f"{self._stem.name}.txt")

    @property
    def _stem(self) -> Path:
        path = self.output
        return path.with_suffix("") if path.suffix in _ENDINGS else path


@dataclass(frozen=True)
class Answered:
    """What came of it."""

    jsonl: Path
    text: Path
    answers: int
    tokens: int
    cut: int
    seconds: float


def find_input(named: Path | None) -> Path:
    """The file of prompts: as named, else `test_inputs.txt`, else `demo_inputs.txt` here. Raises ConfigError."""
    if named is not None:
        return named
    for path in DEFAULT_INPUTS:
        if path.is_file():
            return path
    raise ConfigError(
        f"no prompts: there is no {DEFAULT_INPUTS[0]} here",
        remedy=f"write a prompt on each line of {DEFAULT_INPUTS[0]}, or name a file with --input",
    )


def infer(order: Order, *, listeners: Sequence[Listener] = ()) -> Answered:
    """Answer every prompt of the file, and write both files.

    Raises ConfigError, DataError and ModelError before a model is loaded where the input is at fault, DiskError.
    """
    began = time.monotonic()
    herald = Herald(listeners)
    say = herald.say
    outbox = Outbox(inputs=[order.input], force=order.force)
    for path in (order.jsonl, order.text):
        outbox.check(path)
    asked = _asked(order)
    place = find_place(order.name, revision=order.revision)
    with memory_faults(lambda: herald.phase):
        say("phase", name="loading")
        opened = open_place(place)
        for notice in opened.notices:
            say("notice", code="model", message=notice)
        prompts = [_prompt(one, opened.completer.renderer) for one in asked]
        say("phase", name="answers")
        written = _written(order, opened.completer, prompts, say)
    cut = sum(one.finish == "length" for one in written)
    with outbox:
        sink = outbox.rows(order.jsonl)
        for one, reply in zip(asked, written, strict=True):
            sink.add_json(_row(one, reply))
        outbox.put_text(order.text, as_text(reply.text for reply in written))
    done = Answered(
        order.jsonl,
        order.text,
        len(written),
        sum(one.tokens for one in written),
        cut,
        time.monotonic() - began,
    )
    say(
        "inferred",
        jsonl=str(done.jsonl),
        text=str(done.text),
        answers=done.answers,
        tokens=done.tokens,
        cut=done.cut,
        seconds=round(done.seconds, 3),
    )
    return done


def _asked(order: Order) -> list[Asked]:
    """The prompts, with the system message where they have none. Raises DataError."""
    found: list[Asked] = []
    for one in AskedFile(order.input, "--input"):
        has_own = one.messages[0].role in ("system", "developer")
        if order.system is not None and not has_own:
            system = Message("system", order.system)
            one = Asked(one.name, [system, *one.messages], one.tools, one.wanted)
        found.append(one)
    if not found:
        raise DataError(
            "nothing is asked", where=str(order.input), remedy="write a prompt on each line"
        )
    return found


def _prompt(asked: Asked, renderer: Renderer) -> list[int]:
    try:
        return renderer.prompt([one.as_template() for one in asked.messages], asked.tools)
    except TemplateError as error:
        raise DataError(
            f"the chat template refuses a prompt: {error.what}", where=asked.name
        ) from error


def _written(
    order: Order, completer: LocalCompleter, prompts: Sequence[Sequence[int]], say: Say
) -> list[Written]:
    told = {"done": 0, "tokens": 0}

    def on_reply(_: int, one: Written) -> None:
        told["done"] += 1
        told["tokens"] += one.tokens
        say("answered", model="tuned", of=len(prompts), **told)

    with Many(completer, rows=order.rows_at_once) as many:
        return many.replies(prompts, sampling=order.sampling, on_reply=on_reply)


def _row(asked: Asked, reply: Written) -> dict[str, Any]:
    """The prompt, the reply, and what is known of both."""
    said = [as_openai(one) for one in asked.messages]
    told: dict[str, Any] = {
        "row": asked.name,
        "prompt": asked.messages[-1].content,
        "reply": reply.text,
        "finish": reply.finish,
        "tokens": reply.tokens,
    }
    if len(said) > 1:
        told["messages"] = said
    if asked.wanted is not None:
        told["wanted"] = asked.wanted
    return told
