"""What a step's time goes to, by family of operations: a profile read through the model's own modules.

An operation belongs to the module whose forward it ran in; one of the backward pass to the module of the
forward operation that it differentiates (both carry the same sequence number). It knows no trainer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

_SCOPE = "family: "
_BETWEEN = "Python and autograd between operations"
_PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::matmul", "aten::linear")
_KERNELS = "aten::_scaled_dot_product_flash_attention_for_cpu"
_FUNCTIONS = {
    "_FlashAttention": "attention, beside its kernels",
    "_CappedAttention": "attention, beside its kernels",
    "_ChunkedLoss": "softmax and loss of the head",
}
_MODULES = (  # the first ending that fits a module's class name decides
    ("Norm", "norms"),
    ("RotaryEmbedding", "rotary and reshaping in attention"),
    ("Attention", "rotary and reshaping in attention"),
    ("MLP", "activation and gate"),
    ("SiLUActivation", "activation and gate"),
    ("SiLU", "activation and gate"),
    ("Linear", "linear layers, beside products"),
    ("Embedding", "embedding"),
    ("DecoderLayer", "residual sums"),
    ("Model", "rest of the trunk"),
)


@contextmanager
def scope(family: str) -> Iterator[None]:
    """Operations run here belong to `family` unless a scope within says otherwise."""
    with record_function(_SCOPE + family):
        yield


def shares(module: nn.Module, step: Callable[[], object]) -> dict[str, float]:
    """Seconds of `step()` under the profiler by family, largest first; they add up to all of it."""
    hooks = list(_mark(module))
    try:
        with profile(activities=[ProfilerActivity.CPU]) as profiled, scope("other operations"):
            step()
    finally:
        for hook in hooks:
            hook.remove()
    return _add_up(list(profiled.events() or ()))


def _mark(module: nn.Module) -> Iterator[Any]:
    """A scope around each module of a known kind."""
    for each in module.modules():
        name = type(each).__name__
        family = next((family for ending, family in _MODULES if name.endswith(ending)), None)
        if family is None:
            continue
        open_scopes: list[Any] = []

        def enter(*_: Any, family: str = family, opened: list[Any] = open_scopes) -> None:
            entered = record_function(_SCOPE + family)
            entered.__enter__()
            opened.append(entered)

        def leave(*_: Any, opened: list[Any] = open_scopes) -> None:
            opened.pop().__exit__(None, None, None)

        yield each.register_forward_pre_hook(enter)
        yield each.register_forward_hook(leave)


def _add_up(events: list[Any]) -> dict[str, float]:
    forward: dict[int, str] = {}
    for event in sorted(events, key=lambda each: each.time_range.start):
        if event.sequence_nr >= 0 and _backward_node(event) is None:
            forward[event.sequence_nr] = _scope_of(event)
    total: defaultdict[str, float] = defaultdict(float)
    for event in events:
        if _root(event).name.startswith(_SCOPE):
            total[_family(event, forward)] += event.self_cpu_time_total / 1e6
    return dict(sorted(total.items(), key=lambda pair: -pair[1]))


def _ancestors(event: Any) -> Iterator[Any]:
    while event is not None:
        yield event
        event = event.cpu_parent


def _root(event: Any) -> Any:
    *_, last = _ancestors(event)
    return last


def _backward_node(event: Any) -> Any:
    return next((e for e in _ancestors(event) if e.name.startswith("autograd::engine")), None)


def _scope_of(event: Any) -> str:
    for each in _ancestors(event):
        if each.name.startswith(_SCOPE):
            return str(each.name.removeprefix(_SCOPE))
        if each.name in _FUNCTIONS:
            return _FUNCTIONS[each.name]
    return "other operations"


def _family(event: Any, forward: dict[int, str]) -> str:
    for each in _ancestors(event):
        if each.name in _PRODUCTS:
            return "matrix products"
        if each.name.startswith(_KERNELS):
            return "attention kernels"
        if each.name.startswith("autograd::engine"):
            break
    wrapper = not event.name.startswith("aten::")
    if wrapper and not event.name.startswith("Optimizer"):
        return _BETWEEN
    for each in _ancestors(event):
        name = each.name.removesuffix("Backward")
        if name in _FUNCTIONS:
            return _FUNCTIONS[name]
        if each.name.startswith("autograd::engine") and each.sequence_nr in forward:
            return forward[each.sequence_nr]
    return _scope_of(event)
