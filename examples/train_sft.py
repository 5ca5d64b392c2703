"""Train from a flat configuration file: `python examples/train_sft.py --config config/examples/sft_alpaca.yaml`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hone import SFTConfig, SFTTrainer
from hone.errors import HoneError


def main() -> int:
    """Train as the file says. 0, or the exit code of what went wrong."""
    parser = argparse.ArgumentParser(description="Supervised fine-tuning from a YAML file.")
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="configuration, YAML or JSON"
    )
    parser.add_argument("--no-wandb", action="store_true", help="tell Weights & Biases nothing")
    words = parser.parse_args()
    try:
        config = SFTConfig.from_yaml(words.config)
        if words.no_wandb:
            config.wandb_project = None
        say_settings(config)
        result = SFTTrainer(config).train()
    except HoneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"mean loss {result.train_loss:.4f}, last {result.loss:.4f}")
    if "val_loss" in result.metrics:
        print(f"validation loss {result.metrics['val_loss']:.4f}")
    print(f"files in {result.output_dir}:")
    for path in sorted(Path(result.output_dir).iterdir()):
        print(f"  {path.name}{'/' if path.is_dir() else ''}")
    return 0


def say_settings(config: SFTConfig) -> None:
    """What is about to be trained, in six lines."""
    method = "full" if not config.use_lora else "QLoRA" if config.use_qlora else "LoRA"
    length = f"{config.max_steps} steps" if config.max_steps else f"{config.num_epochs:g} epochs"
    print(f"model    {config.base_model} ({method})")
    print(f"rows     {config.dataset_name} ({config.dataset_format})")
    print(f"training {length}, learning rate {config.learning_rate:g}")
    print(
        f"a step   {config.get_effective_batch_size()} rows: batch_size {config.batch_size} x accumulation "
        f"{config.gradient_accumulation_steps} x devices {config.num_devices}"
    )
    print(f"output   {config.output_dir}")
    print(f"wandb    {config.wandb_project or 'off'}")


if __name__ == "__main__":
    sys.exit(main())
