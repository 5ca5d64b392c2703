"""What LLaMA-Factory makes of the rows of a training file, said by itself: `PYTHON llamafactory_rows.py FILE.yaml OUT.json`.

It runs in LLaMA-Factory's own environment and knows nothing of Hone. OUT holds, row by row, the tokens and which are trained.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

_CONTEXT = -100


def main() -> None:
    """Read the rows by its own road and write them down."""
    told = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    model, data, training, tuning, _ = get_train_args(told)
    tokenizer = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], data)
    made = get_dataset(template, model, data, training, stage=tuning.stage, **tokenizer)
    rows = [
        {"ids": one["input_ids"], "trained": [i for i, label in enumerate(one["labels"]) if label != _CONTEXT]}
        for one in made["train_dataset"]
    ]  # fmt: skip
    Path(sys.argv[2]).write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
