"""Model folders on disk, tiny and made here: a trained byte-level tokenizer, a template, random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

WORDS = "red green blue one two three four cat dog bird runs sleeps sings the a and"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer_folder(folder: Path, *, template: str | None = CHATML) -> Path:
    """A byte-level BPE with ChatML's control tokens, saved as transformers saves one."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([WORDS] * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    if template is not None:
        fast.chat_template = template
    fast.save_pretrained(folder)
    return folder


def model_folder(
    folder: Path, *, config: str = "LlamaConfig", seed: int = 0, **numbers: Any
) -> Path:
    """A random-weight model with its tokenizer."""
    tokenizer_folder(folder)
    base = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.3,
        **numbers,
    }
    shape = getattr(transformers, config)(**{k: v for k, v in base.items() if v != "unset"})
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(shape).save_pretrained(folder)
    return folder


def chat_rows(path: Path, rows: int = 24) -> Path:
    """Chat rows that begin alike and part, with answers that can be learnt."""
    words = WORDS.split()
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            ask = f"the {words[i % 3]} {words[7 + i % 3]}"
            reply = f"{words[3 + i % 4]} {words[10 + i % 3]}"
            messages = [
                {"role": "system", "content": "the cat and the dog and the bird"},
                {"role": "user", "content": ask},
                {"role": "assistant", "content": reply},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path
