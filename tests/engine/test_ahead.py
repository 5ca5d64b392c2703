"""Layouts made ahead: the same steps as without, and faults where they are taken."""

from __future__ import annotations

import threading

import pytest

from hone.engine.ahead import Ahead
from hone.pack import Step
from tests.engine.stand_in import TinySource


def test_a_prepared_step_is_laid_out_once_in_another_thread() -> None:
    threads: list[int] = []

    class Watched(TinySource):
        def step(self, index: int, micro_batch_tokens: int) -> Step:
            threads.append(threading.get_ident())
            return super().step(index, micro_batch_tokens)

    source = Watched()
    with Ahead(source) as ahead:
        ahead.prepare(1, 30)
        assert ahead.take(1, 30).index == 1
    assert source.asked == [(1, 30)]
    assert threads != [threading.get_ident()]


@pytest.mark.parametrize("wanted", [(2, 30), (1, 15)])
def test_another_step_or_budget_than_prepared_is_laid_out_anew(wanted: tuple[int, int]) -> None:
    source = TinySource()
    with Ahead(source) as ahead:
        ahead.prepare(1, 30)
        step = ahead.take(*wanted)
    assert step.index == wanted[0]
    assert wanted in source.asked
    assert max(pack.num_tokens for pack in step.packs) <= wanted[1]


def test_a_fault_of_the_source_comes_out_where_the_step_is_taken() -> None:
    class Broken(TinySource):
        def step(self, index: int, micro_batch_tokens: int) -> Step:
            raise OSError("the rows are gone")

    with Ahead(Broken()) as ahead:
        ahead.prepare(0, 30)
        with pytest.raises(OSError, match="gone"):
            ahead.take(0, 30)


def test_a_step_laid_out_ahead_is_made_ready_in_its_thread() -> None:
    ready: list[tuple[int, int]] = []

    def note(step: Step) -> None:
        ready.append((step.index, threading.get_ident()))

    with Ahead(TinySource(), ready=note) as ahead:
        ahead.prepare(1, 30)
        ahead.take(1, 30)
        ahead.take(2, 30)  # was not laid out ahead
    assert [index for index, _ in ready] == [1]
    assert ready[0][1] != threading.get_ident()
