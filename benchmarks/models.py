"""Model folders to measure with: random weights of a given size, and a tokenizer trained on the rows.

It knows nothing of what is measured. Shapes are Qwen3's with a vocabulary of 8,192.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

VOCABULARY = 8192
END, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# ChatML; the marks say to other trainers what Hone takes from the roles.
CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] + '<|im_end|>' -}}{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


@dataclass(frozen=True)
class Size:
    """Shape of a body."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int


SIZES = {
    "1m": Size(128, 352, 2, 2, 1),  # for a smoke test
    "5m": Size(256, 704, 4, 4, 2),  # 5.05M with its embedding
    "30m": Size(512, 1536, 8, 8, 4),  # 29.4M
}


def make_tokenizer(folder: Path, texts: list[str], *, template: str = CHATML) -> None:
    """A byte-level BPE tokenizer of at most 8,192 tokens, trained on `texts`, as a model folder holds it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": TURN_END,
        "pad_token": END,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def make_weights(folder: Path, size: str, *, positions: int) -> None:
    """Random weights of one of `SIZES`, the same ones each time, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config, logging

    logging.disable_progress_bar()
    shape = SIZES[size]
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=64,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
