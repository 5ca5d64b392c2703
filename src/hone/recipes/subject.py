"""From settings and a model's shape to what is trained and how it is held: what memory depends on. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from hone.config.sections import Config, FreezeSection, QuantizationSection
from hone.engine.demand import QUANTIZED, Subject, Tensor
from hone.engine.moments import Place
from hone.models.kept import Arithmetic
from hone.models.shape import Shape, Weight, read_weights_of

Precision = Literal["fp32", "bf16"]

_WIDTH: Final = {"fp32": 4.0, "bf16": 2.0}
_STORED: Final = {"F32": "fp32", "BF16": "bf16"}
_ADAPTER_FILE: Final = "adapter_model.safetensors"


def subject(
    config: Config,
    shape: Shape,
    precision: Precision,
    *,
    adapter: Path | None = None,
    on_card: bool = False,
) -> Subject:
    """What `config` trains of a model of this shape, in this precision. `adapter` is the folder of one that is
    trained further."""
    if config.tuning.method == "full":
        found = _weights(config, shape, precision, shape.weights, whole=True)
    elif config.tuning.method == "freeze":
        chosen = _unfrozen(config.tuning.freeze, shape)
        found = _weights(config, shape, precision, chosen, whole=False)
    else:
        return replace(_beside(config, shape, precision, adapter), on_card=on_card)
    return replace(found, on_card=on_card, is_split=_splits(config, precision, on_card=on_card))


def _splits(config: Config, precision: Precision, *, on_card: bool) -> bool:
    """Whether float32 masters are halved, as `compute.split_weights` says."""
    said = config.compute.split_weights
    wanted = on_card if said == "auto" else bool(said)
    return wanted and precision == "bf16" and config.train.optimizer == "adamw"


def recomputed_layers(config: Config, shape: Shape) -> int | None:
    """Layers that are computed again in the backward pass; None: as few as memory asks for."""
    said = config.compute.gradient_checkpointing
    if said == "auto":
        return shape.layers if config.compute.offload_activations else None
    return math.ceil(float(said) * shape.layers)


def _weights(
    config: Config,
    shape: Shape,
    precision: Precision,
    chosen: Sequence[Weight],
    *,
    whole: bool,
) -> Subject:
    """The model's own weights train: all, or those chosen."""
    names = {weight.name for weight in chosen}
    others = "fp32" if whole or _STORED.get(shape.stored) != precision else precision
    width = _WIDTH[others]
    held = sum(w.count * (4.0 if w.name in names else width) for w in shape.weights)
    trained = tuple(Tensor(weight.shape, _place(weight, shape)) for weight in chosen)
    parts = {weight.part for weight in chosen}
    head = "head" in parts or (shape.tied and "embedding" in parts)
    return Subject(
        shape=shape,
        how=Arithmetic(
            precision,
            trains_all=True,
            held=4 if others == "fp32" else 2,
            inputs_need_grad=whole or "embedding" in parts,
        ),
        weight_bytes=held,
        held_in="fp32" if others == "fp32" else f"{others}, trained ones fp32",
        trained=trained,
        beside=0,
        optimizer=config.train.optimizer,
        layers=shape.layers if "embedding" in parts else _reached(shape, chosen),
        trains_head=head,
    )


def _beside(config: Config, shape: Shape, precision: Precision, adapter: Path | None) -> Subject:
    """Adapters train, beside a base that is frozen and may be quantised."""
    lora, quantization = config.tuning.lora, config.tuning.quantization
    layers = [w for w in shape.adapted(lora.target_modules) if _in_layers(w, lora.layers, shape)]
    whole = list(_named(shape, lora.modules_to_save))
    experts = shape.experts_apart and lora.target_modules == "all-linear"
    if adapter is None:
        trained = [tensor for layer in layers for tensor in _adapter(layer, lora.r, dora=lora.dora)]
        trained += _expert_adapters(shape, lora.r) if experts else []
        trained += [Tensor(weight.shape, _place(weight, shape)) for weight in whole]
        trained += _new_rows(shape, len(config.model.additions))
    else:
        found = read_weights_of(adapter / _ADAPTER_FILE)
        trained = [Tensor(weight.shape) for weight in found]
        layers = [w for w in layers if any(w.module in weight.name for weight in found)] or layers
    quantized = _quantized(quantization) if config.tuning.method == "qlora" else None
    linear = [weight for weight in shape.weights if weight.is_linear]
    held = shape.parameters * _WIDTH[precision]
    if quantized is not None:
        count = sum(weight.count for weight in linear)
        held += count * (QUANTIZED[quantized] - _WIDTH[precision])
    parts = {weight.part for weight in whole}
    starts = "embedding" in parts or bool(config.model.additions)
    return Subject(
        shape=shape,
        how=Arithmetic(
            precision,
            trains_all=False,
            held=int(_WIDTH[precision]),
            rank=lora.r,
            dropout=lora.dropout > 0,
            dora=lora.dora,
            adapted=frozenset(layer.module.rpartition(".")[2] for layer in layers),
            experts_adapted=experts,
            inputs_need_grad=starts,
        ),
        weight_bytes=held,
        held_in=precision if quantized is None else quantized,
        trained=tuple(trained),
        beside=sum(tensor.numbers for tensor in trained),
        optimizer=config.train.optimizer,
        layers=shape.layers if starts else _reached(shape, layers),
        trains_head="head" in parts or (shape.tied and starts),
        restored_bytes=0.0 if quantized is None else _restored(linear, precision),
    )


