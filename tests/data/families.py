"""Chat templates of many families, written for the tests, each with a tokenizer and how its turns end.

The replies stand between `generation` marks, which Hone takes no notice of and `transformers` measures by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hone.data.named_templates import NAMED
from hone.data.render import Renderer
from hone.data.template import load_template
from tests.data.small import byte_level, sentence_piece, text_tokenizer

EACH = "{%- for m in messages -%}"
GEN, NEG = "{%- generation -%}", "{%- endgeneration -%}"
CALLS = (
    "{%- for c in m.tool_calls or [] -%}{{- '<tool_call>' + c.function.name + ' ' -}}"
    "{{- c.function.arguments | tojson -}}{{- '</tool_call>' -}}{%- endfor -%}"
)
TOOLS = "{%- for t in tools or [] -%}{{- t | tojson + '\\n' -}}{%- endfor -%}"


def prompt(text: str) -> str:
    """What a template writes last when it is asked for a prompt."""
    return "{%- endfor -%}{%- if add_generation_prompt -%}{{- '" + text + "' -}}{%- endif -%}"


@dataclass(frozen=True)
class Family:
    """A template and its tokenizer. `end`: what ends a trained turn; `after`: what is written behind it."""

    source: str
    special: list[str]
    end: str
    after: str = ""
    plain: list[str] = field(default_factory=list)
    bos: str | None = None
    eos: str | None = None
    system: bool = True
    inside: bool = True
    alternates: bool = False
    tools: bool = False
    reasoning: bool = False
    trims: bool = False
    pieces: str = ""
    """The kind of SentencePiece tokenizer; byte-level BPE where it is empty."""
    closes: bool = True
    """Whether the template itself writes the end."""

    def renderer(self, **how: Any) -> Renderer:
        """A renderer with this template as the model's own."""
        if self.pieces:
            backend = sentence_piece(self.pieces, special=[t for t in self.special if t[0] != "/"])
        else:
            backend = byte_level(self.special, plain=self.plain)
        config = {"bos_token": self.bos, "eos_token": self.eos}
        tokenizer = text_tokenizer(
            backend, self.source, **{key: value for key, value in config.items() if value}
        )
        return Renderer(tokenizer, load_template(tokenizer, **how))


CHATML_BODY = (
    EACH + "{{- '<|im_start|>' + m.role + '\\n' -}}{%- if m.role == 'assistant' -%}" + GEN
    + "{%- if m.reasoning_content -%}{{- '<think>' + m.reasoning_content + '</think>' -}}{%- endif -%}"
    + "{{- m.content -}}" + CALLS + "{{- '<|im_end|>' -}}" + NEG
    + "{%- else -%}{{- m.content + '<|im_end|>' -}}{%- endif -%}{{- '\\n' -}}"
)  # fmt: skip
CHATML_TOKENS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
DEEPSEEK_TOKENS = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]
GLM_TOKENS = ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
COMMAND_TOKENS = [
    "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>",
]  # fmt: skip
TAGS = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
BAD_ORDER = "{{- raise_exception('roles must alternate user/assistant') -}}"

