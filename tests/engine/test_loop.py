"""The loop: what a step computes, and that nothing around it changes what is computed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hone.engine.loop import Outcome, train
from hone.engine.plan import Plan
from hone.errors import Interrupted, NonFiniteError, OutOfMemory, Stopped, Terminated
from hone.pack import Pack
from hone.runs.checkpoint import CheckpointStore
from hone.runs.folder import RunFolder
from tests.engine.stand_in import Said, TinyLoss, TinySource, weights


@pytest.fixture(autouse=True)
def _one_generator() -> None:
    torch.manual_seed(1)


def plan(**changes: object) -> Plan:
    settings: dict[str, object] = {
        "steps": 7,
        "learning_rate": 0.05,
        "budgets": ((1, 30),),
        "warmup_ratio": 0.2,
        "weight_decay": 0.1,
        "save_steps": 3,
        "steps_per_epoch": 3,
    }
    return Plan(**{**settings, **changes})  # type: ignore[arg-type]


def store(folder: Path, keep: int = 3) -> CheckpointStore:
    return CheckpointStore(folder / "checkpoints", keep=keep)


def run(folder: Path, module: TinyLoss, said: Said | None = None, **options: object) -> Outcome:
    """Train with defaults, resuming from what lies in `folder`."""
    said = said or Said()
    checkpoints = store(folder)
    options.setdefault("source", TinySource())
    options.setdefault("plan", plan())
    return train(
        module,
        options.pop("source"),  # type: ignore[arg-type]
        options.pop("plan"),  # type: ignore[arg-type]
        checkpoints=checkpoints,
        say=said,
        resume=checkpoints.latest(said),
        **options,  # type: ignore[arg-type]
    )


def stop_after(step: int, answer: Stopped) -> tuple[Said, Callable[[], Stopped | None]]:
    said = Said()
    return said, lambda: answer if len(said.of("step")) >= step else None


def test_steps_equal_a_plain_torch_loop(tmp_path: Path) -> None:
    """Loss, norm and rate of each step against AdamW and clipping written out with torch alone."""
    said, module, plain = Said(), TinyLoss(), TinyLoss()
    run(tmp_path, module, said, plan=plan(max_grad_norm=0.3, warmup_ratio=0.0))
    decayed = [plain.embed, plain.mix.weight, plain.head]
    exempt = [plain.mix.bias, plain.norm.weight, plain.norm.bias]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": exempt, "weight_decay": 0.0}],
        foreach=False,
    )
    for index, told in enumerate(said.of("step")):
        step = TinySource().step(index, 10**6)
        (pack,) = step.packs
        loss = plain(pack, 1 / step.weight)
        optimizer.zero_grad()
        loss.backward()
        loss = loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(decayed + exempt, 0.3)
        rate = 0.05 * 0.5 * (1 + math.cos(math.pi * index / 7))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        assert told["step"] == index + 1
        assert told["steps"] == 7
        assert told["loss"] == pytest.approx(float(loss), rel=1e-5)
        assert told["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
        assert told["learning_rate"] == pytest.approx(rate)
        assert told["tokens"] == step.tokens
        assert told["trained_tokens"] == step.trained_tokens
        assert told["epoch"] == pytest.approx((index + 1) / 3)
        assert told["seconds"] > 0  # type: ignore[operator]
        assert told["peak_memory_bytes"] > 10**6  # type: ignore[operator]
    assert len(said.of("step")) == 7
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(module.get_parameter(name), parameter, rtol=1e-3, atol=1e-4)


def test_the_noise_is_named_before_each_step(tmp_path: Path) -> None:
    module = TinyLoss()
    run(tmp_path, module, plan=plan(steps=3, seed=5))
    assert module.begun == [(0, 5), (1, 5), (2, 5)]


@pytest.mark.parametrize("stop_at", range(1, 7))
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(tmp_path: Path, stop_at: int) -> None:
    """Also with noise from torch's generator, whose state travels in the checkpoint."""
    straight, said = TinyLoss(noise=0.1), Said()
    outcome = run(tmp_path / "straight", straight, said)

    torch.manual_seed(1)
    first, should_stop = stop_after(stop_at, Interrupted("stop"))
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", TinyLoss(noise=0.1), first, should_stop=should_stop)
    assert first.events[-1] == ("stopped", {"step": stop_at, "signal": "SIGINT"})
    assert first.of("saved")[-1]["step"] == stop_at

    torch.manual_seed(99)
    resumed, second = TinyLoss(seed=3, noise=0.1), Said()
    again = run(tmp_path / "parts", resumed, second)
    assert second.of("resumed") == [{"step": stop_at}]
    assert weights(resumed) == weights(straight)
    losses = [told["loss"] for told in (*first.of("step"), *second.of("step"))]
    assert losses == [told["loss"] for told in said.of("step")]
    assert (again.steps, again.loss, again.tokens) == (7, outcome.loss, outcome.tokens)


