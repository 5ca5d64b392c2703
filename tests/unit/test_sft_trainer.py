"""The trainer on a GPT-2 of two layers: what a run leaves, the hooks that fire in it, and what is refused or said."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hone import (
    CheckpointCallback,
    SFTCallback,
    SFTConfig,
    SFTTrainer,
    ValidationCallback,
    WandBCallback,
)
from hone.engine.callbacks import Callback
from hone.errors import (
    CallbackError,
    ChangedSettings,
    ConfigError,
    DataError,
    EnvironmentFault,
    ModelError,
)
from hone.runs.events import read_events
from tests.folders import chat_rows
from tests.unit.desk import gpt2_folder, lay


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gpt2_folder(tmp_path_factory.mktemp("model") / "gpt2")


@pytest.fixture
def desk(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(lay(folder, model))
    return folder


def made(**values: Any) -> SFTConfig:
    """A configuration whose run takes a second."""
    quick = {
        "base_model": "gpt2", "dataset_name": "tatsu-lab/alpaca", "dataset_format": "alpaca",
        "output_dir": "out", "mixed_precision": None, "max_steps": 2, "gradient_accumulation_steps": 1,
    }  # fmt: skip
    return SFTConfig(**{**quick, **values})


def notices(folder: str = "out") -> str:
    events = read_events(Path(folder) / "events.jsonl")
    return "\n".join(str(event["message"]) for event in events if event.name == "notice")


def test_the_minimal_example(desk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = SFTConfig(
        base_model="gpt2",
        dataset_name="tatsu-lab/alpaca",
        dataset_format="alpaca",
        output_dir="./outputs",
    )
    result = SFTTrainer(config).train()
    files = {path.name for path in (desk / "outputs").iterdir()}
    assert {
        "adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tokenizer_config.json", "checkpoints",
    } <= files  # fmt: skip
    assert "merged" not in files
    rows = [
        event for event in read_events(desk / "outputs" / "events.jsonl") if event.name == "step"
    ]
    assert len(rows) == 6, "two steps of 16 rows an epoch"
    losses = [event["loss"] for event in rows]
    assert result["train_loss"] == result.train_loss == pytest.approx(sum(losses) / len(losses))
    assert result.loss == losses[-1]
    assert result["metrics"]["val_loss"] > 0
    assert result["output_dir"] == "outputs"
    said = capfd.readouterr().err
    assert (
        "a step has 16 rows: batch_size 4 x gradient_accumulation_steps 4 x num_devices 1" in said
    )
    assert "max_seq_length is 256, the model's own limit, instead of 2048" in said
    assert "paging is not applicable here (no GPU)" in said
    assert "finished: 6 steps" in said
    adapter = json.loads((desk / "outputs" / "adapter_config.json").read_bytes())
    targets = {name.rsplit(".", 1)[-1] for name in adapter["target_modules"]}
    assert targets == {"c_attn", "c_fc", "c_proj"}, "what GPT-2 has"
    assert AutoPeftModelForCausalLM.from_pretrained("outputs")


def test_rows_are_written_as_the_alpaca_template_has_it_and_only_answers_are_trained(
    desk: Path,
) -> None:
    from hone.recipes.source import read_source
    from hone.trainer.fit import fit

    resolved = fit(made(validation_split=0.0), [])
    rows = read_source(resolved.config, lambda *_, **__: None)
    texts: list[tuple[str, str]] = []
    for row in range(2):
        (example,) = rows.prepared.train.examples(row)
        ids, trained = example.input_ids.tolist(), (example.weight > 0).tolist()
        texts.append(
            (
                rows.tokenizer.decode(ids),
                rows.tokenizer.decode([i for i, t in zip(ids, trained, strict=True) if t]),
            )
        )
    plain, beside = texts
    assert "### Instruction:\nthe red red\n\n### Response:\n" in plain[0]
    assert "### Input" not in plain[0]
    assert "### Instruction:\nthe green green\n\n### Input:\ntwo\n\n### Response:\n" in beside[0]
    assert plain[1].strip() == "one runs<|im_end|>", "the answer and the end, so that it stops"


class Heard(SFTCallback):
    """Writes down what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.metrics: list[dict[str, float]] = []

    def on_train_begin(self, trainer: SFTTrainer) -> None:
        assert isinstance(trainer.model, PeftModel)
        self.calls.append(("train begin", trainer.step, trainer.steps))

    def on_epoch_begin(self, trainer: SFTTrainer, epoch: int) -> None:
        self.calls.append(("epoch begin", epoch))

    def on_step_begin(self, trainer: SFTTrainer, step: int) -> None:
        self.calls.append(("step begin", step))

    def on_step_end(self, trainer: SFTTrainer, step: int, metrics: Any) -> None:
        self.calls.append(("step end", step))
        self.metrics.append(dict(metrics))

    def on_epoch_end(self, trainer: SFTTrainer, epoch: int, metrics: Any) -> None:
        assert metrics["val_loss"] > 0
        self.calls.append(("epoch end", epoch))

    def on_train_end(self, trainer: SFTTrainer) -> None:
        self.calls.append(("train end", trainer.step))


