"""Exactness under every strategy with 1, 2 and 3 ranks, with and without sharing, faults included: the whole matrix.

`make prove ARGS=tests/prove/test_ranks.py` proves it; that Ray and several machines start the very same ranks is
proved in `tests/backends`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.backends.launched import Launched
from tests.engine.served import (
    HAS_DEEPSPEED,
    STRATEGIES,
    WORLDS,
    ZERO,
    Server,
    check_adamw,
    check_killed,
    check_other_ranks,
    check_out_of_memory,
    check_out_of_memory_in_parts,
    check_sgd,
)
from tests.folders import chat_rows, model_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BOTH = pytest.mark.parametrize("share", [True, False])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@BOTH
@pytest.mark.parametrize(("strategy", "world"), WORLDS)
def test_20_sgd_steps(
    server: Server, tmp_path: Path, strategy: str, world: int, share: bool
) -> None:
    check_sgd(server, tmp_path / "run", strategy, world, share)


@BOTH
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(("strategy", "world"), WORLDS)
def test_adamw_s_gradients_and_losses(
    server: Server, tmp_path: Path, strategy: str, world: int, method: str, share: bool
) -> None:
    check_adamw(server, tmp_path / "run", strategy, world, method, share, steps=20)


@BOTH
@pytest.mark.parametrize("world", [1, 2, 3])
def test_out_of_memory_in_a_step_that_is_redone(
    server: Server, tmp_path: Path, world: int, share: bool
) -> None:
    check_out_of_memory(server, tmp_path / "run", world, share)


@BOTH
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "ddp"])
def test_out_of_memory_in_a_step_that_is_not(
    server: Server, tmp_path: Path, strategy: str, world: int, share: bool
) -> None:
    check_out_of_memory_in_parts(server, tmp_path / "run", strategy, world, share)


@pytest.mark.parametrize("who", [-1, 1])
@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_and_resumed(
    server: Server, tmp_path: Path, strategy: str, world: int, who: int
) -> None:
    check_killed(server, tmp_path, strategy, who, world)


@pytest.mark.parametrize(
    "after", [("ddp", 1), ("ddp", 3), ("fsdp", 2), ("zero1", 2), ("zero2", 3), ("zero3", 2)]
)
@pytest.mark.parametrize("before", [("ddp", 2), ("fsdp", 3), ("zero2", 2), ("zero3", 3)])
def test_resumed_under_another_strategy_with_other_ranks(
    server: Server, tmp_path: Path, before: tuple[str, int], after: tuple[str, int]
) -> None:
    check_other_ranks(server, tmp_path, before, after)


METHODS = {
    "full": ["tuning.method=full"],
    "freeze": ["tuning.method=freeze"],
    "recomputed": ["tuning.method=full", "compute.gradient_checkpointing=true"],
    "qlora": ["tuning.method=qlora"],
    "qlora-8": ["tuning.method=qlora", "tuning.quantization.bits=8"],
    "dora": ["tuning.lora.dora=true"],
    "pissa": ["tuning.lora.init=pissa"],
    "head": ["tuning.lora.modules_to_save=[lm_head]", "tuning.lora.dropout=0.2"],
    "new-tokens": ["model.new_tokens=[qux]"],
    "lion": ["train.optimizer=lion", "train.learning_rate=1e-3"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("methods")
    model_folder(folder / "model")
    chat_rows(folder / "rows.jsonl", rows=40)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_every_tuning_method_under_every_strategy(place: Path, method: str) -> None:
    """Two ranks of a run as a user starts it, beside one."""
    if "qlora" in method:
        pytest.importorskip("bitsandbytes")
    settings = ["train.max_steps=4", *METHODS[method]]
    artifacts: list[dict[str, torch.Tensor]] = []

    def losses(name: str, *more: str, nproc: int) -> list[float]:
        run = Launched(place, f"{method}-{name}", *settings, *more, nproc=nproc)
        code, err = run.finish()
        assert code == 0, err
        kept = [path for path in (run.folder / "checkpoints").rglob("*") if path.is_file()]
        assert {path.suffix for path in kept} == {".safetensors", ".json"}
        artifacts.append(
            {k: v for f in run.folder.glob("*.safetensors") for k, v in load_file(f).items()}
        )
        return [event["loss"] for event in run.events("step")]

    def check_artifact() -> None:
        """Whole weights, by the same names, as plain loaders read them."""
        want, got = artifacts[0], artifacts[-1]
        assert got.keys() == want.keys()
        for key, tensor in want.items():
            assert got[key].shape == tensor.shape
            assert float((got[key].float() - tensor.float()).abs().max()) < 2e-3, key

    want = losses("alone", nproc=1)
    for strategy in ("ddp", "fsdp"):
        got = losses(strategy, f"compute.strategy={strategy}", nproc=2)
        assert got == pytest.approx(want, rel=1e-5), strategy
        check_artifact()
    for stage in [*ZERO, "zero2-offload", "zero3-offload"]:
        if not HAS_DEEPSPEED or ("qlora" in method and stage.startswith("zero3")):
            continue
        got = losses(stage, f"compute.deepspeed={stage}", nproc=2)
        assert got == pytest.approx(want, rel=1e-5), stage
        check_artifact()
