"""Quantised layers: the numbers are bitsandbytes' and transformers' own, the products are exact in and out of training."""

from __future__ import annotations

from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from transformers import AutoModelForCausalLM

from hone.config.sections import LoraSection, QuantizationSection
from hone.errors import ConfigError, EnvironmentFault, ModelError
from hone.models import quantization
from hone.models.adapters import attach_lora
from hone.models.fused_lora import FusedLinear
from hone.models.load import load_model
from hone.models.quantization import loading_config, quantize_linears, stored_quantization
from hone.models.quantized import Linear4bit, Linear8bit, quantize, settle
from hone.models.source import read_config
from tests.tiny import FAMILIES

SECTIONS = {
    "nf4": QuantizationSection(),
    "fp4-single": QuantizationSection(quant_type="fp4", double_quant=False),
    "int8": QuantizationSection(bits=8),
}
each_section = pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
IDS = torch.arange(1, 20).unsqueeze(0)


def linear(bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(96, 64, bias=bias)


@each_section
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_and_its_gradient_are_those_of_the_restored_weight(
    section: QuantizationSection, bias: bool
) -> None:
    plain = linear(bias)
    layer = quantize(plain, section)
    dense = layer.dense_weight(torch.float32)
    assert dense.shape == plain.weight.shape
    assert 0 < float((dense - plain.weight.detach()).abs().max()) < 0.05
    x = torch.randn(7, 96, requires_grad=True)
    out = layer(x)
    want = torch.nn.functional.linear(x, dense, plain.bias)
    assert torch.equal(out, want)
    grad = torch.randn_like(out)
    (got,) = torch.autograd.grad(out, x, grad)
    torch.testing.assert_close(got, grad @ dense)


@each_section
def test_a_gradient_flows_after_an_evaluation_as_before(section: QuantizationSection) -> None:
    """bitsandbytes' own 4-bit layer repacks its weights at evaluation on some CPUs, and loses the gradient."""
    layer = quantize(linear(), section)
    x = torch.randn(5, 96, requires_grad=True)
    (before,) = torch.autograd.grad(layer(x).sum(), x)
    layer.eval()
    with torch.no_grad():
        seen = layer(torch.randn(5, 96).detach())
    assert seen.shape == (5, 64)
    layer.train()
    (after,) = torch.autograd.grad(layer(x).sum(), x)
    assert torch.equal(before, after)


@each_section
def test_training_gives_what_bitsandbytes_own_layers_give(section: QuantizationSection) -> None:
    plain = linear()
    ours = quantize(plain, section)
    if section.bits == 4:
        theirs = bnb.nn.Linear4bit(
            96, 64, quant_type=section.quant_type, compress_statistics=section.double_quant,
            compute_dtype=torch.float32,
        )  # fmt: skip
    else:
        theirs = bnb.nn.Linear8bitLt(96, 64, has_fp16_weights=False)
    theirs.load_state_dict(plain.state_dict())
    theirs = theirs.to("cpu").train()
    if section.bits == 8:  # it rounds when it is moved from a CPU only
        theirs.weight = bnb.nn.Int8Params(plain.weight.detach(), requires_grad=False).to("cpu")
    else:
        theirs.weight = bnb.nn.Params4bit(
            plain.weight.detach(), requires_grad=False, quant_type=section.quant_type,
            compress_statistics=section.double_quant, module=theirs,
        ).to("cpu")  # fmt: skip
    x = torch.randn(7, 96, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x))


@each_section
def test_autocast_decides_the_type_of_the_product(section: QuantizationSection) -> None:
    layer = quantize(linear(), section)
    x = torch.randn(3, 96)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer(x).dtype == torch.float32
    assert layer(x.bfloat16()).dtype == torch.bfloat16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    FAMILIES["llama"].make().save_pretrained(path)
    return path


