"""Hooks fire where they say, with the run's own numbers; what they ask happens; what they raise ends the run, saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.engine.callbacks import Callback, Metrics, Training
from hone.engine.loop import Outcome, train
from hone.errors import CallbackError, ConfigError, OutOfMemory
from hone.runs.checkpoint import CheckpointStore
from tests.engine.stand_in import Said, TinyLoss, TinySource, weights
from tests.engine.test_loop import plan, stop_after

HOOKS = [name for name in vars(Callback) if name.startswith("on_")]


class Recorder(Callback):
    """Writes down every call, with step or epoch, and what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []
        self.metrics: dict[tuple[str, object], dict[str, float]] = {}

    def _note(self, hook: str, place: object, metrics: Metrics | None = None) -> None:
        self.calls.append((hook, place))
        if metrics is not None:
            self.metrics[hook, place] = dict(metrics)

    def on_train_begin(self, run: Training) -> None:
        self._note("train_begin", run.step)

    def on_epoch_begin(self, run: Training, epoch: int) -> None:
        self._note("epoch_begin", epoch)

    def on_step_begin(self, run: Training, step: int) -> None:
        self._note("step_begin", step)

    def on_step_end(self, run: Training, step: int, metrics: Metrics) -> None:
        assert run.step == step
        self._note("step_end", step, metrics)

    def on_log(self, run: Training, step: int, metrics: Metrics) -> None:
        self._note("log", step, metrics)

    def on_evaluate(self, run: Training, step: int, metrics: Metrics) -> None:
        self._note("evaluate", step, metrics)

    def on_save(self, run: Training, step: int, path: str) -> None:
        assert Path(path).is_dir()
        self._note("save", step)

    def on_epoch_end(self, run: Training, epoch: int, metrics: Metrics) -> None:
        self._note("epoch_end", epoch, metrics)

    def on_train_end(self, run: Training, metrics: Metrics) -> None:
        self._note("train_end", run.step, metrics)


def run(folder: Path, *callbacks: Callback, said: Said | None = None, **options: object) -> Outcome:
    said = said or Said()
    store = CheckpointStore(folder / "checkpoints", keep=3)
    settings = {"steps": 7, "save_steps": 3, "eval_steps": 2, **options}
    module = settings.pop("module", None) or TinyLoss()
    should_stop = settings.pop("should_stop", lambda: None)
    held_out = settings.pop("held_out", TinySource(rows=4, seed=9))
    return train(
        module,  # type: ignore[arg-type]
        TinySource(),
        plan(**settings),
        checkpoints=store,
        say=said,
        resume=store.latest(said),
        held_out=held_out,  # type: ignore[arg-type]
        callbacks=callbacks,
        should_stop=should_stop,  # type: ignore[arg-type]
    )


def test_every_hook_fires_in_order(tmp_path: Path) -> None:
    seen = Recorder()
    run(tmp_path, seen, steps=4, save_steps=2, eval_steps=2)  # three steps an epoch
    assert [call for call in seen.calls if call[0] not in ("log", "save", "evaluate")] == [
        ("train_begin", 0),
        ("epoch_begin", 1), ("step_begin", 1), ("step_end", 1), ("step_begin", 2), ("step_end", 2),
        ("step_begin", 3), ("step_end", 3), ("epoch_end", 1),
        ("epoch_begin", 2), ("step_begin", 4), ("step_end", 4), ("epoch_end", 2),
        ("train_end", 4),
    ]  # fmt: skip
    second = seen.calls[seen.calls.index(("step_begin", 2)) :][:6]
    assert second == [
        ("step_begin", 2), ("log", 2), ("log", 2), ("evaluate", 2), ("step_end", 2), ("save", 2),
    ]  # fmt: skip
    assert {f"on_{hook}" for hook, _ in seen.calls} == set(HOOKS)


def test_metrics_are_those_of_the_events(tmp_path: Path) -> None:
    said, seen = Said(), Recorder()
    run(tmp_path, seen, said=said)
    evaluated = {e["step"]: e["loss"] for e in said.of("evaluated")}
    for event in said.of("step"):
        told = seen.metrics["step_end", event["step"]]
        assert told["loss"] == event["loss"]
        assert told["grad_norm"] == event["grad_norm"]
        assert told["learning_rate"] == event["learning_rate"]
        assert told["tokens_per_second"] == event["tokens"] / event["seconds"]  # type: ignore[operator]
        assert told.get("eval_loss") == evaluated.get(event["step"])
    assert set(evaluated) == {2, 4, 6, 7}
    assert seen.metrics["evaluate", 4] == {"eval_loss": evaluated[4]}
    assert seen.metrics["epoch_end", 1]["eval_loss"] == evaluated[2], "the newest of the epoch"
    last = said.of("step")[-1]
    assert seen.metrics["train_end", 7]["loss"] == last["loss"]
    assert seen.metrics["train_end", 7]["eval_loss"] == evaluated[7]


