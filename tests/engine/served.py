"""What tests of several ranks ask for and compare: cases for the server of `tests.engine.ranked`, and their answers."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.engine.ranked import Case, model_of, source_of
from tests.tiny import Row, gradients, loss_row_by_row, worst_gradient_error

HAS_DEEPSPEED = importlib.util.find_spec("deepspeed") is not None
ZERO = ["zero1", "zero2", "zero3"]
STRATEGIES = ["ddp", "fsdp", *ZERO]


class Server:
    """Runs cases, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.ranked"],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT / 'src'}",
                "PYTHONWARNINGS": "ignore",
                "OMP_NUM_THREADS": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, **settings: Any) -> Ran:
        if settings.get("strategy") in ZERO and not HAS_DEEPSPEED:
            pytest.skip("the package deepspeed is not installed")
        case = Case(folder=str(folder), **settings)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(case)) + "\n")
        self._process.stdin.flush()
        codes = {int(k): v for k, v in json.loads(self._process.stdout.readline()).items()}
        return Ran(case, codes)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Ran:
    """How a case ended, and what its ranks saw."""

    def __init__(self, case: Case, codes: dict[int, int]) -> None:
        self.case, self.codes = case, codes
        self.folder = Path(case.folder)

    def seen(self, rank: int = 0) -> dict[str, Any]:
        trace = self.folder / f"trace-{rank}.txt"
        assert not trace.exists(), trace.read_text()
        return json.loads((self.folder / f"seen-{rank}.json").read_text())

    def tensors(self, rank: int = 0) -> dict[str, torch.Tensor]:
        self.seen(rank)
        return load_file(self.folder / f"weights-{rank}.safetensors")

    def end(self, rank: int = 0) -> dict[str, torch.Tensor]:
        return part(self.tensors(rank), "end/")

    def losses(self) -> dict[int, float]:
        return {f["step"]: f["loss"] for name, f in self.seen()["events"] if name == "step"}

    def said(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self.seen()["events"] if event == name]

    @property
    def is_fine(self) -> bool:
        return set(self.codes.values()) == {0}


