"""One measured run of TRL's SFTTrainer, in a process of its own: a job as JSON in, one line of JSON out.

It gets rows as token ids with their trained tokens as labels, a form that SFTTrainer takes as it is.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np
from child import serve
from clock import Clock


def read_rows(job: dict[str, Any]) -> dict[str, list[list[int]]]:
    """Columns of a dataset that is ready for SFTTrainer: untrained tokens are labelled -100.

    With `group`, rows come in batches of like length, in a random order of the batches. That is what
    `group_by_length` gives on much data; on the few rows of a measurement its own sampler hardly groups.
    """
    file = np.load(job["ids"], allow_pickle=False)
    ends = np.cumsum(file["length"])[:-1]
    labels = np.where(file["trained"], file["ids"], -100)
    order = np.arange(file["length"].shape[0])
    if job["setting"].get("group"):
        by_length = np.argsort(file["length"], kind="stable").reshape(-1, job["batch"])
        order = np.random.default_rng(0).permutation(by_length).reshape(-1)
    order = order[: job["steps"] * job["batch"]]
    ids, targets = np.split(file["ids"], ends), np.split(labels, ends)
    return {
        "input_ids": [ids[row].tolist() for row in order],
        "labels": [targets[row].tolist() for row in order],
    }


def measure(job: dict[str, Any], began: float) -> dict[str, Any]:
    """Train `job["steps"]` steps with `job["setting"]` and say how fast they were."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(job["threads"])
    imported = time.perf_counter() - began
    setting, precision = job["setting"], job["precision"]
    clock, heard = Clock(), {"step_tokens": 0, "computed_tokens": 0}

    class Counting(SFTTrainer):
        """Counts what it is given; the loss is SFTTrainer's own."""

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            mask = inputs.get("attention_mask")
            size = inputs["input_ids"].numel()
            heard["step_tokens"] += size if mask is None else int(mask.sum())
            heard["computed_tokens"] += size if clock.marks else 0
            return super().compute_loss(model, inputs, *args, **kwargs)

    class Marks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.mark(heard["step_tokens"])
            heard["step_tokens"] = 0
            if len(clock.marks) == 1:
                heard["first_step_cpu_seconds"] = time.process_time()

    with tempfile.TemporaryDirectory() as folder:
        model = AutoModelForCausalLM.from_pretrained(
            job["model"],
            dtype=torch.bfloat16 if precision.startswith("pure-") else torch.float32,
            attn_implementation=setting.get("attention", "sdpa"),
        )
        trainer = Counting(
            model=model,
            args=SFTConfig(output_dir=folder, **_arguments(job, setting, precision)),
            train_dataset=Dataset.from_dict(read_rows(job)),
            processing_class=AutoTokenizer.from_pretrained(job["model"]),
            peft_config=LoraConfig(
                r=8,
                lora_alpha=16,
                lora_dropout=0.0,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
            callbacks=[Marks()],
        )
        heard["import_wall_seconds"] = imported
        heard["start_wall_seconds"] = time.perf_counter() - began
        heard["start_cpu_seconds"] = time.process_time()
        trained = trainer.train()
    result = clock.result()
    heard["loss"] = trained.training_loss
    heard["rows_after_packing"] = len(trainer.train_dataset)
    heard["computed_share"] = heard["computed_tokens"] / result["tokens"]
    return {**result, **heard}


def _arguments(job: dict[str, Any], setting: dict[str, Any], precision: str) -> dict[str, Any]:
    """Of SFTConfig: everything that could slow TRL down is off."""
    rows = setting["rows"]
    arguments = {
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": setting["passes"],
        "max_steps": job["steps"],
        "max_length": job["longest"] if setting.get("packing") else None,
        "packing": bool(setting.get("packing")),
        "packing_strategy": setting.get("packing") or "bfd",
        "padding_free": bool(setting.get("padding_free")),
        "train_sampling_strategy": "sequential" if setting.get("group") else "random",
        "torch_compile": bool(setting.get("compile")),
        "bf16": precision.endswith("bf16-autocast"),
        "use_cpu": True,
        "gradient_checkpointing": False,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "linear",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }
    if setting.get("packing") and "pack_tokens" in setting:
        arguments["max_length"] = max(setting["pack_tokens"], job["longest"])
    return arguments


if __name__ == "__main__":
    serve(measure)
