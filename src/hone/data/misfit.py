"""What does not fit between a chosen template, the tokenizer and the model's own template, in sentences. It knows no row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hone.data.conversation import Conversation
from hone.data.ending import common_length
from hone.data.named_templates import NAMED, missing_tokens
from hone.data.specimens import SPECIMENS
from hone.data.template import ChatTemplate, TemplateError, load_template
from hone.data.tokenizer import TextTokenizer

_MARK: Final = ">>>"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Where two templates part: on which made-up conversation, what each writes, from which character on."""

    specimen: str
    chosen: str
    own: str
    at: int

    def lines(self) -> list[str]:
        """A sentence, and both texts with their first difference marked by `>>>`."""
        return [
            f"the chosen template is not the model's own: on a conversation {self.specimen} they part "
            f"at character {self.at} (marked {_MARK})",
            f"chosen:      {self._marked(self.chosen)}",
            f"model's own: {self._marked(self.own)}",
        ]

    def _marked(self, text: str) -> str:
        before, after = (
            part.replace("\\", "\\\\").replace("\n", "\\n") for part in _cut(text, self.at)
        )
        return f"{before}{_MARK}{after}"


def find_mismatch(chosen: ChatTemplate, own: ChatTemplate) -> Mismatch | None:
    """The first made-up conversation that the templates write differently, with or without a prompt."""
    for specimen, conversation in SPECIMENS.items():
        for prompts in (False, True):
            texts = [_text(template, conversation, prompts=prompts) for template in (chosen, own)]
            if texts[0] != texts[1]:
                at = common_length(texts[0], texts[1])
                return Mismatch(specimen, texts[0], texts[1], at)
    return None


def template_notices(tokenizer: TextTokenizer, template: ChatTemplate) -> list[tuple[str, str]]:
    """What a user should hear of a template before a row is read: codes and sentences."""
    found: list[tuple[str, str]] = []
    if template.origin in NAMED:
        missing = missing_tokens(template.origin, tokenizer)
        if missing:
            stop = tokenizer.eos_token
            found.append(
                (
                    "template-tokens",
                    f"the tokenizer does not have {', '.join(missing)} of the {template.origin} template as "
                    "single tokens: they become ordinary pieces of text"
                    + (f", and a reply ends with {stop}" if stop else ""),
                )
            )
    if template.origin != "model" and tokenizer.chat_template is not None:
        own = load_template(tokenizer, variables=template.given)
        mismatch = find_mismatch(template, own)
        if mismatch is not None:
            found.append(("template-mismatch", "\n".join(mismatch.lines())))
    return found


def _text(template: ChatTemplate, conversation: Conversation, *, prompts: bool) -> str:
    messages = [message.as_template() for message in conversation.messages]
    if prompts:
        messages = messages[:-1]
    try:
        return template.render(messages, conversation.tools, prompts)
    except TemplateError as fault:
        return f"(refused: {fault.what})"


def _cut(text: str, at: int) -> tuple[str, str]:
    """The text before and after a place, each shortened to what can be read at a glance."""
    before, after = text[:at], text[at:]
    if len(before) > 300:
        before = f"{before[:60]} … {before[-200:]}"
    return before, after if len(after) <= 300 else f"{after[:260]} …"
