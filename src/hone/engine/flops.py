"""How many floating-point operations a model asks for, and how fast matrix products are here: what utilisation rests on.

It reads shapes only; it knows no rows. Legend: N weights of matrix products, S predicting positions, E hidden
size, V vocabulary, H heads, D head size.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from hone.engine.budget import is_out_of_memory
from hone.engine.loss import PackLoss
from hone.pack import Pack

_FORWARD: Final = 2  # a multiplication and an addition for each weight and token
_INTO_INPUTS: Final = 2  # backward, of any weight
_INTO_WEIGHTS: Final = 2  # backward, of a trained weight
_ATTENTION: Final = 2 + 4  # two products forward, four backward, for each visible pair
_COVERED: Final = 0.9  # share of a pass's products whose shapes are timed
_ENOUGH_SECONDS: Final = 0.03  # a product that takes longer is not made longer still
_TRIALS: Final = 3
_DRAWN: Final = 99_991  # a prime: rows of a matrix do not repeat
_COUNTS_OF_EXPERTS: Final = ("num_experts", "num_local_experts", "n_routed_experts", "num_routed_experts")  # fmt: skip


@dataclass(frozen=True)
class ModelFlops:
    """Model FLOPs of one forward and backward, after PaLM (Chowdhery et al., 2022, appendix B) and told apart as tuning
    needs it: 2 a weight and token forward; backward 2 for a frozen weight (into its inputs) and 4 for a trained one.

    - N is without embeddings, biases and norms; of a mixture's experts the share that a token is given to.
    - The head counts at predicting positions only: 2 S V E forward, and backward as any weight.
    - Attention: 2 H (D_query + D_value) a visible pair and layer forward, twice that backward. A token sees as many as
      it is deep in its row, at most the window; shared beginnings count once, as they are computed once.
    - Recomputation (gradient checkpointing, the flash backward) is not counted, nor is work taken off that the
      mathematics asks for and the engine leaves out. Chunked attention counts as a window of the chunk's length.
    """

    token: float
    """FLOPs a token of a Pack."""
    prediction: float
    """FLOPs a predicting position."""
    pairs: tuple[tuple[int | None, float], ...]
    """(window in tokens, FLOPs a visible pair) of the layers with that window; None sees everything before it."""

    def of(self, packs: Iterable[Pack]) -> float:
        """FLOPs of these Packs."""
        return sum(self._of_pack(pack) for pack in packs)

    def _of_pack(self, pack: Pack) -> float:
        seen = pack.position_ids + 1
        attention = sum(
            flops * int((seen if window is None else np.minimum(seen, window)).sum())
            for window, flops in self.pairs
        )
        predicting = int(pack.predict.shape[0])
        return pack.num_tokens * self.token + predicting * self.prediction + attention


@dataclass(frozen=True)
class Gauge:
    """What turns a step's seconds into a share of what this machine can do."""

    flops: ModelFlops
    products: float
    """FLOPs a second of matrix products in the model's own shapes and arithmetic, measured on one device."""

    def utilisation(self, packs: Iterable[Pack], seconds: float) -> float:
        """Model FLOPs a second, as a share of `products`."""
        return self.flops.of(packs) / (max(seconds, 1e-9) * self.products)


def model_flops(loss: PackLoss) -> ModelFlops:
    """Read off the model's weights and config, before anything shards it."""
    config: Any = loss.model.config.get_text_config()
    head = _head_modules(loss.model)
    share = _expert_share(config)
    token = prediction = 0.0
    for name, module, weight, numel in _product_weights(loss.model):
        rate = _FORWARD + _INTO_INPUTS + _INTO_WEIGHTS * weight.requires_grad
        if id(module) in head:
            prediction += rate * numel
        else:
            is_routed = "experts." in f"{name}." and "shared_expert" not in name
            token += rate * numel * (share if is_routed else 1.0)
    return ModelFlops(token, prediction, _pairs(config))


def product_flops(
    loss: PackLoss, tokens: int, shapes: Counter[tuple[int, int]] | None = None
) -> float:
    """FLOPs a second of matrix products, [tokens, inputs] by [inputs, outputs], in the model's arithmetic.

    `shapes` are those of `product_shapes`, where ranks hold the weights in parts by now.
    The shapes with nine tenths of a pass's FLOPs are timed, best of three each, with fewer tokens where one
    product is long enough to be timed; draws nothing from torch's own generator. 0 where nothing can be timed.
    """
    device = loss.head.device
    dtype = loss.autocast or _arithmetic(loss.model)
    flops = seconds = 0.0
    try:
        for (inputs, outputs), count in _covering(shapes or product_shapes(loss.model)):
            rows, best = _best_seconds(inputs, outputs, tokens, dtype, device)
            flops += count * 2.0 * inputs * outputs
            seconds += count * best / rows
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return 0.0
    return flops / seconds if seconds > 0 else 0.0


