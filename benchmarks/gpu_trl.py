"""One measured run of TRL's SFTTrainer on a GPU, in a process of its own: a job as JSON in, one line of JSON out.

It gets the same model, and the same rows as token ids with their trained tokens as labels. With packing, or flash
attention where it is installed; liger's kernels on.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_device
import gpu_model
import numpy as np
from child import serve
from gpu_cases import Row, make_rows

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "src")
)  # for the operations of a model, counted alike on both sides

_WARM_STEPS = 2  # that are not timed


def settings(rows: str) -> list[dict[str, Any]]:
    """What is tried, the best of which counts: more at a time, or less without recomputing layers."""
    packing = rows != "dense"
    return [
        {"rows": 4, "recompute": False, "packing": packing},
        {"rows": 8, "recompute": True, "packing": packing},
        {"rows": 2, "recompute": False, "packing": packing},
    ]


def measure(job: dict[str, Any], began: float) -> dict[str, Any]:
    """Train a few steps with `job["setting"]` and say how fast they were."""
    import torch

    from hone.engine.flops import model_flops

    device = torch.device(job["device"])
    product = gpu_device.product_rate(device, small=job["small"])
    marks = _Marks(device)
    rows = _rows(job)
    trainer = _trainer(job, rows, device, marks)
    counted: Any = SimpleNamespace(model=trainer.model)
    flops = model_flops(counted)
    start = time.perf_counter() - began
    gpu_device.reset_peak(device)
    trainer.train()
    (first, *before), (last, *after) = marks.ends[_WARM_STEPS - 1], marks.ends[-1]
    seconds = last - first
    tokens, trained = (b - a for a, b in zip(before, after, strict=True))
    weights = tokens * flops.token + trained * flops.prediction
    attention = tokens * _pairs_a_token(rows) * sum(each for _, each in flops.pairs)
    return {
        **gpu_device.memory(device),
        "product_tflops": product,
        "start_seconds": start,
        "steps": len(marks.ends) - _WARM_STEPS,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "trained_tokens_per_second": trained / seconds,
        "tflops": (weights + attention) / seconds / 1e12,
        "utilisation": (weights + attention) / seconds / 1e12 / product,
        "utilisation_of_weights": weights / seconds / 1e12 / product,
        "setting": job["setting"],
        "attention": trainer.model.config._attn_implementation,
        "liger": bool(trainer.args.use_liger_kernel),
        "seconds_in_all": time.perf_counter() - began,
    }


class _Marks:
    """When each step ended, and how many tokens and trained tokens had been given by then."""

    def __init__(self, device: Any) -> None:
        import torch

        self.device = device
        self.counts = torch.zeros(2, dtype=torch.int64, device=device)  # read after a step only
        self.ends: list[tuple[float, int, int]] = []

    def count(self, inputs: dict[str, Any]) -> None:
        """One forward pass is given these."""
        mask = inputs.get("attention_mask")
        self.counts[0] += inputs["input_ids"].numel() if mask is None else mask.sum()
        self.counts[1] += (inputs["labels"] != -100).sum()

    def mark(self) -> None:
        """A step has ended."""
        gpu_device.wait(self.device)
        now = time.perf_counter()
        tokens, trained = self.counts.tolist()
        self.ends.append((now, tokens, trained))


def _rows(job: dict[str, Any]) -> list[Row]:
    """Of all steps."""
    count = job["batch"] * (job["steps"] + _WARM_STEPS)
    vocabulary = job["shape"]["vocab_size"]
    return make_rows(job["rows"], count, vocabulary=vocabulary, small=job["small"])


def _pairs_a_token(rows: list[Row]) -> float:
    """Visible pairs a token, in the mean: a token sees its own row up to itself."""
    lengths = np.array([ids.shape[0] for ids, _ in rows], dtype=np.float64)
    return float((lengths * (lengths + 1) / 2).sum() / lengths.sum())


def _trainer(job: dict[str, Any], rows: list[Row], device: Any, marks: _Marks) -> Any:
    """SFTTrainer with everything off that could slow it down."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTTrainer

    class Counting(SFTTrainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            marks.count(inputs)
            return super().compute_loss(model, inputs, *args, **kwargs)

    class Ends(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.mark()

    model = gpu_model.make(job["shape"], device, dtype="bfloat16")
    if importlib.util.find_spec("flash_attn") is not None and device.type == "cuda":
        model.set_attn_implementation("flash_attention_2")
    columns = {
        "input_ids": [ids.tolist() for ids, _ in rows],
        "labels": [np.where(mask, ids, -100).tolist() for ids, mask in rows],
    }
    adapters = LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return Counting(
        model=model,
        args=_arguments(job, rows, on_gpu=device.type == "cuda"),
        train_dataset=Dataset.from_dict(columns),
        processing_class=_tokenizer(),
        peft_config=adapters if job["method"] == "lora" else None,
        callbacks=[Ends()],
    )


def _arguments(job: dict[str, Any], rows: list[Row], *, on_gpu: bool) -> Any:
    """Of SFTConfig. With packing a step's packs hold about as many tokens as its rows do."""
    from trl import SFTConfig

    setting = job["setting"]
    longest = max(ids.shape[0] for ids, _ in rows)
    length = longest if job["small"] else max(longest, 4096)
    passes = max(1, job["batch"] // setting["rows"])
    if setting["packing"]:
        tokens = job["batch"] * sum(ids.shape[0] for ids, _ in rows) / len(rows)
        passes = max(1, round(tokens / length / setting["rows"]))
    return SFTConfig(
        output_dir=tempfile.mkdtemp(prefix="trl-"),
        per_device_train_batch_size=setting["rows"],
        gradient_accumulation_steps=passes,
        max_steps=job["steps"] + _WARM_STEPS,
        max_length=length if setting["packing"] else None,
        packing=setting["packing"],
        bf16=on_gpu,
        use_cpu=not on_gpu,
        use_liger_kernel=on_gpu and importlib.util.find_spec("liger_kernel") is not None,
        gradient_checkpointing=setting["recompute"],
        optim="adamw_torch_fused",
        learning_rate=1e-5,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )


def _tokenizer() -> Any:
    """SFTTrainer wants one, though rows are token ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<end>": 1}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>",
        eos_token="<end>",
    )


if __name__ == "__main__":
    serve(measure)
