"""`hone plan` against what happens: memory, steps, tokens and time of twelve settings, each run in a process of its own.

The table that it prints is what the README's figures come from.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.prove.planned import Setting, gpt2, llama, plan_and_run

pytestmark = pytest.mark.slow

MIB = 2**20
LORA = ("tuning.lora.dropout=0",)
FP32, BF16 = "train.precision=fp32", "train.precision=bf16"

SETTINGS = (
    Setting(
        "llama, lora, fp32",
        "LlamaConfig",
        llama(512, 8, 1536, vocabulary=32_000),
        (64, 200, 900, 0.3),
        (
            FP32,
            "tuning.method=lora",
            "train.max_steps=3",
            "train.batch_size=8",
            "compute.micro_batch_tokens=4096",
        ),
    ),
    Setting(
        "llama, full, adamw, fp32",
        "LlamaConfig",
        llama(512, 8, 1536),
        (64, 100, 400, 0.5),
        (
            FP32,
            "tuning.method=full",
            "train.max_steps=3",
            "train.batch_size=8",
            "compute.micro_batch_tokens=2048",
        ),
    ),
    Setting(
        "qwen3, full, adafactor, bf16",
        "Qwen3Config",
        llama(640, 10, 1792, vocabulary=16_000),
        (64, 100, 500, 0.5),
        (
            BF16,
            "tuning.method=full",
            "train.optimizer=adafactor",
            "train.max_steps=3",
            "train.batch_size=8",
            "compute.micro_batch_tokens=2048",
        ),
    ),
    Setting(
        "gemma2, lora with dropout, bf16",
        "Gemma2Config",
        llama(512, 6, 2048, vocabulary=32_000),
        (64, 200, 800, 0.4),
        (
            BF16,
            "tuning.lora.dropout=0.1",
            "tuning.lora.r=32",
            "train.max_steps=3",
            "train.batch_size=8",
            "compute.micro_batch_tokens=2048",
        ),
    ),
    Setting(
        "gpt2, full, lion, fp32",
        "GPT2Config",
        gpt2(512, 8, vocabulary=16_000),
        (64, 100, 500, 0.6),
        (
            FP32,
            "tuning.method=full",
            "train.optimizer=lion",
            "train.max_steps=3",
            "train.batch_size=8",
            "compute.micro_batch_tokens=2048",
        ),
    ),
    Setting(
        "llama, full, muon, bf16",
        "LlamaConfig",
        llama(512, 10, 1536, vocabulary=16_000),
        (64, 100, 500, 0.6),
        (
            BF16,
            "tuning.method=full",
            "train.optimizer=muon",
            "train.max_steps=3",
            "train.batch_size=8",
            "compute.micro_batch_tokens=1024",
        ),
    ),
    Setting(
        "llama, qlora 4 bit, bf16",
        "LlamaConfig",
        llama(768, 12, 2048, vocabulary=16_000),
        (48, 200, 700, 0.3),
        (
            BF16,
            "tuning.method=qlora",
            "train.max_steps=3",
            "train.batch_size=8",
            "compute.micro_batch_tokens=2048",
        ),
    ),
    Setting(
        "mistral, qlora 8 bit, fp32",
        "MistralConfig",
        llama(640, 8, 1792, vocabulary=16_000),
        (48, 200, 700, 0.3),
        (
            FP32,
            "tuning.method=qlora",
            "tuning.quantization.bits=8",
            "train.max_steps=3",
            "train.batch_size=8",
            "compute.micro_batch_tokens=2048",
        ),
    ),
    Setting(
        "qwen2, freeze, adamw 8 bit, fp32",
        "Qwen2Config",
        llama(640, 12, 1792, vocabulary=16_000),
        (64, 100, 500, 0.5),
        (
            FP32,
            "tuning.method=freeze",
            "tuning.freeze.trainable_layers=4",
            "train.optimizer=adamw_8bit",
            "train.max_steps=3",
            "train.batch_size=8",
            "compute.micro_batch_tokens=4096",
        ),
    ),
    Setting(
        "llama, lora, layers computed again, fp32",
        "LlamaConfig",
        llama(512, 16, 1536, vocabulary=8192),
        (32, 500, 4000, 0.2),
        (
            FP32,
            "compute.gradient_checkpointing=true",
            "train.max_steps=3",
            "train.batch_size=4",
            "compute.micro_batch_tokens=8192",
        ),
    ),
    Setting(
        "llama, full, a large tied vocabulary, fp32",
        "LlamaConfig",
        llama(384, 4, 1024, vocabulary=128_000, tie_word_embeddings=True),
        (64, 50, 300, 0.9),
        (
            FP32,
            "tuning.method=full",
            "train.max_steps=3",
            "train.batch_size=8",
            "compute.micro_batch_tokens=1024",
        ),
    ),
    Setting(
        "llama, lora, budget by itself, auto",
        "LlamaConfig",
        llama(512, 12, 1536, vocabulary=32_000),
        (96, 100, 1500, 0.5),
        ("tuning.lora.target_modules=[q_proj, v_proj]", "train.max_steps=3", "train.batch_size=8"),
    ),
)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: one.name)
def test_the_plan_is_what_happens(tmp_path: Path, setting: Setting) -> None:
    outcome = plan_and_run(tmp_path, setting)
    planned = outcome.planned["memory"]["peak_bytes"]
    steps = outcome.steps()
    print(
        f"\n{setting.name}: planned {planned / MIB:.0f}, measured {outcome.peak_bytes / MIB:.0f} MiB"
    )
    assert len(steps) == outcome.planned["steps"]
    assert abs(planned / outcome.peak_bytes - 1) <= 0.15
