"""One measured run of Hone's engine on a GPU, in a process of its own: a job as JSON in, one line of JSON out.

The loop, the rehearsal, and all that makes a step fast are those of `hone train`; weights are random and made on the
device, rows are token ids. It needs torch, transformers, peft, numpy and safetensors, and no network.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_device
import gpu_model
import numpy as np
from child import serve
from gpu_cases import make_rows

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "src")
)  # as it lies, without installing

_WARM_STEPS = 2  # that are not timed
_LORA = {  # the defaults of `tuning.lora`
    "r": 16,
    "alpha": 32.0,
    "dropout": 0.0,
    "target_modules": "all-linear",
    "layers": None,
    "rslora": False,
    "dora": False,
    "init": "default",
    "pissa_niter": None,
    "modules_to_save": [],
}
_COMPUTE = {
    "gradient_checkpointing": "auto",
    "offload_activations": False,
    "compile": True,  # a measurement is shorter than a run that pays for compiling
    "kernels": "auto",
    "deterministic": True,
    "split_weights": "auto",
}


def measure(job: dict[str, Any], began: float) -> dict[str, Any]:
    """Train `job["steps"]` timed steps and say how fast they were, and what was on."""
    import torch

    from hone.engine.device import ask_for_same_bits

    device = torch.device(job["device"])
    compute = SimpleNamespace(**{**_COMPUTE, **job.get("compute", {})})
    if job["small"]:
        compute.split_weights = True  # as a GPU does
    ask_for_same_bits(device, compute.deterministic)
    said = _Said()
    heard: dict[str, Any] = {"product_tflops": gpu_device.product_rate(device, small=job["small"])}
    built = _build(job, device, compute, said)
    heard["start_seconds"] = time.perf_counter() - began
    source = _Source(job)
    budget = _rehearse(job, built, compute, source, heard)
    said.first_budget = budget
    gpu_device.reset_peak(device)
    _train(job, built, source, budget, said)
    heard["notices"] = said.notices
    heard |= said.engine
    heard |= _figures(job, built, source, said, heard["product_tflops"])
    heard |= gpu_device.memory(device)
    heard["seconds_in_all"] = time.perf_counter() - began
    return heard


def _build(job: dict[str, Any], device: Any, compute: Any, said: _Said) -> Any:
    """Model, adapters and what makes a step fast, as `hone train` puts them together."""
    import torch

    from hone.engine.loss import PackLoss
    from hone.engine.noise import PrefixDropout
    from hone.models import attention, gpu_attention
    from hone.models.adapters import attach_lora, set_dropout
    from hone.models.fused_norm import fuse_norms
    from hone.models.tuning import Tuned
    from hone.recipes.speed import quicken

    attention.register()
    gpu_attention.register()
    lora = job["method"] == "lora"
    model = gpu_model.make(job["shape"], device, dtype="bfloat16" if lora else "float32")
    fuse_norms(model)
    adapted = None
    if lora:
        section: Any = SimpleNamespace(**_LORA)
        adapted = attach_lora(model, section, seed=0)
        set_dropout(model, PrefixDropout)
    model.set_attn_implementation(gpu_attention.name_for(device))
    model.train()
    loss = PackLoss(model, autocast=torch.bfloat16)
    # As `hone.recipes.build.Built`, which would need packages that a bare machine lacks.
    built: Any = SimpleNamespace(loss=loss, model=model, tuned=Tuned(adapted), alone_because=None)
    off = None if compute.compile else "compute.compile=false"
    backend = "eager" if job["small"] else "inductor"
    config: Any = SimpleNamespace(compute=compute, train=SimpleNamespace(optimizer="adamw"))
    quicken(built, config, precision="bf16", why_not_compiled=off, say=said, backend=backend)
    return built


class _Source:
    """Steps over the case's rows, in order, round and round."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        count = job["batch"] * job.get("different_steps", 3)
        self.rows = make_rows(
            job["rows"], count, vocabulary=job["shape"]["vocab_size"], small=job["small"]
        )
        self.steps_per_epoch = count // job["batch"]
        self.share = job.get("share", True)

    @property
    def longest(self) -> int:
        return max(ids.shape[0] for ids, _ in self.rows)

    @property
    def trained_share(self) -> float:
        trained = sum(int(mask.sum()) for _, mask in self.rows)
        return trained / sum(ids.shape[0] for ids, _ in self.rows)

    def step(self, index: int, micro_batch_tokens: int) -> Any:
        """The step, laid out as training lays it out."""
        from hone.data.layout import branch, lay_out
        from hone.pack import Step

        batch = self.job["batch"]
        first = index % self.steps_per_epoch * batch
        rows = self.rows[first : first + batch]
        branches = [
            made
            for place, (ids, mask) in enumerate(rows)
            if (made := branch(place, ids, mask.astype(np.float32))) is not None
        ]
        return Step(
            index=index,
            packs=lay_out(
                branches, budget=micro_batch_tokens, share_prefixes=self.share, pack=True
            ),
            row_names=tuple(f"row {first + place}" for place in range(len(rows))),
            tokens=sum(ids.shape[0] for ids, _ in rows),
            trained_tokens=sum(item.target.shape[0] for item in branches),
            weight=float(sum(np.sum(item.weight, dtype=np.float64) for item in branches)),
        )