@each_section
def test_a_loaded_base_holds_the_numbers_that_transformers_would_hold(
    folder: Path, section: QuantizationSection
) -> None:
    model = load_model(folder, dtype=torch.float32, quantization=section).model
    kind = Linear4bit if section.bits == 4 else Linear8bit
    layers = {name: m for name, m in model.named_modules() if isinstance(m, kind)}
    assert len(layers) == 14
    assert type(model.get_output_embeddings()) is torch.nn.Linear
    theirs = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=loading_config(section), dtype=torch.float32
    )
    in_memory = load_model(folder, dtype=torch.float32).model
    assert quantize_linears(in_memory, section) == 14
    for name, layer in layers.items():
        assert torch.equal(layer.weight, theirs.get_submodule(name).weight)
        dense = layer.dense_weight(torch.float32)
        assert torch.equal(dense, in_memory.get_submodule(name).dense_weight(torch.float32))
    settle(theirs)
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, theirs(IDS).logits)


@each_section
@pytest.mark.parametrize("dora", [False, True], ids=["plain", "dora"])
def test_adapters_beside_quantised_layers_are_fused_and_equal_the_stock_way(
    folder: Path, section: QuantizationSection, dora: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(FusedLinear, "_plain_adapter", lambda self: None)
        model = load_model(folder, dtype=torch.float32, quantization=section).model
        adapted = attach_lora(model, LoraSection(r=4, alpha=8, dora=dora), seed=1)
        torch.manual_seed(3)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        layer = model.get_submodule("model.layers.0.mlp.up_proj")
        assert isinstance(layer, FusedLinear)
        assert (layer._plain_adapter() is not None) == fused
        logits = model(IDS, use_cache=False).logits
        logits.square().sum().backward()
        grads = {n: p.grad for n, p in adapted.named_parameters() if p.requires_grad}
        assert all(p.dtype == torch.float32 for p in adapted.parameters() if p.requires_grad)
        outputs.append((logits.detach(), grads))
    (got, got_grads), (want, want_grads) = outputs
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    for key, grad in want_grads.items():
        scale = float(grad.abs().max())
        torch.testing.assert_close(got_grads[key] / scale, grad / scale, rtol=1e-4, atol=1e-4)


def test_gpt2_whose_weights_are_transposed_is_quantised_too(tmp_path: Path) -> None:
    FAMILIES["gpt2"].make().save_pretrained(tmp_path)
    plain = load_model(tmp_path, dtype=torch.float32).model
    model = load_model(
        tmp_path, dtype=torch.float32, quantization=QuantizationSection(bits=8)
    ).model
    layer = model.get_submodule("transformer.h.0.attn.c_attn")
    want = plain.get_submodule("transformer.h.0.attn.c_attn").weight.T
    torch.testing.assert_close(layer.dense_weight(torch.float32), want, atol=0.02, rtol=0.1)
    attach_lora(model, LoraSection(r=2), seed=0)
    assert model(IDS).logits.isfinite().all()


@each_section
def test_a_base_that_is_quantised_on_disk_says_how(
    folder: Path, section: QuantizationSection, tmp_path: Path
) -> None:
    quantised = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=loading_config(section)
    )
    quantised.save_pretrained(tmp_path)
    stored = stored_quantization(read_config(tmp_path))
    assert stored == section
    loaded = load_model(tmp_path, dtype=torch.float32).model
    fresh = load_model(folder, dtype=torch.float32, quantization=section).model
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, fresh(IDS).logits)


def test_other_kinds_of_quantisation_are_refused_by_name() -> None:
    assert stored_quantization({}) is None
    with pytest.raises(ModelError, match="gptq"):
        stored_quantization({"quantization_config": {"quant_method": "gptq", "bits": 4}})


def test_a_stored_quantisation_cannot_be_asked_for_otherwise() -> None:
    quantization.agree(QuantizationSection(bits=8), QuantizationSection(bits=8))
    with pytest.raises(ConfigError, match="bits=8"):
        quantization.agree(QuantizationSection(bits=8), QuantizationSection())
    with pytest.raises(ConfigError, match="quant_type=fp4"):
        quantization.agree(QuantizationSection(quant_type="fp4"), QuantizationSection())


def test_a_machine_without_bitsandbytes_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match="bitsandbytes") as caught:
        quantization.require_bitsandbytes()
    assert "hone[quantize]" in (caught.value.remedy or "")