def test_a_finished_run_resumes_to_its_end_at_once(tmp_path: Path) -> None:
    module = TinyLoss()
    outcome = run(tmp_path, module)
    said, again = Said(), TinyLoss(seed=9)
    assert run(tmp_path, again, said) == outcome
    assert said.names == ["resumed"]
    assert weights(again) == weights(module)


def test_sigterm_is_told_and_the_last_step_ends_the_run_whatever_was_asked(tmp_path: Path) -> None:
    said, should_stop = stop_after(2, Terminated("stop"))
    with pytest.raises(Terminated):
        run(tmp_path / "a", TinyLoss(), said, should_stop=should_stop)
    assert said.of("stopped") == [{"step": 2, "signal": "SIGTERM"}]
    said, should_stop = stop_after(7, Terminated("stop"))
    assert run(tmp_path / "b", TinyLoss(), said, should_stop=should_stop).steps == 7


def test_checkpoints_come_at_their_steps_and_at_the_end(tmp_path: Path) -> None:
    said = Said()
    run(tmp_path, TinyLoss(), said)
    assert [told["step"] for told in said.of("saved")] == [3, 6, 7]
    assert all(Path(str(told["path"])).is_dir() for told in said.of("saved"))


def test_a_checkpoint_holds_no_weight_that_does_not_train(tmp_path: Path) -> None:
    from safetensors import safe_open

    run(tmp_path, TinyLoss())
    with safe_open(tmp_path / "checkpoints/step-00000007/weights.safetensors", "pt") as file:
        names = set(file.keys())
    assert names == {"embed", "head", "mix.weight", "mix.bias", "norm.weight", "norm.bias"}


