"""LoftQ: adapters begin with the best low-rank part of what rounding took."""

from __future__ import annotations

import torch

from hone.config.layers import resolve
from hone.models.quantization import quantize_linears
from hone.models.rounding import linear_weights
from hone.models.tuning import Start, tune
from tests.tiny import FAMILIES


def test_the_base_and_its_adapters_are_as_near_to_the_weights_as_a_rank_allows() -> None:
    plain = FAMILIES["llama"].make()
    weights = linear_weights(plain)
    for extra in ([], ["tuning.lora.rslora=true"], ["tuning.quantization.bits=8"]):
        settings = ["tuning.method=qlora", "tuning.lora.init=loftq", "tuning.lora.r=6", *extra]
        config = resolve(overrides=settings).config
        model = FAMILIES["llama"].make()
        quantize_linears(model, config.tuning.quantization)
        tune(model, config, start=Start(), originals=weights)
        for name in ("model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj"):
            layer = model.get_submodule(name)
            lost = weights[name] - layer.base_layer.dense_weight(torch.float32)
            left = lost - layer.get_delta_weight("default")
            values = torch.linalg.svdvals(lost)
            torch.testing.assert_close(left.norm(), values[6:].norm(), rtol=1e-3, atol=1e-6)
            assert left.norm() < lost.norm()


def test_a_rank_beyond_the_layer_leaves_the_rest_at_zero() -> None:
    weights = linear_weights(FAMILIES["llama"].make())
    settings = ["tuning.method=qlora", "tuning.lora.init=loftq", "tuning.lora.r=40"]
    config = resolve(overrides=settings).config
    model = FAMILIES["llama"].make()
    quantize_linears(model, config.tuning.quantization)
    tune(model, config, start=Start(), originals=weights)
    layer = model.get_submodule("model.layers.0.self_attn.q_proj")
    lost = weights["model.layers.0.self_attn.q_proj"] - layer.base_layer.dense_weight(torch.float32)
    torch.testing.assert_close(layer.get_delta_weight("default"), lost, rtol=1e-4, atol=1e-5)
