"""Control tokens: what only a chat template may write, and how message text is kept
from forging them. It knows no turns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from hone.data.template import ChatTemplate, TemplateError
from hone.data.tokenizer import Added, TextTokenizer
from hone.data.trie import trie_pattern

# Tokens with these words in them open the body of a reply, not a turn.
_BODY_WORDS: Final = ("think", "thought", "reason")
_BYTE: Final = re.compile("<0x[0-9A-F]{2}>")
_WORDS: Final = ("qwordone", "qwordtwo", "qwordthree")
# Roles of made-up conversations, and whether a prompt for the next reply is asked for.
_PROBES: Final = (
    (("user", "assistant", "user"), False),
    (("system", "user", "assistant"), False),
    (("user", "assistant"), False),
    (("user",), True),
)
_PRIVATE: Final = (range(0xE000, 0xF8FF), range(0xF0000, 0xFFFFD))
_REPLACEMENT: Final = "�"
_NONE: Final[frozenset[str]] = frozenset()
_MEMO_TEXTS: Final = 2**14
_MEMO_TOOLS: Final = 2**6
_Seen = tuple[bool, bool, bool, frozenset[str]]


class ControlTokens:
    """The added tokens that may come from the template alone.

    Text of a message that holds one of them, or an end of one that a template could complete, is
    guarded before it is rendered: a mark (a character that the row does not use) is put between the
    letters, and taken out again when the text is encoded.
    """

    def __init__(
        self,
        tokens: Iterable[Added],
        literals: Iterable[str] = (),
        others: Iterable[str] = (),
    ) -> None:
        """`literals`: the texts that the template itself writes, which could complete a token. `others`:
        added tokens that messages may spell, which are only noticed."""
        self.tokens = tuple(tokens)
        self.ids = frozenset(token.id for token in self.tokens)
        self.strings = frozenset(token.content for token in self.tokens)
        self._long = tuple(sorted(text for text in self.strings if len(text) > 1))
        self._single = tuple(sorted(text for text in self.strings if len(text) == 1))
        self._heads = tuple({text[:2] for text in self._long})
        self._pattern = trie_pattern(self._long)
        self._beginnings = tuple({text[:n] for text in self._long for n in range(1, len(text))})
        self._endings = tuple({text[n:] for text in self._long for n in range(1, len(text))})
        self._completed_before, self._completed_after, self._completed_around = _completed(
            self._long, tuple(literals)
        )
        spelled = frozenset(others)
        self._others = trie_pattern(spelled)
        self._other_heads = tuple({text[:2] for text in spelled})
        self._memo: dict[str, _Seen] = {}
        self._tools: dict[str, _Seen] = {}

    def threaten(self, messages: Sequence[Any], tools: Sequence[Any]) -> bool:
        """Whether any text holds a control token, or could be part of one with what stands beside it."""
        return self.look(messages, tools)[0]

    def look(self, messages: Sequence[Any], tools: Sequence[Any]) -> tuple[bool, frozenset[str]]:
        """Whether any text threatens, as `threaten` says, and which other added tokens are spelled."""
        seen = [*map(self._look, strings_in(messages))]
        if tools:
            seen.append(self._look_at_tools(tools))
        held, starts, ends, others = _together(seen)
        return held or (starts and ends), others  # the latter: two texts put side by side

    def threatened_by(self, texts: Iterable[str]) -> bool:
        """The same for plain texts."""
        starts = ends = False
        for text in texts:
            seen = self._look(text)
            if seen[0]:
                return True
            starts |= seen[1]
            ends |= seen[2]
        return starts and ends

    def guard(self, text: str, mark: str) -> str:
        """`text` with marks, so that no control token can be read in it or across its ends."""
        for one in self._single:
            text = text.replace(one, _REPLACEMENT)
        while self._holds(text):  # tokens that overlap take more than one pass
            text = self._pattern.sub(lambda found: mark.join(found[0]), text)
        before = text.startswith(self._endings) or text in self._completed_around
        after = text.endswith(self._beginnings)
        return f"{mark if before else ''}{text}{mark if after else ''}"

    def _look_at_tools(self, tools: Sequence[Any]) -> _Seen:
        """The same for a list of tools, which is long and mostly equal from row to row."""
        key = json.dumps(tools)
        known = self._tools.get(key)
        if known is None:
            known = _together([*map(self._look, strings_in(list(tools)))])
            if len(self._tools) >= _MEMO_TOOLS:
                self._tools.clear()
            self._tools[key] = known
        return known

    def _look(self, text: str) -> _Seen:
        """Whether the text threatens by itself, whether its start or its end is part of a token, and
        which other added tokens it spells."""
        known = self._memo.get(text)
        if known is None:
            held = (
                self._spells(text)
                or text.startswith(self._completed_before)
                or text.endswith(self._completed_after)
                or text in self._completed_around
            )
            others = _NONE
            for head in self._other_heads:
                if head in text:
                    others = frozenset(found[0] for found in self._others.finditer(text))
                    break
            starts, ends = text.startswith(self._endings), text.endswith(self._beginnings)
            known = (held, starts, ends, others)
            if len(self._memo) >= _MEMO_TEXTS:
                self._memo.clear()
            self._memo[text] = known
        return known

    def _spells(self, text: str) -> bool:
        """Whether a whole token stands in the text. Plain loops: this sees every text of every row."""
        for one in self._single:
            if one in text:
                return True
        for head in self._heads:
            if head in text:
                return self._holds(text)
        return False

    def _holds(self, text: str) -> bool:
        return any(head in text for head in self._heads) and self._pattern.search(text) is not None


def _together(seen: Sequence[_Seen]) -> _Seen:
    """What is seen in several texts."""
    held, starts, ends = (any(one[i] for one in seen) for i in range(3))
    return held, starts, ends, _NONE.union(*(one[3] for one in seen))


def _completed(
    tokens: Sequence[str], literals: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]:
    """Texts that a template's own literals would complete to a token: what follows a literal that ends
    like the token's beginning, what precedes one that starts like its ending, and what fits between."""
    following: set[str] = set()
    preceding: set[str] = set()
    between: set[str] = set()
    for token in tokens:
        places = range(1, len(token))
        opened = [n for n in places if any(text.endswith(token[:n]) for text in literals)]
        closed = [n for n in places if any(text.startswith(token[n:]) for text in literals)]
        following |= {token[n:] for n in opened}
        preceding |= {token[:n] for n in closed}
        between |= {token[a:b] for a in opened for b in closed if a < b}
    return tuple(following), tuple(preceding), frozenset(between)