def test_a_half_precision_weight_is_not_trained(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float32"):
        run(tmp_path, TinyLoss().to(torch.bfloat16))


# Out of memory


class Scarce:
    """Memory for Packs of up to `tokens` tokens; from the n-th forward on."""

    def __init__(
        self, tokens: int, *, after: int = 0, error: type[Exception] = MemoryError
    ) -> None:
        self.tokens, self.after, self.calls, self.failed = tokens, after, 0, 0
        self.error = error

    def __call__(self, pack: Pack) -> float:
        self.calls += 1
        if self.calls > self.after and pack.num_tokens > self.tokens:
            self.failed += 1
            raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")
        return 1.0


@pytest.mark.fault(9)
@pytest.mark.parametrize("error", [MemoryError, RuntimeError, torch.OutOfMemoryError])
def test_out_of_memory_lowers_the_budget_and_changes_no_result(
    tmp_path: Path, error: type[Exception]
) -> None:
    """The second half of a step fails: its gradients are dropped, and it is redone in smaller Packs."""
    plain, scarce = TinyLoss(), Scarce(16, after=3, error=error)
    run(tmp_path / "plain", plain, plan=plan(budgets=((1, 1000),)))
    durable: list[tuple[int, int]] = []
    said, module = Said(), TinyLoss(fault=scarce)
    outcome = run(
        tmp_path / "scarce",
        module,
        said,
        plan=plan(budgets=((1, 1000),)),
        on_budget=lambda step, tokens: durable.append((step, tokens)),
    )
    assert scarce.failed >= 1
    assert durable
    assert outcome.budgets == ((1, 1000), *durable)
    assert [(told["step"], told["micro_batch_tokens"]) for told in said.of("halved")] == durable
    assert outcome.steps == 7
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(module.get_parameter(name), parameter, rtol=1e-3, atol=1e-4)


def test_the_budget_is_durable_before_the_step_is_redone(tmp_path: Path) -> None:
    scarce = Scarce(16)
    calls_when_kept: list[int] = []
    module = TinyLoss(fault=scarce)
    run(
        tmp_path,
        module,
        plan=plan(budgets=((1, 1000),), steps=1),
        on_budget=lambda step, tokens: calls_when_kept.append(scarce.calls),
    )
    assert calls_when_kept[0] == 1  # one forward failed, none came after it yet


def test_halvings_replayed_on_resume_give_the_same_bits(tmp_path: Path) -> None:
    """Memory ran out in step 5 of the straight run. The resumed one starts at 3 with the stored list."""
    kept: list[tuple[int, int]] = [(1, 1000)]
    straight = TinyLoss(noise=0.1, fault=Scarce(16, after=4))
    outcome = run(
        tmp_path / "straight",
        straight,
        plan=plan(budgets=tuple(kept)),
        on_budget=lambda step, tokens: kept.append((step, tokens)),
    )
    assert len(kept) > 1
    assert tuple(kept) == outcome.budgets

    torch.manual_seed(1)
    first, should_stop = stop_after(3, Interrupted("stop"))
    with pytest.raises(Interrupted):
        run(
            tmp_path / "parts",
            TinyLoss(noise=0.1),
            first,
            plan=plan(budgets=((1, 1000),)),
            should_stop=should_stop,
        )
    torch.manual_seed(7)
    resumed, never_fails = TinyLoss(noise=0.1), Said()
    run(tmp_path / "parts", resumed, never_fails, plan=plan(budgets=tuple(kept)))
    assert not never_fails.of("halved")
    assert weights(resumed) == weights(straight)


@pytest.mark.parametrize("call", range(1, 8))
def test_what_a_failed_attempt_left_is_gone(tmp_path: Path, call: int) -> None:
    """Memory runs out in one forward, in the middle of a step or not: no gradient and no drawn number stays."""
    kept: list[tuple[int, int]] = [(1, 30)]
    calls = 0

    def once(pack: Pack) -> float:
        nonlocal calls
        calls += 1
        if calls == call:
            raise MemoryError
        return 1.0

    failing, replayed = TinyLoss(noise=0.1, fault=once), TinyLoss(noise=0.1)
    run(
        tmp_path / "failing",
        failing,
        plan=plan(budgets=tuple(kept)),
        on_budget=lambda step, tokens: kept.append((step, tokens)),
    )
    assert len(kept) == 2
    torch.manual_seed(1)
    run(tmp_path / "replayed", replayed, plan=plan(budgets=tuple(kept)))
    assert weights(failing) == weights(replayed)


@pytest.mark.fault(9)
def test_out_of_memory_with_every_example_alone_ends_the_run(tmp_path: Path) -> None:
    module = TinyLoss(fault=Scarce(3))
    before = weights(module)
    with pytest.raises(OutOfMemory, match="every Example alone") as caught:
        run(tmp_path, module, plan=plan(budgets=((1, 1000),)))
    assert caught.value.exit_code == 5
    assert caught.value.where.startswith("rows.jsonl:")  # type: ignore[union-attr]
    assert "max_length" in caught.value.remedy  # type: ignore[operator]
    assert weights(module) == before


def test_another_error_is_not_taken_for_out_of_memory(tmp_path: Path) -> None:
    def broken(pack: Pack) -> float:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        run(tmp_path, TinyLoss(fault=broken))


# Numbers that are none


@pytest.mark.fault(6)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_before_the_optimizer_moves(
    tmp_path: Path, value: float
) -> None:
    source = TinySource()

    def fault(pack: Pack) -> float:
        row_six = source.rows[5][0][:-1]  # it stands in step 2
        present = any(
            pack.input_ids[i : i + 3].tolist() == row_six[2:5].tolist()
            for i in range(pack.num_tokens)
        )
        return value if present else 1.0

    said, module = Said(), TinyLoss(fault=fault)
    one, should_stop = stop_after(1, Interrupted("stop"))
    after_one = TinyLoss()
    with pytest.raises(Interrupted):
        run(tmp_path / "one", after_one, one, should_stop=should_stop)

    folder = RunFolder.create(tmp_path / "run")
    with pytest.raises(NonFiniteError, match="step 2") as caught:
        run(tmp_path / "run", module, said, source=source, write_report=folder.write_report)
    assert caught.value.where == "rows.jsonl:6"
    assert weights(module) == weights(after_one)
    report = json.loads((tmp_path / "run" / "nonfinite-step-00000002.json").read_text())
    assert report["suspects"] == ["rows.jsonl:6"]
    assert [row["row"] for row in report["rows"]] == [f"rows.jsonl:{n}" for n in (5, 6, 7, 8)]
    assert any("rows.jsonl:6" in pack["rows"] for pack in report["packs"])
    assert not said.of("saved")


@pytest.mark.fault(6)
def test_a_gradient_that_is_no_number_stops_too(tmp_path: Path) -> None:
    module = TinyLoss()
    module.head.register_hook(lambda gradient: gradient * math.nan)
    before = weights(module)
    with pytest.raises(NonFiniteError, match="gradient norm nan") as caught:
        run(tmp_path, module)
    assert caught.value.where.count("rows.jsonl") == 4  # type: ignore[union-attr]
    assert weights(module) == before


# Held-out rows


def test_evaluation_is_the_mean_over_all_held_out_entries_without_noise(tmp_path: Path) -> None:
    held_out, said = TinySource(rows=5, batch=2, seed=8), Said()
    module = TinyLoss(noise=0.5)
    run(tmp_path, module, said, plan=plan(eval_steps=7), held_out=held_out)
    (told,) = said.of("evaluated")
    module.eval()
    whole = [held_out.step(i, 1) for i in range(3)]
    nll = sum(float(module(pack, 1.0).detach()) for step in whole for pack in step.packs)
    assert told["loss"] == pytest.approx(nll / sum(step.weight for step in whole), rel=1e-5)
    assert (told["step"], told["rows"]) == (7, 5)
    assert told["trained_tokens"] == sum(step.trained_tokens for step in whole)


def test_evaluation_changes_nothing_else(tmp_path: Path) -> None:
    with_evaluation, without = TinyLoss(noise=0.1), TinyLoss(noise=0.1)
    run(tmp_path / "with", with_evaluation, plan=plan(eval_steps=2), held_out=TinySource(seed=8))
    torch.manual_seed(1)
    run(tmp_path / "without", without)
    assert weights(with_evaluation) == weights(without)


def test_the_best_checkpoint_stays_and_an_early_stop_ends_the_run(tmp_path: Path) -> None:
    """Rows of chance: the held-out loss rises once the model has learnt the training rows by heart."""
    said, held_out = Said(), TinySource(rows=6, seed=8)
    settings = plan(steps=400, eval_steps=5, save_steps=5, early_stop=6, learning_rate=0.03)
    outcome = run(tmp_path, TinyLoss(), said, plan=settings, held_out=held_out)
    losses = {int(told["step"]): told["loss"] for told in said.of("evaluated")}  # type: ignore[call-overload]
    best = min(losses, key=lambda step: losses[step])  # type: ignore[arg-type, return-value]
    assert outcome.stopped_early
    assert outcome.steps == best + 6 * 5 < 400
    assert (outcome.best_step, outcome.best_loss) == (best, losses[best])
    checkpoints = store(tmp_path)
    kept = checkpoints.best()
    assert kept is not None
    assert (kept.step, kept.score) == (best, losses[best])
    assert len(checkpoints) == 3

    again = Said()
    assert run(tmp_path, TinyLoss(), again, plan=settings, held_out=held_out) == outcome
    assert again.names == ["resumed"]


def test_a_better_evaluation_is_saved_though_no_checkpoint_is_due(tmp_path: Path) -> None:
    said, held_out = Said(), TinySource()
    outcome = run(
        tmp_path,
        TinyLoss(),
        said,
        plan=plan(eval_steps=2, save_steps=100, learning_rate=0.3),
        held_out=held_out,
    )
    assert outcome.best_step is not None
    saved = [told["step"] for told in said.of("saved")]
    assert outcome.best_step in saved
    assert saved != [2, 4, 6, 7]  # and a worse one is not
    best = store(tmp_path).best()
    assert best is not None
    assert best.step == outcome.best_step


def test_a_stop_during_the_last_evaluation_leaves_it_for_the_resumed_run(tmp_path: Path) -> None:
    settings = plan(eval_steps=7)
    first, should_stop = stop_after(7, Interrupted("stop"))
    with pytest.raises(Interrupted):
        run(
            tmp_path,
            TinyLoss(),
            first,
            plan=settings,
            held_out=TinySource(seed=8),
            should_stop=should_stop,
        )
    assert not first.of("evaluated")
    second = Said()
    outcome = run(tmp_path, TinyLoss(), second, plan=settings, held_out=TinySource(seed=8))
    assert second.names == ["resumed", "evaluated", "saved"]
    assert outcome.best_step == 7


@pytest.mark.fault(8)
def test_a_stop_during_an_evaluation_leaves_it_for_the_resumed_run(tmp_path: Path) -> None:
    settings = plan(eval_steps=2, save_steps=100)
    straight, told = TinyLoss(noise=0.1), Said()
    run(tmp_path / "straight", straight, told, plan=settings, held_out=TinySource(rows=5, seed=8))
    torch.manual_seed(1)
    first, should_stop = stop_after(4, Interrupted("stop"))
    with pytest.raises(Interrupted):
        run(
            tmp_path / "parts",
            TinyLoss(noise=0.1),
            first,
            plan=settings,
            held_out=TinySource(rows=5, seed=8),
            should_stop=should_stop,
        )
    second, resumed = Said(), TinyLoss(noise=0.1)
    run(tmp_path / "parts", resumed, second, plan=settings, held_out=TinySource(rows=5, seed=8))
    assert [entry["step"] for entry in second.of("evaluated")] == [4, 6, 7]
    both = [*first.of("evaluated"), *second.of("evaluated")]
    assert both == told.of("evaluated")
    assert weights(resumed) == weights(straight)


@pytest.mark.fault(9)
def test_out_of_memory_in_an_evaluation_lowers_the_budget_of_the_steps_after_it(
    tmp_path: Path,
) -> None:
    held_out = TinySource(rows=5, batch=5, seed=8)
    said, kept = Said(), [(1, 60)]
    seen: list[int] = []

    def fault(pack: Pack) -> float:
        seen.append(pack.num_tokens)
        if not torch.is_grad_enabled() and pack.num_tokens > 20:
            raise MemoryError
        return 1.0

    run(
        tmp_path,
        TinyLoss(fault=fault),
        said,
        plan=plan(eval_steps=2, budgets=((1, 60),)),
        held_out=held_out,
        on_budget=lambda step, tokens: kept.append((step, tokens)),
    )
    assert kept[1][0] == 3
    assert len(said.of("evaluated")) == 4
