"""Ranks of the real loop on a tiny model, as processes that a test starts by the line.

Started once, it reads cases from its input, one JSON object a line. For each it forks as many ranks as the case asks
for (so torch is loaded once only), and answers with their exit codes. What a rank finds out it writes into the case's
folder: `weights-R.safetensors`, `seen-R.json`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from hone.config.deepspeed import Facts, read_deepspeed, resolve_deepspeed
from hone.config.sections import LoraSection, TrainSection
from hone.engine.loop import train
from hone.engine.loss import PackLoss
from hone.engine.noise import PrefixDropout
from hone.engine.plan import Plan
from hone.engine.ranks import Ranks, Unheard
from hone.engine.strategy import Replicated, Strategy
from hone.errors import HoneError, Interrupted
from hone.models import attention
from hone.models.adapters import attach_lora, set_dropout
from hone.models.fused_norm import fuse_norms
from hone.pack import Pack
from hone.runs.folder import RunFolder
from tests.engine.stand_in import TinySource
from tests.tiny import FAMILIES

PATIENCE_SECONDS = 600  # on a machine that does much else


@dataclass(frozen=True)
class Case:
    """What a test asks for."""

    folder: str
    world: int = 1
    strategy: str = "ddp"
    steps: int = 6
    optimizer: str = "adamw"
    share: bool = True
    method: str = "full"
    family: str = "llama"
    dropout: float = 0.0
    budget: int = 60
    rows: int = 24
    batch: int = 8
    save_steps: int = 100
    held_out: bool = False
    oom: list[int] = field(default_factory=list)
    """(rank, step): there the first Pack runs out of memory, once."""
    die: list[int] = field(default_factory=list)
    """(rank, step): there the rank kills itself; rank -1: all do."""
    stop: list[int] = field(default_factory=list)
    """(rank, step): this rank alone is asked to stop after that step."""
    bad: list[int] = field(default_factory=list)
    """(row, step): from that step on, Packs with this row of the step have a loss that is not a number."""


def source_of(case: Case) -> TinySource:
    return TinySource(rows=case.rows, batch=case.batch, seed=3, longest=24, share=case.share)


def model_of(case: Case) -> Faulty:
    attention.register()
    model = FAMILIES[case.family].make()
    fuse_norms(model)
    if case.method == "lora":
        section = LoraSection(r=4, alpha=8, dropout=case.dropout)
        attach_lora(model, section, seed=0)
        set_dropout(model, PrefixDropout)
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.2, generator=generator)
    model.set_attn_implementation(attention.NAME)
    return Faulty(model)


class Faulty(PackLoss):
    """The loss, and what a case does to it on the way."""

    before: Callable[[Pack], float] | None = None
    step = 0

    def begin_step(self, step: int, seed: int) -> None:
        self.step = step + 1
        super().begin_step(step, seed)

    def forward(self, pack: Pack, scale: float) -> torch.Tensor:
        factor = 1.0 if self.before is None else self.before(pack)
        term = super().forward(pack, scale)
        return term if factor == 1.0 else term * factor


def sgd(trained: Mapping[str, nn.Parameter]) -> torch.optim.Optimizer:
    """Plain steps down the gradient, with such state as a checkpoint wants to see."""
    optimizer = torch.optim.SGD(list(trained.values()), lr=0.0)
    for parameter in trained.values():
        moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": torch.zeros(()), **moments}
    return optimizer


def make_strategy(case: Case, module: PackLoss, ranks: Ranks) -> Strategy:
    if case.strategy == "fsdp":
        from hone.engine.sharded import Sharded

        return Sharded(module, ranks)
    if case.strategy.startswith("zero"):
        from hone.engine.zero import Zero

        return Zero(module, ranks, zero_settings(case))
    assert case.strategy == "ddp"
    return Replicated(module, ranks)


def zero_settings(case: Case) -> dict[str, Any]:
    """As a run resolves them."""
    facts = Facts(
        train=TrainSection(max_grad_norm=0.0 if case.optimizer == "sgd" else 1.0),
        precision="fp32",
        learning_rate=1e-3,
        betas=(0.9, 0.999),
        world=case.world,
        hidden_size=32,
    )
    settings = read_deepspeed(case.strategy)
    return resolve_deepspeed(settings, facts, where=case.strategy).settings


def whole_gradients(strategy: Strategy) -> dict[str, torch.Tensor]:
    """The step's gradient, whole on every rank, before the optimizer moves."""
    if hasattr(strategy, "_engine"):
        from deepspeed.utils import safe_get_full_grad

        return {n: safe_get_full_grad(p).detach().clone() for n, p in strategy.trained.items()}
    parts = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.detach()
        for name, p in strategy.trained.items()
    }
    return whole(strategy, parts)


