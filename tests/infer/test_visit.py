"""A model that was asked in the middle of its training is the same model, to the last attribute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig

from hone.infer.visit import stock_attention, visit
from hone.models import attention
from hone.models.compiled import compile_layers, graphs
from tests.tiny import FAMILIES

IDS = torch.arange(3, 20).unsqueeze(0)


def state(model: torch.nn.Module) -> dict[str, Any]:
    """Everything of a module tree that a forward pass could change."""
    kept: dict[str, Any] = {}
    for name, module in model.named_modules():
        kept[f"{name}.training"] = module.training
        for key, buffer in module.named_buffers(recurse=False):
            kept[f"{name}.{key}"] = buffer.tolist()
            kept[f"{name}.{key} itself"] = id(buffer)
        for key, value in vars(module).items():
            if isinstance(value, int | float | str):
                kept[f"{name}.{key}"] = value
    return kept


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3", "gpt2", "mixtral", "gpt-oss"])
def test_a_family_is_asked_with_its_own_attention_and_left_as_it_was(family: str) -> None:
    attention.register()
    model = FAMILIES[family].make()
    model.set_attn_implementation(attention.NAME)
    model.get_submodule(model.base_model_prefix).eval()  # a part that somebody set apart
    before, generation = state(model), model.generation_config
    random = torch.get_rng_state()
    with visit(model):
        assert not model.training
        assert model.config._attn_implementation == stock_attention(model) != attention.NAME
        model.generation_config = GenerationConfig(max_new_tokens=2)
        torch.rand(3)
        with torch.inference_mode():
            model.generate(IDS, max_new_tokens=3, do_sample=False)
    assert state(model) == before
    assert model.generation_config is generation
    assert model.config._attn_implementation == attention.NAME
    assert torch.equal(torch.get_rng_state(), random)


def test_compiled_layers_are_not_compiled_anew_for_a_prompt() -> None:
    attention.register()
    model = FAMILIES["llama"].make()
    torch._dynamo.reset()
    compile_layers(model, backend="eager")
    before = graphs()
    with visit(model), torch.inference_mode():
        model.generate(IDS, max_new_tokens=3, do_sample=False)
    assert graphs() == before
    with torch.no_grad():
        model.set_attn_implementation("sdpa")
        model(IDS)
    assert graphs() > before  # afterwards they are compiled again
    torch._dynamo.reset()
    attention.register()


def test_rotary_scaling_that_remembers_long_rows_forgets_this_one() -> None:
    config = LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, max_position_embeddings=8,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).train()
    short = torch.arange(3, 8).unsqueeze(0)
    model(short)
    before, want = state(model), model(short).logits
    with visit(model), torch.inference_mode():
        model(IDS)
        assert state(model) != before, "this family does remember, or the test shows nothing"
    assert state(model) == before
    loss = model(short).logits
    assert torch.equal(loss, want)
    loss.sum().backward()  # no tensor of the visit is left in the graph


def test_it_is_put_back_when_asking_fails() -> None:
    model = FAMILIES["llama"].make()
    before = state(model)
    with pytest.raises(MemoryError), visit(model):
        raise MemoryError
    assert state(model) == before
