"""`hone plan` against what happens: memory, steps, tokens and time of twelve settings, each run in a process of its own.

The table that it prints is what the README's figures come from.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.prove.planned import Setting, gpt2, llama, plan_and_run

pytestmark = pytest.mark.slow

MIB = 2**20
FP32, BF16 = "train.precision=fp32", "train.precision=bf16"

SHORT = ("train.max_steps=2", "train.batch_size=8")
FULL = "tuning.method=full"


def budget(tokens: int) -> str:
    """So many tokens in a Pack."""
    return f"compute.micro_batch_tokens={tokens}"


SETTINGS = (
    Setting(
        "llama, lora, fp32",
        "LlamaConfig",
        llama(128, 16, 384, vocabulary=16_000),
        (32, 200, 900, 0.3),
        (FP32, *SHORT, budget(4096)),
    ),
    Setting(
        "llama, full, adamw, fp32",
        "LlamaConfig",
        llama(384, 6, 1152),
        (64, 100, 400, 0.5),
        (FP32, *SHORT, FULL, budget(2048)),
    ),
    Setting(
        "qwen3, full, adafactor, bf16",
        "Qwen3Config",
        llama(384, 8, 1152, vocabulary=16_000),
        (64, 100, 500, 0.5),
        (BF16, *SHORT, FULL, "train.optimizer=adafactor", budget(2048)),
    ),
    Setting(
        "gemma2, lora with dropout, bf16",
        "Gemma2Config",
        llama(192, 8, 768, vocabulary=16_000),
        (32, 200, 800, 0.4),
        (BF16, *SHORT, "tuning.lora.dropout=0.1", "tuning.lora.r=32", budget(4096)),
    ),
    Setting(
        "gpt2, full, lion, fp32",
        "GPT2Config",
        gpt2(128, 12, vocabulary=8_000),
        (64, 100, 500, 0.6),
        (FP32, *SHORT, FULL, "train.optimizer=lion", budget(4096)),
    ),
    Setting(
        "llama, full, muon, bf16",
        "LlamaConfig",
        llama(512, 8, 1536, vocabulary=16_000),
        (64, 100, 500, 0.6),
        (BF16, *SHORT, FULL, "train.optimizer=muon", budget(1024)),
    ),
    Setting(
        "llama, qlora 4 bit, bf16",
        "LlamaConfig",
        llama(256, 10, 768, vocabulary=8_000),
        (32, 200, 700, 0.3),
        (BF16, *SHORT, "tuning.method=qlora", budget(4096)),
    ),
    Setting(
        "mistral, qlora 8 bit, fp32",
        "MistralConfig",
        llama(256, 8, 768, vocabulary=8_000),
        (32, 200, 700, 0.3),
        (FP32, *SHORT, "tuning.method=qlora", "tuning.quantization.bits=8", budget(2048)),
    ),
    Setting(
        "qwen2, freeze, adamw 8 bit, fp32",
        "Qwen2Config",
        llama(512, 10, 1536, vocabulary=16_000),
        (64, 100, 500, 0.5),
        (
            FP32,
            *SHORT,
            "tuning.method=freeze",
            "tuning.freeze.trainable_layers=4",
            "train.optimizer=adamw_8bit",
            budget(2048),
        ),
    ),
    Setting(
        "llama, lora, layers computed again, fp32",
        "LlamaConfig",
        llama(128, 16, 384),
        (16, 500, 4000, 0.2),
        (
            FP32,
            "train.max_steps=2",
            "train.batch_size=4",
            "compute.gradient_checkpointing=true",
            budget(8192),
        ),
    ),
    Setting(
        "llama, full, a large tied vocabulary, fp32",
        "LlamaConfig",
        llama(256, 4, 768, vocabulary=96_000, tie_word_embeddings=True),
        (64, 50, 300, 0.5),
        (FP32, *SHORT, FULL, budget(1024)),
    ),
    Setting(
        "llama, lora of two layers each, budget by itself",
        "LlamaConfig",
        llama(128, 12, 384, vocabulary=8_000),
        (48, 100, 1500, 0.5),
        (*SHORT, "tuning.lora.target_modules=[q_proj, v_proj]"),
    ),
)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: one.name)
def test_the_plan_is_what_happens(
    tmp_path: Path, setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the rehearsal is left to choose (no budget set) is planned as a bound at first, and as it is once this
    machine has rehearsed it."""
    outcome = plan_and_run(tmp_path, setting)
    is_left_open = not any("micro_batch_tokens" in word for word in setting.words)
    bound = outcome.planned["memory"]["peak_bytes"]
    plan = outcome.afterwards if is_left_open else outcome.planned
    planned = plan["memory"]["peak_bytes"]
    steps = outcome.steps()
    with capsys.disabled():
        print(
            f"\n{setting.name:<50} planned {planned / MIB:5.0f}, measured {outcome.peak_bytes / MIB:5.0f} MiB, "
            f"{planned / outcome.peak_bytes - 1:+.1%}"
            + (f"; before the first rehearsal {bound / MIB:.0f} at most" if is_left_open else "")
        )
    assert len(steps) == outcome.planned["steps"]
    assert abs(planned / outcome.peak_bytes - 1) <= 0.15
    assert outcome.peak_bytes <= 1.15 * bound