def whole_weights(strategy: Strategy) -> dict[str, torch.Tensor]:
    if hasattr(strategy, "_engine"):
        from deepspeed.utils import safe_get_full_fp32_param

        return {n: safe_get_full_fp32_param(p).clone() for n, p in strategy.trained.items()}
    return whole(strategy, {name: p.detach() for name, p in strategy.trained.items()})


def whole(strategy: Strategy, parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put slices together, where ranks hold slices."""
    found: dict[str, torch.Tensor] = {}
    for name, part in parts.items():
        told = strategy.ranks.gather([part.double().tolist(), list(part.shape)])
        shards = [torch.tensor(one, dtype=part.dtype).reshape(shape) for one, shape in told]
        found[name] = torch.cat(shards) if hasattr(strategy, "_slices") else shards[0]
    return found


class Recorder:
    """Notes weights and gradient of each step as the optimizer is about to see them."""

    def __init__(self, strategy: Strategy) -> None:
        self.seen: dict[str, torch.Tensor] = {}
        self._update = strategy.update
        self._strategy = strategy
        self._step = 0
        strategy.update = self.update  # type: ignore[method-assign]

    def update(self, norm: torch.Tensor | None, norm_value: float, max_norm: float) -> float:
        for kind, found in (
            ("weight", whole_weights(self._strategy)),
            ("gradient", whole_gradients(self._strategy)),
        ):
            self.seen.update({f"{self._step}/{kind}/{k}": v.clone() for k, v in found.items()})
        self._step += 1
        return self._update(norm, norm_value, max_norm)


def take_part(case: Case, ranks: Ranks) -> dict[str, Any]:
    torch.manual_seed(ranks.rank)
    path = Path(case.folder)
    folder = RunFolder.create(path)
    if ranks.is_first and folder.read_identity() is None:
        folder.write_identity({"budgets": [(1, case.budget)]})
    module, source = model_of(case), source_of(case)
    strategy = make_strategy(case, module, ranks)
    events: list[tuple[str, dict[str, object]]] = []

    def say(event: str, /, **fields: object) -> None:
        events.append((event, fields))
        dies = case.die and fields.get("step") == case.die[1] and case.die[0] in (-1, ranks.rank)
        if event == "step" and dies:
            os.kill(os.getpid(), signal.SIGKILL)

    module.before = Injected(case, ranks, module)
    recorder = Recorder(strategy) if case.optimizer == "adamw" else None
    plan = Plan(
        steps=case.steps,
        learning_rate=0.1 if case.optimizer == "sgd" else 0.01,
        budgets=tuple(ranks.tell(told_budgets(folder))),
        schedule="constant",
        max_grad_norm=0.0 if case.optimizer == "sgd" else 1.0,
        weight_decay=0.1,
        save_steps=case.save_steps,
        steps_per_epoch=source.steps_per_epoch,
        eval_steps=2 if case.held_out else None,
        seed=5,
    )
    store = folder.checkpoints(keep=3) if ranks.is_first else None
    found = None if store is None else store.latest(say)
    told = ranks.tell(found and [str(found.path), found.step, found.score])
    from hone.runs.checkpoint import Checkpoint

    resume = None if told is None else Checkpoint(Path(told[0]), told[1], told[2])
    asked = (lambda: None) if not case.stop else Asked(case, ranks, events)

    def keep(step: int, tokens: int) -> None:
        budgets = [*told_budgets(folder), (step, tokens)]
        folder.write_identity(
            {"budgets": budgets if len(budgets) > 1 else [(1, case.budget), *budgets]}
        )

    outcome = train(
        module,
        source,
        plan,
        checkpoints=store,
        say=say,
        should_stop=asked,
        resume=resume,
        held_out=TinySource(rows=5, batch=3, seed=8) if case.held_out else None,
        on_budget=keep if ranks.is_first else None,
        write_report=folder.write_report if ranks.is_first else None,
        strategy=strategy,
        make_optimizer=sgd if case.optimizer == "sgd" else None,
    )
    weights = whole_weights(strategy)
    found_here = {f"end/{name}": tensor for name, tensor in weights.items()}
    found_here.update({} if recorder is None else recorder.seen)
    safetensors.torch.save_file(
        {k: v.contiguous() for k, v in found_here.items()},
        path / f"weights-{ranks.rank}.safetensors",
    )
    return {"events": events, "steps": outcome.steps, "loss": outcome.loss}


def told_budgets(folder: RunFolder) -> list[tuple[int, int]]:
    kept = (folder.read_identity() or {}).get("budgets") or []
    return [(int(a), int(b)) for a, b in kept]


class Asked:
    """A request to stop that reaches one rank."""

    def __init__(self, case: Case, ranks: Ranks, events: list[Any]) -> None:
        self._case, self._ranks, self._events = case, ranks, events

    def __call__(self) -> Interrupted | None:
        rank, step = self._case.stop
        done = sum(1 for name, _ in self._events if name == "step")
        return Interrupted("asked") if self._ranks.rank == rank and done >= step else None


class Injected:
    """What goes wrong in forward passes."""

    def __init__(self, case: Case, ranks: Ranks, module: Faulty) -> None:
        self._case, self._ranks, self._module = case, ranks, module
        self._struck = False

    def __call__(self, pack: Pack) -> float:
        case, step = self._case, self._module.step
        if case.oom and not self._struck and torch.is_grad_enabled():
            rank, at = case.oom
            if rank == self._ranks.rank and step == at and pack.num_tokens > 1:
                self._struck = True
                raise torch.OutOfMemoryError("out of memory (on purpose)")
        if case.bad and step >= case.bad[1] and case.bad[0] in pack.row and pack.weight.any():
            return float("nan")
        return 1.0


def rank_main(case: Case, rank: int, store: str) -> int:
    torch.set_num_threads(1)
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "DS_ACCELERATOR": "cpu", "LOCAL_RANK": str(rank)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(case.world)}
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # ninja
    path = Path(case.folder)
    ranks = Ranks()
    try:
        if case.world > 1 or case.strategy != "ddp":
            ranks = Ranks.join(
                rank=rank,
                world=case.world,
                local_rank=rank,
                local_world=case.world,
                device=torch.device("cpu"),
                meeting=store,
                pulse=Unheard(),
            )
        seen = take_part(case, ranks)
    except HoneError as error:
        told = {"error": type(error).__name__, "what": error.what, "where": error.where}
        told["smaller"] = getattr(error, "smaller", None)
        (path / f"seen-{rank}.json").write_text(json.dumps(told))
        return error.exit_code
    except BaseException:  # noqa: BLE001 - told to the test
        (path / f"trace-{rank}.txt").write_text(traceback.format_exc())
        return 99
    (path / f"seen-{rank}.json").write_text(json.dumps(seen, default=str))
    return 0


def serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1)])  # the first optimizer of a process loads more of torch
    model_of(Case(folder="", method="lora"))  # and the first model more of transformers
    for line in sys.stdin:
        case = Case(**json.loads(line))
        if case.strategy.startswith("zero"):
            os.environ["DS_ACCELERATOR"] = "cpu"
            importlib.import_module("deepspeed")  # once, and not in every rank
        Path(case.folder).mkdir(parents=True, exist_ok=True)
        store = f"{case.folder}.store-{time.monotonic_ns()}"
        children: dict[int, int] = {}
        for rank in range(case.world):
            child = os.fork()
            if child == 0:
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # with the server
                code = rank_main(case, rank, store)
                os._exit(code)
            children[child] = rank
        print(json.dumps(wait_for(children)), file=answers, flush=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(store)


def wait_for(children: dict[int, int]) -> dict[int, int]:
    """Exit codes by rank; a rank that waits for a dead one in vain is ended."""
    codes: dict[int, int] = {}
    end = time.monotonic() + PATIENCE_SECONDS
    while len(codes) < len(children):
        for child, rank in children.items():
            if rank not in codes:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    codes[rank] = os.waitstatus_to_exitcode(status)
                    if codes[rank]:
                        end = min(end, time.monotonic() + 5)
        if time.monotonic() > end:
            for child, rank in children.items():
                if rank not in codes:
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return codes


if __name__ == "__main__":
    serve()
