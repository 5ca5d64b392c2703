"""Checks processed conversations and writes the dataset_info.json by which LLaMA-Factory and Hone find them.

    python workflows/prepare_sft_data.py --input processed.json --dataset-name tau2_sft --output-dir ./workdir

Rows that LLaMA-Factory would skip are left out into a file of their own, counted by reason. Exit codes: 0 done, 2 usage,
3 no row that can be used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hone.errors import HoneError
from hone.recipes.sft_data import prepare_sft_data


def main() -> int:
    """Parse, prepare, print."""
    parser = argparse.ArgumentParser(
        description="Check conversations in ShareGPT form and write dataset_info.json."
    )
    parser.add_argument("--input", required=True, type=Path, help="rows: a JSON list, or JSONL")
    parser.add_argument("--dataset-name", default="tau2_sft", help="name of the dataset (tau2_sft)")
    parser.add_argument("--output-dir", default=Path(), type=Path, help="where to write (here)")
    parser.add_argument("--cutoff-len", default=12000, type=int, help="longest row, in tokens")
    asked = parser.parse_args()
    try:
        report = prepare_sft_data(
            asked.input, asked.dataset_name, asked.output_dir, cutoff_tokens=asked.cutoff_len
        )
    except HoneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for line in report.lines():
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