def test_every_hook_fires_in_a_real_run_with_real_metrics(desk: Path) -> None:
    heard = Heard()
    config = made(max_steps=None, num_epochs=1, batch_size=8)
    last = int(SFTTrainer(config, callbacks=[heard]).train().metrics["steps"])
    assert last > 2
    steps = [call for i in range(last) for call in (("step begin", i + 1), ("step end", i + 1))]
    assert heard.calls == [
        ("train begin", 0, last), ("epoch begin", 1), *steps, ("epoch end", 1), ("train end", last),
    ]  # fmt: skip
    told = [event for event in read_events(desk / "out" / "events.jsonl") if event.name == "step"]
    assert [one["loss"] for one in heard.metrics] == [event["loss"] for event in told]
    assert heard.metrics[-1]["val_loss"] == heard.metrics[-1]["eval_loss"]
    assert heard.metrics[0]["learning_rate"] > 0


def test_validation_binds_the_rows_that_are_held_out(desk: Path) -> None:
    validation = ValidationCallback(eval_steps=2, eval_on_epoch_end=False)
    seen: list[tuple[int, float | None]] = []

    class Look(SFTCallback):
        def on_step_end(self, trainer: SFTTrainer, step: int, metrics: Any) -> None:
            seen.append((step, metrics.get("val_loss")))

    SFTTrainer(made(max_steps=5), callbacks=[validation, Look()]).train()
    told = [e for e in read_events(desk / "out" / "events.jsonl") if e.name == "evaluated"]
    assert [e["step"] for e in told] == [2, 4, 5], "every second step, and the last: none twice"
    assert validation.val_losses == [(e["step"], e["loss"]) for e in told]
    assert validation.best_val_loss == min(e["loss"] for e in told)
    assert [step for step, loss in seen if loss is not None] == [2, 4, 5]
    assert told[0]["rows"] > 0


def test_epochs_end_with_a_validation_and_one_is_added_where_none_was_given(desk: Path) -> None:
    config = made(max_steps=None, num_epochs=2, batch_size=20)
    SFTTrainer(config).train()
    told = [e for e in read_events(desk / "out" / "events.jsonl") if e.name == "evaluated"]
    assert [e["step"] for e in told] == [2, 4]


def test_rows_of_its_own_for_validation(desk: Path) -> None:
    held = desk / "held.jsonl"
    held.write_text(json.dumps({"instruction": "a cat", "output": "sings"}) + "\n")
    SFTTrainer(made(), callbacks=[ValidationCallback(val_dataset="held.jsonl")]).train()
    told = [e for e in read_events(desk / "out" / "events.jsonl") if e.name == "evaluated"]
    assert told
    assert {e["rows"] for e in told} == {1}


