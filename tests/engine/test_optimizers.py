"""The optimizers to choose from: each its paper's rule, its bytes as foretold, and a resume that keeps every bit."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hone.engine.loop import train
from hone.engine.loss import PackLoss
from hone.engine.moments import OptimizerName, Place, moment_bytes
from hone.engine.optimizer import (
    build_optimizer,
    places_of,
    remarks,
    require_package,
    set_learning_rate,
    trained_parameters,
    update_bytes,
)
from hone.engine.plan import Plan
from hone.engine.state import optimizer_tensors, read_state, state_bytes
from hone.errors import EnvironmentFault, Interrupted
from hone.runs.checkpoint import CheckpointStore
from tests.engine.stand_in import Said, TinyLoss, TinySource, weights
from tests.tiny import FAMILIES

NAMES: tuple[OptimizerName, ...] = get_args(OptimizerName)
has_bitsandbytes = importlib.util.find_spec("bitsandbytes") is not None
ALL = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not has_bitsandbytes and ("8bit" in name or "paged" in name),
            reason="bitsandbytes is not installed",
        ),
    )
    for name in NAMES
]
WIDE = 160  # so that TinyLoss has weights of more than 4,096 numbers, which are quantised


def build(
    trained: dict[str, nn.Parameter], name: OptimizerName, **options: object
) -> torch.optim.Optimizer:
    defaults: dict[str, object] = {"weight_decay": 0.1, "betas": (0.8, 0.95)}
    return build_optimizer(trained, name=name, **{**defaults, **options})  # type: ignore[arg-type]


def moved(
    name: OptimizerName, shape: tuple[int, ...], dtype: torch.dtype, **options: object
) -> tuple[Tensor, list[Tensor], Tensor]:
    """A weight before, five gradients, and the weight after, at rates 0.1, 0.05, ..."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape, dtype=dtype))
    before = weight.detach().clone()
    gradients = [torch.randn(shape, dtype=dtype) for _ in range(5)]
    optimizer = build({"w": weight}, name, **options)
    for step, gradient in enumerate(gradients, 1):
        weight.grad = gradient.clone()
        set_learning_rate(optimizer, 0.1 / step)
        optimizer.step()
    return before, gradients, weight.detach()


def test_lion_is_the_papers() -> None:
    """Chen et al. 2023, algorithm 2, in float64; a vector is exempt from decay."""
    for shape, decay in (((5, 3), 0.1), ((7,), 0.0)):
        want, gradients, found = moved("lion", shape, torch.float64)
        moment = torch.zeros(shape, dtype=torch.float64)
        for step, gradient in enumerate(gradients, 1):
            update = torch.sign(0.8 * moment + 0.2 * gradient)
            want = want - 0.1 / step * (update + decay * want)
            moment = 0.95 * moment + 0.05 * gradient
        torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)


def test_muon_is_the_papers() -> None:
    """Jordan et al. 2024 with the scale of Liu et al. 2025, the five iterations written out in bf16 as there."""
    want, gradients, found = moved("muon", (24, 40), torch.float32)
    momentum = torch.zeros(24, 40)
    for step, gradient in enumerate(gradients, 1):
        momentum = 0.95 * momentum + 0.05 * gradient
        x = (0.05 * gradient + 0.95 * momentum).bfloat16()
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        want = want * (1 - 0.1 / step * 0.1) - 0.1 / step * 0.2 * math.sqrt(40) * x.float()
    torch.testing.assert_close(found, want, rtol=0, atol=2e-2)
    assert float((found - want).norm() / want.norm()) < 5e-3


def test_the_update_of_muon_has_the_size_of_adamws() -> None:
    """Root mean square about 0.2 times the rate, whatever the shape: what lets one rate serve both."""
    for shape in ((16, 512), (512, 16), (96, 96)):
        torch.manual_seed(1)
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = torch.randn(shape) * 1e-4
        optimizer = build({"w": weight}, "muon", weight_decay=0.0)
        set_learning_rate(optimizer, 1.0)
        optimizer.step()
        assert 0.1 < float(weight.detach().square().mean().sqrt()) < 0.3


def test_adafactor_is_the_papers_with_absolute_rates() -> None:
    """Shazeer and Stern 2018, algorithms 4 and 5, with the rate in place of the relative step."""
    want, gradients, found = moved("adafactor", (6, 4), torch.float64)
    rows, columns = (torch.zeros(n, dtype=torch.float64) for n in (6, 4))
    for step, gradient in enumerate(gradients, 1):
        kept = 1 - step**-0.8
        square = gradient**2 + 1e-30
        rows = kept * rows + (1 - kept) * square.mean(1)
        columns = kept * columns + (1 - kept) * square.mean(0)
        update = gradient / torch.sqrt(rows[:, None] * columns / rows.mean())
        update = update / max(1.0, float(update.square().mean().sqrt()))
        want = want * (1 - 0.1 / step * 0.1) - 0.1 / step * update
    torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-9)


