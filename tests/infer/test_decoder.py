"""Rows of one step get what each would get alone: every family, whoever comes and goes beside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from hone.infer.decoder import Batched, Line, Lonely, Seat, decoder_of
from hone.infer.visit import stock_attention
from hone.models.load import quiet
from tests.tiny import FAMILIES, VOCAB

TOKENS = 9
PROMPTS = [[5, 9, 11], [7], list(range(3, 34)), [20, 21, 22, 23, 24, 25, 26, 27], [4, 4]]


def ready(family: str, **numbers: Any) -> PreTrainedModel:
    model = FAMILIES[family].make(**numbers).eval()
    with quiet():
        model.set_attn_implementation(stock_attention(model))
    return model


def written_by_generate(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    with torch.no_grad(), quiet():
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=TOKENS,
            do_sample=False,
            eos_token_id=VOCAB + 7,
            pad_token_id=0,
        )
    return whole[0, len(prompt) :].tolist()


def written_in_turns(
    decoder: Batched | Lonely, prompts: list[list[int]], chunk: int
) -> list[list[int]]:
    """Each conversation enters two steps after the one before, its prompt in parts, and leaves when it is done."""
    waiting = list(range(len(prompts)))
    seats: dict[int, Seat] = {}
    unread: dict[int, list[int]] = {}
    written: dict[int, list[int]] = {i: [] for i in waiting}
    step = 0
    while waiting or seats:
        if waiting and step % 2 == 0:
            i = waiting.pop(0)
            seats[i], unread[i] = Seat(), list(prompts[i])
            decoder.enter(seats[i])
        lines, asking = [], []
        for i, seat in seats.items():
            part, unread[i] = unread[i][:chunk], unread[i][chunk:]
            lines.append(Line(seat, part, wants_next=not unread[i]))
            if not unread[i]:
                asking.append(i)
        if asking:
            logits = decoder.step(lines)
            for row, i in enumerate(asking):
                token = int(logits[row].argmax())
                written[i].append(token)
                unread[i] = [token]
                if len(written[i]) == TOKENS:
                    decoder.leave(seats.pop(i))
        elif lines:
            decoder.step(lines)
        step += 1
    return [written[i] for i in range(len(prompts))]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_writes_what_generate_writes_alone(family: str) -> None:
    model = ready(family)
    want = [written_by_generate(model, prompt) for prompt in PROMPTS]
    decoder = decoder_of(model, batches=True)
    assert isinstance(decoder, Batched)
    assert written_in_turns(decoder, PROMPTS, chunk=64) == want
    assert written_in_turns(decoder, PROMPTS[::-1], chunk=5) == want[::-1]
    assert decoder._slots.held_bytes == 0  # everyone left


def test_rows_that_cannot_stand_together_are_written_one_by_one() -> None:
    model = ready("llama")
    want = [written_by_generate(model, prompt) for prompt in PROMPTS]
    decoder = decoder_of(model, batches=False)
    assert isinstance(decoder, Lonely)
    assert written_in_turns(decoder, PROMPTS, chunk=64) == want
    assert written_in_turns(decoder, PROMPTS, chunk=5) == want


def test_a_family_whose_logits_differ_is_not_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ready("llama")
    original = Batched._forward

    def spoiled(self: Batched, *given: Any) -> torch.Tensor:
        return original(self, *given) * 1.1

    monkeypatch.setattr(Batched, "_forward", spoiled)
    decoder = decoder_of(model, batches=True)
    assert isinstance(decoder, Lonely)
    assert written_in_turns(decoder, PROMPTS[:2], chunk=64) == [
        written_by_generate(model, prompt) for prompt in PROMPTS[:2]
    ]