def test_no_validation_is_no_validation(desk: Path) -> None:
    config = made(eval_steps=1)
    config.validation_split = 0.0
    result = SFTTrainer(config, callbacks=[ValidationCallback(eval_steps=1)]).train()
    assert "val_loss" not in result.metrics
    assert "ValidationCallback has no effect: validation_split is 0" in notices()
    assert "eval_steps has no effect: validation_split is 0" in notices()


def test_copies_are_loadable_and_the_newest_stay(desk: Path) -> None:
    kept = CheckpointCallback(output_dir="./copies", save_steps=1, save_total_limit=2)
    other = desk / "copies" / "checkpoint_step_1"
    other.mkdir(parents=True)
    (other / "mine.txt").write_text("of another run")
    SFTTrainer(made(max_steps=5, validation_split=0.0), callbacks=[kept]).train()
    names = sorted(path.name for path in (desk / "copies").iterdir())
    assert names == ["checkpoint_step_4", "checkpoint_step_5"] or other.exists()
    last = desk / "copies" / "checkpoint_step_5"
    copied, saved = (load_file(f / "adapter_model.safetensors") for f in (last, desk / "out"))
    assert all(torch.equal(copied[name], saved[name]) for name in saved)
    before = load_file(desk / "copies" / "checkpoint_step_4" / "adapter_model.safetensors")
    assert any(not torch.equal(before[name], saved[name]) for name in saved)
    assert AutoPeftModelForCausalLM.from_pretrained(last)
    assert AutoTokenizer.from_pretrained(last).chat_template


def test_only_better_copies_are_kept_where_that_is_asked(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 4.0, 2.0, 2.0])
    monkeypatch.setattr(SFTTrainer, "evaluate", lambda self: next(losses))
    best = CheckpointCallback("copies", save_steps=1, save_best_only=True)
    quiet = ValidationCallback(eval_steps=100, eval_on_epoch_end=False)
    SFTTrainer(made(max_steps=4), callbacks=[quiet, best]).train()
    names = {path.name for path in (desk / "copies").iterdir()}
    assert names == {"checkpoint_step_1", "checkpoint_step_3"}
    assert best.best_val_loss == 2.0


def test_a_full_model_is_copied_and_saved_whole(desk: Path) -> None:
    config = made(use_lora=False, checkpoint_dir="copies", save_steps=2, save_merged_model=True)
    result = SFTTrainer(config).train()
    for folder in ("out", "copies/checkpoint_step_2"):
        state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
        assert state.keys() == AutoModelForCausalLM.from_pretrained("gpt2").state_dict().keys()
    assert result.merged_dir is None
    assert "save_merged_model has no effect: use_lora is false" in notices()
    assert not (desk / "out" / "merged").exists()


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


@pytest.mark.parametrize("quantised", [False, True])
def test_the_merged_model_is_the_unquantised_base_with_its_adapter(
    desk: Path, quantised: bool
) -> None:
    config = made(
        use_qlora=quantised, save_merged_model=True, learning_rate=0.05, warmup_ratio=0, max_steps=3
    )
    result = SFTTrainer(config).train()
    assert result.merged_dir == "out/merged"
    merged = AutoModelForCausalLM.from_pretrained("out/merged")
    tokenizer = AutoTokenizer.from_pretrained("out/merged")
    ids = torch.tensor([tokenizer.encode("the red cat sings")])
    base = AutoModelForCausalLM.from_pretrained("gpt2")
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("gpt2"), "out")
    torch.testing.assert_close(logits(merged, ids), logits(tuned, ids), rtol=1e-4, atol=1e-4)
    assert (logits(merged, ids) - logits(base, ids)).abs().max() > 1e-2
    assert tokenizer.chat_template
    assert merged.config.resid_pdrop == base.config.resid_pdrop