def _adapter(layer: Weight, rank: int, *, dora: bool) -> list[Tensor]:
    """The matrices A [r, in] and B [out, r] of a low-rank adapter (Hu et al., 2021), and DoRA's magnitudes."""
    rows, columns = layer.shape
    found = [Tensor((rank, columns)), Tensor((rows, rank))]
    return [*found, Tensor((rows,))] if dora else found


def _expert_adapters(shape: Shape, rank: int) -> list[Tensor]:
    """As PEFT puts them beside stacked experts: gate and up in one, of twice the rank."""
    found: list[Tensor] = []
    for _ in range(shape.layers):
        up, down = 2 * rank * shape.experts, rank * shape.experts
        found += [Tensor((up, shape.hidden)), Tensor((2 * shape.intermediate, up))]
        found += [Tensor((down, shape.intermediate)), Tensor((shape.hidden, down))]
    return found


def _new_rows(shape: Shape, count: int) -> list[Tensor]:
    """Rows of the embedding, and of the head where it is another matrix, that new tokens train."""
    if not count:
        return []
    rows = Tensor((count, shape.hidden), "embedding")
    return [rows] if shape.tied else [rows, rows]


def _restored(linear: Iterable[Weight], precision: Precision) -> float:
    return max((weight.count for weight in linear), default=0) * _WIDTH[precision]


def _quantized(section: QuantizationSection) -> str:
    if section.bits == 8:
        return "int8"
    return f"{section.quant_type}-double" if section.double_quant else section.quant_type


def _place(weight: Weight, shape: Shape) -> Place:
    if weight.part == "embedding":
        return "embedding"
    return "head" if weight.part == "head" and not shape.tied else "inside"


def _in_layers(weight: Weight, layers: Sequence[int] | None, shape: Shape) -> bool:
    if layers is None:
        return True
    return weight.layer is not None and weight.layer in {i % shape.layers for i in layers}


def _named(shape: Shape, names: Iterable[str]) -> list[Weight]:
    """The weights of the modules that are named: `embeddings`, `head`, whole names or their ends."""
    found: dict[str, Weight] = {}
    for name in names:
        for weight in shape.weights:
            module = weight.name.rpartition(".")[0]
            is_part = name == "embeddings" and weight.part == "embedding"
            is_part = is_part or (
                name == "head" and weight.part == ("embedding" if shape.tied else "head")
            )
            if is_part or module == name or module.endswith(f".{name}"):
                found[weight.name] = weight
    return list(found.values())


def _unfrozen(section: FreezeSection, shape: Shape) -> list[Weight]:
    """The weights that a `freeze` run trains."""
    count = section.trainable_layers
    first = shape.layers - count if count > 0 else 0
    chosen = range(first, shape.layers if count > 0 else -count)
    wanted = section.trainable_modules
    inside: list[Weight] = []
    for weight in shape.weights:
        if weight.layer is None or weight.layer not in chosen:
            continue
        if wanted == "all" or _matches(weight, wanted):
            inside.append(weight)
    return list({w.name: w for w in (*inside, *_named(shape, section.extra_modules))}.values())


def _matches(weight: Weight, wanted: str | Sequence[str]) -> bool:
    """Whether a weight lies in a module that an expression describes wholly, or that a list names."""
    parts = weight.name.split(".")
    modules = [".".join(parts[:end]) for end in range(1, len(parts))]
    if isinstance(wanted, str):
        return any(re.fullmatch(wanted, module) for module in modules)
    return any(module == n or module.endswith(f".{n}") for n in wanted for module in modules)


def _reached(shape: Shape, chosen: Iterable[Weight]) -> int:
    """Layers from the first one that trains to the last; none where only what stands behind them trains."""
    first = min((w.layer for w in chosen if w.layer is not None), default=shape.layers)
    return shape.layers - first
