"""From settings and a model's shape to what is trained and how it is held: what memory depends on. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from hone.config.sections import Config
from hone.engine.demand import Subject, Tensor, adapters
from hone.models.kept import Arithmetic
from hone.models.shape import Shape
from hone.recipes.identity import flat

Precision = Literal["fp32", "bf16"]


def subject(config: Config, shape: Shape, precision: Precision) -> Subject:
    """What `config` trains of a model of this shape, in this precision."""
    said = flat(config.model_dump(mode="json"))
    recomputes = recomputed_layers(config, shape) != 0
    if config.tuning.method == "lora":
        return _beside(config, said, shape, precision, recomputes=recomputes)
    how = Arithmetic(precision, trains_all=True, inputs_need_grad=True)
    trained = tuple(Tensor(w.shape, w.part in ("embedding", "head")) for w in shape.weights)
    optimizer = str(said.get("train.optimizer", "adamw"))
    return Subject(shape, how, trained, beside=0, optimizer=optimizer, trains_head=True)


def _beside(
    config: Config,
    said: Mapping[str, Any],
    shape: Shape,
    precision: Precision,
    *,
    recomputes: bool,
) -> Subject:
    lora = config.tuning.lora
    layers = shape.adapted(lora.target_modules)
    trained = adapters(shape, lora.target_modules, lora.r)
    how = Arithmetic(
        precision,
        trains_all=False,
        rank=lora.r,
        dropout=lora.dropout > 0,
        adapted=frozenset(layer.module.rpartition(".")[2] for layer in layers),
        inputs_need_grad=recomputes,
    )
    beside = sum(tensor.count for tensor in trained)
    optimizer = str(said.get("train.optimizer", "adamw"))
    return Subject(shape, how, trained, beside=beside, optimizer=optimizer)


def recomputed_layers(config: Config, shape: Shape) -> int | None:
    """Layers that are computed again in the backward pass; None: as few as memory asks for."""
    said = cast("bool | float | str", config.compute.gradient_checkpointing)
    if said == "auto":
        return None
    if isinstance(said, bool):
        return shape.layers if said else 0
    return round(float(said) * shape.layers)