def _rehearse(
    job: dict[str, Any], built: Any, compute: Any, source: _Source, heard: dict[str, Any]
) -> int:
    """The budget of tokens that the rehearsal chooses, as before a run."""
    from hone.engine.cost import Weight
    from hone.engine.optimizer import places_of, trained_parameters, update_bytes
    from hone.engine.rehearsal import rehearse
    from hone.recipes.speed import layers_to_recompute

    def layout(budget: int) -> list[Any]:
        packs = [pack for k in range(2) for pack in source.step(k, budget).packs]
        return [Weight(pack.num_tokens, pack.visible_pairs) for pack in packs]

    began = time.perf_counter()
    trained = trained_parameters(built.loss)
    state_bytes = update_bytes("adamw", trained, places_of(built.loss, trained))
    found = rehearse(
        built.loss,
        longest=source.longest,
        wanted=job.get("micro_batch_tokens"),
        state_bytes=state_bytes,
        trained_share=source.trained_share,
        layout=layout,
        layers=layers_to_recompute(built, compute),
    )
    moments = state_bytes - sum(4 * p.numel() for p in trained.values())  # not there yet
    heard["rehearsal"] = {
        "micro_batch_tokens": found.micro_batch_tokens,
        "recomputed_layers": found.recomputed,
        "bytes_per_token": found.bytes_per_token,
        "peak_gib": None if found.peak_bytes is None else (found.peak_bytes + moments) / 2**30,
        "seconds": time.perf_counter() - began,
    }
    return found.micro_batch_tokens


def _train(job: dict[str, Any], built: Any, source: _Source, budget: int, said: _Said) -> None:
    from hone.engine.loop import train
    from hone.engine.plan import Plan

    steps = job["steps"] + _WARM_STEPS
    plan = Plan(
        steps=steps,
        learning_rate=1e-5,
        budgets=((1, budget),),
        schedule="constant",
        save_steps=steps,
        steps_per_epoch=source.steps_per_epoch,
    )
    train(built.loss, source, plan, checkpoints=_Unsaved(), say=said)


def _figures(
    job: dict[str, Any], built: Any, source: _Source, said: _Said, product: float
) -> dict[str, Any]:
    """Rates over the timed steps; operations are those of the model (`hone.engine.flops`)."""
    from hone.engine.flops import model_flops

    timed = said.steps[_WARM_STEPS:]
    seconds = sum(step["seconds"] for step in timed)
    flops = model_flops(built.loss)
    budget = said.budget
    packs = [p for step in timed for p in source.step(step["step"] - 1, budget(step)).packs]
    weights = sum(p.num_tokens * flops.token + p.predict.shape[0] * flops.prediction for p in packs)
    whole = flops.of(packs)
    return {
        "steps": len(timed),
        "seconds": seconds,
        "seconds_a_step": [round(step["seconds"], 4) for step in timed],
        "tokens_per_second": sum(step["tokens"] for step in timed) / seconds,
        "computed_tokens_per_second": sum(step["computed_tokens"] for step in timed) / seconds,
        "trained_tokens_per_second": sum(step["trained_tokens"] for step in timed) / seconds,
        "tflops": whole / seconds / 1e12,
        "utilisation": whole / seconds / 1e12 / product,
        "utilisation_of_weights": weights / seconds / 1e12 / product,
        "rows_per_step": job["batch"],
        "packs_per_step": len(packs) / len(timed),
        "loss": timed[-1]["loss"],
        "compiled_while_timed": sum(e["graphs"] for e in said.compiled if e["step"] > _WARM_STEPS),
    }


class _Said:
    """Hears the events of the engine."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.compiled: list[dict[str, Any]] = []
        self.notices: list[str] = []
        self.halved: list[dict[str, Any]] = []
        self.engine: dict[str, Any] = {}
        self.first_budget = 0

    def __call__(self, event: str, /, **fields: Any) -> None:
        if event == "step":
            self.steps.append(fields)
        elif event == "compiled":
            self.compiled.append(fields)
        elif event == "engine":
            self.engine = {"on": fields["on"], "off": fields["off"]}
        elif event == "halved":
            self.halved.append(fields)
            self.notices.append(f"memory ran out in step {fields['step']}: the budget was halved")
        elif event == "notice":
            self.notices.append(fields["message"])

    def budget(self, step: dict[str, Any]) -> int:
        """Tokens of a Pack at most, in this step."""
        lower = [h["micro_batch_tokens"] for h in self.halved if h["step"] <= step["step"]]
        return min([self.first_budget, *lower])


class _Unsaved:
    """A store of checkpoints that keeps none: what is measured is the step."""

    def check_space(self, *_: object, **__: object) -> None:
        """There is room."""

    def save(self, step: int, *_: object, **__: object) -> Any:
        """As if it were saved."""
        return SimpleNamespace(step=step, path="(not saved)")


if __name__ == "__main__":
    serve(measure)
