"""Every tuning method end to end: a cut run ends in the same bits, and plain libraries load what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

import hone.recipes.result as result
from hone.config.layers import Resolved, resolve
from hone.errors import ConfigError, EnvironmentFault
from hone.infer.completer import Sampling
from hone.infer.open import open_model
from hone.recipes.train import train
from hone.runs.events import Event, steps
from tests.folders import chat_rows, model_folder

TOKENS = 308  # of the tests' tokenizer
IDS = torch.tensor([[1, 50, 60, 70, 80, 90, 300, 20]])
NEW_IDS = torch.tensor([[1, 50, TOKENS, 70, TOKENS + 2, 90, TOKENS + 1, 20]])
QLORA = "tuning.method=qlora"
NEW = ["model.new_tokens=[purple, 'the cat']", "model.new_special_tokens=['<|note|>']"]

METHODS: dict[str, list[str]] = {
    "dora": ["tuning.lora.dora=true", "tuning.lora.rslora=true", "tuning.lora.dropout=0.2"],
    "pissa": ["tuning.lora.init=pissa"],
    "qlora-4-loftq": [QLORA, "tuning.lora.init=loftq"],
    "qlora-8": [QLORA, "tuning.quantization.bits=8"],
    "freeze": ["tuning.method=freeze", "tuning.freeze.extra_modules=[head, model.norm]"],
    "new-tokens": NEW,
}
MORE_METHODS: dict[str, list[str]] = {
    "olora": ["tuning.lora.init=olora", "tuning.lora.layers=[1]"],
    "pissa-iterated": [
        "tuning.lora.init=pissa", "tuning.lora.pissa_niter=3", "tuning.lora.rslora=true",
        "tuning.lora.dora=true",
    ],
    "whole-modules": ["tuning.lora.modules_to_save=[embeddings, head]"],
    "whole-modules-new-tokens": ["tuning.lora.modules_to_save=[embeddings, head]", *NEW],
    "qlora-fp4": [QLORA, "tuning.quantization.quant_type=fp4", "tuning.lora.dora=true"],
    "qlora-new-tokens": [QLORA, "tuning.lora.dropout=0.1", *NEW],
    "full-new-tokens": ["tuning.method=full", *NEW],
    "checkpointing": [QLORA, "compute.gradient_checkpointing=true"],
    "full": ["tuning.method=full"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))


class Kept(list[torch.Tensor]):
    """The logits of every module that was trained, as its artifact was written."""


def logits_of(model: Any) -> torch.Tensor:
    """With the new tokens, where the model has rows for them."""
    rows = model.get_input_embeddings().weight.shape[0]
    with torch.no_grad():
        return model(NEW_IDS if rows > TOKENS else IDS, use_cache=False).logits


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    found = Kept()
    write = result.write_artifact

    def watched(folder: Path, *, model: Any, **more: Any) -> list[str]:
        model.eval().set_attn_implementation("eager")
        found.append(logits_of(model))
        return write(folder, model=model, **more)

    monkeypatch.setattr(result, "write_artifact", watched)
    return found


def settings(tmp_path: Path, *more: str, out: str = "run", **numbers: Any) -> Resolved:
    rows, folder = tmp_path / "rows.jsonl", tmp_path / "model"
    if not rows.exists():
        chat_rows(rows)
    if not folder.exists():
        model_folder(folder, **{"vocab_size": TOKENS, **numbers})
    base = [] if any(one.startswith("model.name=") for one in more) else [f"model.name={folder}"]
    return resolve(
        overrides=[
            f"data.path={rows}", *base, f"output.dir={tmp_path / out}", "train.precision=fp32",
            "compute.threads=1", "train.batch_size=6", "train.epochs=1", "tuning.lora.r=4",
            "train.learning_rate=1e-2", "train.save_steps=2", *more,
        ]
    )  # fmt: skip


def losses(folder: Path) -> list[float]:
    return [event["loss"] for event in steps(folder / "events.jsonl").values()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "adapter_model.safetensors"
    return load_file(path if path.is_file() else folder / "model.safetensors")


def stop(event: Event) -> None:
    if event.name == "saved" and event["step"] == 2:
        raise KeyboardInterrupt


def loaded(folder: Path, resolved: Resolved) -> Any:
    """The artifact, by the code that its card shows."""
    tuning = resolved.config.tuning
    if not tuning.is_adapter:
        return AutoModelForCausalLM.from_pretrained(folder)
    options: dict[str, Any] = {}
    if tuning.method == "qlora":
        about = tuning.quantization
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=about.bits == 4, load_in_8bit=about.bits == 8,
            bnb_4bit_quant_type=about.quant_type, bnb_4bit_use_double_quant=about.double_quant,
        )  # fmt: skip
    return AutoPeftModelForCausalLM.from_pretrained(folder, **options)


def check(tmp_path: Path, kept: Kept, more: list[str], **numbers: Any) -> Path:
    resolved = settings(tmp_path, *more, out="straight", **numbers)
    straight = train(resolved)
    cut = settings(tmp_path, *more, out="cut", **numbers)
    with pytest.raises(KeyboardInterrupt):
        train(cut, listeners=[stop])
    resumed = train(cut)
    assert straight.steps == 4
    assert losses(resumed.folder) == losses(straight.folder)
    assert losses(straight.folder)[-1] < losses(straight.folder)[0]
    got, want = weights(resumed.folder), weights(straight.folder)
    assert got.keys() == want.keys()
    assert all(torch.equal(got[key], want[key]) for key in want)
    # bitsandbytes' layers round to bf16 or int8 at evaluation; in training they multiply as ours do.
    plain = loaded(straight.folder, resolved).train(resolved.config.tuning.method == "qlora")
    for module in plain.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    torch.testing.assert_close(logits_of(plain), kept[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(kept[1], kept[0])
    return straight.folder


@pytest.mark.parametrize("method", METHODS)
def test_a_cut_run_equals_a_straight_one_and_its_artifact_the_trained_module(
    tmp_path: Path, kept: Kept, method: str
) -> None:
    check(tmp_path, kept, METHODS[method])


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [{}, {"tie_word_embeddings": True}], ids=["apart", "tied"])
@pytest.mark.parametrize("method", METHODS | MORE_METHODS)
def test_every_method_at_length(
    tmp_path: Path, kept: Kept, method: str, numbers: dict[str, Any]
) -> None:
    check(tmp_path, kept, (METHODS | MORE_METHODS)[method], **numbers)


def test_new_tokens_are_in_the_rows_the_model_and_the_artifact(tmp_path: Path, kept: Kept) -> None:
    heard: list[Event] = []
    plain = train(settings(tmp_path, out="plain"))
    more = ["model.new_tokens=[purple, 'the cat', a]", NEW[1], "train.max_steps=2"]
    done = train(settings(tmp_path, *more), listeners=[heard.append])
    counted = {
        folder: json.loads((folder / "ledger.json").read_bytes())["tokens"]
        for folder in (plain.folder, done.folder)
    }
    assert counted[done.folder] < counted[plain.folder]  # "the cat" is one token now
    told = [event["message"] for event in heard if event.name == "notice"]
    assert any("new tokens: 3, which train" in message for message in told)
    assert any("the tokenizer has 'a' already" in message for message in told)
    tokenizer = AutoTokenizer.from_pretrained(done.folder)
    ids = tokenizer("purple<|note|>the cat", add_special_tokens=False).input_ids
    assert ids == [TOKENS, TOKENS + 2, TOKENS + 1]
    rows = [key for key in weights(done.folder) if "trainable_tokens" in key]
    assert len(rows) == 2
    card = (done.folder / "README.md").read_text()
    assert "`<|note|>`" in card


@pytest.mark.parametrize(
    "more", [[QLORA, *NEW], [QLORA, "tuning.quantization.bits=8"], ["tuning.method=freeze"]]
)
def test_the_code_on_the_card_runs(
    tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sides = {
        "hidden_size": 64,
        "intermediate_size": 128,
    }  # bitsandbytes' own way on CPUs wants blocks of 64
    done = train(settings(tmp_path, *more, "train.max_steps=1", **sides))
    card = (done.folder / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    exec(
        code.replace("this/folder", str(done.folder)).replace(
            "max_new_tokens=100", "max_new_tokens=2"
        )
    )
    assert "<|im_start|>user\nHello<|im_end|>" in capsys.readouterr().out


def test_spare_rows_hold_new_tokens_without_a_larger_model(tmp_path: Path, kept: Kept) -> None:
    heard: list[Event] = []
    done = train(
        settings(tmp_path, *NEW, "train.max_steps=1", vocab_size=384), listeners=[heard.append]
    )
    told = [event["message"] for event in heard if event.name == "notice"]
    assert any("rows added to the model's 384: 0, spare ones taken: 3" in one for one in told)
    assert loaded(done.folder, settings(tmp_path)).get_input_embeddings().weight.shape[0] == 384


def test_an_adapter_is_trained_further_from_where_it_was(tmp_path: Path, kept: Kept) -> None:
    first = train(settings(tmp_path, *NEW, "tuning.lora.rslora=true", out="first"))
    heard: list[Event] = []
    again = settings(
        tmp_path, f"model.adapter={first.folder}", "train.learning_rate=1e-9", out="second",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"tuning\.lora\.dora=True \(command line\)"):
        train(settings(tmp_path, f"model.adapter={first.folder}", "tuning.lora.dora=true"))
    done = train(again, listeners=[heard.append])
    torch.testing.assert_close(kept[1], kept[0], rtol=1e-4, atol=1e-4)
    saved = json.loads((done.folder / "run.json").read_bytes())
    assert saved["config"]["tuning"]["lora"]["rslora"] is True
    plain = loaded(done.folder, again)
    torch.testing.assert_close(logits_of(plain), kept[1], rtol=1e-4, atol=1e-4)
    # without model.name the adapter's own base is taken
    alone = settings(tmp_path, f"model.adapter={first.folder}", 'model.name=""', out="third")
    assert losses(train(alone).folder)[0] == pytest.approx(losses(first.folder)[-1], rel=0.2)
    # another adapter under the same name is another run
    (first.folder / "adapter_config.json").write_text(
        json.dumps(
            {**json.loads((first.folder / "adapter_config.json").read_bytes()), "revision": "x"}
        )
    )
    with pytest.raises(ConfigError, match="the adapter changed"):
        train(alone)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_is_trained_further_beside_a_quantised_base(
    tmp_path: Path, kept: Kept, bits: int
) -> None:
    quantised = [QLORA, f"tuning.quantization.bits={bits}"]
    first = train(settings(tmp_path, *quantised, "tuning.lora.dora=true", out="first"))
    train(
        settings(
            tmp_path, *quantised, f"model.adapter={first.folder}", "train.learning_rate=1e-9",
            out="second",
        )
    )  # fmt: skip
    torch.testing.assert_close(kept[1], kept[0], rtol=1e-4, atol=1e-4)


def test_a_resume_on_another_decomposition_is_refused(tmp_path: Path) -> None:
    resolved = settings(tmp_path, "tuning.lora.init=pissa")
    with pytest.raises(KeyboardInterrupt):
        train(resolved, listeners=[stop])
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "beginning": "0" * 64}))
    with pytest.raises(EnvironmentFault, match="does not come out as it did"):
        train(resolved)


@pytest.mark.parametrize("more", [[QLORA], NEW, ["tuning.lora.init=pissa"]])
def test_a_checkpoint_and_the_artifact_answer_alike(tmp_path: Path, more: list[str]) -> None:
    done = train(settings(tmp_path, *more))
    asked = [[{"role": "user", "content": "the red cat"}]]
    said = [
        open_model(str(place))
        .completer.replies(asked, sampling=Sampling(max_tokens=6))[0]
        .token_ids
        for place in (done.folder, done.folder / "checkpoints" / "step-00000004")
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize("kept_in", ["float32", "bfloat16"])
def test_what_is_frozen_is_saved_as_it_was_and_what_trains_moves(
    tmp_path: Path, kept_in: str
) -> None:
    more = ["tuning.method=freeze", "tuning.freeze.trainable_layers=1", "train.precision=bf16"]
    resolved = settings(tmp_path, *more, "train.max_steps=1")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=getattr(torch, kept_in))
    base.save_pretrained(tmp_path / "model")
    before, after = (
        load_file(x / "model.safetensors") for x in (tmp_path / "model", train(resolved).folder)
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert moved
    assert all(name.startswith("model.layers.1.") for name in moved)


def test_a_base_that_is_quantised_already_wants_qlora(tmp_path: Path, kept: Kept) -> None:
    settings(tmp_path)
    quantised = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", quantization_config=BitsAndBytesConfig(load_in_8bit=True)
    )
    quantised.save_pretrained(tmp_path / "eight")
    AutoTokenizer.from_pretrained(tmp_path / "model").save_pretrained(tmp_path / "eight")
    base = f"model.name={tmp_path / 'eight'}"
    with pytest.raises(ConfigError, match=r"quantised already \(8 bits\)"):
        train(settings(tmp_path, base))
    with pytest.raises(ConfigError, match="bits=8"):
        train(settings(tmp_path, base, QLORA, out="two"))
    with pytest.raises(ConfigError, match="has them no more"):
        train(
            settings(
                tmp_path, base, QLORA, "tuning.quantization.bits=8", "tuning.lora.init=loftq",
                out="three",
            )
        )  # fmt: skip
    done = train(settings(tmp_path, base, QLORA, "tuning.quantization.bits=8", out="four"))
    other = train(settings(tmp_path, QLORA, "tuning.quantization.bits=8", out="five"))
    assert losses(done.folder) == losses(other.folder)
