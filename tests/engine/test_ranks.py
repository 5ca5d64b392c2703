"""Several ranks compute what one process computes, whatever happens to one of them on the way.

A thin cut through the matrix of `tests/prove/test_ranks.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.served import (
    STRATEGIES,
    Server,
    check_adamw,
    check_killed,
    check_other_ranks,
    check_out_of_memory,
    check_out_of_memory_in_parts,
    check_sgd,
)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_20_sgd_steps_end_in_the_plain_run_s_weights(
    server: Server, tmp_path: Path, strategy: str
) -> None:
    check_sgd(server, tmp_path / "run", strategy, 2, share=strategy != "ddp")


@pytest.mark.fault(9)
def test_out_of_memory_on_one_rank_changes_nothing(server: Server, tmp_path: Path) -> None:
    check_out_of_memory(server, tmp_path / "run", 2, share=True)


def test_out_of_memory_where_all_wait_means_a_new_start_with_less(
    server: Server, tmp_path: Path
) -> None:
    check_out_of_memory_in_parts(server, tmp_path / "run", "fsdp", 2, share=True)


@pytest.mark.parametrize(
    ("strategy", "method"),
    [("ddp", "lora"), ("fsdp", "full"), ("zero2", "full"), ("zero3", "lora")],
)
def test_under_adamw_each_gradient_and_loss_agree(
    server: Server, tmp_path: Path, strategy: str, method: str
) -> None:
    check_adamw(server, tmp_path / "run", strategy, 2, method, share=True, steps=4)


@pytest.mark.parametrize(("strategy", "who"), [("ddp", 1), ("fsdp", -1), ("zero2", -1)])
def test_killed_and_resumed_ends_with_the_same_bits(
    server: Server, tmp_path: Path, strategy: str, who: int
) -> None:
    check_killed(server, tmp_path, strategy, who)


@pytest.mark.fault(32)
def test_a_state_is_read_by_any_number_of_ranks(server: Server, tmp_path: Path) -> None:
    check_other_ranks(server, tmp_path, ("fsdp", 3), ("ddp", 2))


def test_a_request_to_stop_that_reaches_one_rank_stops_all_after_the_same_step(
    server: Server, tmp_path: Path
) -> None:
    ran = server.run(tmp_path / "run", world=3, steps=9, stop=[2, 0], held_out=True)
    assert set(ran.codes.values()) == {130}
    assert [ran.seen(rank)["error"] for rank in range(3)] == ["Interrupted"] * 3


@pytest.mark.fault(6)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero2"])
def test_a_loss_that_is_no_number_stops_all_and_names_row_and_rank(
    server: Server, tmp_path: Path, strategy: str
) -> None:
    ran = server.run(tmp_path / "run", strategy=strategy, world=2, steps=9, bad=[3, 2])
    assert set(ran.codes.values()) == {1}
    for rank in range(2):
        told = ran.seen(rank)
        assert told["error"] == "NonFiniteError"
        assert "step 2" in told["what"]
        assert told["where"].startswith("rows.jsonl:12 (rank ")
    report = json.loads((ran.folder / "nonfinite-step-00000002.json").read_text())
    bad = [pack for pack in report["packs"] if pack["loss"] == "nan"]
    assert [pack["rank"] for pack in bad] == [int(told["where"][-2])]
    assert {pack["rank"] for pack in report["packs"]} == {0, 1}
    assert len(report["rows"]) == ran.case.batch
