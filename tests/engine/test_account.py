"""What is told of a step beside its loss costs no wait, and names rows where the loss jumps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hone.engine import loop
from hone.pack import Pack, Step
from tests.engine.stand_in import Said, TinyLoss, TinySource
from tests.engine.test_loop import plan, run


def test_the_host_waits_once_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses of rows and the gradient norm come over together: one read a step, with sources too."""
    reads: list[int] = []
    read = loop.read_numbers

    def counted(tensors):
        reads.append(sum(tensor.numel() for tensor in tensors))
        return read(tensors)

    class Sources(TinySource):
        def step(self, index: int, micro_batch_tokens: int) -> Step:
            step = super().step(index, micro_batch_tokens)
            places = tuple(i % 2 for i in range(len(step.row_names)))
            return dataclasses.replace(step, sources=("a", "b"), row_sources=places)

    monkeypatch.setattr(loop, "read_numbers", counted)
    said = Said()
    run(tmp_path, TinyLoss(), said, source=Sources())
    assert len(reads) == len(said.of("step")) == 7
    for told, numbers in zip(said.of("step"), reads, strict=True):
        assert set(told["sources"]) == {"a", "b"}  # type: ignore[arg-type]
        assert numbers >= 1 + 1 + 4, "a Pack's loss, the norm, and four rows"


def test_a_loss_that_jumps_is_told_with_its_rows(tmp_path: Path) -> None:
    def fault(pack: Pack) -> float:
        return 40.0 if module.begun and module.begun[-1][0] == 25 else 1.0

    module, said = TinyLoss(fault=fault), Said()
    run(tmp_path, module, said, plan=plan(steps=30, learning_rate=1e-9, save_steps=99))
    (notice,) = [e for e in said.of("notice") if e["code"] == "loss-spike"]
    message = str(notice["message"])
    assert message.startswith("step 26: the loss jumped from about ")
    named = {name.partition(" ")[0] for name in message.split("highest losses: ")[1].split(", ")}
    assert named == {f"rows.jsonl:{row}" for row in range(5, 9)}, (
        "the rows of the second step of a pass"
    )
