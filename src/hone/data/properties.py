"""What training relies on in a chat template, property by property, each tried on made-up conversations. It knows no
row and no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

from hone.data.conversation import Conversation, Message, ToolCall
from hone.data.example import Example, Origin
from hone.data.render import Rendered, Renderer
from hone.data.specimens import PLAIN, SPECIMENS
from hone.data.template import TemplateError

__all__ = ["Property", "Verdict", "properties"]

_LONGEST_WORD: Final = 24  # characters of what a template may look for in a text
Verdict = Literal["ok", "handled", "broken"]
_EDGED: Final = "\n\n\n  Aa <b>&</b> {x}  \n"


@dataclass(frozen=True, slots=True)
class Property:
    """One property: `ok`; `handled`, where it fails and Hone answers for it; or `broken`. A sentence says how."""

    name: str
    verdict: Verdict
    sentence: str


def properties(renderer: Renderer, stops: frozenset[int]) -> list[Property]:
    """Every property of the renderer's template, in the order in which a user would ask for them.

    `stops` are the ids at which the model's own files let generation stop.
    """
    tried = {name: renderer.render_all([one])[0] for name, one in SPECIMENS.items()}
    found = [_forms(renderer, name, SPECIMENS[name], tried[name]) for name in SPECIMENS]
    if tried["plain"].fault is not None:
        return found[:1]
    return [
        *found,
        _history(tried),
        _contents(renderer),
        _begin(renderer, tried["plain"].examples[-1]),
        _end(renderer, tried, stops),
        _unforgeable(renderer),
        _added(renderer),
        _pieces(tried),
        _date(renderer),
    ]


def _forms(renderer: Renderer, name: str, conversation: Conversation, made: Rendered) -> Property:
    """Whether a conversation with this in it is written, and each turn as inference would ask for it."""
    name = name.removeprefix("with ").removeprefix("a ").replace(" message", "").replace(" ", "-")
    if made.fault is not None:
        refused = f"the template refuses it ({_reason(made.fault)})"
        if conversation is PLAIN:
            return Property(name, "broken", f"{refused}: no row can be trained")
        return Property(name, "handled", f"{refused}: such rows are dropped, and counted")
    if not _asked_as_trained(renderer, conversation, made.examples):
        return Property(
            name,
            "broken",
            "what the template writes before a reply at inference is not how it writes the turn afterwards: "
            "the model is asked in another way than it was taught; choose another data.template, or the "
            "variables (data.template_kwargs) with which both agree",
        )
    missing = _not_written(renderer, conversation, made.examples)
    if missing:
        return Property(
            name,
            "handled",
            f"the template does not write {', '.join(missing)}: what is not written is not seen and not "
            "trained, and a notice counts the rows",
        )
    return Property(name, "ok", "every turn is trained after the very tokens of inference")


def _asked_as_trained(
    renderer: Renderer, conversation: Conversation, examples: Sequence[Example]
) -> bool:
    messages = [message.as_template() for message in conversation.messages]
    asked: list[list[int]] = []
    for place, message in enumerate(conversation.messages):
        if message.role == "assistant":
            try:
                asked.append(renderer.prompt(messages[:place], conversation.tools))
            except TemplateError:
                return False
    taught = [one.input_ids[:a].tolist() for one in examples for a, _ in one.trained_spans()]
    return sorted(asked) == sorted(taught)


def _not_written(
    renderer: Renderer, conversation: Conversation, examples: Sequence[Example]
) -> list[str]:
    """What of a conversation stands in none of its Examples."""
    text = "".join(renderer.tokenizer.decode(one.input_ids.tolist()) for one in examples)
    wanted: list[tuple[str, str]] = []
    for message in conversation.messages:
        wanted.append((f"what {message.role} says", message.content))
        wanted.append(("reasoning", message.reasoning or ""))
        for call in message.tool_calls:
            wanted.append(("tool calls", call.name))
            if isinstance(call.arguments, Mapping):
                wanted += [("tool calls", str(value)) for value in call.arguments.values()]
    for tool in conversation.tools:
        wanted.append(("the tools", tool["function"]["description"]))
    return list(dict.fromkeys(what for what, said in wanted if said not in text))


def _history(tried: dict[str, Rendered]) -> Property:
    split = [name for name, made in tried.items() if len(made.examples) > 1]
    ended = any("no-end-of-turn" in made.remarks for made in tried.values())
    if not split:
        return Property("history", "ok", "history is not rewritten: one Example for a conversation")
    if ended:
        why = "a turn's end is not written"
    else:
        where = "" if "plain" in split else f" (in conversations {', '.join(split)})"
        why = f"history is rewritten{where}"
    return Property("history", "handled", f"{why}: one Example per trained turn")


def _contents(renderer: Renderer) -> Property:
    try:
        text = renderer.template.render(
            [{"role": role, "content": _EDGED} for role in ("user", "assistant")]
        )
    except TemplateError:
        text = ""
    if text.count(_EDGED) >= 2:
        return Property("contents", "ok", "what messages say is written as it is")
    if text.count(_EDGED.strip()) >= 2:
        return Property(
            "contents",
            "handled",
            "white space around what messages say is trimmed: it is trained as inference will see it",
        )
    return Property(
        "contents",
        "handled",
        "the template changes what messages say: it is trained as inference will see it",
    )


def _begin(renderer: Renderer, example: Example) -> Property:
    tokenizer = renderer.tokenizer
    bos, ids = tokenizer.bos_id, example.input_ids.tolist()
    count = 0 if bos is None else ids.count(bos)
    if bos is None or (count == 0 and not tokenizer.adds_bos):
        return Property("begin", "ok", "the model wants no beginning of text, and none is written")
    if count == 0:
        return Property(
            "begin",
            "handled",
            f"the template writes no {tokenizer.bos_token}, though the tokenizer puts it before plain text: "
            "the template is taken at its word, as apply_chat_template does",
        )
    if any(a == b == bos for a, b in pairwise(ids)):
        return Property(
            "begin",
            "broken",
            f"{tokenizer.bos_token} stands twice in a row: remove one from the template",
        )
    where = (
        "once, at the beginning" if count == 1 and ids[0] == bos else f"{count} times, not in a row"
    )
    return Property("begin", "ok", f"{tokenizer.bos_token} is written {where}")


def _end(renderer: Renderer, tried: dict[str, Rendered], stops: frozenset[int]) -> Property:
    tokenizer = renderer.tokenizer
    added = {token.id for token in tokenizer.added}
    ends = {
        int(one.input_ids[stop - 1])
        for made in tried.values()
        for one in made.examples
        for _, stop in one.trained_spans()
    }
    texts = ", ".join(sorted(tokenizer.token(i) for i in ends))
    if ends - added:
        return Property(
            "end-of-turn",
            "broken",
            "no token ends a turn: the template writes none, and the tokenizer has no end of text; the model "
            "would not learn to stop",
        )
    how = f"a turn ends with {texts}, which is trained"
    if ends - stops:
        unknown = ", ".join(sorted(tokenizer.token(i) for i in ends - stops))
        return Property(
            "end-of-turn",
            "handled",
            f"{how}; the model's files do not stop at {unknown}, but `hone chat` does, and so does the "
            "generation_config.json of a model tuned in full",
        )
    if any("no-end-of-turn" in made.remarks for made in tried.values()):
        return Property(
            "end-of-turn",
            "handled",
            f"the template writes no end of turn: {texts} is trained after it",
        )
    return Property("end-of-turn", "ok", f"{how}, and the model's files stop there")


def _unforgeable(renderer: Renderer) -> Property:
    tokens = sorted(renderer.control.strings)
    tried = 0
    for loud, quiet in _forgeries(tokens, sorted(renderer.template.literals)):
        for shape in (_everywhere, _in_tools, _in_contents):
            forged, harmless = shape(loud), shape(quiet)
            if not all(renderer.render_all([one])[0].fault is None for one in (forged, harmless)):
                continue
            tried += 1
            if _controls(renderer, forged) != _controls(renderer, harmless):
                return Property(
                    "control-tokens",
                    "broken",
                    "the template changes what messages say, so that one can write control tokens of its own",
                )
    if not tried:
        return Property("control-tokens", "broken", "no conversation could be tried")
    count = f"{len(tokens):,} control token{'' if len(tokens) == 1 else 's'}"
    return Property(
        "control-tokens", "ok", f"{count}: text in messages and tools that spells one stays text"
    )


def _forgeries(tokens: Sequence[str], literals: Sequence[str]) -> list[tuple[str, str]]:
    """Texts that spell control tokens, or would after a template turned letters large or small or took
    out a word that it speaks of; each with a harmless one of the same make."""
    few = tokens[:4]
    words = [word for word in literals if 0 < len(word) <= _LONGEST_WORD]
    spliced = [(one[:2], word, one[2:]) for one in few for word in words]
    whole = [*tokens, *(one + one for one in few)]
    pairs = [(" ".join(whole), "".join("x" for _ in " ".join(whole)))]
    pairs.append((" ".join(map(str.swapcase, tokens)), "x"))
    pairs.append(
        (" ".join(a + b + c for a, b, c in spliced), " ".join(f"x{b}x" for _, b, _ in spliced))
    )
    return pairs


def _everywhere(text: str) -> Conversation:
    made = _in_tools(text)
    thought = Message("assistant", text, reasoning=text)
    messages = (Message("system", text), *made.messages, Message("user", text, name=text), thought)
    return Conversation(messages, made.origin, made.tools)


def _in_tools(text: str) -> Conversation:
    call = ToolCall(text, {text: [text]}, "call00001")
    messages = (
        Message("user", text),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", text, tool_call_id="call00001", name=text),
        Message("assistant", text),
    )
    tool: dict[str, Any] = {"name": text, "description": text, "parameters": {text: text}}
    return Conversation(messages, _origin(), ({"type": "function", "function": tool},))


def _in_contents(text: str) -> Conversation:
    return Conversation((Message("user", text), Message("assistant", text)), _origin())


def _controls(renderer: Renderer, conversation: Conversation) -> list[list[int]]:
    return [
        [i for i in example.input_ids.tolist() if i in renderer.control.ids]
        for example in renderer.render(conversation)
    ]


def _added(renderer: Renderer) -> Property:
    others = [
        token.content
        for token in renderer.tokenizer.added
        if token.id not in renderer.control.ids and token.content.strip()
    ]
    if not others:
        return Property("other-added-tokens", "ok", "the tokenizer has no others")
    shown = ", ".join(others[:6]) + (", …" if len(others) > 6 else "")
    return Property(
        "other-added-tokens",
        "ok",
        f"{len(others):,} ({shown}) are no control tokens: they are encoded as the tokenizer does, and a "
        "notice counts the rows that spell one",
    )


def _pieces(tried: dict[str, Rendered]) -> Property:
    if any("pieces-differ" in made.remarks for made in tried.values()):
        return Property(
            "pieces",
            "handled",
            "this tokenizer gives a text other tokens at once than piece by piece between its added tokens: "
            "training and `hone chat` both go piece by piece; another server may differ",
        )
    return Property("pieces", "ok", "tokens are those of the whole text at once")


def _date(renderer: Renderer) -> Property:
    if renderer.template.writes_today:
        return Property(
            "date",
            "handled",
            "today's date is written into the prompt: training sees one day, inference another; a notice "
            "says so, and data.template_kwargs can fix it where the template has a variable",
        )
    return Property("date", "ok", "the text does not depend on the day")


def _reason(fault: TemplateError) -> str:
    return fault.what.partition("refused it: ")[2] or fault.what


def _origin() -> Origin:
    return Origin("made up", 1)