def test_the_same_call_again_does_not_train_again(
    desk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = SFTTrainer(made()).train()
    capfd.readouterr()
    again = SFTTrainer(made()).train()
    assert again.metrics["train_loss"] == first.metrics["train_loss"]
    assert "train(fresh=True)" in capfd.readouterr().err
    with pytest.raises(ChangedSettings) as caught:
        SFTTrainer(made(learning_rate=1e-3)).train()
    assert "learning_rate: 0.0002 -> 0.001" in str(caught.value)
    assert "train(accept_changes=True)" in str(caught.value)
    SFTTrainer(made(max_steps=3)).train(accept_changes=True)
    assert SFTTrainer(made(learning_rate=1e-3)).train(fresh=True).metrics["steps"] == 2


class Fail(SFTCallback):
    def on_step_end(self, trainer: SFTTrainer, step: int, metrics: Any) -> None:
        if step == 2:
            raise KeyError("mine")


def test_a_callback_that_fails_is_named_and_the_call_resumes(desk: Path) -> None:
    straight = SFTTrainer(made(max_steps=4, output_dir="straight")).train()
    with pytest.raises(CallbackError, match="the callback Fail failed in on_step_end after step 2"):
        SFTTrainer(made(max_steps=4), callbacks=[Fail()]).train()
    heard = Heard()
    resumed = SFTTrainer(made(max_steps=4), callbacks=[heard]).train()
    assert heard.calls[0] == ("train begin", 2, 4)
    assert resumed.metrics["train_loss"] == straight.metrics["train_loss"]
    one, two = (load_file(f"{name}/adapter_model.safetensors") for name in ("straight", "out"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_callback_may_stop_the_run_and_engine_callbacks_are_taken_too(desk: Path) -> None:
    class Stop(SFTCallback):
        def on_step_end(self, trainer: SFTTrainer, step: int, metrics: Any) -> None:
            trainer.stop("enough")

    class Count(Callback):
        steps = 0

        def on_step_end(self, run: Any, step: int, metrics: Any) -> None:
            self.steps += 1

    count = Count()
    result = SFTTrainer(made(max_steps=9), callbacks=[Stop(), count]).train()
    assert (result.metrics["steps"], count.steps) == (1, 1)
    assert "enough" in notices()


@pytest.mark.parametrize(
    ("trial", "kind", "said"),
    [
        (lambda: SFTTrainer({"base_model": "gpt2"}), ConfigError, "SFTConfig.from_dict"),
        (lambda: SFTTrainer(made(), callbacks=[object()]), ConfigError, "no callback"),
        (lambda: SFTTrainer(made()).step, ConfigError, "has not begun"),
        (lambda: SFTTrainer(made(max_seq_length=999)).train(), ConfigError, "max_seq_length=999"),
        (lambda: SFTTrainer(made(num_devices=2), [Fail()]).train(), ConfigError, "gradient_accumulation_steps=2"),
        (lambda: SFTTrainer(made(device_map="cuda")).train(), EnvironmentFault, "device_map=cuda"),
        (lambda: SFTTrainer(made(base_model="gpt3")).train(), ModelError, "cannot fetch gpt3"),
        (lambda: SFTTrainer(made(dataset_name="no/where")).train(), EnvironmentFault, "no/where"),
        (lambda: SFTTrainer(made(dataset_name="no.jsonl")).train(), DataError, "no.jsonl"),
        (lambda: SFTTrainer(made(dataset_format="chat")).train(), DataError, "dataset_format='alpaca'"),
        (lambda: SFTTrainer(made(dataset_name="HuggingFaceH4/ultrachat_200k")).train(), DataError, "'messages'"),
        (lambda: SFTTrainer(made(lora_target_modules="nothing")).train(), ConfigError, "lora_target_modules"),
        (lambda: ValidationCallback(val_dataset=[1]), ConfigError, "val_dataset"),
        (lambda: ValidationCallback(eval_steps=0), ConfigError, "eval_steps=0"),
        (lambda: CheckpointCallback("x", save_steps=0), ConfigError, "save_steps=0"),
        (lambda: WandBCallback(config={"x": float("nan")}), ConfigError, "NaN"),
        (
            lambda: SFTTrainer(made(wandb_project="a"), callbacks=[WandBCallback("b")]).train(),
            ConfigError,
            "in one place",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_in_the_words_of_the_keys(
    desk: Path, trial: Callable[[], Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as caught:
        trial()
    assert said in str(caught.value)
    assert not (desk / "out" / "checkpoints").exists()


def test_another_thread_is_told_why_not(desk: Path) -> None:
    heard: list[BaseException] = []

    def work() -> None:
        try:
            SFTTrainer(made()).train()
        except EnvironmentFault as error:
            heard.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "main thread" in str(heard[0])


@pytest.mark.parametrize(
    ("rows", "more"),
    [
        ([{"text": "the cat sings"}, {"text": "a dog runs"}], {}),
        ([{"body": "the cat sings"}, {"body": "a dog"}], {"dataset_text_field": "body"}),
        ([{"completion": "the cat sings"}, {"completion": "a dog"}], {}),
        ([{"prompt": "the cat", "completion": "sings"}, {"prompt": "a dog", "completion": "runs"}], {}),
    ],
)  # fmt: skip
def test_completions_are_plain_text_or_a_prompt_with_its_completion(
    desk: Path, rows: list[dict[str, str]], more: dict[str, str]
) -> None:
    (desk / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 3))
    config = made(
        dataset_name="rows.jsonl", dataset_format="completion", max_steps=1, validation_split=0.0, **more
    )  # fmt: skip
    assert SFTTrainer(config, quiet=True).train().metrics["steps"] == 1


def test_chat_rows_take_chatml(desk: Path) -> None:
    chat_rows(desk / "rows.jsonl", rows=6)
    config = made(dataset_name="rows.jsonl", dataset_format="chat", max_steps=1)
    SFTTrainer(config, quiet=True).train()
    assert "<|im_start|>" in (desk / "out" / "chat_template.jinja").read_text()


_WANDB = '''
"""A stand-in that writes what it is told beside itself."""
import json, pathlib
_FILE = pathlib.Path(__file__).with_name("told.jsonl")
def _tell(*what):
    with _FILE.open("a") as file:
        file.write(json.dumps(what, default=str) + "\\n")
class Settings(dict): pass
class Artifact:
    def __init__(self, name, type): self.name, self.files = name, []
    def add_file(self, path, name): self.files.append(name)
class _Run:
    dir, url, offline = "wandb/offline-run-1/files", "https://wandb.ai/x", True
    def log(self, metrics, step): _tell("log", step, metrics)
    def log_artifact(self, artifact): _tell("artifact", artifact.name, artifact.files)
    def finish(self, exit_code): _tell("finish", exit_code)
def init(**settings):
    settings.pop("settings")
    _tell("init", settings)
    return _Run()
'''


def test_wandb_gets_project_settings_numbers_and_the_adapter(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(_WANDB)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    config = made()
    tracker = WandBCallback(
        project="llm-playground-sft",
        run_name="alpaca-gpt2",
        config=config.to_dict(),
        log_model=True,
    )
    SFTTrainer(config, callbacks=[tracker]).train()
    told = [json.loads(line) for line in (package / "told.jsonl").read_text().splitlines()]
    (init,) = [what for name, what in (t[:2] for t in told if t[0] == "init")]
    assert (init["project"], init["name"]) == ("llm-playground-sft", "alpaca-gpt2")
    assert init["config"]["base_model"] == "gpt2"
    assert init["config"]["train.batch_size"] == 4
    logged = {step for kind, step, *_ in told if kind == "log"}
    assert logged == {1, 2}
    (artifact,) = [t for t in told if t[0] == "artifact"]
    assert artifact[1] == "alpaca-gpt2-model"
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= set(
        artifact[2]
    )
    assert told[-1] == ["finish", 0]


def test_wandb_that_is_not_installed_is_said_and_the_run_goes_on(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else real(name, *a)
    )
    SFTTrainer(made(wandb_project="p", run_name="r")).train()
    assert "wandb is not installed" in notices()
    SFTTrainer(made(run_name="r", output_dir="two")).train()
    assert "run_name has no effect: wandb_project is unset" in notices("two")
