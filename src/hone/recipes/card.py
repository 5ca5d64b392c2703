"""The model card: base, rows, settings and result of a run, as the README of its artifact.

It states what was measured in this run and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone.config.sections import Config
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
    library = "peft" if config.tuning.method == "lora" else "transformers"
    head = [
        "---",
        f"base_model: {json.dumps(Path(name).name if local else name)}",
        f"library_name: {library}",
        "pipeline_tag: text-generation",
        "tags: [hone, sft]",
        "---",
        "",
        f"# {Path(name).name} tuned on {Path(config.data.path).name}",
        "",
        f"Supervised fine-tuning ({config.tuning.method}) with Hone {versions.get('hone', '')}.",
        "",
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
        *_usage(config.tuning.method),
        "",
        "Versions: " + ", ".join(f"{key} {value}" for key, value in versions.items()) + ".",
        "",
    ]
    return "\n".join(head)


def _usage(method: str) -> list[str]:
    if method == "lora":
        load = [
            "from peft import AutoPeftModelForCausalLM",
            'model = AutoPeftModelForCausalLM.from_pretrained("this/folder")',
        ]
    else:
        load = [
            "from transformers import AutoModelForCausalLM",
            'model = AutoModelForCausalLM.from_pretrained("this/folder")',
        ]
    return [
        "`hone chat this/folder`, or:",
        "",
        "```python",
        "from transformers import AutoTokenizer",
        *load,
        'tokenizer = AutoTokenizer.from_pretrained("this/folder")',
        'prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}],',
        '    add_generation_prompt=True, return_tensors="pt", return_dict=True)',
        "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=100)[0]))",
        "```",
    ]
