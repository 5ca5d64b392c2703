"""The memory of a run on one device, part by part and moment by moment. Arithmetic over what is known; no torch.

On a CPU it is that of the whole process, as the kernel counts it. The constants were measured (see each) and are not
fitted to the settings that `tests/prove/test_plan.py` proves them on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from hone.engine.demand import KEEP_FREE, Subject, one_pass
from hone.recipes.holding import is_sharded
from hone.recipes.target import Target

_MIB: Final = 2**20

LIBRARIES_BYTES: Final = 401 * _MIB
"""A process that has imported torch, transformers and peft (with bitsandbytes beside them)."""
FIRST_PASS_BYTES: Final = 30 * _MIB
"""Code and caches that the first forward and backward pass bring in."""
PRODUCTS_BYTES: Final = 40 * _MIB
"""The compiled products that bf16 runs keep: as many as `engine/memory.py` leaves them, about half a MiB each."""
CONTEXT_BYTES: Final = 1024 * _MIB
"""What the driver's context, its libraries and their workspaces take of a card."""
HEAP_OF_KEPT: Final = 0.25
HEAP_OF_HEAD: Final = 1.0
"""Gaps of the heap that no later tensor fits into, as a share of what a pass keeps, and of the head's."""


@dataclass(frozen=True)
class Part:
    """One line of the plan."""

    name: str
    num_bytes: int
    says: str = ""


@dataclass(frozen=True)
class MemoryPlan:
    """The memory of one device at its fullest, and what it is made of."""

    parts: tuple[Part, ...]
    """At the fullest moment of a step."""
    moments: tuple[Part, ...]
    """Loading, rehearsal, a step: what is held at the fullest of each."""
    free_bytes: int
    keep_free: float
    """Share of it that is left alone."""
    recomputed: int
    """Layers that are computed again."""

    @property
    def peak_bytes(self) -> int:
        """The fullest moment."""
        return max(moment.num_bytes for moment in self.moments)

    @property
    def fits(self) -> bool:
        """Whether the device has so much free, beside what is left alone."""
        return self.peak_bytes <= self.free_bytes * (1 - self.keep_free)

    def to_json(self) -> dict[str, Any]:
        """For a script."""
        return {
            "peak_bytes": self.peak_bytes,
            "free_bytes": self.free_bytes,
            "fits": self.fits,
            "parts": [{"name": one.name, "bytes": one.num_bytes} for one in self.parts],
            "moments": [{"name": one.name, "bytes": one.num_bytes} for one in self.moments],
            "recomputed_layers": self.recomputed,
        }


@dataclass(frozen=True)
class Load:
    """What the Packs of a run are."""

    rehearsed: int
    """Tokens of the largest Pack that is tried before step 1."""
    predictions: int
    """Most predicting positions of one Pack."""
    longest: int
    """Tokens of the longest row."""
    accumulates: bool
    """Whether a step has several Packs, so that gradients are there while another Pack runs."""
    rows_bytes: int
    """Prepared rows, mapped."""
    base_bytes: int
    """The process before the model is loaded; 0 for a card."""


def plan_memory(
    subject: Subject, load: Load, target: Target, *, recomputed: int | None
) -> MemoryPlan:
    """The memory of a run; with `recomputed` None as few layers are computed again as make it fit."""
    layers = subject.shape.layers
    if recomputed is not None:
        return _plan(subject, load, target, recomputed)
    plan = _plan(subject, load, target, 0)
    for count in range(1, layers + 1):
        if plan.fits:
            break
        plan = _plan(subject, load, target, count)
    return plan


def _plan(subject: Subject, load: Load, target: Target, recomputed: int) -> MemoryPlan:
    sharing = target.sharing
    if is_sharded(target.sharding):  # masters are not halved; gathered weights come narrow already
        subject = replace(subject, is_split=sharing.weights)
    weights = target.share(subject.weight_bytes, divided=sharing.weights)
    adapters = target.share(subject.adapter_bytes, divided=sharing.weights)
    gradients = target.share(subject.gradient_bytes, divided=sharing.gradients)
    state = target.share(subject.state_bytes, divided=sharing.optimizer)
    if target.weights_outside:
        weights = adapters = 0.0
    if target.optimizer_outside:
        state = 0.0
    gathered = _gathered(subject) if sharing.weights and target.count > 1 else 0.0
    each = one_pass(
        subject,
        tokens=load.rehearsed,
        predictions=load.predictions,
        recomputed=recomputed,
        longest=load.longest,
    )
    gaps = _gaps(target, each.kept, max(each.head, each.again + each.backward), recomputed)
    floor = CONTEXT_BYTES if target.kind == "cuda" else load.base_bytes + FIRST_PASS_BYTES
    if target.kind == "cpu" and subject.how.precision == "bf16":
        floor += PRODUCTS_BYTES
    ahead = each.peak + gaps + gathered
    says = "fp32"
    if not load.accumulates:  # gradients come as what is kept goes
        gradients, says = max(0.0, gradients - ahead), "fp32, as what is kept goes"
    head = max(each.head, each.again + each.backward)
    parts = [
        ("weights", weights, subject.held_in),
        ("adapters", adapters, "fp32"),
        ("gradients", gradients, says),
        ("optimizer", state, subject.optimizer),
        ("gathered weights", gathered, "a layer and the next one, and the embedding"),
        ("kept by attention", each.attention, ""),
        ("kept by MLPs", each.mlp, ""),
        ("kept by norms", each.norms, ""),
        ("kept between layers", each.outside + each.casts, ""),
        ("head", each.head, f"logits of {subject.chunk_positions:,} positions at a time"),
        ("backward pass", head - each.head, "beyond the head's"),
        ("gaps between tensors", gaps, "the allocator's"),
        _floor(target, floor),
    ]
    step = sum(num_bytes for _, num_bytes, _ in parts)
    start = floor + weights + adapters
    moments = [
        ("loading", start + (_read_beside(subject) if target.kind == "cpu" else 0.0)),
        ("rehearsal", start + ahead),
        ("step", step),
    ]
    return MemoryPlan(
        parts=tuple(Part(name, round(size), says) for name, size, says in parts if size >= 1),
        moments=tuple(Part(name, round(size)) for name, size in moments),
        free_bytes=target.free_bytes,
        keep_free=KEEP_FREE[target.kind],
        recomputed=recomputed,
    )


def _floor(target: Target, num_bytes: float) -> tuple[str, float, str]:
    if target.kind == "cuda":
        return "driver's context", num_bytes, "with its libraries' workspaces"
    return "Python and libraries", num_bytes, "rows mapped and tokenizer included"


def _gaps(target: Target, kept: float, rest: float, recomputed: int) -> float:
    """What the heap cannot use again. Where layers are computed again its memory is given back at once."""
    if target.kind == "cuda" or recomputed:
        return 0.0
    return HEAP_OF_KEPT * kept + HEAP_OF_HEAD * rest


def _read_beside(subject: Subject) -> float:
    """The file, while its weights are cast to another type than they are stored in."""
    stored = subject.shape.file_bytes
    return 0.0 if abs(stored - subject.weight_bytes) < 0.01 * stored else float(stored)


def _gathered(subject: Subject) -> float:
    """Whole weights in the precision of the step, where each device holds a share: two layers, embedding and head."""
    shape = subject.shape
    body = shape.parameters - sum(shape.by_part()[part] for part in ("embedding", "head"))
    outer = shape.parameters - body
    return (2 * body / max(1, shape.layers) + outer) * subject.how.narrow