def part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@cache
def plain_sgd(steps: int) -> dict[str, torch.Tensor]:
    """The same steps with the model's own forward, row by row, in this process and with torch alone."""
    case = Case(folder="", steps=steps)
    loss, source = model_of(case), source_of(case)
    loss.model.set_attn_implementation("eager")
    trained = {n: p for n, p in loss.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(list(trained.values()), lr=0.1)
    for index in range(case.steps):
        first = index % source.steps_per_epoch * source.batch
        rows = [Row(*source.rows[i]) for i in range(first, min(first + source.batch, case.rows))]
        optimizer.zero_grad()
        loss_row_by_row(loss.model, rows).backward()
        optimizer.step()
    return {name: p.detach() for name, p in trained.items()}


def relative_error(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> float:
    assert got.keys() == want.keys()
    apart = sum(float(((got[k].double() - want[k].double()) ** 2).sum()) for k in want)
    return (apart / sum(float((want[k].double() ** 2).sum()) for k in want)) ** 0.5


WORLDS = [(strategy, world) for strategy in STRATEGIES for world in (1, 2, 3)]


def check_sgd(server: Server, folder: Path, strategy: str, world: int, share: bool) -> None:
    """20 SGD steps end in the weights of the plain run, with the same bits on every rank."""
    ran = server.run(folder, strategy=strategy, world=world, steps=20, optimizer="sgd", share=share)
    assert ran.is_fine, ran.seen(world - 1)
    assert relative_error(ran.end(), plain_sgd(20)) < 1e-5
    for rank in range(1, world):
        assert all(torch.equal(ran.end(rank)[k], v) for k, v in ran.end().items())


def check_out_of_memory(server: Server, folder: Path, world: int, share: bool) -> None:
    """Memory that runs out on one rank in a step that can be redone halves the budget, and changes nothing else."""
    ran = server.run(
        folder, world=world, steps=20, optimizer="sgd", share=share, oom=[world - 1, 5]
    )
    assert ran.is_fine, ran.seen(world - 1)
    (halved,) = ran.said("halved")
    assert halved["step"] == 5
    assert halved["micro_batch_tokens"] < ran.case.budget
    kept = json.loads((ran.folder / "run.json").read_text())["budgets"]
    assert kept == [[1, ran.case.budget], [5, halved["micro_batch_tokens"]]]
    assert relative_error(ran.end(), plain_sgd(20)) < 1e-5


def check_out_of_memory_in_parts(
    server: Server, folder: Path, strategy: str, world: int, share: bool
) -> None:
    """Where ranks wait for each other in a pass all end; started anew with the smaller budget, nothing else has changed."""
    settings: dict[str, Any] = {
        "strategy": strategy, "world": world, "steps": 20, "optimizer": "sgd", "share": share,
        "save_steps": 3,
    }  # fmt: skip
    ran = server.run(folder, **settings, oom=[world - 1, 8])
    assert ran.codes[world - 1] == 5, "out of memory"
    assert 0 not in ran.codes.values()
    told = ran.seen(world - 1)
    first, tokens = told["smaller"]
    assert first == 8
    assert tokens < ran.case.budget
    for trace in folder.glob("trace-*"):
        trace.unlink()
    (folder / "run.json").write_text(
        json.dumps({"budgets": [[1, ran.case.budget], told["smaller"]]})
    )
    again = server.run(folder, **settings)
    assert again.is_fine, again.seen(world - 1)
    assert again.said("resumed") == [{"step": 6}]
    assert relative_error(again.end(), plain_sgd(20)) < 1e-5


def check_adamw(
    server: Server, folder: Path, strategy: str, world: int, method: str, share: bool, steps: int
) -> None:
    """Each step's gradient from equal weights, and each loss."""
    ran = server.run(
        folder, strategy=strategy, world=world, method=method, share=share, steps=steps,
        dropout=0.1 if method == "lora" else 0.0,
    )  # fmt: skip
    assert ran.is_fine, ran.seen(world - 1)
    check_gradients(ran)


def check_killed(server: Server, place: Path, strategy: str, who: int, world: int = 2) -> None:
    """All ranks killed (-1), or one: then the others fail in what they wait for. Resumed, the bits are the same."""
    settings: dict[str, Any] = {
        "strategy": strategy, "world": world, "steps": 9, "save_steps": 2, "held_out": True,
        "method": "lora", "dropout": 0.1,
    }  # fmt: skip
    straight = server.run(place / "straight", **settings)
    assert straight.is_fine, straight.seen(world - 1)
    killed = server.run(place / "killed", **settings, die=[who, 7])
    assert -9 in killed.codes.values()
    for trace in killed.folder.glob("trace-*"):
        trace.unlink()
    again = server.run(place / "killed", **settings)
    assert again.is_fine, again.seen(world - 1)
    assert again.said("resumed") == [{"step": 6}]
    for rank in range(world):
        got, want = again.end(rank), straight.end(rank)
        assert all(torch.equal(got[k], want[k]) for k in want)
    assert again.losses() == {k: v for k, v in straight.losses().items() if k > 6}


def check_other_ranks(
    server: Server, place: Path, before: tuple[str, int], after: tuple[str, int]
) -> None:
    """A run killed under one strategy and number of ranks goes on under another with the same rows in the same steps."""
    settings: dict[str, Any] = {"steps": 6, "save_steps": 3, "method": "lora"}
    straight = server.run(place / "straight", **settings)
    strategy, world = before
    first = server.run(place / "run", strategy=strategy, world=world, die=[-1, 5], **settings)
    assert set(first.codes.values()) == {-9}
    strategy, world = after
    second = server.run(place / "run", strategy=strategy, world=world, **settings)
    assert second.is_fine, second.seen(world - 1)
    assert second.said("resumed") == [{"step": 3}]
    want = {k: v for k, v in straight.losses().items() if k > 3}
    assert second.losses() == pytest.approx(want, rel=1e-5)
    assert relative_error(second.end(), straight.end()) < 1e-5


def check_gradients(ran: Ran) -> None:
    """Each step's gradient and loss, against one process from the very weights of that step."""
    loss, source = model_of(ran.case), source_of(ran.case)
    trained = {n: p for n, p in loss.named_parameters() if p.requires_grad}
    tensors, losses = ran.tensors(), ran.losses()
    for index in range(ran.case.steps):
        for name, weight in part(tensors, f"{index}/weight/").items():
            trained[name].data.copy_(weight)
        loss.zero_grad()
        loss.begin_step(index, 5)
        step = source.step(index, 10**6)
        total = sum(loss(pack, 1 / step.weight) for pack in step.packs)
        assert isinstance(total, torch.Tensor)
        total.backward()
        got, want = part(tensors, f"{index}/gradient/"), gradients(loss)
        assert worst_gradient_error(got, want) < 1e-5, index
        assert losses[index + 1] == pytest.approx(total.item(), rel=1e-5)
