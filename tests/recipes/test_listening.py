"""What is heard of a run while it trains: sources, samples, trackers and callbacks, as a user's command sets them up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hone.config.layers import resolve
from hone.engine.callbacks import Callback, Metrics, Training
from hone.engine.loss import PackLoss
from hone.errors import CallbackError, ConfigError, EnvironmentFault
from hone.recipes.train import Trained, train
from hone.runs.events import Event
from hone.runs.folder import RunFolder
from hone.runs.summary import summarize
from tests.folders import chat_rows, model_folder
from tests.recipes.test_train import FAMILIES_ALONE

QUICK = ["train.precision=fp32", "compute.threads=1", "train.batch_size=6", "train.max_steps=4"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))


def run(
    tmp_path: Path,
    *more: str,
    out: str = "run",
    model: Path | None = None,
    heard: list[Event] | None = None,
    callbacks: tuple[Callback, ...] = (),
    rows: bool = True,
    **flags: bool,
) -> Trained:
    if not (tmp_path / "rows.jsonl").exists():
        chat_rows(tmp_path / "rows.jsonl")
    folder = model or tmp_path / "model"
    if not folder.exists():
        model_folder(folder)
    data = [f"data.path={tmp_path / 'rows.jsonl'}"] if rows else []
    overrides = [*data, f"model.name={folder}", f"output.dir={tmp_path / out}", *QUICK, *more]
    listeners = [] if heard is None else [heard.append]
    return train(resolve(overrides=overrides), listeners=listeners, callbacks=callbacks, **flags)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    name = "adapter_model.safetensors"
    return load_file(folder / (name if (folder / name).exists() else "model.safetensors"))


def of(heard: list[Event], name: str) -> list[Event]:
    return [event for event in heard if event.name == name]


# Sources and speed.


def test_steps_and_evaluations_tell_each_source(tmp_path: Path) -> None:
    chat_rows(tmp_path / "a.jsonl", rows=18)
    chat_rows(tmp_path / "b.jsonl", rows=12)
    sources = f"[{{path: {tmp_path / 'a.jsonl'}, name: code}}, {{path: {tmp_path / 'b.jsonl'}}}]"
    heard: list[Event] = []
    done = run(
        tmp_path, f"data.sources={sources}", "data.validation_split=0.3", "train.eval_steps=2",
        heard=heard, rows=False,
    )  # fmt: skip
    seen: set[str] = set()
    for event in [*of(heard, "step"), *of(heard, "evaluated")]:
        parts = event["sources"]
        seen |= set(parts)
        weight = sum(part["weight"] for part in parts.values())
        total = sum(part["loss"] * part["weight"] for part in parts.values())
        assert total / weight == pytest.approx(event["loss"], rel=1e-6)
        assert weight == pytest.approx(event["trained_tokens"])  # every weight of these rows is 1
    assert seen == {"code", str(tmp_path / "b.jsonl")}
    summary = summarize(RunFolder(done.folder))
    assert set(summary.loss_by_source) == set(summary.held_out_by_source) == seen
    assert summary.data == f"code + {tmp_path / 'b.jsonl'}"
    assert "# model tuned on code, b.jsonl" in (done.folder / "README.md").read_text()


def test_the_rate_of_products_is_measured_once_in_a_run(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_step_end(self, run: Training, step: int, metrics: Metrics) -> None:
            if step == 2:
                raise ValueError

    heard: list[Event] = []
    with pytest.raises(CallbackError):
        run(tmp_path, heard=heard, callbacks=(Stop(),))
    done = run(tmp_path, heard=heard)
    (measured,) = of(heard, "measured")
    rate = measured["product_flops_per_second"]
    assert rate > 1e8
    for event in of(heard, "step"):
        assert 0 < event["utilisation"] < 2
        flops = event["utilisation"] * event["seconds"] * rate
        assert flops > event["computed_tokens"] * measured["model_flops_per_token"]
    kept = json.loads((done.folder / "run.json").read_bytes())
    assert kept["product_flops_per_second"] == rate


@pytest.mark.fault(7)
def test_a_loss_that_jumps_names_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = PackLoss.forward
    calls = {"count": 0}

    def spoiled(self: PackLoss, pack: Any, scale: float) -> torch.Tensor:
        loss = forward(self, pack, scale)
        if torch.is_grad_enabled() and "training" in calls:
            calls["count"] += 1
            if calls["count"] == 25 and self.row_terms is not None:
                self.row_terms[2] *= 50  # one row is far off
                return loss * 10
        return loss

    class Arm(list):
        def append(self, event: Event) -> None:
            if event.name == "phase" and event["name"] == "training":
                calls["training"] = 1
            super().append(event)

    monkeypatch.setattr(PackLoss, "forward", spoiled)
    heard = Arm()
    run(
        tmp_path, "train.max_steps=30", "data.shuffle=false", "compute.micro_batch_tokens=4000",
        "train.learning_rate=1e-6", heard=heard,
    )  # fmt: skip
    (notice,) = [e for e in of(heard, "notice") if e["code"] == "loss-spike"]
    assert notice["message"].startswith("step 25: the loss jumped from about ")
    first = (24 * 6) % 24 + 3  # the third row of that step, four steps to a pass
    assert (
        f"{tmp_path / 'rows.jsonl'}:{first} ("
        in notice["message"].split("losses: ")[1].split(",")[0]
    )


# Samples.


VARIANTS = {
    "plain": ["tuning.lora.dropout=0.2"],
    "drawn": ["tuning.lora.dropout=0.2"],
    "dora": ["tuning.lora.dora=true"],
    "neftune": ["train.neftune_alpha=5"],
    "four bits": ["tuning.method=qlora"],
    "eight bits": ["tuning.method=qlora", "tuning.quantization.bits=8"],
}


@pytest.mark.parametrize("family", [*VARIANTS, *FAMILIES_ALONE])
def test_samples_change_nothing_of_the_training(tmp_path: Path, family: str) -> None:
    """Bit for bit, also with noise, drawn samples and a quantised base, and for families whose rows run one by one."""
    config, numbers = FAMILIES_ALONE.get(family, ("LlamaConfig", {}))
    model = model_folder(tmp_path / "model", config=config, **numbers)
    options = ["train.max_steps=3", "train.save_steps=2"]
    options += VARIANTS.get(family, ["tuning.method=full"])
    plain = run(tmp_path, *options, model=model, out="plain")
    heard: list[Event] = []
    drawn = ["train.sample_temperature=1.5"] if family == "drawn" else []
    asked = run(
        tmp_path, *options, "train.sample_steps=1", "train.sample_prompts=[the red cat, a]",
        "train.sample_tokens=8", *drawn, model=model, out="asked", heard=heard,
    )  # fmt: skip
    assert [event["step"] for event in of(heard, "sample")] == [0, 1, 2, 3]
    got, want = weights(asked.folder), weights(plain.folder)
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)
    generation = "generation_config.json"
    if (plain.folder / generation).exists():
        assert (asked.folder / generation).read_bytes() == (plain.folder / generation).read_bytes()


def test_held_out_rows_are_asked_up_to_their_last_answer(tmp_path: Path) -> None:
    heard: list[Event] = []
    done = run(
        tmp_path, "data.validation_split=0.5", "train.sample_steps=3", "train.max_steps=30",
        "train.learning_rate=2e-2", "train.sample_tokens=12", "compute.gradient_checkpointing=true",
        heard=heard,
    )  # fmt: skip
    samples = of(heard, "sample")
    assert [event["step"] for event in samples] == [0, *range(3, 31, 3)]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for one in samples[0]["samples"]:
        row = rows[int(one["name"].rpartition(":")[2]) - 1]
        assert one["wanted"] == row["messages"][-1]["content"]
        assert one["prompt"] == row["messages"][1]["content"]
    assert len(samples[0]["samples"]) == 3
    right = [sum(one["reply"] == one["wanted"] for one in e["samples"]) for e in samples]
    assert right[0] == 0
    shares = [[_common(one["reply"], one["wanted"]) for one in e["samples"]] for e in samples]
    assert sum(shares[-1]) > sum(shares[0]), "it learns to answer in the words of the rows"
    summary = summarize(RunFolder(done.folder))
    assert summary.sampled_step == 30
    assert [one["name"] for one in summary.samples] == [
        one["name"] for one in samples[-1]["samples"]
    ]


def _common(reply: str, wanted: str) -> int:
    return len(set(reply.split()) & set(wanted.split()))


def test_prompts_come_from_files(tmp_path: Path) -> None:
    text = tmp_path / "prompts.txt"
    text.write_text("the red cat\n\nthe dog\n")
    heard: list[Event] = []
    more = ["train.sample_steps=9", "train.max_steps=1", "train.sample_tokens=4"]
    run(tmp_path, *more, f"train.sample_prompts={text}", heard=heard, out="text")
    first = of(heard, "sample")[0]["samples"]
    assert [(one["name"], one["prompt"]) for one in first] == [
        ("prompts.txt:1", "the red cat"), ("prompts.txt:3", "the dog"),
    ]  # fmt: skip
    rows = tmp_path / "ask.jsonl"
    messages = [{"role": "user", "content": "the bird"}, {"role": "assistant", "content": "sings"}]
    lines = [{"messages": messages}, {"messages": messages[:1]}, {"prompt": "the bird"}]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    heard.clear()
    run(tmp_path, *more, f"train.sample_prompts={rows}", heard=heard, out="rows")
    asked = of(heard, "sample")[0]["samples"]
    assert [one["wanted"] for one in asked] == ["sings", None, None]
    assert len({one["reply"] for one in asked}) == 1


@pytest.mark.parametrize(
    ("prompts", "complaint"),
    [
        ("[]", "0 prompts"),
        (f"[{' '.join(['cat'] * 300)}]", "takes 256 with its reply"),
        ("absent.jsonl", "absent.jsonl"),
        ("absent.txt", "cannot be read"),
    ],
)
def test_prompts_that_cannot_be_asked_are_refused_before_a_step(
    tmp_path: Path, prompts: str, complaint: str
) -> None:
    heard: list[Event] = []
    with pytest.raises(Exception, match=complaint) as caught:
        run(tmp_path, "train.sample_steps=1", f"train.sample_prompts={prompts}", heard=heard)
    assert caught.value.exit_code in (2, 3)  # type: ignore[attr-defined]
    assert not of(heard, "step")


@pytest.mark.parametrize(
    ("fault", "notices"),
    [(torch.OutOfMemoryError("out of memory"), 3), (ValueError("odd family"), 1)],
)
def test_a_fault_costs_the_samples_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, notices: int
) -> None:
    def short(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr("hone.infer.local.LocalCompleter.continuations", short)
    heard: list[Event] = []
    done = run(
        tmp_path, "train.sample_steps=2", "train.sample_prompts=[a]", out="short", heard=heard
    )
    assert done.steps == 4
    assert not of(heard, "sample")
    codes = [event["code"] for event in of(heard, "notice")]
    assert codes.count("no-samples") == notices


# Callbacks.


class Recorder(Callback):
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.told: list[dict[str, float]] = []

    def on_train_begin(self, run: Training) -> None:
        self.calls.append(f"train {run.step}/{run.steps}")

    def on_epoch_begin(self, run: Training, epoch: int) -> None:
        self.calls.append(f"epoch {epoch}")

    def on_step_end(self, run: Training, step: int, metrics: Metrics) -> None:
        self.told.append(dict(metrics))

    def on_train_end(self, run: Training, metrics: Metrics) -> None:
        names = [name for name, _ in run.model.named_parameters()]
        self.calls.append("lora" if any("lora_A" in name for name in names) else "no adapter")


def test_callbacks_fire_in_a_real_run_and_its_resume(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_step_end(self, run: Training, step: int, metrics: Metrics) -> None:
            if step == 6:
                raise ValueError("I broke")

    heard: list[Event] = []
    more = [
        "train.max_steps=8",
        "data.validation_split=0.3",
        "train.eval_steps=4",
        "train.batch_size=4",
    ]
    with pytest.raises(
        CallbackError, match="Stop failed in on_step_end after step 6: ValueError: I broke"
    ):
        run(tmp_path, *more, callbacks=(Stop(),), heard=heard)
    assert of(heard, "saved")[-1]["step"] == 6
    assert of(heard, "failed")[-1]["exit_code"] == 1
    seen = Recorder()
    heard.clear()
    run(tmp_path, *more, callbacks=(seen,), heard=heard)
    per_epoch = -(-_training_rows(heard) // 4)
    assert seen.calls[:2] == ["train 6/8", f"epoch {6 // per_epoch + 1}"]
    assert seen.calls[-1] == "lora"
    assert [one["loss"] for one in seen.told] == [e["loss"] for e in of(heard, "step")]
    assert seen.told[-1]["eval_loss"] == of(heard, "evaluated")[-1]["loss"]


def _training_rows(heard: list[Event]) -> int:
    (data,) = of(heard, "data")
    (evaluated,) = {event["rows"] for event in of(heard, "evaluated")}
    return data["rows"] - evaluated


def test_a_run_that_a_callback_ended_is_finished_and_says_why(tmp_path: Path) -> None:
    class Enough(Callback):
        def on_step_end(self, run: Training, step: int, metrics: Metrics) -> None:
            if step == 2:
                run.stop("that will do")

    heard: list[Event] = []
    done = run(tmp_path, callbacks=(Enough(),), heard=heard)
    assert done.steps == 2
    assert (done.folder / "adapter_model.safetensors").is_file()
    messages = [event["message"] for event in of(heard, "notice")]
    assert "training ended after step 2: that will do" in messages


def test_what_is_no_callback_is_refused_before_anything_loads(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no callback"):
        run(tmp_path, callbacks=("wandb",))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


# Trackers.


def test_tensorboard_hears_a_run_and_its_resume_as_one(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    class Stop(Callback):
        def on_step_end(self, run: Training, step: int, metrics: Metrics) -> None:
            if step == 3:
                raise ValueError("I broke")

    more = [
        "output.trackers=tensorboard", "data.validation_split=0.3", "train.eval_steps=2",
        "train.sample_steps=2", "train.sample_tokens=4",
    ]  # fmt: skip
    with pytest.raises(CallbackError):
        run(tmp_path, *more, callbacks=(Stop(),))
    heard: list[Event] = []
    done = run(tmp_path, *more, heard=heard)
    assert not [e for e in of(heard, "notice") if e["code"].startswith("tracker")]
    read = accumulator.EventAccumulator(
        str(done.folder / "tracking" / "tensorboard"), size_guidance={"tensors": 0}
    )
    read.Reload()
    assert [e.step for e in read.Tensors("train/loss")] == [1, 2, 3, 4]
    assert [e.step for e in read.Tensors("eval/loss")] == [2, 4]
    assert [e.step for e in read.Tensors("samples/1")] == [0, 2, 4]
    assert {"speed/utilisation", "speed/trained_tokens_per_second"} <= set(read.Tags()["tensors"])
    (place,) = [e["place"] for e in of(heard, "tracking")]
    assert place == f"tensorboard --logdir {done.folder / 'tracking'}"


def test_other_listeners_make_no_other_run(tmp_path: Path) -> None:
    first = run(tmp_path)
    heard: list[Event] = []
    again = run(
        tmp_path, "output.trackers=[tensorboard]", "output.track.project=x", "train.sample_steps=1",
        "train.sample_prompts=[a]", heard=heard,
    )  # fmt: skip
    assert again.loss == first.loss
    assert [e for e in of(heard, "notice") if e["code"] == "finished"]


def test_an_absent_tracker_is_refused_before_anything_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else find(name, *a)
    )
    heard: list[Event] = []
    with pytest.raises(EnvironmentFault, match="wandb is not installed") as caught:
        run(tmp_path, "output.trackers=[tensorboard, wandb]", heard=heard)
    assert caught.value.exit_code == 4
    assert "pip install wandb" in (caught.value.remedy or "")
    assert heard == []
    assert not (tmp_path / "run").exists()


def test_a_broken_tracker_changes_nothing_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "wandb.py").write_text("raise OSError('the network is down')\n")
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setenv("PYTHONPATH", str(packages))
    plain = run(tmp_path, out="plain")
    heard: list[Event] = []
    done = run(tmp_path, "output.trackers=wandb", out="broken", heard=heard)
    got, want = weights(done.folder), weights(plain.folder)
    assert all(torch.equal(got[name], want[name]) for name in want)
    (notice,) = [e for e in of(heard, "notice") if e["code"] == "tracker-failed"]
    assert notice["message"] == "wandb: gets no more of this run: OSError: the network is down"
