"""A new tokenizer from texts: byte-level BPE, written as a model folder holds it. It knows no model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hone.data.tokenizer import TextTokenizer


def new_byte_tokenizer(
    folder: Path,
    texts: Iterable[str],
    *,
    vocab_size: int,
    control_tokens: Sequence[str],
    end_of_text: str,
    padding: str,
    chat_template: str,
) -> TextTokenizer:
    """Learn merges from `texts` and write tokenizer and chat template into `folder`; any text can be encoded.

    Each digit is a token of its own, so that numbers are read alike wherever they stand. `control_tokens`
    get the first ids, in their order; `end_of_text` and `padding` are two of them.
    """
    tokenizer = Tokenizer(models.BPE())
    parts = [
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    tokenizer.pre_tokenizer = cast(Any, pre_tokenizers.Sequence(cast(Any, parts)))
    tokenizer.decoder = cast(Any, decoders.ByteLevel())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(control_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end_of_text,
        "pad_token": padding,
        "clean_up_tokenization_spaces": False,
    }
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    return TextTokenizer.load(folder)
