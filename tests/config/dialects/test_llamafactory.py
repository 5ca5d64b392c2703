"""LLaMA-Factory's training YAML as settings of ours: what each key comes to, is told, or is refused for."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hone.config.dialects.llamafactory_keys import IDLE, REFUSED, TEMPLATES
from hone.config.layers import Resolved, resolve
from hone.data.named_templates import NAMED
from hone.errors import ConfigError

SHARED = Path(os.environ.get("HONE_SHARED", Path(__file__).resolve().parents[4] / "shared"))
EXAMPLES = SHARED / "data" / "llamafactory_examples"
SHAREGPT = {
    "file_name": "a.json",
    "formatting": "sharegpt",
    "columns": {"messages": "talk", "system": "sys"},
}
LORA = """\
model_name_or_path: base
stage: sft
do_train: true
finetuning_type: lora
dataset: one
template: qwen
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `data/dataset_info.json`, which is where LLaMA-Factory looks."""
    (tmp_path / "data").mkdir()
    info = {
        name: {"file_name": f"{name}.json"} for name in ("one", "two", "identity", "alpaca_en_demo")
    }
    info |= {
        "med": {"file_name": "med.json"},
        "math": {"file_name": "math.json"},
        "talks": SHAREGPT,
    }
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(info))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, **more: object) -> Resolved:
    Path("run.yaml").write_text(text)
    return resolve(file=Path("run.yaml"), **more)  # type: ignore[arg-type]


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return caught.value


def test_its_defaults_hold_where_it_says_nothing(here: Path) -> None:
    config = read(LORA).config
    train, tuning, data = config.train, config.tuning, config.data
    assert (train.learning_rate, train.epochs, train.schedule, train.batch_size) == (
        5e-5,
        3.0,
        "linear",
        8,
    )
    assert (train.warmup_ratio, train.seed, train.save_steps, train.precision) == (
        0.0,
        42,
        500,
        "fp32",
    )
    assert (tuning.method, tuning.lora.r, tuning.lora.alpha) == ("lora", 8, 16.0)
    assert (tuning.lora.target_modules, tuning.lora.dropout) == ("all-linear", 0.0)
    assert (data.path, data.format, data.max_length) == ("data/one.json", "alpaca", 2048)
    assert (data.too_long, data.bad_rows, data.train_separators) == ("share", "drop", True)
    assert (data.template, data.train_on, data.shuffle) == ("qwen", "all", True)


def test_what_it_says_wins_and_is_named(here: Path) -> None:
    resolved = read(
        LORA + "lora_rank: 4\nlora_target: q_proj,v_proj\nper_device_train_batch_size: 2\n"
        "gradient_accumulation_steps: 3\nlearning_rate: 2e-4\nlr_scheduler_type: cosine\nwarmup_ratio: 0.1\n"
        "bf16: yes\nval_size: 0.1\neval_strategy: steps\neval_steps: 7\nsave_strategy: no\noutput_dir: out dir\n"
        "max_samples: 9\ndisable_shuffling: true\nreport_to: [wandb, none]\nrun_name: r\nmask_history: true\n"
    )
    config, said = resolved.config, resolved.origins
    assert (config.tuning.lora.r, config.tuning.lora.alpha) == (4, 8.0)
    assert config.tuning.lora.target_modules == ["q_proj", "v_proj"]
    assert (config.train.batch_size, config.train.learning_rate) == (6, 2e-4)
    assert (config.train.schedule, config.train.warmup_ratio, config.train.precision) == (
        "cosine",
        0.1,
        "bf16",
    )
    assert (config.data.validation_split, config.train.eval_steps, config.train.save_steps) == (
        0.1,
        7,
        None,
    )
    assert (config.data.max_rows, config.data.shuffle, config.data.train_on) == (9, False, "last")
    assert (config.output.dir, config.output.trackers, config.output.track.name) == (
        "out dir",
        ["wandb"],
        "r",
    )
    assert said["train.learning_rate"] == "run.yaml:11 (learning_rate)"
    assert said["tuning.lora.dropout"] == "default"
    assert any("save_strategy: no" in one for one in resolved.remarks)


def test_rows_of_a_step_are_those_of_all_devices(here: Path) -> None:
    text = LORA + "per_device_train_batch_size: 2\ngradient_accumulation_steps: 4\n"
    assert read(text).config.train.batch_size == 8
    assert read(text, devices=lambda: 3).config.train.batch_size == 24
    two = read(text, devices=lambda: 3, flags={"compute.nproc": "2"})
    assert two.config.train.batch_size == 16
    assert any("16 rows a step: 8 for each of 2 devices" in one for one in two.remarks)
    assert (
        read(text, devices=lambda: 3, overrides=["train.batch_size=5"]).config.train.batch_size == 5
    )


def test_words_of_its_own_may_follow_the_file(here: Path) -> None:
    config = read(LORA, overrides=["learning_rate=3e-5", "lora_rank=2", "train.epochs=1"]).config
    assert (config.train.learning_rate, config.tuning.lora.r, config.train.epochs) == (3e-5, 2, 1.0)


def test_several_datasets_become_sources(here: Path) -> None:
    config = read(LORA.replace("dataset: one", "dataset: one, talks")).config
    first, second = config.data.sources
    assert (first.path, first.format, first.name, first.weight) == (
        "data/one.json",
        "alpaca",
        "one",
        None,
    )
    assert (second.format, second.columns) == (
        "sharegpt",
        {"conversations": "talk", "system": "sys"},
    )
    mixed = read(
        LORA.replace("dataset: one", "dataset: one,two")
        + "mix_strategy: interleave_over\ninterleave_probs: 0.75, 0.25\n"
    )
    assert [one.weight for one in mixed.config.data.sources] == [0.75, 0.25]


def test_what_has_no_object_here_is_told_with_the_reason(here: Path) -> None:
    resolved = read(LORA + "flash_attn: fa2\ntrust_remote_code: true\nuse_unsloth: false\n")
    told = [one for one in resolved.remarks if one.startswith("not applicable here:")]
    assert any("flash_attn" in one and "attention kernel" in one for one in told)
    assert any("trust_remote_code" in one for one in told)
    assert not any("use_unsloth" in one for one in told), "what is off asks for nothing"


@pytest.mark.parametrize("stage", ["dpo", "kto", "rm", "ppo"])
def test_other_stages_are_refused_by_name(here: Path, stage: str) -> None:
    error = refused(LORA.replace("stage: sft", f"stage: {stage}"))
    assert f"stage: {stage}" in error.what
    assert error.where == "run.yaml:2 (stage)"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("fp16: true", "bf16"),
        ("use_galore: true", "galore"),
        ("finetuning_type: oft", "oft"),
        ("quantization_bit: 3", "4, 8"),
        ("template: vicuna", "model's own"),
        ("dataset: tow", "'two'"),
        ("lr_scheduler_type: polynomial", "constant"),
        ("val_size: 100", "share"),
        ("lora_rnak: 8", "'lora_rank'"),
        ("hf_hub_token: abc", "environment"),
        ("learning_rate: fast", "a number"),
        ("export_dir: merged", "hone merge"),
        ("adam_epsilon: 1e-6", "1e-8"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_with_a_remedy(
    here: Path, line: str, words: str
) -> None:
    key = line.partition(":")[0]
    kept = [one for one in LORA.splitlines() if not one.startswith(f"{key}:")]
    error = refused("\n".join([*kept, line]))
    assert key in error.what
    assert words.lower() in str(error).lower()


def test_everything_that_is_wrong_is_said_at_once(here: Path) -> None:
    error = refused(LORA + "use_galore: true\npure_bf16: true\nnonsense: 1\n")
    assert error.what.startswith("3 settings cannot be used")


def test_what_is_off_is_not_refused(here: Path) -> None:
    read(LORA + "".join(f"{key}: false\n" for key in REFUSED if key != "export_legacy_format"))


def test_tables_do_not_contradict_each_other() -> None:
    assert not set(IDLE) & set(REFUSED)
    assert set(TEMPLATES.values()) <= set(NAMED)


def test_train_on_prompt_learns_everything(here: Path) -> None:
    assert read(LORA + "train_on_prompt: true\n").config.data.train_on == "everything"
    assert "exclude" in refused(LORA + "train_on_prompt: true\nmask_history: true\n").what


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason=f"no examples in {EXAMPLES}")
def test_its_own_examples_are_read_or_refused_by_name(here: Path) -> None:
    """Each key that occurs in them is taken, told or refused; none is unknown."""
    outcome: dict[str, str] = {}
    for path in sorted(EXAMPLES.glob("*.yaml")):
        try:
            resolve(file=path)
        except ConfigError as error:
            outcome[path.name] = str(error)
        else:
            outcome[path.name] = "read"
    refusals = [said for said in outcome.values() if said != "read"]
    assert all("remedy: " in said and "that Hone knows" not in said for said in refusals)
    read_ones = {name for name, what in outcome.items() if what == "read"}
    assert read_ones == {
        "extras__dft__qwen2_full_sft.yaml",
        "extras__fsdp_qlora__llama3_lora_sft.yaml",
        "extras__loraplus__llama3_lora_sft.yaml",
        "extras__muon__qwen2_full_sft.yaml",
        "extras__pissa__llama3_lora_sft.yaml",
        "train_full__qwen3_full_sft.yaml",
        "train_lora__qwen3_lora_sft.yaml",
        "train_lora__qwen3_lora_sft_ds3.yaml",
        "train_qlora__llama3_lora_sft_aqlm.yaml",
        "train_qlora__llama3_lora_sft_awq.yaml",
        "train_qlora__llama3_lora_sft_gptq.yaml",
        "train_qlora__qwen3_lora_sft_otfq.yaml",
    }