def _product_weights(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter, int]]:
    """(module's name, module, weight, numbers in it) of all that is multiplied with activations.

    Packed weights (4-bit) count as the numbers that they stand for.
    """
    told = set[int]()
    modules = cast("Iterable[tuple[str, nn.Module]]", model.named_modules())
    head = _head_modules(model)
    for name, module in modules:
        if "original_module" in name.split("."):  # PEFT's copy, beside the one that is trained
            continue
        for own, weight in module.named_parameters(recurse=False):
            is_lookup = isinstance(module, nn.Embedding) and id(module) not in head
            if weight.ndim < 2 or is_lookup or id(weight) in told:
                continue
            told.add(id(weight))
            sides = (getattr(module, "in_features", None), getattr(module, "out_features", None))
            is_linear = own == "weight" and all(isinstance(side, int) for side in sides)
            numel = cast(int, sides[0]) * cast(int, sides[1]) if is_linear else weight.numel()
            yield name, module, weight, numel


def _head_modules(model: nn.Module) -> set[int]:
    head: Any = cast(Any, model).get_output_embeddings()
    return {id(module) for module in head.modules()} if isinstance(head, nn.Module) else set()


def _expert_share(config: Any) -> float:
    chosen = getattr(config, "num_experts_per_tok", None)
    counts = (getattr(config, name, None) for name in _COUNTS_OF_EXPERTS)
    total = next((count for count in counts if isinstance(count, int) and count > 0), None)
    return chosen / total if isinstance(chosen, int) and total else 1.0


def _pairs(config: Any) -> tuple[tuple[int | None, float], ...]:
    heads = getattr(config, "num_attention_heads", None)
    if not isinstance(heads, int) or heads < 1:
        return ()  # a family without attention
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    into_query = getattr(config, "qk_head_dim", None) or size
    into_value = getattr(config, "v_head_dim", None) or size
    a_pair = float(_ATTENTION * heads * (into_query + into_value))
    layers = Counter(_windows(config))
    return tuple((window, count * a_pair) for window, count in layers.items())


def _windows(config: Any) -> Iterator[int | None]:
    """The window of each layer that attends, in tokens; None sees everything."""
    window = getattr(config, "sliding_window", None)
    kinds = cast("Sequence[str] | None", getattr(config, "layer_types", None))
    if kinds is None:
        on = window if getattr(config, "use_sliding_window", True) else None
        yield from [on] * int(config.num_hidden_layers)
        return
    of_kind = {
        "full_attention": None,
        "attention": None,
        "sliding_attention": window,
        "chunked_attention": getattr(config, "attention_chunk_size", None),
    }
    yield from (of_kind[kind] for kind in kinds if kind in of_kind)


def product_shapes(model: nn.Module) -> Counter[tuple[int, int]]:
    """How often each (inputs, outputs) stands in the trunk."""
    head = _head_modules(model)
    found: Counter[tuple[int, int]] = Counter()
    for _, module, weight, numel in _product_weights(model):
        if id(module) in head:
            continue
        if weight.ndim > 2:  # experts, one beside the other
            inputs, numel = int(weight.shape[-1]), int(weight.shape[-1] * weight.shape[-2])
        else:
            inputs = getattr(module, "in_features", None) or int(weight.shape[0])
        found[inputs, numel // inputs] += 1
    return found


def _covering(shapes: Counter[tuple[int, int]]) -> list[tuple[tuple[int, int], int]]:
    """The shapes that make most of a pass, the largest first."""
    sizes = {shape: shape[0] * shape[1] * count for shape, count in shapes.items()}
    kept: list[tuple[tuple[int, int], int]] = []
    covered = 0
    for shape in sorted(sizes, key=lambda one: -sizes[one]):
        if covered >= _COVERED * sum(sizes.values()):
            break
        kept.append((shape, shapes[shape]))
        covered += sizes[shape]
    return kept


def _arithmetic(model: nn.Module) -> torch.dtype:
    dtypes = Counter(p.dtype for p in model.parameters() if p.is_floating_point())
    return dtypes.most_common(1)[0][0] if dtypes else torch.float32


def _best_seconds(
    inputs: int, outputs: int, tokens: int, dtype: torch.dtype, device: torch.device
) -> tuple[int, float]:
    """(rows, seconds) of the largest product tried, at most `tokens` rows."""
    weight = _numbers(outputs, inputs).to(device, dtype)
    rows = min(tokens, 256)
    while True:
        x = _numbers(rows, inputs).to(device, dtype)
        best = min(_timed(lambda x=x: x @ weight.T, device) for _ in range(_TRIALS + 1))
        if rows >= tokens or best > _ENOUGH_SECONDS:
            return rows, best
        rows = min(tokens, 2 * rows)


def _numbers(rows: int, columns: int) -> Tensor:
    """[rows, columns] like weights: a card computes zeros faster than these. Few are drawn, and repeated."""
    some = torch.randn(_DRAWN, generator=torch.Generator().manual_seed(0))
    return some.repeat(-(-rows * columns // _DRAWN))[: rows * columns].view(rows, columns)


def _timed(product: Callable[[], Tensor], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    product()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