def test_a_resumed_run_begins_where_it_stands(tmp_path: Path) -> None:
    said, should_stop = stop_after(4, _interrupted())
    with pytest.raises(type(_interrupted())):
        run(tmp_path, said=said, should_stop=should_stop)
    seen = Recorder()
    run(tmp_path, seen)
    assert [c for c in seen.calls if c[0].endswith("_begin")][:3] == [
        ("train_begin", 4), ("epoch_begin", 2), ("step_begin", 5),
    ]  # fmt: skip
    again = Recorder()
    run(tmp_path, again)
    assert again.calls == [("train_begin", 7), ("train_end", 7)], "nothing was left to do"


def _interrupted():
    from hone.errors import Interrupted

    return Interrupted("stop")


def test_an_interrupted_run_has_no_end(tmp_path: Path) -> None:
    seen = Recorder()
    said, should_stop = stop_after(2, _interrupted())
    with pytest.raises(type(_interrupted())):
        run(tmp_path, seen, said=said, should_stop=should_stop)
    assert seen.calls[-1] == ("save", 2)
    assert "train_end" not in {hook for hook, _ in seen.calls}


@pytest.mark.parametrize("hook", ["on_step_end", "on_log", "on_evaluate", "on_step_begin"])
def test_a_callback_may_end_the_run(tmp_path: Path, hook: str) -> None:
    class Stop(Callback):
        pass

    def ask(self: Stop, run: Training, *_: object) -> None:
        if run.step >= 2:
            run.stop("it is good enough")

    setattr(Stop, hook, ask)
    seen = Recorder()
    outcome = run(tmp_path, Stop(), seen)
    assert outcome.stop_reason == "it is good enough"
    assert outcome.steps in (2, 3)
    assert seen.calls[-1] == ("train_end", outcome.steps)
    assert ("epoch_end", 1) in seen.calls
    assert ("save", outcome.steps) in seen.calls
    assert run(tmp_path / "whole").stop_reason is None


def test_a_callback_may_save_and_evaluate(tmp_path: Path) -> None:
    losses: list[float | None] = []

    class Asks(Callback):
        def on_train_begin(self, run: Training) -> None:
            losses.append(run.evaluate())

        def on_step_end(self, run: Training, step: int, metrics: Metrics) -> None:
            if step == 5:
                losses.extend([run.evaluate(), run.evaluate()])
                run.save()

    said, seen = Said(), Recorder()
    run(tmp_path, Asks(), seen, said=said, save_steps=100, eval_steps=100)
    assert [e["step"] for e in said.of("evaluated")] == [0, 5, 7]
    assert [e["loss"] for e in said.of("evaluated")][:2] == losses[:2]
    assert losses[1] == losses[2], "once a step"
    assert 5 in [e["step"] for e in said.of("saved")]
    assert 0 not in [e["step"] for e in said.of("saved")], "the base is no checkpoint"
    without = run(tmp_path / "without", Asks(), held_out=None)
    assert losses[3:] == [None, None, None]
    assert without.best_step is None


@pytest.mark.parametrize("hook", HOOKS)
def test_what_a_hook_raises_names_it_and_the_work_is_saved(tmp_path: Path, hook: str) -> None:
    class Fails(Callback):
        pass

    def fail(self: Fails, run: Training, *_: object) -> None:
        if run.step >= 2 or hook == "on_train_begin":
            raise KeyError("my mistake")

    setattr(Fails, hook, fail)
    said = Said()
    with pytest.raises(
        CallbackError, match=f"Fails failed in {hook} after step .*my mistake"
    ) as caught:
        run(tmp_path, Fails(), said=said)
    assert caught.value.exit_code == 1
    assert isinstance(caught.value.__cause__, KeyError)
    done = len(said.of("step"))
    assert [e["step"] for e in said.of("saved")][-1:] == ([done] if done else [])
    straight, resumed = TinyLoss(), TinyLoss()
    run(tmp_path / "straight", module=straight)
    run(tmp_path, module=resumed)
    assert weights(resumed) == weights(straight), "what was done was whole"


def test_a_fault_of_an_evaluation_is_not_the_callbacks(tmp_path: Path) -> None:
    class Asks(Callback):
        def on_step_end(self, run: Training, step: int, metrics: Metrics) -> None:
            run.evaluate()

    def short(pack: object) -> float:
        import torch

        if not torch.is_grad_enabled():
            raise MemoryError
        return 1.0

    with pytest.raises(OutOfMemory):
        run(tmp_path, Asks(), module=TinyLoss(fault=short), eval_steps=100)


def test_a_callback_that_changes_the_mode_changes_nothing(tmp_path: Path) -> None:
    class Looks(Callback):
        def on_step_end(self, run: Training, step: int, metrics: Metrics) -> None:
            run.model.eval()

    plain, looked = TinyLoss(noise=0.1), TinyLoss(noise=0.1)
    import torch

    torch.manual_seed(1)
    run(tmp_path / "plain", module=plain)
    torch.manual_seed(1)
    run(tmp_path / "looked", Looks(), module=looked)
    assert weights(looked) == weights(plain)


def test_what_is_no_callback_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no callback"):
        run(tmp_path, print)  # type: ignore[arg-type]
