"""One measured run of LLaMA-Factory's SFT, in a process of its own environment: a job in, one line of JSON out.

It gets rows as token ids with labels, as LLaMA-Factory keeps them itself (`tokenized_path`), in the order of training.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from child import serve
from clock import Clock

_PADDED_TO = 8  # of its collator


def read_rows(job: dict[str, Any]) -> tuple[dict[str, list[Any]], list[int]]:
    """Columns as LLaMA-Factory prepares them, and each row's length. With `group` in batches of like length."""
    file = np.load(job["ids"], allow_pickle=False)
    ends = np.cumsum(file["length"])[:-1]
    labels = np.where(file["trained"], file["ids"], -100)
    order = np.arange(file["length"].shape[0])
    if job["setting"].get("group"):
        by_length = np.argsort(file["length"], kind="stable").reshape(-1, job["batch"])
        order = np.random.default_rng(0).permutation(by_length).reshape(-1)
    order = order[: job["steps"] * job["setting"]["rows"] * job["setting"]["passes"]]
    ids, targets = np.split(file["ids"], ends), np.split(labels, ends)
    columns = {
        "input_ids": [ids[row].tolist() for row in order],
        "attention_mask": [[1] * len(ids[row]) for row in order],
        "labels": [targets[row].tolist() for row in order],
        "images": [None] * len(order),
        "videos": [None] * len(order),
        "audios": [None] * len(order),
    }
    return columns, [len(ids[row]) for row in order]


def measure(job: dict[str, Any], began: float) -> dict[str, Any]:
    """Train `job["steps"]` steps with `job["setting"]` and say how fast they were."""
    import torch
    from datasets import Dataset, DatasetDict
    from llamafactory.hparams import get_train_args
    from llamafactory.train.sft.workflow import run_sft
    from transformers import TrainerCallback

    torch.set_num_threads(job["threads"])
    imported = time.perf_counter() - began
    columns, lengths = read_rows(job)
    rows = job["setting"]["rows"]
    step_rows = rows * job["setting"]["passes"]
    clock = Clock()
    heard: dict[str, Any] = {"import_wall_seconds": imported}

    class Marks(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            heard["start_wall_seconds"] = time.perf_counter() - began
            heard["start_cpu_seconds"] = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            first = len(clock.marks) * step_rows
            clock.mark(sum(lengths[first : first + step_rows]))
            if len(clock.marks) == 1:
                heard["first_step_cpu_seconds"] = time.process_time()

        def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:
            heard["loss"] = logs.get("train_loss", heard.get("loss"))

    with tempfile.TemporaryDirectory() as folder:
        DatasetDict({"train": Dataset.from_dict(columns)}).save_to_disk(f"{folder}/rows")
        run_sft(*get_train_args(_arguments(job, Path(folder))), callbacks=[Marks()])
    result = clock.result()
    counted = range(step_rows, len(lengths), rows)
    padded = (rows * -(-max(lengths[k : k + rows]) // _PADDED_TO) * _PADDED_TO for k in counted)
    return {**result, **heard, "computed_share": sum(padded) / result["tokens"]}


def _arguments(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Of LLaMA-Factory's own: everything that could slow it down is off."""
    precision = job["precision"]
    return {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": job["model"],
        "tokenized_path": str(folder / "rows"),
        "dataset": "rows",
        "template": "qwen",
        "cutoff_len": job["longest"],
        "disable_shuffling": True,
        "finetuning_type": "lora",
        "lora_rank": 8,
        "lora_alpha": 16,
        "lora_target": "all",
        "flash_attn": "sdpa" if job["setting"].get("attention") != "eager" else "disabled",
        "disable_gradient_checkpointing": True,
        "upcast_layernorm": False,
        "pure_bf16": precision.startswith("pure-"),
        "bf16": precision.endswith("bf16-autocast"),
        "per_device_train_batch_size": job["setting"]["rows"],
        "gradient_accumulation_steps": job["setting"]["passes"],
        "max_steps": job["steps"],
        "learning_rate": 2e-4,
        "lr_scheduler_type": "linear",
        "logging_strategy": "no",
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "plot_loss": False,
        "seed": 0,
        "output_dir": str(folder / "out"),
    }


if __name__ == "__main__":
    serve(measure)
