"""What ranks of several machines tell each other through the store where they met."""

from __future__ import annotations

import time
from typing import Any

import pytest

from hone.backends.beacon import Beacon, Elsewhere
from hone.backends.pulse import Page


class Memory:
    """A store."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def set(self, key: str, value: str) -> None:
        self.kept[key] = value

    def get(self, key: str) -> bytes:
        return self.kept[key].encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self.kept for key in keys)


class Gone(Memory):
    """One whose machine has died."""

    def check(self, keys: list[str]) -> bool:
        raise RuntimeError("Connection reset by peer")


def beacon(store: Any, rank: int, *others: int, heard: list[Any] | None = None) -> Beacon:
    page = Page.make()
    page.beat("pack", f"step 3 of rank {rank}")
    return Beacon(store, page, rank, others, None if heard is None else heard.append)


def test_a_launcher_hears_of_ranks_elsewhere_and_notices_their_silence() -> None:
    store, heard = Memory(), []
    here, there = beacon(store, 0, 1, heard=heard), beacon(store, 1)
    here._round()
    assert heard.pop() == {"others": {}}, "the other has not begun"
    there._round()
    here._round()
    elsewhere = Elsewhere()
    elsewhere.take({str(k): v for k, v in heard.pop()["others"].items()})
    sign = elsewhere.signs[1]
    assert (sign.doing, sign.what) == ("pack", "step 3 of rank 1")
    first = elsewhere.heard[1]
    time.sleep(0.01)
    here._round()
    elsewhere.take({str(k): v for k, v in heard.pop()["others"].items()})
    assert elsewhere.heard[1] == first, "nothing new was heard"
    there._round()
    here._round()
    elsewhere.take({str(k): v for k, v in heard.pop()["others"].items()})
    assert elsewhere.heard[1] > first
    assert elsewhere.signs[1].at == pytest.approx(sign.at, abs=0.5), "it still does the same"


def test_the_first_fault_is_everyone_s_cause() -> None:
    store = Memory()
    first, second, third = (beacon(store, rank) for rank in range(3))
    assert third.cause(0.0) is None
    first.tell_fault({"kind": "OutOfMemory", "what": "no room", "smaller": [3, 64]})
    second.tell_fault({"kind": None, "what": "Connection closed by peer"})
    cause = third.cause(1.0)
    assert cause is not None
    assert (cause["kind"], cause["rank"], cause["smaller"]) == ("OutOfMemory", 0, [3, 64])
    assert first.cause(1.0) is None, "its own fault is no cause from elsewhere"


@pytest.mark.parametrize("store", [Gone()])
def test_a_store_that_is_gone_ends_nothing(store: Memory) -> None:
    one = beacon(store, 1)
    one.tell_fault({"kind": None, "what": "x"})
    assert one.cause(5.0) is None
