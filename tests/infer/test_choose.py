"""What lies between logits and a token: each setting alone, and draws that depend on the row's own seed only."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from hone.infer.choose import Chooser, choose
from hone.infer.completer import Wanted

LOGITS = torch.tensor([1.0, 3.0, 2.9, -1.0, 0.0])


def one(
    wanted: Wanted, written: dict[int, int] | None = None, logits: torch.Tensor = LOGITS
) -> Any:
    row = Chooser(wanted, None, logits.shape[0], Counter(written or {}))
    return choose(logits.clone()[None], [row])[0]


def test_greedy_takes_the_likeliest_and_penalties_and_biases_move_it() -> None:
    assert one(Wanted()).token_id == 1
    assert one(Wanted(presence_penalty=0.2), {1: 1}).token_id == 2
    assert one(Wanted(frequency_penalty=0.06), {1: 1}).token_id == 1
    assert one(Wanted(frequency_penalty=0.06), {1: 2}).token_id == 2
    assert one(Wanted(presence_penalty=-1.9), {0: 1}).token_id == 1
    assert one(Wanted(frequency_penalty=-1.9), {0: 2}).token_id == 0
    assert one(Wanted(logit_bias={4: 50.0})).token_id == 4
    assert one(Wanted(logit_bias={1: -100.0})).token_id == 2


def test_probabilities_are_the_models_own_whatever_is_chosen() -> None:
    told = one(Wanted(top_logprobs=2, logit_bias={4: 50.0}))
    want = torch.log_softmax(LOGITS, dim=-1)
    assert told.token_id == 4
    assert told.logprob == pytest.approx(float(want[4]))
    assert [i for i, _ in told.top] == [1, 2]
    assert told.top[0][1] == pytest.approx(float(want[1]))
    assert one(Wanted()).top == ()


def test_logits_of_other_models_tokens_are_not_there() -> None:
    row = Chooser(Wanted(top_logprobs=5), None, 1)
    told = choose(LOGITS.clone()[None], [row])[0]
    assert told.token_id == 0
    assert told.logprob == pytest.approx(0.0)
    assert told.top[1][1] == -math.inf


@pytest.mark.parametrize("top_p", [1.0, 0.8, 0.3])
def test_draws_follow_the_probabilities_within_top_p(top_p: float) -> None:
    chances = torch.softmax(LOGITS / 1.5, dim=-1)
    ordered, ids = chances.sort(descending=True)
    kept = ids[(ordered.cumsum(-1) - ordered) < top_p].tolist()
    total = float(chances[kept].sum())
    row = Chooser(Wanted(temperature=1.5, top_p=top_p, seed=4), None, 5)
    draws = Counter(choose(LOGITS.clone()[None], [row])[0].token_id for _ in range(2000))
    assert set(draws) <= set(kept)
    for token in kept:
        assert draws[token] / 2000 == pytest.approx(float(chances[token]) / total, abs=0.045)


def test_a_seed_draws_the_same_whoever_is_beside_it() -> None:
    torch.manual_seed(0)
    steps = torch.randn(20, 3, 11)

    def drawn(places: list[int]) -> list[int]:
        rows = [Chooser(Wanted(temperature=1.0, seed=7 + place), None, 11) for place in places]
        return [choose(step[places].clone(), rows)[places.index(1)].token_id for step in steps]

    assert drawn([1]) == drawn([0, 1, 2])
    assert len(set(drawn([1]))) > 1