def test_an_adapter_that_begins_at_zero_moves_under_adafactor() -> None:
    weight = nn.Parameter(torch.zeros(8, 4))
    weight.grad = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    optimizer = build({"lora_B": weight}, "adafactor")
    set_learning_rate(optimizer, 2e-4)
    optimizer.step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(2e-4, rel=0.01)


@pytest.mark.skipif(not has_bitsandbytes, reason="bitsandbytes is not installed")
@pytest.mark.parametrize(
    ("name", "exact"),
    [("adamw_8bit", "adamw"), ("paged_adamw_8bit", "adamw"), ("lion_8bit", "lion")],
)
def test_quantised_moments_stay_near_exact_ones(name: OptimizerName, exact: OptimizerName) -> None:
    before, _, want = moved(exact, (80, 100), torch.float32)
    _, _, found = moved(name, (80, 100), torch.float32)
    assert not torch.equal(found, want)
    assert float((found - want).norm() / (want - before).norm()) < 0.1


@pytest.mark.skipif(not has_bitsandbytes, reason="bitsandbytes is not installed")
def test_moments_in_32_bits_move_as_torchs() -> None:
    """A paged one, a small weight, and an embedding's."""
    _, _, want = moved("adamw", (80, 100), torch.float32)
    small = moved("adamw", (8, 10), torch.float32)[2]
    torch.testing.assert_close(moved("paged_adamw", (80, 100), torch.float32)[2], want)
    torch.testing.assert_close(moved("adamw_8bit", (8, 10), torch.float32)[2], small)
    embedding = moved("adamw_8bit", (80, 100), torch.float32, places={"w": "embedding"})[2]
    torch.testing.assert_close(embedding, want)


# What each keeps


