"""Which language a file is known to be in, and what another one's converted file comes to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hone.cli.main import run
from hone.config.dialects.choice import DIALECTS, dialect_named, recognise
from hone.config.files import read_yaml
from hone.config.layers import resolve
from hone.errors import ConfigError

FILES = {
    "llamafactory": "model_name_or_path: m\nstage: sft\ndataset: d\ntemplate: qwen\nlora_rank: 4\nlearning_rate: 1e-4\n"
    "deepspeed: ds.json\nflash_attn: fa2\n",
    "sft-play": "model: {name: m, max_seq_len: 64}\ntuning: {mode: lora}\ntrain: {learning_rate: 2e-4}\n",
    "trl": "model_name_or_path: m\ndataset_name: rows.jsonl\nuse_peft: true\nlora_r: 4\nlearning_rate: 2e-4\n"
    "assistant_only_loss: true\nmax_length: 64\nlr_scheduler_type: cosine\n",
    "axolotl": "base_model: m\nadapter: lora\nlora_r: 4\nlora_alpha: 8\nlora_target_linear: true\nsequence_len: 64\n"
    "sample_packing: true\ndatasets:\n  - {path: rows.jsonl, type: chat_template}\nmicro_batch_size: 2\n"
    "gradient_accumulation_steps: 2\nlearning_rate: 2e-4\nlr_scheduler: cosine\noptimizer: adamw_torch\n"
    "val_set_size: 0.1\nbf16: auto\nwarmup_steps: 3\nflash_attention: true\nnum_epochs: 2\n",
    "sft-trainer": "base_model: m\ndataset_name: rows.jsonl\ndataset_format: chat\nlearning_rate: 2e-4\nlora_r: 4\n",
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps({"d": {"file_name": "d.json"}}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_known_by_its_keys(name: str) -> None:
    root = read_yaml(FILES[name], "x.yaml")
    assert root is not None
    found = recognise(root)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "text",
    ["train: {epochs: 1}\nmodel: {name: m}\n", "tuning: {method: lora}\n", "model: {nmae: m}\n"],
)
def test_our_own_is_ours(text: str) -> None:
    root = read_yaml(text, "x.yaml")
    assert root is not None
    assert recognise(root) is None


@pytest.mark.parametrize("name", FILES)
def test_a_converted_file_is_the_same_configuration(here: Path, name: str) -> None:
    theirs, ours = here / "theirs.yaml", here / "a folder" / "ours.yaml"
    theirs.write_text(FILES[name])
    assert run(["config", "convert", str(theirs), "--from", name, "--to", str(ours)]) == 0
    direct = resolve(file=theirs, dialect=dialect_named(name))
    assert resolve(file=ours).config == direct.config
    assert direct.config.train.learning_rate in (1e-4, 2e-4)
    assert direct.config.tuning.method == "lora"
    assert run(["config", "convert", str(theirs), "--from", name, "--to", str(ours)]) == 2, (
        "it is kept"
    )
    assert (
        run(["config", "convert", str(theirs), "--from", name, "--to", str(ours), "--force"]) == 0
    )


@pytest.mark.parametrize("name", [one.name for one in DIALECTS if not one.trains])
def test_what_is_converted_first_says_so(here: Path, name: str) -> None:
    (here / "x.yaml").write_text(FILES[name])
    with pytest.raises(ConfigError) as caught:
        resolve(file=here / "x.yaml")
    assert f"--from {name}" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("trl", "fp16: true", "bf16"),
        ("trl", "truncation_mode: keep_end", "beginning"),
        ("trl", "asistant_only_loss: true", "'assistant_only_loss'"),
        ("axolotl", "rl: dpo", "does not do"),
        ("axolotl", "adpater: lora", "'adapter'"),
        ("axolotl", "tensor_parallel_size: 2", "ZeRO-3"),
        ("sft-trainer", "lora_rank: 4", "'lora_r'"),
        ("sft-trainer", "mixed_precision: fp16", "bf16"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_an_error_by_name(
    here: Path, name: str, line: str, words: str
) -> None:
    (here / "x.yaml").write_text(FILES[name] + line + "\n")
    with pytest.raises(ConfigError) as caught:
        resolve(file=here / "x.yaml", dialect=dialect_named(name))
    assert line.partition(":")[0] in str(caught.value)
    assert words in str(caught.value)


def test_what_is_learned_follows_each_language(here: Path) -> None:
    def learned(name: str, *lines: str) -> str:
        (here / "x.yaml").write_text("\n".join([FILES[name], *lines]))
        return resolve(file=here / "x.yaml", dialect=dialect_named(name)).config.data.train_on

    assert learned("trl") == "all"
    (here / "x.yaml").write_text(FILES["trl"].replace("assistant_only_loss: true\n", ""))
    plain = resolve(file=here / "x.yaml", dialect=dialect_named("trl"))
    assert plain.config.data.train_on == "everything"
    assert learned("axolotl") == "all"
    assert learned("axolotl", "train_on_inputs: true") == "everything"


def test_an_unknown_language_is_an_error(here: Path) -> None:
    with pytest.raises(ConfigError, match="no language 'lamafactory'"):
        dialect_named("lamafactory")