def find_control_tokens(tokenizer: TextTokenizer, template: ChatTemplate) -> ControlTokens:
    """Tokens flagged special, and added tokens that the template writes where a turn begins or ends.

    Tokens of single bytes are none, however they are flagged: they are how rare letters are written.
    """
    found = {
        token.id: token
        for token in tokenizer.added
        if token.special and not _BYTE.fullmatch(token.content)
    }
    others = [
        token
        for token in tokenizer.added
        if not token.special
        and token.content.strip()
        and not any(word in token.content.lower() for word in _BODY_WORDS)
    ]
    for text in _scaffolding(template):
        found |= {token.id: token for token in others if token.content in text}
    before_result = _before_result(template)
    if not any(token.content in before_result for token in found.values()):
        # A turn of results that begins with a token of its own; pairs are what stands around a result.
        names = {token.content for token in others}
        for token in others:
            if token.content in before_result and not names & set(_counterparts(token.content)):
                found[token.id] = token
    free = [
        token.content
        for token in tokenizer.added
        if token.id not in found and token.content.strip(" \n\t\u2581")
    ]
    return ControlTokens(found.values(), template.literals, free)


def _scaffolding(template: ChatTemplate) -> list[str]:
    """What the template writes around the turns of made-up conversations."""
    found: list[str] = []
    for roles, prompts in _PROBES:
        messages = [
            {"role": role, "content": word} for role, word in zip(roles, _WORDS, strict=False)
        ]
        try:
            text = template.render(messages, None, prompts)
        except TemplateError:
            continue
        for word in _WORDS[: len(roles)]:
            if word in text:
                before, _, text = text.partition(word)
                found.append(before)
        found.append(text)
    return found


def _before_result(template: ChatTemplate) -> str:
    """What the template writes between a tool call and its result; "" where it writes neither."""
    asked, argument, result = _WORDS[:3]
    function = {"name": "f", "arguments": {"x": argument}}
    call = {"id": "callabcde", "type": "function", "function": function}
    messages = [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": result, "tool_call_id": "callabcde", "name": "f"},
    ]
    try:
        before, found, _ = template.render(messages).partition(result)
    except TemplateError:
        return ""
    return before.rpartition(argument)[2] if found and argument in before else ""


def _counterparts(token: str) -> list[str]:
    """What would close this token, or what it closes: `<a>` and `</a>`, `<|a|>` and `<|/a|>`."""
    if "/" in token[1:3]:
        return [token.replace("/", "", 1)]
    return [token[:n] + "/" + token[n:] for n in (1, 2)]


def strings_in(value: Any) -> list[str]:
    """Every text inside a JSON value, keys included, each occurrence once."""
    found: list[str] = []
    open_values = [value]
    while open_values:
        inner = open_values.pop()
        if isinstance(inner, str):
            found.append(inner)
        elif isinstance(inner, dict):
            found.extend(cast("dict[str, Any]", inner))
            open_values.extend(cast("dict[str, Any]", inner).values())
        elif isinstance(inner, list | tuple):
            open_values.extend(cast("list[Any]", inner))
    return found


def guarded(value: Any, control: ControlTokens, mark: str) -> Any:
    """A copy of a JSON value with every threatening text in it guarded."""
    if isinstance(value, str):
        return control.guard(value, mark)
    if isinstance(value, dict):
        named = cast("dict[str, Any]", value)
        return {guarded(k, control, mark): guarded(v, control, mark) for k, v in named.items()}
    if isinstance(value, list | tuple):
        return [guarded(inner, control, mark) for inner in cast("list[Any]", value)]
    return value


def unused_characters(texts: Iterable[str], count: int) -> list[str]:
    """Private-use characters that stand in none of the texts, neither as themselves nor as a JSON escape."""
    whole = "\n".join(texts)
    lower = whole.lower()
    found: list[str] = []
    for code in (code for block in _PRIVATE for code in block):
        letter = chr(code)
        escape = f"\\u{code:04x}"
        if letter not in whole and escape not in lower:
            found.append(letter)
            if len(found) == count:
                return found
    raise TemplateError("the row uses every private-use character")
