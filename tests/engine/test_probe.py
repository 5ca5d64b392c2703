"""The probe on real weights: families that share pass, models that would be silently wrong do not."""

import pytest
import torch

from hone.engine.loss import PackLoss
from hone.engine.probe import probe
from hone.models import attention
from hone.models.head import Head
from tests.tiny import FAMILIES

attention.register()


@pytest.mark.parametrize("name", FAMILIES)
def test_families_that_share_pass(name: str) -> None:
    model = FAMILIES[name].make()
    model.set_attn_implementation(attention.NAME)
    probed = probe(PackLoss(model), attention=attention.NAME, alone="eager", dtype=torch.float32)
    assert probed.passed, probed


def test_a_forgotten_cap_is_found() -> None:
    model = FAMILIES["gemma2"].make()
    model.set_attn_implementation(attention.NAME)
    head = Head.of(model)
    bare = Head(head.trunk, head.projection, None, 1.0, head.vocab_size)
    loss = PackLoss(model, head=bare)
    assert not probe(loss, attention=attention.NAME, alone="eager", dtype=torch.float32).passed


def test_attention_that_ignores_the_pack_is_found() -> None:
    model = FAMILIES["llama"].make()
    loss = PackLoss(model)
    assert not probe(loss, attention="sdpa", alone="eager", dtype=torch.float32).passed
