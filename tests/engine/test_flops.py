"""Model FLOPs against torch's own counter of what ran, and by hand; utilisation of a machine that is kept busy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hone.data.layout import branch, lay_out
from hone.engine.flops import Gauge, model_flops, product_flops
from hone.engine.loss import PackLoss
from hone.engine.rehearsal import made_up_pack
from hone.pack import Pack
from tests.tiny import FAMILIES, VOCAB, rows_with_shared_beginnings


class Counting(TorchDispatchMode):
    """Adds up what torch's own formulas say of each operation that runs."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def loss_of(family: str, **more: object) -> PackLoss:
    return PackLoss(FAMILIES[family].make(**more), shared=False)


@pytest.mark.parametrize(
    "family", ["llama", "llama-tied", "qwen3", "gpt2", "phi3", "gpt-neox", "olmo2"]
)
def test_what_torch_counts_is_what_the_formula_says(family: str) -> None:
    """All weights trained, eager attention: it multiplies all T x T pairs, so those are put in for the visible ones."""
    loss = loss_of(family)
    tokens, predictions = 24, 9
    pack = made_up_pack([tokens], vocab_size=VOCAB, predictions=predictions)
    with Counting() as counting:
        loss(pack, 1.0).backward()
    flops = model_flops(loss)
    ((window, a_pair),) = flops.pairs
    assert window is None
    every_pair = tokens * tokens - pack.visible_pairs
    assert counting.flops == flops.of([pack]) + a_pair * every_pair
    assert pack.visible_pairs == tokens * (tokens + 1) // 2


def test_frozen_weights_cost_four_and_trained_ones_six() -> None:
    model = FAMILIES["llama"].make()
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    get_peft_model(model, config)
    flops = model_flops(PackLoss(model, shared=False))
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32  # q, k and v of two heads, o
    mlp = 3 * 32 * 48
    adapters = 4 * (32 + 32) + 4 * (48 + 32)
    assert flops.token == 2 * (4 * (attention + mlp) + 6 * adapters)
    assert flops.prediction == 4 * 32 * VOCAB


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_weight_counts_as_what_it_stands_for(bits: int) -> None:
    pytest.importorskip("bitsandbytes")
    from hone.config.sections import QuantizationSection
    from hone.models.quantization import quantize_linears

    plain = FAMILIES["llama"].make(hidden_size=64, intermediate_size=128).requires_grad_(False)
    want = model_flops(PackLoss(plain, shared=False))
    model = FAMILIES["llama"].make(hidden_size=64, intermediate_size=128).requires_grad_(False)
    quantize_linears(model, QuantizationSection(bits=bits))
    assert model_flops(PackLoss(model, shared=False)) == want


def test_of_experts_a_token_pays_its_share() -> None:
    flops = model_flops(loss_of("mixtral"))
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32
    router, experts = 32 * 4, 4 * 3 * 32 * 48
    assert flops.token == 2 * 6 * (attention + router + experts / 2)


def test_windows_and_shared_beginnings_count_what_is_seen() -> None:
    rows = rows_with_shared_beginnings(3, rows=6)
    cuts = [cut for i, row in enumerate(rows) if (cut := branch(i, row.input_ids, row.weight))]
    (shared,) = lay_out(cuts, budget=10_000, share_prefixes=True, pack=True)
    plain = model_flops(loss_of("llama"))
    ((_, a_pair),) = plain.pairs
    linear = shared.num_tokens * plain.token + len(shared.predict) * plain.prediction
    assert plain.of([shared]) == pytest.approx(linear + a_pair * shared.visible_pairs)
    windowed = model_flops(loss_of("gemma2"))
    assert sorted(str(window) for window, _ in windowed.pairs) == ["6", "None"]
    seen = sum(_seen(shared, i, window=6) for i in range(shared.num_tokens))
    whole = sum(a_pair for window, a_pair in windowed.pairs if window is None)
    narrow = sum(a_pair for window, a_pair in windowed.pairs if window == 6)
    rest = shared.num_tokens * windowed.token + len(shared.predict) * windowed.prediction
    assert windowed.of([shared]) == pytest.approx(
        rest + whole * shared.visible_pairs + narrow * seen
    )


def _seen(pack: Pack, i: int, *, window: int) -> int:
    """Tokens that token i sees, by the rule of the Pack."""
    j = np.arange(i + 1)
    near = pack.position_ids[i] - pack.position_ids[: i + 1] < window
    return int(((i < pack.visible_until[: i + 1]) & near & (j <= i)).sum())


def test_a_family_without_attention_has_no_pairs() -> None:
    from transformers import AutoModelForCausalLM, MambaConfig

    config = MambaConfig(vocab_size=VOCAB, hidden_size=32, state_size=4, num_hidden_layers=2)
    assert model_flops(PackLoss(AutoModelForCausalLM.from_config(config), shared=False)).pairs == ()


def test_products_are_timed_and_nothing_is_drawn_from_torchs_generator() -> None:
    loss = loss_of("llama", hidden_size=256, intermediate_size=512)
    before = torch.get_rng_state()
    rate = product_flops(loss, 512)
    assert torch.equal(torch.get_rng_state(), before)
    assert 1e8 < rate < 1e15
    # A machine that did nothing but the model's own FLOPs at that rate would be used wholly.
    pack = made_up_pack([64, 32], vocab_size=VOCAB)
    gauge = Gauge(model_flops(loss), rate)
    seconds = gauge.flops.of([pack]) / rate
    assert gauge.utilisation([pack], seconds) == pytest.approx(1.0)
    assert gauge.utilisation([pack], 2 * seconds) == pytest.approx(0.5)


def test_a_timed_product_is_no_faster_than_a_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate stands for what the machine can do: a product of the same shape, run by hand, comes near it."""
    loss = loss_of("llama", hidden_size=256, intermediate_size=1024)
    rate = product_flops(loss, 2048)
    x, weight = torch.randn(2048, 256), torch.randn(1024, 256)
    import time

    best = min(_timed(lambda: x @ weight.T, time.perf_counter) for _ in range(8))
    by_hand = 2 * 2048 * 256 * 1024 / best
    assert 0.2 < rate / by_hand < 5, (rate, by_hand)


def _timed(work, clock) -> float:
    start = clock()
    work()
    return clock() - start


def test_where_memory_is_short_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object) -> tuple[int, float]:
        raise torch.OutOfMemoryError("out of memory (on purpose)")

    monkeypatch.setattr("hone.engine.flops._best_seconds", short)
    assert product_flops(loss_of("llama"), 64) == 0.0
