"""A `Writer` that says what it is told to: replies known beforehand, as slow as wanted, one place at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hone.data.render import Renderer
from hone.data.template import ChatTemplate, load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import HoneError
from hone.infer.completer import Wanted
from hone.infer.dialect import find_dialect
from hone.infer.writer import Chance, Crowded, Ended, Piece, Tell, UnknownModel, Voice
from tests.folders import tokenizer_folder

THINKS_AND_CALLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% endfor %}{% if tools %}tools: {{ tools | tojson }}\n{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(eq=False)
class Asked:
    """One reply that was asked for."""

    prompt: list[int]
    wanted: Wanted
    cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        self.cancelled.set()


class ScriptedWriter:
    """Says `scripts[NAME]` letter by letter, `pause_s` between letters."""

    def __init__(self, folder: Path, scripts: dict[str, str], *, pause_s: float = 0.0) -> None:
        tokenizer = TextTokenizer.load(tokenizer_folder(folder))
        template = ChatTemplate(THINKS_AND_CALLS, names=tokenizer.special_names)
        assert load_template(tokenizer) is not None
        self.renderer = Renderer(tokenizer, template)
        self.scripts = scripts
        self.pause_s = pause_s
        self.asked: list[Asked] = []
        self.crowded: Crowded | None = None
        self.failure: HoneError | None = None
        self.crash: Exception | None = None
        self.closed = False

    def names(self) -> list[str]:
        return list(self.scripts)

    def voice(self, name: str) -> Voice:
        if self.crash is not None:
            raise self.crash
        if name not in self.scripts:
            raise UnknownModel(f"no model {name!r} is served here")
        dialect = find_dialect(self.renderer.template, ["<|im_end|>"])
        return Voice(name, self.renderer, (2,), 400, dialect, "somewhere")

    def write(self, voice: Voice, prompt: Sequence[int], wanted: Wanted, tell: Tell) -> Asked:
        if self.crowded is not None:
            raise self.crowded
        asked = Asked(list(prompt), wanted)
        self.asked.append(asked)
        threading.Thread(target=self._say, args=(voice, asked, tell), daemon=True).start()
        return asked

    def _say(self, voice: Voice, asked: Asked, tell: Tell) -> None:
        count = 0
        for letter in self.scripts[voice.name]:
            if self.pause_s:
                time.sleep(self.pause_s)
            if asked.cancelled.is_set():
                return
            count += 1
            top = ((1, -0.5), (2, float("-inf")))
            tell(Piece(letter, 1, (Chance(ord(letter) % 300, -0.25, top),)))
            if count >= asked.wanted.max_tokens:
                tell(Ended("length", count, self.failure))
                return
        tell(Ended("stop", count + 1, self.failure))

    def close(self) -> None:
        self.closed = True
