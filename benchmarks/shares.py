"""How near one of Hone's steps comes to its matrix products alone, and what the rest of it goes to.

A job as JSON in, one line of JSON out. CPU seconds throughout: meant for one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import families
import products
from cases import silent
from child import serve

_REPEATS = 3


def measure(job: dict[str, Any], began: float) -> dict[str, Any]:
    """Time steps, record the second one's products, time those alone, and profile it."""
    del began
    import torch

    torch.set_num_threads(job["threads"])
    step = _Step(job)
    step.run()  # warms up
    before = [_cpu_seconds(step.run) for _ in range(_REPEATS)]
    with products.Recorder() as recorder:
        step.run()
    alone = products.alone(recorder.calls)
    after = [_cpu_seconds(step.run) for _ in range(_REPEATS)]
    profiled = families.shares(step.loss, step.run)
    seconds = median([*before, *after])
    dense, thin, attention = (alone[kind]["seconds"] for kind in ("dense", "thin", "attention"))
    total = sum(profiled.values())
    return {
        "step_seconds": seconds,
        "step_seconds_each": [*before, *after],
        "layout_seconds": step.layout_seconds,
        "tokens": step.step.tokens,
        "computed_tokens": step.step.computed_tokens,
        "packs": len(step.step.packs),
        "alone": alone,
        "dense_share": dense / seconds,
        "product_share": (dense + thin) / seconds,
        "kernel_share": (dense + thin + attention) / seconds,
        "dense_gflops": alone["dense"]["flops"] / dense / 1e9,
        "profiled_seconds": total,
        "families": {family: spent / total for family, spent in profiled.items()},
    }


def _cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


class _Step:
    """One optimizer step of the engine on a case's own rows, to be run again and again."""

    def __init__(self, job: dict[str, Any]) -> None:
        from hone.config.layers import resolve
        from hone.data.prepare import prepare
        from hone.data.steps import StepSource
        from hone.data.template import load_template
        from hone.data.tokenizer import TextTokenizer
        from hone.engine.optimizer import build_optimizer, set_learning_rate, trained_parameters
        from hone.recipes.build import build

        words = {"model.name": job["model"], "data.path": job["rows"], "tuning.lora.r": 8}
        config = resolve(overrides=[f"{name}={value}" for name, value in words.items()]).config
        folder = Path(job["model"])
        tokenizer = TextTokenizer.load(folder)
        rows = prepare(
            config.data,
            tokenizer=tokenizer,
            template=load_template(tokenizer),
            max_length=job["longest"],
            cache_dir=None,
            say=silent,
        ).train
        built = build(
            folder,
            config,
            precision=job["precision"],
            longest=rows.figures().longest,
            say=silent,
        )
        self.loss = built.loss
        self.loss.train(True)
        order = {"seed": 0, "shuffle": True, "share_prefixes": True, "pack": True}
        source = StepSource(rows, batch_size=job["batch"], **order)
        start = time.process_time()
        self.step = source.step(0, job["budget"])
        self.layout_seconds = time.process_time() - start
        trained = trained_parameters(self.loss)
        self.parameters = list(trained.values())
        self.optimizer = build_optimizer(trained, weight_decay=0.0, betas=(0.9, 0.999))
        set_learning_rate(self.optimizer, 1e-5)
        # A run begins with a rehearsal of larger Packs, after which the allocator keeps what it has.
        larger = StepSource(rows, batch_size=2 * job["batch"], **order).step(0, 2 * job["budget"])
        for pack in larger.packs:
            self.loss(pack, 1.0).backward()
        self.optimizer.zero_grad(set_to_none=True)

    def run(self) -> None:
        """What the loop does between two step events, but for its log line."""
        from hone.engine.numbers import read_numbers
        from hone.engine.optimizer import clip_gradients, gradient_norm

        self.loss.begin_step(0, 0)
        terms = []
        for pack in self.step.packs:
            term = self.loss(pack, 1.0 / self.step.weight)
            term.backward()
            terms.append(term.detach())
        with families.scope("gradient norm, clipping, optimizer"):
            norm = gradient_norm(self.parameters)
            read_numbers([*terms, norm])
            clip_gradients(self.parameters, norm, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)


if __name__ == "__main__":
    serve(measure)
