"""The expected time of a layout, and what it decides."""

import pytest
import torch

from hone.data.layout import branch, lay_out
from hone.engine.cost import Speeds, Weight, cheapest, pair_seconds
from hone.engine.loss import PackLoss
from hone.engine.rehearsal import made_up_pack, measure_speeds, rehearse
from hone.models import attention
from tests.tiny import FAMILIES, rows_with_shared_beginnings

attention.register()


def test_speed_is_interpolated_between_sizes_and_flat_beyond() -> None:
    speeds = Speeds({512: 4e-6, 2048: 2e-6})
    assert speeds.seconds([Weight(100, 0)]) == pytest.approx(400e-6)
    assert speeds.seconds([Weight(1024, 0)]) == pytest.approx(1024 * 3e-6)
    assert speeds.seconds([Weight(4096, 0)]) == pytest.approx(4096 * 2e-6)


def test_packs_and_pairs_add_up() -> None:
    speeds = Speeds({512: 1e-6}, pair=1e-9)
    assert speeds.seconds([Weight(10, 100), Weight(20, 50)]) == pytest.approx(30e-6 + 150e-9)


def test_a_pair_costs_what_longer_rows_take_more() -> None:
    assert pair_seconds((Weight(8, 10), 1.0), (Weight(8, 30), 2.0)) == pytest.approx(0.05)
    assert pair_seconds((Weight(8, 10), 2.0), (Weight(8, 30), 1.0)) == 0.0  # noise
    assert pair_seconds((Weight(8, 10), 1.0), (Weight(8, 10), 2.0)) == 0.0


def test_pairs_of_a_pack_are_those_that_it_shows() -> None:
    rows = rows_with_shared_beginnings(3)
    made = [branch(i, row.input_ids, row.weight) for i, row in enumerate(rows)]
    for pack in lay_out([b for b in made if b], budget=90, share_prefixes=True, pack=True):
        seen = sum(int((pack.visible_until[: i + 1] > i).sum()) for i in range(pack.num_tokens))
        assert pack.visible_pairs == seen


@pytest.mark.parametrize("predictions", [None, 1, 7, 100])
def test_made_up_packs_are_packs(predictions: int | None) -> None:
    pack = made_up_pack([40, 3, 20], vocab_size=61, predictions=predictions)
    pack.check()
    assert pack.num_tokens == 63
    assert pack.predict.shape[0] == min(predictions or 63, 63)
    assert pack.visible_pairs == 40 * 41 // 2 + 3 * 4 // 2 + 20 * 21 // 2


def loss_of(name: str) -> PackLoss:
    model = FAMILIES[name].make()
    model.set_attn_implementation(attention.NAME)
    return PackLoss(model)


def test_speeds_are_measured_for_each_size_and_for_pairs() -> None:
    torch.set_num_threads(1)
    speeds = measure_speeds(loss_of("llama"), [64, 256], longest=256, share=0.2)
    assert set(speeds.token) == {64, 256}
    assert all(seconds >= 0 for seconds in speeds.token.values())


def test_a_budget_is_judged_by_the_packs_it_makes_and_not_by_its_size() -> None:
    """Rows of 6,800 tokens stand alone at 512 and at 1,024; only at 32,768 do they share."""
    speeds = Speeds({512: 1.0e-4, 1024: 0.9e-4, 8192: 1.1e-4}, pair=1e-7)
    alone = [Weight(6800, 23_000_000)] * 8
    shared = [Weight(31_000, 170_000_000)]
    layouts = {512: alone, 1024: alone, 32768: shared}
    assert cheapest(layouts, speeds, layouts.__getitem__) == 32768
    assert cheapest([1024, 512], speeds, layouts.__getitem__) == 512  # equal: the smaller
    near = {512: [Weight(1000, 0)], 1024: [Weight(995, 0)]}
    assert cheapest(near, Speeds({512: 1e-4}), near.__getitem__) == 512  # within noise


def test_budgets_beyond_the_largest_step_are_not_tried() -> None:
    chosen = rehearse(
        loss_of("llama"), longest=200, wanted=None, state_bytes=0, trained_share=0.2,
        layout=lambda _: [Weight(500, 4000)],
    )  # fmt: skip
    assert chosen.micro_batch_tokens == 512
    assert set(chosen.speeds.token) == {512}


def test_the_wanted_budget_is_only_checked() -> None:
    chosen = rehearse(
        loss_of("llama"), longest=30, wanted=77, state_bytes=0, trained_share=1.0,
        layout=lambda _: [],
    )  # fmt: skip
    assert (chosen.micro_batch_tokens, chosen.reason) == (77, "as set")
