"""The matrix products of a step: recorded with their shapes, then timed alone. It knows no model and no rows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_THIN = 32  # a product with a side this short is an adapter's
_LOOP_SECONDS = 0.03
_LOOPS = 3

aten = torch.ops.aten
_DENSE = {aten.mm.default, aten.addmm.default, aten.addmm_.default, aten.bmm.default}
_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
}


@dataclass(frozen=True)
class Shape:
    """A tensor's size, strides and type, without its numbers."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def make(self) -> Tensor:
        """Random numbers in this shape."""
        tensor = torch.empty_strided(self.size, self.stride, dtype=self.dtype)
        return tensor.copy_(torch.randn(self.size) * 0.1)


@dataclass(frozen=True)
class Call:
    """One operation with its arguments, tensors replaced by their shapes."""

    operation: Any
    arguments: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]

    @property
    def kind(self) -> str:
        """`attention`, `thin` (an adapter's product) or `dense`."""
        if self.operation in _ATTENTION:
            return "attention"
        return "thin" if min(self.sides) <= _THIN else "dense"

    @property
    def sides(self) -> tuple[int, ...]:
        """Rows, columns and depth of a product, and the number of products in a batch of them."""
        left, right = [a for a in self.arguments if isinstance(a, Shape)][-2:]
        batch = left.size[0] if len(left.size) == 3 else 1
        return (left.size[-2], right.size[-1], left.size[-1]) + ((batch,) if batch > 1 else ())

    @property
    def flops(self) -> float:
        """Multiplications and additions."""
        if self.operation in _ATTENTION:
            return 0.0
        product = 2.0
        for side in self.sides:
            product *= side
        return product

    def seconds(self) -> float:
        """CPU seconds of one call in a tight loop: the median of three, as of the steps."""
        arguments = [a.make() if isinstance(a, Shape) else a for a in self.arguments]
        named = {k: v.make() if isinstance(v, Shape) else v for k, v in self.named}

        def call() -> None:
            self.operation(*arguments, **named)

        call()
        start = time.perf_counter()
        call()
        times = max(3, int(_LOOP_SECONDS / max(1e-7, time.perf_counter() - start)))
        return median(_loop(call, times) for _ in range(_LOOPS))


def _loop(call: Callable[[], None], times: int) -> float:
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


class Recorder(TorchDispatchMode):
    """Counts the products that run while it is entered, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Call] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Note the call and run it."""
        if func in _DENSE or func in _ATTENTION:
            named = tuple(sorted((k, _shape(v)) for k, v in (kwargs or {}).items()))
            self.calls[Call(func, tuple(_shape(a) for a in args), named)] += 1
        return func(*args, **(kwargs or {}))


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Shape(tuple(value.shape), tuple(value.stride()), value.dtype)
    return value


def alone(calls: Counter[Call]) -> dict[str, dict[str, float]]:
    """By kind: seconds of all recorded calls run alone, their number, and their operations."""
    found = {
        kind: {"seconds": 0.0, "calls": 0, "flops": 0.0} for kind in ("dense", "thin", "attention")
    }
    with torch.no_grad():
        for call, times in calls.items():
            of_kind = found[call.kind]
            of_kind["seconds"] += call.seconds() * times
            of_kind["calls"] += times
            of_kind["flops"] += call.flops * times
    return found
