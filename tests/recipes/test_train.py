"""Training end to end, as a user's command does it, on a tiny model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from hone.config.layers import resolve
from hone.engine import strategy
from hone.engine.loss import PackLoss
from hone.errors import ConfigError, LockedError, OutOfMemory
from hone.recipes import result
from hone.recipes import train as train_module
from hone.recipes.train import Trained, train
from hone.runs.events import Event, steps
from hone.runs.folder import RunFolder
from hone.runs.summary import summarize
from tests.folders import chat_rows, model_folder

QUICK = ["train.precision=fp32", "compute.threads=1", "train.batch_size=6", "train.epochs=2"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))


def run(
    tmp_path: Path,
    *more: str,
    model: Path | None = None,
    out: str = "run",
    heard: list[Event] | None = None,
    **flags: bool,
) -> Trained:
    rows = tmp_path / "rows.jsonl"
    if not rows.exists():
        chat_rows(rows)
    folder = model or tmp_path / "model"
    if not folder.exists():
        model_folder(folder)
    resolved = resolve(
        overrides=[
            f"data.path={rows}", f"model.name={folder}", f"output.dir={tmp_path / out}", *QUICK, *more,
        ]
    )  # fmt: skip
    listeners = [] if heard is None else [heard.append]
    return train(resolved, command=["hone", "train"], listeners=listeners, **flags)


class Heard(list[Event]):
    """Events, each struck upon as it is heard."""

    def __init__(self, strike: Callable[[Event], object]) -> None:
        super().__init__()
        self.strike = strike

    def append(self, event: Event) -> None:
        self.strike(event)
        super().append(event)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def losses(folder: Path) -> list[float]:
    return [event["loss"] for event in steps(folder / "events.jsonl").values()]


def test_a_run_leaves_a_model_that_plain_peft_loads(tmp_path: Path) -> None:
    done = run(tmp_path, "train.learning_rate=1e-2", "train.epochs=6")
    assert done.steps == 24
    found = losses(done.folder)
    assert found[-1] < 0.8 * found[0]
    model = AutoPeftModelForCausalLM.from_pretrained(done.folder)
    tokenizer = AutoTokenizer.from_pretrained(done.folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "the red cat"}], add_generation_prompt=True, return_tensors="pt",
        return_dict=True,
    )  # fmt: skip
    assert model(**prompt).logits.isfinite().all()
    card = (done.folder / "README.md").read_text()
    assert "base_model" in card
    assert json.loads((done.folder / "ledger.json").read_bytes())
    events = [json.loads(line) for line in (done.folder / "events.jsonl").read_text().splitlines()]
    assert {"started", "data", "step", "saved", "finished"} <= {e["event"] for e in events}
    step = next(e for e in events if e["event"] == "step")
    assert {
        "step",
        "loss",
        "grad_norm",
        "learning_rate",
        "tokens",
        "trained_tokens",
        "seconds",
    } <= set(step)


def test_full_tuning_leaves_a_model_that_plain_transformers_loads(tmp_path: Path) -> None:
    done = run(tmp_path, "tuning.method=full", "train.max_steps=2")
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    after = AutoModelForCausalLM.from_pretrained(done.folder).state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[k], after[k]) for k in before)
    generation = json.loads((done.folder / "generation_config.json").read_bytes())
    assert 2 in generation["eos_token_id"]


class Stop(Exception):
    pass


def _stop_at(step: int):
    def listener(event: Event) -> None:
        if event.name == "saved" and event["step"] == step:
            raise KeyboardInterrupt

    return listener


def test_resumed_equals_straight_bit_for_bit(tmp_path: Path) -> None:
    straight = run(tmp_path, "train.save_steps=2", "tuning.lora.dropout=0.2", out="straight")
    rows, model = tmp_path / "rows.jsonl", tmp_path / "model"
    resolved = resolve(
        overrides=[
            f"data.path={rows}", f"model.name={model}", f"output.dir={tmp_path / 'cut'}", *QUICK,
            "train.save_steps=2", "tuning.lora.dropout=0.2",
        ]
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        train(resolved, listeners=[_stop_at(4)])
    resumed = train(resolved)
    assert losses(resumed.folder) == losses(straight.folder)
    got, want = weights(resumed.folder), weights(straight.folder)
    assert all(torch.equal(got[key], want[key]) for key in want)


def test_the_same_command_again_does_nothing_and_says_so(tmp_path: Path) -> None:
    run(tmp_path, "train.max_steps=2")
    heard: list[Event] = []
    run(tmp_path, "train.max_steps=2", heard=heard)
    assert [e for e in heard if e.name == "notice" and e["code"] == "finished"]
    assert not [e for e in heard if e.name == "step"]


@pytest.mark.fault(33)
def test_other_settings_are_shown_and_need_a_word(tmp_path: Path) -> None:
    run(tmp_path, "train.max_steps=2")
    with pytest.raises(ConfigError, match=r"train\.max_steps: 2 -> 4"):
        run(tmp_path, "train.max_steps=4")
    longer = run(tmp_path, "train.max_steps=4", accept_changes=True)
    assert longer.steps == 4
    chat_rows(tmp_path / "rows.jsonl", rows=30)
    with pytest.raises(ConfigError, match="the rows changed"):
        run(tmp_path, "train.max_steps=4")


def test_fresh_moves_the_old_run_aside(tmp_path: Path) -> None:
    run(tmp_path, "train.max_steps=2")
    run(tmp_path, "train.max_steps=3", fresh=True)
    kept = list(tmp_path.glob("run.before-*"))
    assert len(kept) == 1
    assert (kept[0] / "adapter_model.safetensors").is_file()


def test_a_live_run_keeps_its_folder(tmp_path: Path) -> None:
    run(tmp_path, "train.max_steps=1")
    with RunFolder(tmp_path / "run").lock(), pytest.raises(LockedError, match="live run"):
        run(tmp_path, "train.max_steps=1")


@pytest.mark.parametrize("options", [
    ["compute.micro_batch_tokens=40"],
    ["compute.share_prefixes=false"],
    ["compute.pack=false"],
    ["compute.gradient_checkpointing=true"],
])  # fmt: skip
def test_how_a_step_is_computed_does_not_change_it(tmp_path: Path, options: list[str]) -> None:
    plain = run(tmp_path, "train.max_steps=3", "tuning.lora.dropout=0.1", out="plain")
    other = run(tmp_path, "train.max_steps=3", "tuning.lora.dropout=0.1", *options, out="other")
    assert losses(other.folder) == pytest.approx(losses(plain.folder), rel=2e-6)


OBJECTIVE = ["train.loss=dft", "train.label_smoothing=0.1", "train.z_loss=1e-3"]


@pytest.mark.parametrize("options", [OBJECTIVE, ["train.neftune_alpha=5"]])
def test_objective_and_noise_are_the_same_however_a_step_is_computed(
    tmp_path: Path, options: list[str]
) -> None:
    with_noise = options[0].startswith("train.neftune")
    options = [*options, "train.max_steps=3", "train.learning_rate=1e-2"]
    heard: list[Event] = []
    plain = run(tmp_path, *options[-2:], out="plain")
    whole = run(tmp_path, *options, "compute.micro_batch_tokens=4096", out="whole", heard=heard)
    small = run(tmp_path, *options, "compute.micro_batch_tokens=40", out="small")
    apart = run(tmp_path, *options, "compute.pack=false", out="apart")
    assert losses(small.folder) == pytest.approx(losses(whole.folder), rel=2e-6)
    assert losses(apart.folder) == pytest.approx(losses(whole.folder), rel=2e-6)
    assert losses(whole.folder) != pytest.approx(losses(plain.folder), rel=1e-3)
    said = [e for e in heard if e.name == "notice" and e["code"] == "no-sharing"]
    assert len(said) == with_noise
    assert (computed(whole.folder) == computed(apart.folder)) == with_noise


def computed(folder: Path) -> list[int]:
    return [event["computed_tokens"] for event in steps(folder / "events.jsonl").values()]


def steps_of(heard: list[Event]) -> list[Event]:
    return [event for event in heard if event.name == "step"]


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "muon"])
def test_resumed_equals_straight_with_another_optimizer_and_noise(
    tmp_path: Path, optimizer: str
) -> None:
    options = [
        "train.save_steps=2", f"train.optimizer={optimizer}", "train.neftune_alpha=5",
        "train.lora_plus_ratio=4", "tuning.lora.r=64", "train.schedule=wsd", "train.warmup_steps=1",
    ]  # fmt: skip
    straight = run(tmp_path, *options, out="straight")
    rows, model = tmp_path / "rows.jsonl", tmp_path / "model"
    resolved = resolve(
        overrides=[
            f"data.path={rows}", f"model.name={model}", f"output.dir={tmp_path / 'cut'}", *QUICK, *options,
        ]
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        train(resolved, listeners=[_stop_at(4)])
    resumed = train(resolved)
    assert losses(resumed.folder) == losses(straight.folder)
    got, want = weights(resumed.folder), weights(straight.folder)
    assert all(torch.equal(got[key], want[key]) for key in want)


def test_the_held_out_loss_is_the_plain_one_whatever_is_trained_on(tmp_path: Path) -> None:
    scores: list[float] = []
    for options in ([], [*OBJECTIVE, "train.neftune_alpha=5"]):
        heard: list[Event] = []
        run(
            tmp_path, "data.validation_split=0.2", "train.max_steps=1", "train.learning_rate=1e-9",
            *options, out=f"run-{len(options)}", heard=heard,
        )  # fmt: skip
        scores += [event["loss"] for event in heard if event.name == "evaluated"]
        assert len(steps_of(heard)) == 1
    assert scores[1] == pytest.approx(scores[0], rel=1e-6)


def test_a_warmup_longer_than_the_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"warmup_steps is 9, and the run has 2 steps"):
        run(tmp_path, "train.max_steps=2", "train.warmup_steps=9")


@pytest.mark.fault(9)
def test_out_of_memory_halves_the_budget_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(tmp_path, "train.max_steps=4", out="plain")
    forward = PackLoss.forward

    def short_of_memory(self: PackLoss, pack, scale):
        if torch.is_grad_enabled() and pack.num_tokens > 60 and "boom" in armed:
            raise torch.OutOfMemoryError("out of memory (on purpose)")
        return forward(self, pack, scale)

    armed: list[str] = []

    def arm(event: Event) -> None:
        if event.name == "phase" and event["name"] == "training":
            armed.append("boom")

    heard = Heard(arm)
    monkeypatch.setattr(PackLoss, "forward", short_of_memory)
    short = run(tmp_path, "train.max_steps=4", out="short", heard=heard)
    assert [e for e in heard if e.name == "halved"]
    budgets = json.loads((short.folder / "run.json").read_bytes())["budgets"]
    assert len(budgets) > 1
    assert losses(short.folder) == pytest.approx(losses(plain.folder), rel=2e-6)


@pytest.mark.fault(9)
@pytest.mark.parametrize(
    ("function", "phase"),
    [("build", "loading"), ("write_state", "training"), ("write_artifact", "saving")],
)
def test_out_of_memory_beside_a_step_is_told_and_the_run_goes_on_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, phase: str
) -> None:
    plain = run(tmp_path, "train.max_steps=4", "train.save_steps=2", out="plain")

    def no_memory(*arguments: object, **more: object) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"
        )

    module = {"build": train_module, "write_state": strategy, "write_artifact": result}[function]
    heard: list[Event] = []
    with monkeypatch.context() as patch:
        patch.setattr(module, function, no_memory)
        with pytest.raises(OutOfMemory, match=f"out of memory while {phase}: .*allocate") as caught:
            run(tmp_path, "train.max_steps=4", "train.save_steps=2", out="short", heard=heard)
    assert caught.value.exit_code == 5
    assert caught.value.remedy
    assert heard[-1].name == "failed"
    done = run(tmp_path, "train.max_steps=4", "train.save_steps=2", out="short")
    straight, resumed = weights(plain.folder), weights(done.folder)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.fault(15)
@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    plain = run(tmp_path, "train.max_steps=4", "train.save_steps=2", out="plain")
    clock, jumps = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: clock() + jumps[0])

    def strike(event: Event) -> None:
        if event.name == "step" and event["step"] in (1, 3):
            jumps[0] = jump if event["step"] == 1 else -jump

    began = time.monotonic()
    heard = Heard(strike)
    done = run(tmp_path, "train.max_steps=4", "train.save_steps=2", out="jumped", heard=heard)
    assert 0 < done.seconds <= time.monotonic() - began
    straight, jumped = weights(plain.folder), weights(done.folder)
    assert all(torch.equal(straight[name], jumped[name]) for name in straight)
    assert [event["step"] for event in steps(done.folder / "events.jsonl").values()] == [1, 2, 3, 4]
    summary = summarize(RunFolder(done.folder))
    assert summary.state == "finished"
    assert 0 < summary.seconds <= time.monotonic() - began


def test_held_out_rows_are_scored_and_the_best_is_kept(tmp_path: Path) -> None:
    heard: list[Event] = []
    done = run(
        tmp_path, "data.validation_split=0.2", "train.save_steps=2", "train.save_total_limit=1",
        heard=heard,
    )  # fmt: skip
    scores = {e["step"]: e["loss"] for e in heard if e.name == "evaluated"}
    assert len(scores) >= 4
    kept = {int(p.name[5:]) for p in (done.folder / "checkpoints").iterdir()}
    assert min(scores, key=lambda step: scores[step]) in kept
    assert done.validation_loss == min(scores.values())


FAMILIES_ALONE = {
    "mamba": ("MambaConfig", {"state_size": 4, "num_key_value_heads": "unset",
              "num_attention_heads": "unset", "intermediate_size": "unset"}),
    "gptj": ("GPTJConfig", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256,
             "rotary_dim": 4, "num_key_value_heads": "unset", "hidden_size": "unset",
             "num_attention_heads": "unset", "num_hidden_layers": "unset",
             "max_position_embeddings": "unset", "intermediate_size": "unset"}),
    "falcon": ("FalconConfig", {"num_key_value_heads": "unset", "intermediate_size": "unset"}),
    "dynamic": ("LlamaConfig", {"rope_parameters": {
                "rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES_ALONE)
def test_families_that_cannot_share_run_row_by_row_and_equal(tmp_path: Path, family: str) -> None:
    config, numbers = FAMILIES_ALONE[family]
    model = model_folder(tmp_path / family, config=config, **numbers)
    heard: list[Event] = []
    done = run(
        tmp_path, "train.max_steps=1", "data.shuffle=false", "tuning.method=full", model=model,
        heard=heard,
    )  # fmt: skip
    assert [e for e in heard if e.name == "notice" and e["code"] == "row-by-row"]
    plain = AutoModelForCausalLM.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    total, mass = 0.0, 0
    for line in (tmp_path / "rows.jsonl").read_text().splitlines()[:6]:
        messages = json.loads(line)["messages"]
        render = {"tokenize": True, "return_dict": False}
        whole = tokenizer.apply_chat_template(messages, **render)
        ask = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, **render)
        ids = torch.tensor([whole])
        logits = plain(input_ids=ids, use_cache=False).logits[0, len(ask) - 1 : -2]
        total += torch.nn.functional.cross_entropy(
            logits, ids[0, len(ask) : -1], reduction="sum"
        ).item()  # the line end after the end of turn is context
        mass += len(whole) - len(ask) - 1
    assert losses(done.folder)[0] == pytest.approx(total / mass, rel=1e-5)


def test_rows_one_by_one_are_disturbed_by_dropout_too(tmp_path: Path) -> None:
    config, numbers = FAMILIES_ALONE["dynamic"]
    model = model_folder(tmp_path / "dynamic", config=config, **numbers)
    still = run(tmp_path, "train.max_steps=2", model=model, out="still")
    moved = run(tmp_path, "train.max_steps=2", "tuning.lora.dropout=0.3", model=model)
    assert losses(still.folder)[0] == losses(moved.folder)[0]  # the adapter begins at nothing
    assert losses(still.folder)[1] != losses(moved.folder)[1]