FAMILIES: dict[str, Family] = {
    "chatml": Family(
        TOOLS + CHATML_BODY + prompt("<|im_start|>assistant\\n"),
        CHATML_TOKENS, "<|im_end|>", "\n", plain=TAGS, eos="<|im_end|>", tools=True, reasoning=True,
    ),
    "chatml with tokens that are not special": Family(
        TOOLS + CHATML_BODY + prompt("<|im_start|>assistant\\n"),
        ["<|endoftext|>"], "<|im_end|>", "\n", plain=["<|im_start|>", "<|im_end|>", *TAGS],
        eos="<|endoftext|>", tools=True, reasoning=True,
    ),
    "deepseek: systems gathered at the front": Family(
        "{{- bos_token -}}{%- for m in messages if m.role == 'system' -%}{{- m.content -}}{%- endfor -%}"
        + TOOLS + EACH + "{%- if m.role == 'user' -%}{{- '<｜User｜>' + m.content -}}"
        "{%- elif m.role == 'tool' -%}{{- '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' -}}"
        "{%- elif m.role == 'assistant' -%}{{- '<｜Assistant｜>' -}}" + GEN
        + "{{- m.content -}}{%- for c in m.tool_calls or [] -%}{{- '<｜tool▁call▁begin｜>' + c.function.name -}}"
        "{{- c.function.arguments | tojson -}}{{- '<｜tool▁call▁end｜>' -}}{%- endfor -%}"
        "{{- '<｜end▁of▁sentence｜>' -}}" + NEG + "{%- endif -%}" + prompt("<｜Assistant｜>"),
        [*DEEPSEEK_TOKENS, "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁output▁end｜>"],
        "<｜end▁of▁sentence｜>", plain=["<｜User｜>", "<｜Assistant｜>", "<｜tool▁output▁begin｜>"],
        bos="<｜begin▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>", tools=True,
    ),
    "glm: the end is the next turn's beginning": Family(
        "{{- '[gMASK]<sop>' -}}" + TOOLS + EACH
        + "{{- '<|' + ('observation' if m.role == 'tool' else m.role) + '|>\\n' -}}"
        "{%- if m.role == 'assistant' -%}" + GEN + "{{- m.content -}}" + CALLS + NEG
        + "{%- else -%}{{- m.content -}}{%- endif -%}" + prompt("<|assistant|>\\n"),
        [*GLM_TOKENS, "<|endoftext|>"], "<|endoftext|>", plain=TAGS, eos="<|endoftext|>", tools=True,
        closes=False,
    ),
    "glm 4.5: an empty thought, and tags that are special": Family(
        "{{- '[gMASK]<sop>' -}}" + EACH
        + "{{- '<|' + ('observation' if m.role == 'tool' else m.role) + '|>\\n' -}}"
        "{%- if m.role == 'assistant' -%}" + GEN
        + "{{- '<think>' + (m.reasoning_content or '') + '</think>\\n' + m.content -}}" + CALLS + NEG
        + "{%- else -%}{{- m.content -}}{%- endif -%}" + prompt("<|assistant|>\\n"),
        [*GLM_TOKENS, *TAGS, "<|endoftext|>"], "<|endoftext|>", eos="<|endoftext|>", tools=True,
        reasoning=True, closes=False,
    ),
    "command-r": Family(
        "{{- bos_token -}}" + EACH + "{{- '<|START_OF_TURN_TOKEN|>' -}}"
        "{%- if m.role == 'assistant' -%}{{- '<|CHATBOT_TOKEN|>' -}}" + GEN
        + "{{- '<|START_RESPONSE|>' + m.content + '<|END_RESPONSE|><|END_OF_TURN_TOKEN|>' -}}" + NEG
        + "{%- else -%}{{- ('<|USER_TOKEN|>' if m.role == 'user' else '<|SYSTEM_TOKEN|>') + m.content -}}"
        "{{- '<|END_OF_TURN_TOKEN|>' -}}{%- endif -%}" + prompt("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"),
        COMMAND_TOKENS, "<|END_OF_TURN_TOKEN|>", bos="<BOS_TOKEN>", eos="<|END_OF_TURN_TOKEN|>",
    ),
    "chatglm: rounds in plain text": Family(
        EACH + "{%- if m.role == 'assistant' -%}" + GEN + "{{- m.content -}}" + NEG
        + "{%- else -%}{{- '\\n\\n' if not loop.first -}}{{- '[Round ' ~ loop.index ~ ']\\n\\n问：' + m.content + '\\n\\n答：' -}}"
        "{%- endif -%}{%- endfor -%}",
        ["<eop>"], "<eop>", eos="<eop>", system=False, inside=False, alternates=True, closes=False,
    ),
    "llama 2: instructions, stripped, in strict order": Family(
        EACH + "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}" + BAD_ORDER + "{%- endif -%}"
        "{%- if m.role == 'user' -%}{{- bos_token + '[INST] ' + m.content.strip() + ' [/INST]' -}}"
        "{%- else -%}" + GEN + "{{- ' ' + m.content.strip() + ' ' + eos_token -}}" + NEG
        + "{%- endif -%}{%- endfor -%}",
        [], "</s>", bos="<s>", eos="</s>", pieces="first", system=False, inside=False,
        alternates=True, trims=True,
    ),
    "mistral: the system message in the last question": Family(
        "{{- bos_token -}}{%- set system = messages[0].content if messages[0].role == 'system' else '' -%}"
        "{%- set said = messages[1:] if messages[0].role == 'system' else messages -%}"
        "{%- for m in said -%}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}" + BAD_ORDER
        + "{%- endif -%}{%- if m.role == 'user' -%}{{- '[INST] ' -}}"
        "{%- if system and m == (said | selectattr('role', 'equalto', 'user') | list)[-1] -%}"
        "{{- system + '\\n\\n' -}}{%- endif -%}{{- m.content + '[/INST]' -}}"
        "{%- else -%}" + GEN + "{{- ' ' + m.content + eos_token -}}" + NEG + "{%- endif -%}{%- endfor -%}",
        ["[INST]", "[/INST]", "<s>", "</s>"], "</s>", bos="<s>", eos="</s>", inside=False,
        alternates=True,
    ),
    "gemma: the system message in the first question, all trimmed": Family(
        "{{- bos_token -}}{%- set ns = namespace(first='') -%}{%- if messages[0].role == 'system' -%}"
        "{%- set ns.first = messages[0].content + '\\n\\n' -%}{%- set messages = messages[1:] -%}{%- endif -%}"
        + EACH + "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}" + BAD_ORDER + "{%- endif -%}"
        "{%- if m.role == 'assistant' -%}{{- '<start_of_turn>model\\n' -}}" + GEN
        + "{{- m.content | trim + '<end_of_turn>' -}}" + NEG + "{{- '\\n' -}}"
        "{%- else -%}{{- '<start_of_turn>user\\n' + (ns.first if loop.first else '') + m.content | trim -}}"
        "{{- '<end_of_turn>\\n' -}}{%- endif -%}" + prompt("<start_of_turn>model\\n"),
        ["<start_of_turn>", "<end_of_turn>"], "<end_of_turn>", "\n", bos="<s>", eos="</s>",
        pieces="never", inside=False, alternates=True, trims=True,
    ),
    "phi: an end of text after the last turn": Family(
        EACH + "{{- '<|' + m.role + '|>\\n' -}}{%- if m.role == 'assistant' -%}" + GEN
        + "{{- m.content + '<|end|>' -}}" + NEG + "{{- '\\n' -}}{%- else -%}{{- m.content + '<|end|>\\n' -}}{%- endif -%}"
        "{%- endfor -%}{{- '<|assistant|>\\n' if add_generation_prompt else eos_token -}}",
        ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"],
        "<|end|>", "\n<|endoftext|>", eos="<|endoftext|>",
    ),
    "gpt-oss: channels, and an end of its own for the last turn": Family(
        EACH + "{{- '<|start|>' + m.role -}}{%- if m.role == 'assistant' -%}" + GEN
        + "{%- if m.reasoning_content and loop.last -%}"
        "{{- '<|channel|>analysis<|message|>' + m.reasoning_content + '<|end|><|start|>assistant' -}}{%- endif -%}"
        "{{- '<|channel|>final<|message|>' + m.content + ('<|return|>' if loop.last else '<|end|>') -}}" + NEG
        + "{%- else -%}{{- '<|message|>' + m.content + '<|end|>' -}}{%- endif -%}" + prompt("<|start|>assistant"),
        ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"], "<|return|>",
        eos="<|return|>", reasoning=True,
    ),
    "a template that drops earlier reasoning": Family(
        EACH + "{{- '<|im_start|>' + m.role + '\\n' -}}{%- if m.role == 'assistant' -%}" + GEN
        + "{%- if m.reasoning_content and loop.last -%}{{- '<think>' + m.reasoning_content + '</think>' -}}{%- endif -%}"
        "{{- m.content + '<|im_end|>' -}}" + NEG + "{%- else -%}{{- m.content + '<|im_end|>' -}}{%- endif -%}"
        "{{- '\\n' -}}" + prompt("<|im_start|>assistant\\n"),
        CHATML_TOKENS, "<|im_end|>", "\n", plain=TAGS, eos="<|im_end|>", reasoning=True,
    ),
    "a template that writes the date": Family(
        "{{- '<|im_start|>system\\nToday is ' + strftime_now('%d %B %Y') + '.<|im_end|>\\n' -}}"
        + CHATML_BODY + prompt("<|im_start|>assistant\\n"),
        CHATML_TOKENS, "<|im_end|>", "\n", plain=TAGS, eos="<|im_end|>",
    ),
    "vicuna: words before each turn, a space at its beginning": Family(
        "{{- 'A chat. ' -}}" + EACH + "{%- if m.role == 'assistant' -%}{{- 'ASSISTANT:' -}}" + GEN
        + "{{- ' ' + m.content + eos_token -}}" + NEG + "{%- else -%}{{- m.role | upper + ': ' + m.content + ' ' -}}{%- endif -%}"
        + prompt("ASSISTANT:"),
        ["</s>"], "</s>", eos="</s>",
    ),
}  # fmt: skip


@cache
def renderer_of(name: str) -> Renderer:
    """The renderer of a family, made once."""
    return FAMILIES[name].renderer()


@cache
def renderer_by_name(name: str) -> Renderer:
    """The renderer of one of our named templates, on a tokenizer with its family's tokens."""
    known = NAMED[name]
    more = ["[TOOL_CALLS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"] if name == "mistral" else []
    special = [*known.tokens, *more, "<eos>", *([known.begin] if known.begin else [])]
    tokenizer = text_tokenizer(
        byte_level(special, plain=TAGS),
        eos_token=known.end or "<eos>",
        **({"bos_token": known.begin} if known.begin else {}),
    )
    return Renderer(tokenizer, load_template(tokenizer, choice=name))
