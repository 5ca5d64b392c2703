"""Adapters: which layers get one, how they begin, and that the fused product equals the stock one."""

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file

from hone.config.sections import LoraSection
from hone.errors import ConfigError
from hone.models.adapters import attach_lora, beginning_of, digest, plain_state, state_of
from hone.models.fused_lora import FusedLinear
from tests.tiny import FAMILIES


def _wake(model: torch.nn.Module) -> None:
    """Give B values: at its zero start half of the gradient is zero."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
        if "magnitude" in name:
            parameter.data.mul_(1 + 0.3 * torch.rand_like(parameter))


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "phi3", "gpt-neox"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dora", [False, True], ids=["plain", "dora"])
def test_fused_layers_equal_the_stock_ones(
    name: str, dtype: torch.dtype, dora: bool, monkeypatch
) -> None:
    ids = torch.arange(1, 20).unsqueeze(0)
    outputs = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(FusedLinear, "_plain_adapter", lambda self: None)
        model = FAMILIES[name].make(dtype=dtype)
        adapted = attach_lora(model, LoraSection(r=4, alpha=8, dora=dora), seed=1)
        _wake(adapted)
        adapted.to(dtype)
        count = sum(isinstance(m, FusedLinear) for m in adapted.modules())
        assert count > 0
        assert (
            any(m._plain_adapter() for m in adapted.modules() if isinstance(m, FusedLinear))
            == fused
        )
        logits = model(input_ids=ids, use_cache=False).logits
        logits.square().sum().backward()
        grads = {n: p.grad for n, p in adapted.named_parameters() if p.requires_grad}
        outputs.append((logits.detach(), grads))
    (got, got_grads), (want, want_grads) = outputs
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}
    torch.testing.assert_close(got, want, **tolerance)
    for key, grad in want_grads.items():
        scale = float(grad.abs().max())
        torch.testing.assert_close(got_grads[key] / scale, grad / scale, **tolerance)


def test_the_seed_names_the_weights() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        adapted = attach_lora(FAMILIES["llama"].make(), LoraSection(), seed=seed)
        return [p.detach() for n, p in adapted.named_parameters() if "lora_A" in n]

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_gpt2_needs_no_setting() -> None:
    adapted = attach_lora(FAMILIES["gpt2"].make(), LoraSection(), seed=0)
    names = {
        n.split(".lora_A")[0].rsplit(".", 1)[-1]
        for n, _ in adapted.named_parameters()
        if "lora_A" in n
    }
    assert {"c_attn", "c_proj", "c_fc"} <= names


def test_a_pattern_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="q_proj"):
        attach_lora(FAMILIES["llama"].make(), LoraSection(target_modules=["q_projj"]), seed=0)


def attached(name: str = "llama", seed: int = 0, **settings: object):
    model = FAMILIES[name].make()
    section = LoraSection.model_validate(settings)
    return model, attach_lora(model, section, seed=seed), section


def adapters(model: torch.nn.Module) -> set[str]:
    return {n.split(".lora_A")[0] for n, _ in model.named_parameters() if "lora_A" in n}


def test_rank_stabilised_adapters_are_scaled_by_the_root() -> None:
    for rslora, scale in ((False, 2.0), (True, 4.0)):
        model, _, _ = attached(r=4, alpha=8, rslora=rslora)
        layer = model.get_submodule("model.layers.0.mlp.up_proj")
        assert layer.scaling == {"default": scale}


def test_layers_are_chosen_by_index_from_either_end() -> None:
    model, _, _ = attached("gemma3", layers=[0, -1], target_modules=["q_proj"])
    assert adapters(model) == {f"model.layers.{i}.self_attn.q_proj" for i in (0, 2)}
    model, _, _ = attached("gpt2", layers=[1])
    names = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert adapters(model) == {f"transformer.h.1.{name}" for name in names}


@pytest.mark.parametrize(
    ("settings", "what", "remedy"),
    [
        ({"layers": [2]}, "names layer 2; the model has 2 layers", "0 to 1, or -2 to -1"),
        ({"layers": [0], "target_modules": ".*q_proj"}, "goes with a list", "say the layers in it"),
        ({"modules_to_save": ["lm_hed"]}, "names no module: 'lm_hed'", "did you mean 'lm_head'"),
        ({"init": "pissa", "r": 33, "target_modules": ["q_proj"]}, "has only 32", "to 32 or less"),
        ({"init": "orthogonal", "r": 3}, "even", "tuning.lora.init"),
        ({"target_modules": ["lm_head"], "dropout": 0.1}, "of the output head", "dropout=0"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(settings: dict, what: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        attached(**settings)
    assert remedy in (caught.value.remedy or "")


@pytest.mark.parametrize("settings", [{"dora": True}, {"init": "pissa"}, {"dropout": 0.1}])
def test_experts_in_one_tensor_take_plain_adapters_only(settings: dict) -> None:
    with pytest.raises(ConfigError, match="experts of this model are one tensor") as caught:
        attached("qwen3-moe", **settings)
    remedy = caught.value.remedy or ""
    names = remedy.partition("[")[2].partition("]")[0].split(", ")
    model, _, _ = attached("qwen3-moe", target_modules=names, **settings)
    assert adapters(model)


def test_olora_does_not_know_transposed_layers() -> None:
    with pytest.raises(ConfigError, match="transposed"):
        attached("gpt2", init="olora")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (name, settings)
        for name in ("llama", "gpt2")
        for settings in (
            {},
            {"init": "gaussian"},
            {"init": "orthogonal"},
            {"init": "pissa"},
            {"init": "pissa", "pissa_niter": 4},
            {"init": "pissa", "rslora": True, "dora": True},
            {"init": "olora"},
            {"dora": True, "modules_to_save": ["head"]},
        )
        if (name, settings) != ("gpt2", {"init": "olora"})  # refused, see below
    ],
)
def test_a_saved_adapter_fits_the_base_as_it_was(name: str, settings: dict, tmp_path) -> None:
    """Every beginning leaves the model as it was; trained on, it is what plain PEFT loads on the original base."""
    ids = torch.arange(1, 20).unsqueeze(0)
    base = FAMILIES[name].make()
    with torch.no_grad():
        before = base(ids).logits
    model, adapted, section = attached(name, r=4, alpha=6, **settings)
    start = beginning_of(adapted, section)
    assert bool(start) == (settings.get("init") in ("pissa", "olora"))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-4)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
        trained = model(ids).logits
    assert (trained - before).abs().max() > 0.01
    config, state = plain_state(adapted, start)
    save_file(
        {key: tensor.clone().contiguous() for key, tensor in state.items()},
        tmp_path / "adapter_model.safetensors",
    )
    config.save_pretrained(str(tmp_path))
    with torch.no_grad():
        again = PeftModel.from_pretrained(base, str(tmp_path))(ids).logits
    torch.testing.assert_close(again, trained, rtol=1e-4, atol=1e-4)


def test_a_decomposition_comes_out_the_same_again() -> None:
    for settings in ({"init": "pissa"}, {"init": "pissa", "pissa_niter": 2}, {"init": "olora"}):
        made = [attached(r=4, seed=5, **settings) for _ in range(2)]
        (first, one, section), (second, two, _) = made
        assert digest(beginning_of(one, section)) == digest(beginning_of(two, section))
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(a, b)
    other = attached(r=4, seed=6, init="pissa", pissa_niter=2)
    assert digest(beginning_of(other[1], other[2])) != digest(
        beginning_of(*attached(r=4, seed=5, init="pissa", pissa_niter=2)[1:])
    )


@pytest.mark.parametrize("names", [["embeddings"], ["head"], ["embeddings", "head"]])
@pytest.mark.parametrize("family", ["llama-tied", "gpt2"])
def test_one_tensor_stays_one_where_it_trains_whole(family: str, names: list[str]) -> None:
    model, adapted, _ = attached(family, modules_to_save=names)
    whole = [n for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n]
    assert len(whole) == 1
    embeddings = model.get_input_embeddings().modules_to_save["default"].weight
    assert model.get_output_embeddings().modules_to_save["default"].weight is embeddings
    saved = [name for name in state_of(adapted) if "lora_" not in name]
    assert len(saved) == 2  # a loader gets both