SHAPES = st.dictionaries(
    st.text("abc.", min_size=1),
    st.tuples(
        st.lists(st.integers(1, 90), min_size=1, max_size=3).map(tuple),
        st.sampled_from(("embedding", "head", "inside")),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=15)
@given(shapes=SHAPES)
def test_bytes_are_as_foretold(
    name: OptimizerName, shapes: dict[str, tuple[tuple[int, ...], Place]]
) -> None:
    trained = {key: nn.Parameter(torch.randn(shape)) for key, (shape, _) in shapes.items()}
    places = {key: place for key, (_, place) in shapes.items()}
    optimizer = build(trained, name, places=places)
    tensors = optimizer_tensors(trained, optimizer)
    kept = sum(t.numel() * t.element_size() for t in tensors.values())
    assert kept == sum(moment_bytes(name, shape, place) for shape, place in shapes.values())
    assert update_bytes(name, trained, places) == kept + sum(
        4 * p.numel() for p in trained.values()
    )
    for parameter in trained.values():
        parameter.grad = torch.randn_like(parameter)
    before = {key: (t.shape, t.dtype) for key, t in tensors.items()}
    set_learning_rate(optimizer, 0.1)
    optimizer.step()
    after = optimizer_tensors(trained, optimizer)
    assert {key: (t.shape, t.dtype) for key, t in after.items()} == before  # nothing came in step 1


def test_places_are_the_models_own() -> None:
    def found(name: str) -> dict[str, str]:
        module = PackLoss(FAMILIES[name].make())
        places = places_of(module, trained_parameters(module))
        return {
            key.removeprefix("model."): place for key, place in places.items() if place != "inside"
        }

    assert found("llama") == {"model.embed_tokens.weight": "embedding", "lm_head.weight": "head"}
    assert found("llama-tied") == {"model.embed_tokens.weight": "embedding"}
    assert found("gpt2") == {
        "transformer.wte.weight": "embedding", "transformer.wpe.weight": "embedding",
    }  # fmt: skip
    assert sorted(found("gpt-neox").values()) == ["embedding", "head"]


def test_muon_leaves_the_ends_to_adamw_and_says_what_it_moves() -> None:
    module = PackLoss(FAMILIES["llama"].make())
    trained = trained_parameters(module)
    places = places_of(module, trained)
    optimizer = build(trained, "muon", places=places)
    by_muon = {n for n, p in trained.items() if "momentum_buffer" in optimizer.state[p]}
    assert len(by_muon) == 14  # seven matrices in each of two layers
    assert all("proj" in name for name in by_muon)
    assert all("exp_avg" in optimizer.state[p] for n, p in trained.items() if n not in by_muon)
    (said,) = remarks("muon", trained, places)
    assert "moves 14 matrices" in said
    assert f"the other {len(trained) - 14} weights" in said
    assert "not applicable here" in remarks("paged_adamw", trained, places)[0]
    assert remarks("adamw", trained, places) == []


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_what_a_strategy_lays_in_a_weights_place_is_moved_the_same(name: OptimizerName) -> None:
    """ZeRO puts flat parts into the groups, of which the optimizer has not heard before."""
    moved: list[Tensor] = []
    for is_laid_anew in (False, True):
        weight = nn.Parameter(torch.linspace(-1, 1, 6))
        optimizer = build({"w": weight}, name)
        if is_laid_anew:
            weight = nn.Parameter(weight.detach().clone())
            optimizer.param_groups[0]["params"] = [weight]
        set_learning_rate(optimizer, 0.01)
        for _ in range(3):
            weight.grad = torch.linspace(1, -2, 6)
            optimizer.step()
        moved.append(weight.detach())
    torch.testing.assert_close(moved[1], moved[0])


def test_lora_plus_raises_the_rate_of_b_alone() -> None:
    names = ["q.lora_A.default.weight", "q.lora_B.default.weight", "e.lora_embedding_B.default"]
    trained = {name: nn.Parameter(torch.zeros(4, 4)) for name in names}
    for parameter in trained.values():
        parameter.grad = torch.ones(4, 4)
    optimizer = build(trained, "lion", lora_plus_ratio=16.0)
    set_learning_rate(optimizer, 0.01)
    optimizer.step()
    steps = [-float(p.detach()[0, 0]) for p in trained.values()]
    assert steps == pytest.approx([0.01, 0.16, 0.16])


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    require_package("adamw")
    with pytest.raises(EnvironmentFault, match=r"adamw_8bit needs .* is not installed") as caught:
        require_package("adamw_8bit")
    assert "hone[quantize]" in (caught.value.remedy or "")


# The loop


def plan(name: OptimizerName, **changes: object) -> Plan:
    numbers: dict[str, object] = {
        "steps": 6, "learning_rate": 0.01, "budgets": ((1, 30),), "weight_decay": 0.1, "save_steps": 100,
    }  # fmt: skip
    return Plan(**{**numbers, "optimizer": name, **changes})  # type: ignore[arg-type]


def run(folder: Path, name: OptimizerName, module: TinyLoss, **options: object) -> Said:
    said = Said()
    checkpoints = CheckpointStore(folder, keep=2)
    train(
        module,
        TinySource(),
        plan(name),
        checkpoints=checkpoints,
        say=said,
        resume=checkpoints.latest(said),
        **options,  # type: ignore[arg-type]
    )
    return said


def stop_at(step: int) -> Callable[[], Interrupted | None]:
    asked = 0

    def stop() -> Interrupted | None:
        nonlocal asked
        asked += 1
        return Interrupted("stop") if asked > step else None

    return stop


@pytest.mark.parametrize("name", ALL)
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, name: OptimizerName) -> None:
    straight = TinyLoss(width=WIDE)
    told = run(tmp_path / "straight", name, straight)
    for step in (1, 4):
        folder = tmp_path / f"cut-{step}"
        with pytest.raises(Interrupted):
            run(folder, name, TinyLoss(width=WIDE), should_stop=stop_at(step))
        written = sum(path.stat().st_size for path in (folder / f"step-{step:08d}").iterdir())
        resumed = TinyLoss(seed=3, width=WIDE)
        again = run(folder, name, resumed)
        assert again.of("resumed") == [{"step": step}]
        assert weights(resumed) == weights(straight)
        losses = [event["loss"] for event in again.of("step")]
        assert losses == [event["loss"] for event in told.of("step")][step:]
        trained = trained_parameters(resumed)
        assert written <= state_bytes(trained, build(trained, name)) < written + 2**21


@pytest.mark.parametrize("name", ALL)
def test_it_learns(tmp_path: Path, name: OptimizerName) -> None:
    told = run(tmp_path, name, TinyLoss(width=WIDE))
    losses = [float(event["loss"]) for event in told.of("step")]  # type: ignore[arg-type]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.fault(32)
def test_the_state_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "adamw", TinyLoss())
    with pytest.raises(EnvironmentFault, match=r"torch AdamW, not hone Lion") as caught:
        run(tmp_path, "lion", TinyLoss())
    assert "train.optimizer" in (caught.value.remedy or "")
    folder = tmp_path / "step-00000006"
    trained = trained_parameters(TinyLoss())
    fewer = {name: p for name, p in trained.items() if name != "head"}
    with pytest.raises(EnvironmentFault, match="only on one side"):
        read_state(folder, trained=fewer, optimizer=build(fewer, "adamw"))


def test_bytes_and_rates_are_foretold_without_torch() -> None:
    code = "import sys, hone.engine.moments, hone.engine.plan; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
