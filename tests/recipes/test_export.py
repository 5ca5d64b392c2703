"""Export: each form is a new folder that its own program loads, whole or not there, without paths of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from hone.cli.main import run
from hone.config.layers import resolve
from hone.errors import ConfigError, EnvironmentFault, ModelError
from hone.recipes.export import Wanted, export
from hone.recipes.train import train
from tests.adapted import adapter_folder, base_folder, logits_of, tuned
from tests.folders import chat_rows


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return adapter_folder(tmp_path / "adapter", base_folder(tmp_path / "base"))


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of three steps."""
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    words = [
        f"model.name={base_folder(tmp_path / 'base')}", f"data.path={chat_rows(tmp_path / 'rows.jsonl')}",
        f"output.dir={tmp_path / 'run'}", "train.max_steps=3", "train.learning_rate=1e-2",
        "compute.micro_batch_tokens=256", "data.template_kwargs={enable_thinking: false, who: null}",
    ]  # fmt: skip
    train(resolve(overrides=words))
    return tmp_path / "run"


def test_a_run_in_every_form(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name for path in finished.iterdir()}
    for form in ("safetensors", "gguf", "ollama", "peft"):
        assert run(["export", str(finished), "--to", form]) == 0, capsys.readouterr().err
    assert run(["export", str(finished), "--to", "hub", "--base", "me/base", "--json"]) == 0
    shown = capsys.readouterr().out
    assert "the first 8 rows of the run's own" in shown
    assert "read back:" in shown
    hub = json.loads(shown.splitlines()[-1])
    assert hub["form"] == "hub"
    after = {path.name for path in finished.iterdir()}
    assert after - before == {"safetensors", "gguf", "ollama", "peft", "hub"}
    wanted = logits_of(tuned(finished.parent / "base", finished))
    whole = AutoModelForCausalLM.from_pretrained(finished / "safetensors")
    torch.testing.assert_close(logits_of(whole), wanted, rtol=1e-4, atol=1e-4)
    alone = AutoPeftModelForCausalLM.from_pretrained(finished / "peft")
    torch.testing.assert_close(logits_of(alone), wanted)
    assert AutoTokenizer.from_pretrained(finished / "peft").chat_template
    read = gguf.GGUFReader(finished / "gguf" / "run-f16.gguf")
    template = read.fields["tokenizer.chat_template"].contents()
    assert template.startswith("{%- set enable_thinking = false -%}{%- set who = none -%}")
    assert read.fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    assert read.fields["tokenizer.ggml.eos_token_id"].contents() == 2
    modelfile = (finished / "ollama" / "Modelfile").read_text()
    assert modelfile.startswith('FROM ./run-f16.gguf\nTEMPLATE """')
    assert 'PARAMETER stop "<|im_end|>"' in modelfile
    assert (finished / "ollama" / "run-f16.gguf").is_file()
    for form in ("safetensors", "gguf", "ollama", "peft", "hub"):
        card = (finished / form / "README.md").read_text()
        assert str(finished.parent) not in card
        assert "tuned on rows.jsonl" in card
        assert "## Settings" in card
    config = json.loads((finished / "hub" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "me/base"


def test_what_is_there_is_not_overwritten(adapter: Path, tmp_path: Path) -> None:
    export(str(adapter), Wanted("peft"))
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        export(str(adapter), Wanted("peft"))
    export(str(adapter), Wanted("peft"), tmp_path / "elsewhere")


def test_a_form_that_fails_leaves_nothing(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hone.models import gguf_file

    def wrong(*words: object) -> float:
        raise ModelError("the GGUF file reads otherwise than it was written")

    monkeypatch.setattr(gguf_file, "check_gguf", wrong)
    with pytest.raises(ModelError):
        export(str(adapter), Wanted("gguf"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".writing-*"))


def test_an_adapter_of_a_local_base_goes_to_the_hub_with_a_name_only(adapter: Path) -> None:
    with pytest.raises(ConfigError, match="folder of this machine") as caught:
        export(str(adapter), Wanted("hub"))
    assert "--base" in str(caught.value)
    whole = export(str(adapter), Wanted("hub", merged=True))
    assert "model.safetensors" in whole.files


def test_limits_of_vllm_are_told(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    dora = adapter_folder(tmp_path / "dora", base, use_dora=True)
    assert any("use_dora" in notice for notice in export(str(dora), Wanted("peft")).notices)
    wide = adapter_folder(tmp_path / "wide", base, r=32)
    assert any(
        "--max-lora-rank 32" in notice for notice in export(str(wide), Wanted("peft")).notices
    )


def test_a_model_folder_is_exported_without_its_base_folder_being_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_folder(tmp_path / "base")
    before = sorted(base.iterdir())
    monkeypatch.chdir(tmp_path)
    done = export(str(base), Wanted("gguf", gguf_type="q8_0"))
    assert done.folder == Path("base-gguf")
    assert sorted(base.iterdir()) == before
    assert any("kept in f16" in notice for notice in done.notices)
    with pytest.raises(ConfigError, match="there is no adapter"):
        export(str(base), Wanted("peft"))


def test_flags_of_another_form_are_refused(
    adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["--to", "peft", "--gguf-type", "f16"],
        ["--to", "gguf", "--merged"],
        ["--to", "gugf"],
    ):
        assert run(["export", str(adapter), *words]) == 2
    assert "did you mean 'gguf'" in capsys.readouterr().err
    assert run(["export", str(adapter), "--to", "gguf", "--gguf-type", "q4"]) == 2


def test_an_absent_package_is_told(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault) as caught:
        export(str(adapter), Wanted("gguf"))
    assert "hone[export]" in str(caught.value)
