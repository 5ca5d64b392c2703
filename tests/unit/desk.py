"""A working folder as the trainer's documents assume it: `gpt2`, `tatsu-lab/alpaca` and `HuggingFaceH4/ultrachat_200k` lie in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.folders import WORDS, chat_rows, model_folder

ROOT = Path(__file__).resolve().parents[2]

_GPT2 = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    **dict.fromkeys(
        (
            "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "max_position_embeddings", "pad_token_id",
        ),
        "unset",
    ),
}  # fmt: skip


def gpt2_folder(folder: Path) -> Path:
    """A GPT-2 of two layers: noise in its config, no pad token, layers that are transposed, and no chat template."""
    model_folder(folder, config="GPT2Config", **_GPT2)
    about = json.loads((folder / "tokenizer_config.json").read_bytes())
    for key in ("chat_template", "pad_token"):
        about.pop(key, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


def alpaca_rows(path: Path, rows: int = 26) -> Path:
    """Instructions, every other one with an input."""
    words = WORDS.split()
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            row = {
                "instruction": f"the {words[i % 9]} {words[i % 4]}",
                "input": words[3 + i % 5] if i % 2 else "",
                "output": f"{words[3 + i % 4]} {words[10 + i % 3]}",
            }
            file.write(json.dumps(row) + "\n")
    return path


def lay(desk: Path, model: Path) -> Path:
    """Put everything into the folder; the model's files are linked."""
    (desk / "gpt2").symlink_to(model)
    for name in ("tatsu-lab/alpaca", "HuggingFaceH4/ultrachat_200k"):
        (desk / name).mkdir(parents=True)
    alpaca_rows(desk / "tatsu-lab" / "alpaca" / "train.jsonl")
    chat_rows(desk / "HuggingFaceH4" / "ultrachat_200k" / "train.jsonl", rows=26)
    for name in ("config", "examples"):
        shutil.copytree(ROOT / name, desk / name)
    return desk
