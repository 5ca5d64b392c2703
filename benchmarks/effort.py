"""What the same job takes elsewhere: commands and lines that a user writes, counted from the texts below, and drawn.

    python benchmarks/effort.py [--svg docs/effort.svg]

The job: a file `rows.jsonl` of `messages` and a model of the hub become a LoRA-tuned model that answers at an OpenAI
endpoint, and the user has seen which tokens are trained. Each text is the shortest that the system's own documentation
and examples allow, defaults taken wherever there are some. Those of Hone and LLaMA-Factory 0.9.5 were run here; those of
the others were read from their documentation of 2026 and not run.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Way:
    """How a system's user does it: what is typed, what is written into files, and where trained tokens are seen."""

    name: str
    commands: str
    files: str
    shows: str

    @property
    def typed(self) -> int:
        """Commands."""
        return len([line for line in self.commands.strip().splitlines() if line.strip()])

    @property
    def written(self) -> int:
        """Lines in files."""
        return len([line for line in self.files.strip().splitlines() if line.strip()])


WAYS = (
    Way(
        "Hone",
        """
hone preview rows.jsonl --model M
hone train rows.jsonl --model M
hone serve runs/rows-M
""",
        "",
        "every token, in the terminal or a page",
    ),
    Way(
        "ms-swift",
        """
swift sft --model M --tuner_type lora --dataset rows.jsonl
swift deploy --adapters output/CHECKPOINT
""",
        "",
        "one row's labels in the log",
    ),
    Way(
        "TRL",
        """
trl sft --config sft.yaml
vllm serve M --enable-lora --lora-modules tuned=out
""",
        """
model_name_or_path: M
datasets:
  - path: json
    data_files: rows.jsonl
assistant_only_loss: true
use_peft: true
output_dir: out
""",
        "a script of one's own",
    ),
    Way(
        "LLaMA-Factory",
        """
llamafactory-cli train sft.yaml
llamafactory-cli api infer.yaml
""",
        """
{"rows": {
  "file_name": "rows.jsonl",
  "formatting": "sharegpt",
  "columns": {"messages": "messages"},
  "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
           "system_tag": "system"}}}
model_name_or_path: M
stage: sft
do_train: true
finetuning_type: lora
lora_target: all
dataset: rows
dataset_dir: .
template: qwen3_nothink
cutoff_len: 2048
output_dir: saves/rows
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
bf16: true
model_name_or_path: M
adapter_name_or_path: saves/rows
template: qwen3_nothink
""",
        "one row in the log",
    ),
    Way(
        "Axolotl",
        """
axolotl preprocess sft.yaml --debug
axolotl train sft.yaml
axolotl merge-lora sft.yaml
vllm serve out/merged
""",
        """
base_model: M
datasets:
  - path: rows.jsonl
    ds_type: json
    type: chat_template
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
sequence_len: 2048
micro_batch_size: 1
gradient_accumulation_steps: 8
num_epochs: 3
optimizer: adamw_torch_fused
learning_rate: 2e-4
output_dir: out
""",
        "coloured tokens in the log",
    ),
    Way(
        "Unsloth",
        """
python sft.py
vllm serve out
""",
        """
from datasets import load_dataset
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel
from unsloth.chat_templates import train_on_responses_only
model, tokenizer = FastLanguageModel.from_pretrained("M", max_seq_length=2048)
model = FastLanguageModel.get_peft_model(model, r=16, lora_alpha=16)
rows = load_dataset("json", data_files="rows.jsonl", split="train")
rows = rows.map(lambda r: {"text": tokenizer.apply_chat_template(r["messages"], tokenize=False)})
trainer = SFTTrainer(model, train_dataset=rows, args=SFTConfig(output_dir="run", dataset_text_field="text"))
trainer = train_on_responses_only(trainer, instruction_part="<|im_start|>user\\n", response_part="<|im_start|>assistant\\n")
print(tokenizer.decode([t for t in trainer.train_dataset[0]["labels"] if t != -100]))
trainer.train()
model.save_pretrained_merged("out", tokenizer)
""",
        "a line of the script, by markers in the text",
    ),
)


def main() -> None:
    """Print the table, and draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--svg", type=Path, help="where to draw it")
    asked = parser.parse_args()
    print("| system | commands | lines in files | trained tokens are seen in |")
    print("|---|---|---|---|")
    for way in WAYS:
        print(f"| {way.name} | {way.typed} | {way.written} | {way.shows} |")
    if asked.svg:
        asked.svg.parent.mkdir(parents=True, exist_ok=True)
        draw(asked.svg)


def draw(path: Path) -> None:
    """Bars of commands and lines for each system."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "hone"
    from matplotlib import pyplot as plt

    names = [way.name for way in WAYS][::-1]
    typed = [way.typed for way in WAYS][::-1]
    written = [way.written for way in WAYS][::-1]
    figure, axes = plt.subplots(figsize=(7.2, 2.8))
    axes.barh(names, typed, color="#1f6f8b", label="commands")
    axes.barh(names, written, left=typed, color="#c9d6df", label="lines in files")
    for place, (first, second) in enumerate(zip(typed, written, strict=True)):
        axes.text(first + second + 0.3, place, f"{first} + {second}", va="center", fontsize=9)
    axes.set_xlim(0, max(a + b for a, b in zip(typed, written, strict=True)) + 4)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title(
        "From rows.jsonl to an OpenAI endpoint, trained tokens seen", fontsize=10, loc="left"
    )
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
