"""The model card: base, rows, settings and result of a run, as the README of its artifact.

It states what was measured in this run and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone.config.sections import Config, QuantizationSection
from hone.engine.loop import Outcome


def write_card(
    *,
    config: Config,
    outcome: Outcome,
    hashes: Mapping[str, str | None],
    ledger: Mapping[str, Any],
    versions: Mapping[str, str],
    precision: str,
) -> str:
    """Markdown with the metadata block that model hubs read."""
    name = config.model.name
    local = Path(name).expanduser().is_dir()
    library = "peft" if config.tuning.is_adapter else "transformers"
    head = [
        "---",
        f"base_model: {json.dumps(Path(name).name if local else name)}",
        f"library_name: {library}",
        "pipeline_tag: text-generation",
        "tags: [hone, sft]",
        "---",
        "",
        f"# {Path(name).name} tuned on {_rows(config)}",
        "",
        f"Supervised fine-tuning ({config.tuning.method}) with Hone {versions.get('hone', '')}.",
        "",
        *_about(config),
        "## Result",
        "",
        "| what | value |",
        "| --- | --- |",
        f"| steps | {outcome.steps:,} |",
        f"| loss of the last step | {outcome.loss:.4f} |",
    ]
    if outcome.best_loss is not None:
        head.append(
            f"| best held-out loss (step {outcome.best_step:,}) | {outcome.best_loss:.4f} |"
        )
    head += [
        f"| tokens of the rows | {outcome.tokens:,} |",
        f"| tokens trained on | {outcome.trained_tokens:,} |",
        f"| tokens computed | {outcome.computed_tokens:,} |",
        f"| seconds in steps | {outcome.seconds:,.1f} |",
        "",
        "## Rows",
        "",
        f"Content hash of the prepared rows: `{hashes.get('data')}`",
        "",
        "```json",
        json.dumps(ledger, indent=1, ensure_ascii=False),
        "```",
        "",
        "## Settings",
        "",
        f"Precision in force: {precision}. Budgets (from step, tokens): {list(outcome.budgets)}.",
        "",
        "```json",
        json.dumps(config.model_dump(mode="json"), indent=1, ensure_ascii=False),
        "```",
        "",
        "## Use",
        "",
        *_usage(config, precision),
        "",
        "Versions: " + ", ".join(f"{key} {value}" for key, value in versions.items()) + ".",
        "",
    ]
    return "\n".join(head)


def _rows(config: Config) -> str:
    """What the rows are called."""
    if config.data.path:
        return Path(config.data.path).name
    return ", ".join(one.name or Path(one.path).name for one in config.data.sources)


def _about(config: Config) -> list[str]:
    """What a user of the artifact must know of how it was tuned."""
    tuning, said = config.tuning, list[str]()
    if config.model.adapter and tuning.is_adapter:
        said.append(f"It goes on from the adapter `{Path(config.model.adapter).name}`.")
    elif tuning.is_adapter and tuning.lora.init in ("pissa", "olora"):
        said.append(
            f"Its training began from a decomposition of the base's weights ({tuning.lora.init}); it is saved as a "
            "plain LoRA of twice the rank, for the base as it is."
        )
    if tuning.method == "qlora":
        said.append(
            f"The base was held in {tuning.quantization.bits} bits while it was tuned. On the unquantised base the "
            "replies are near, not equal."
        )
        if tuning.lora.init == "loftq" and not config.model.adapter:
            said.append(
                "The adapter holds what rounding took from the base (LoftQ): use it on the base quantised in this "
                "way only, since on the unquantised one that part would count twice."
            )
    if config.model.additions:
        texts = ", ".join(f"`{text}`" for text, _ in config.model.additions)
        said.append(f"Texts that are one token each in this folder's tokenizer: {texts}.")
    return [line for sentence in said for line in (sentence, "")]


def _usage(config: Config, precision: str) -> list[str]:
    imports = ["from transformers import AutoModelForCausalLM, AutoTokenizer"]
    kind, options = "AutoModelForCausalLM", ""
    made: list[str] = []
    if config.tuning.is_adapter:
        kind = "AutoPeftModelForCausalLM"
        imports = [f"from peft import {kind}", "from transformers import AutoTokenizer"]
    if config.tuning.method == "qlora":
        imports = ["import torch", imports[0], f"{imports[1]}, BitsAndBytesConfig"]
        made = [f"quantized = {_quantized(config.tuning.quantization, precision)}"]
        options = ", quantization_config=quantized"
    return [
        "`hone chat this/folder`, or:",
        "",
        "```python",
        *imports,
        *made,
        f'model = {kind}.from_pretrained("this/folder"{options})',
        'tokenizer = AutoTokenizer.from_pretrained("this/folder")',
        'prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}],',
        '    add_generation_prompt=True, return_tensors="pt", return_dict=True)',
        "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=100)[0]))",
        "```",
    ]


def _quantized(section: QuantizationSection, precision: str) -> str:
    """The configuration that makes transformers hold the base as it was held in training."""
    if section.bits == 8:
        return "BitsAndBytesConfig(load_in_8bit=True)"
    dtype = "bfloat16" if precision == "bf16" else "float32"
    return (
        f'BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="{section.quant_type}",\n'
        f"    bnb_4bit_use_double_quant={section.double_quant}, bnb_4bit_compute_dtype=torch.{dtype})"
    )
